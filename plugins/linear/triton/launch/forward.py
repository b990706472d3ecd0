"""The forward kernels: scores, triangular systems, the pass over chunks and the outputs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from archsearch.kernels import Config

from ..decays import level_masks
from ..outputs import outputs
from ..scores import channel_scores, head_overlaps
from ..solve import operands, solve
from ..states import scan, states
from ..table import MASKS
from .plan import Inputs, Plan, launch


@dataclass(frozen=True, kw_only=True)
class Within:
    """What a chunk holds whatever its state, None where the variant has no need: scores and inverses `[N, HV, C]`."""

    scores: Tensor | None
    inverses: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Operands:
    """What the passes over chunks multiply: see the kernel `operands`; q, k and v where they serve as they are."""

    queries: Tensor
    keys: Tensor
    known: Tensor
    reads: Tensor | None
    left: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Memory:
    """States before each chunk `[chunks, HV, K, V]`, the write of each token `[N, HV, V]`, the final state, None
    unless wanted, and what each segment multiplies the state by, None unless there are several."""

    befores: Tensor
    writes: Tensor
    final: Tensor | None
    factors: Tensor | None


def within_chunks(inputs: Inputs, plan: Plan) -> Within:
    """Scores (gates by channel) and inverses (delta rule)."""
    channel = inputs.gates == "channel"
    if not channel and not inputs.delta:
        return Within(scores=None, inverses=None)
    heads = inputs.v.shape[1]
    grid = (plan.all_chunks, heads)
    overlaps = empty(inputs, plan.tokens, heads, plan.chunk, dtype=torch.float32) if inputs.delta else None
    scores = None
    if channel:
        scores = empty(inputs, plan.tokens, heads, plan.chunk)
        config = plan.config("channel_scores")
        own = {"q": inputs.q, "scores": scores, "scale": inputs.scale, **rule_of(inputs)}
        own |= {"LEVELS": levels(plan), "masks": run_level_masks(inputs, plan)}
        kernel, drop = channel_scores, ["gate_stride", "V", "DECAY"]
    else:
        config = plan.config("head_overlaps")
        own = reads_of(inputs)
        kernel, drop = head_overlaps, ["V"]
    arguments = shared(inputs, plan, drop) | own | {"BK": config.tiles["K"], "k": inputs.k}
    arguments |= {"log_decay": or_q(inputs, inputs.log_decay), "taken": or_q(inputs, inputs.taken)}
    launch(kernel, grid, config, arguments | {"overlaps": or_q(inputs, overlaps)})
    return Within(scores=scores, inverses=None if overlaps is None else inverses_of(inputs, plan, overlaps))


def run_level_masks(inputs: Inputs, plan: Plan) -> Tensor:
    """`decays.level_masks` of a chunk, `[2 or 3, LEVELS, C, C]` in q's dtype."""
    early = inputs.reads_early
    masks = empty(inputs, 3 if early else 2, levels(plan), plan.chunk, plan.chunk)
    launch(level_masks, (levels(plan),), MASKS, {"masks": masks, "C": plan.chunk, "EARLY": early})
    return masks


def levels(plan: Plan) -> int:
    """Levels at which the tokens of a chunk meet."""
    return plan.chunk.bit_length() - 1


def inverses_of(inputs: Inputs, plan: Plan, overlaps: Tensor) -> Tensor:
    """The inverses of I + `overlaps`, both `[N, HV, C]`, in q's dtype."""
    inverses = empty(inputs, *overlaps.shape)
    arguments = shared(inputs, plan, ("H", "gate_stride", "K", "V", "DECAY"))
    arguments |= {"overlaps": overlaps, "inverses": inverses}
    if inputs.q.dtype != torch.float32:
        arguments["PRECISION"] = "tf32x3"
    launch(solve, (plan.all_chunks, overlaps.shape[1]), plan.config("solve"), arguments)
    return inverses


def operands_of(inputs: Inputs, plan: Plan, within: Within) -> Operands:
    """Queries, keys and values as the passes over chunks multiply them."""
    channel = inputs.gates == "channel"
    if not channel and not inputs.delta:
        return Operands(queries=inputs.q, keys=inputs.k, known=inputs.v, reads=None, left=None)
    tokens, heads, value_dim = inputs.v.shape
    key_dim = inputs.q.shape[-1]
    queries = empty(inputs, tokens, heads, key_dim) if channel else None
    keys = empty(inputs, tokens, heads, key_dim) if channel else None
    left = empty(inputs, plan.all_chunks, heads, key_dim, dtype=torch.float32) if channel else None
    reads = empty(inputs, tokens, heads, key_dim) if inputs.delta else None
    known = empty(inputs, tokens, heads, value_dim) if inputs.delta else None
    config = plan.config("operands")
    arguments = shared(inputs, plan) | {
        "q": inputs.q,
        "k": inputs.k,
        "v": inputs.v,
        "log_decay": or_q(inputs, inputs.log_decay),
        "taken": or_q(inputs, inputs.taken),
        "inverses": or_q(inputs, within.inverses),
        "queries": or_q(inputs, queries),
        "keys": or_q(inputs, keys),
        "left": or_q(inputs, left),
        "reads": or_q(inputs, reads),
        "known": or_q(inputs, known),
        "scale": inputs.scale,
        "BK": config.tiles["K"],
        "BV": config.tiles["V"],
        **rule_of(inputs),
    }
    launch(operands, (plan.all_chunks, heads), config, arguments)
    return Operands(
        queries=inputs.q if queries is None else queries,
        keys=inputs.k if keys is None else keys,
        known=inputs.v if known is None else known,
        reads=reads,
        left=left,
    )


def run_states(inputs: Inputs, plan: Plan, ready: Operands, initial: Tensor | None, *, want_final: bool) -> Memory:
    """The pass over chunks; where sequences are cut, first over each segment by itself, then over the segments."""
    tokens, heads, value_dim = inputs.v.shape
    key_dim = inputs.q.shape[-1]
    befores = empty(inputs, plan.all_chunks, heads, key_dim, value_dim)
    writes = empty(inputs, tokens, heads, value_dim) if inputs.delta else inputs.v
    final = factors = None
    if plan.segments > 1:
        lasts, factors = _segment_ends(inputs, plan, ready)
        initial, final = run_scan(inputs, plan, initial, lasts, factors, want_final=want_final, reverse=False)
    elif want_final:
        final = empty(inputs, plan.sequences, heads, key_dim, value_dim, dtype=torch.float32)
    own_final = final if plan.segments == 1 else None
    _pass(inputs, plan, ready, _Walk(initial=initial, befores=befores, writes=writes, last=own_final))
    return Memory(befores=befores, writes=writes, final=final, factors=factors)


def _segment_ends(inputs: Inputs, plan: Plan, ready: Operands) -> tuple[Tensor, Tensor]:
    """The state after each segment from zero, and what it multiplies the state before it by."""
    heads, value_dim = inputs.v.shape[1:]
    key_dim = inputs.q.shape[-1]
    lasts = empty(inputs, plan.pieces, heads, key_dim, value_dim, dtype=torch.float32)
    if inputs.delta:
        factors = empty(inputs, plan.pieces, heads, key_dim, key_dim, dtype=torch.float32)
        _pass(inputs, plan, ready, _Walk(last=lasts))
        _pass(inputs, plan, ready, _Walk(last=factors, identity=True))
    else:
        factors = empty(inputs, plan.pieces, heads, key_dim, dtype=torch.float32)
        _pass(inputs, plan, ready, _Walk(last=lasts, factors=factors))
    return lasts, factors


@dataclass(frozen=True, kw_only=True)
class _Walk:
    """What a pass over chunks starts from and writes, None for what it has no need of; ``identity``: of the identity in
    place of the values."""

    initial: Tensor | None = None
    befores: Tensor | None = None
    writes: Tensor | None = None
    last: Tensor | None = None
    factors: Tensor | None = None
    identity: bool = False


def _pass(inputs: Inputs, plan: Plan, ready: Operands, walk: _Walk) -> None:
    config = plan.config("states")
    heads, value_dim = inputs.v.shape[1:]
    width = inputs.q.shape[-1] if walk.identity else value_dim
    arguments = (
        shared(inputs, plan)
        | segment_sizes(inputs, plan)
        | {
            "keys": ready.keys,
            "reads": or_q(inputs, ready.reads),
            "known": ready.known,
            "log_decay": or_q(inputs, inputs.log_decay),
            "left": or_q(inputs, ready.left),
            "initial": or_q(inputs, walk.initial),
            "befores": or_q(inputs, walk.befores),
            "writes": or_q(inputs, walk.writes),
            "last": or_q(inputs, walk.last),
            "factors": or_q(inputs, walk.factors),
            "V": width,
            "BV": config.tiles["V"],
            "PARTS": parts_of(inputs, config),
            "DELTA": inputs.delta,
            "HAS_INITIAL": walk.initial is not None,
            "WANT_STATES": walk.befores is not None,
            "WANT_LAST": walk.last is not None,
            "WANT_FACTORS": walk.factors is not None,
            "IDENTITY": walk.identity,
        }
    )
    launch(states, (plan.pieces, -(-width // config.tiles["V"]), heads), config, arguments)


def run_scan(
    inputs: Inputs,
    plan: Plan,
    initial: Tensor | None,
    lasts: Tensor,
    factors: Tensor,
    *,
    want_final: bool,
    reverse: bool,
) -> tuple[Tensor, Tensor | None]:
    """The state that each segment starts with, and the one after the last."""
    heads, key_dim, value_dim = lasts.shape[1:]
    befores = torch.empty_like(lasts)
    final = lasts.new_empty(plan.sequences, heads, key_dim, value_dim) if want_final else None
    config = plan.config("scan")
    arguments = {
        "initial": or_q(inputs, initial),
        "factors": factors,
        "lasts": lasts,
        "befores": befores,
        "final": or_q(inputs, final),
        "HV": heads,
        "K": key_dim,
        "V": value_dim,
        "BV": config.tiles["V"],
        "DELTA": inputs.delta,
        "PACKED": plan.packed,
        "HAS_INITIAL": initial is not None,
        "WANT_FINAL": want_final,
        "REVERSED": reverse,
        "PRECISION": "tf32x3",
    } | segment_sizes(inputs, plan)
    launch(scan, (plan.sequences, -(-value_dim // config.tiles["V"]), heads), config, arguments)
    return befores, final


def run_outputs(inputs: Inputs, plan: Plan, within: Within, ready: Operands, memory: Memory) -> Tensor:
    """o `[N, HV, V]`."""
    o = empty(inputs, *inputs.v.shape)
    config = plan.config("outputs")
    tile = config.tiles["V"]
    arguments = shared(inputs, plan) | {
        "queries": ready.queries,
        "k": inputs.k,
        "writes": memory.writes,
        "scores": or_q(inputs, within.scores),
        "log_decay": or_q(inputs, inputs.log_decay),
        "befores": memory.befores,
        "o": o,
        "scale": inputs.scale,
        "BK": config.tiles["K"],
        "BV": tile,
    }
    launch(outputs, (plan.all_chunks, -(-inputs.v.shape[-1] // tile), inputs.v.shape[1]), config, arguments)
    return o


def shared(inputs: Inputs, plan: Plan, drop: Collection[str] = ()) -> dict[str, Any]:
    """Arguments that most kernels take, but those to `drop`."""
    key_heads, key_dim = inputs.q.shape[1:]
    heads, value_dim = inputs.v.shape[1:]
    arguments = {
        "starts": or_q(inputs, plan.starts),
        "ends": or_q(inputs, plan.ends),
        "T": plan.length,
        "chunks": plan.chunks,
        "H": key_heads,
        "HV": heads,
        "gate_stride": heads if inputs.decay in ("head", "channel") else 0,
        "K": key_dim,
        "V": value_dim,
        "C": plan.chunk,
        "DECAY": inputs.gates,
        "PACKED": plan.packed,
        "PRECISION": precision(inputs),
    }
    return {name: value for name, value in arguments.items() if name not in drop}


def reads_of(inputs: Inputs) -> dict[str, Any]:
    """Arguments of the kernels that meet what is taken away: whether vectors of its own read it, and when."""
    return {"READ": inputs.read, "EARLY": inputs.reads_early}


def rule_of(inputs: Inputs) -> dict[str, Any]:
    """`reads_of`, and whether anything is taken away at all."""
    return {"DELTA": inputs.delta, **reads_of(inputs)}


def padded_keys(inputs: Inputs) -> int:
    """Channels of a key in the tile of a state."""
    return max(1 << (inputs.q.shape[-1] - 1).bit_length(), 16)


def parts_of(inputs: Inputs, config: Config) -> int:
    """In how many parts a product with a state is summed: of 16 channels at least, which a product takes."""
    return min(config.tiles.get("parts", 1), padded_keys(inputs) // 16)


def segment_sizes(inputs: Inputs, plan: Plan) -> dict[str, Any]:
    """Arguments of the kernels that walk over chunks or segments."""
    return {
        "firsts": or_q(inputs, plan.firsts),
        "chunks": plan.chunks,
        "segments": plan.segments,
        "length": plan.stride,
        "BK": padded_keys(inputs),
    }


def precision(inputs: Inputs) -> str:
    """Of products: float32 operands are multiplied as they are, never rounded to tf32."""
    return "ieee" if inputs.q.dtype == torch.float32 else "tf32"


def empty(inputs: Inputs, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """Memory that a kernel fills, in q's dtype unless given."""
    return torch.empty(shape, dtype=dtype or inputs.q.dtype, device=inputs.q.device)


def or_q(inputs: Inputs, x: Tensor | None) -> Tensor:
    """`x`, or q in the place of an argument that the kernel does not read."""
    return inputs.q if x is None else x
