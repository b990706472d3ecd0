"""Configurations of the kernels: over whole sequences by architecture, head dim and chunk, of one token by key dim."""

from __future__ import annotations

from archsearch.kernels import Config, Key, Table
from archsearch.kernels.config import Configs

from ..decays import Decay

OP, STEP_OP = "linear_attention", "linear_attention_step"
REMOVAL_OP, REMOVAL_STEP_OP = "linear_attention_removal", "linear_attention_removal_step"

CROWD = 264
"""Programs that keep a card busy: below it sequences are cut into segments."""

STEP_CROWD = 256
"""Programs that keep a card busy: below it a step is cut into narrower tiles of values."""

SHORTEST_SEGMENT = 16
"""Chunks: a shorter segment is not worth its scan."""

FEWEST_SEGMENTS = 4
"""Segments: cutting a sequence doubles (delta rule: triples) the work of the pass, so fewer gain nothing."""


WIDEST_FACTOR = 128
"""Channels of a key: what a segment of the delta rule multiplies the state by is as many by as many numbers. Of more
they do not fit into a program's shared memory, and such sequences are never cut."""

APART = Config(tiles={}, num_warps=1, num_stages=1)
"""In place of how the fused pass is compiled: states and outputs by kernels of their own, as where a row has no such
pass."""

FUSED: tuple[tuple[str, Decay], ...] = (("delta", "head"), ("delta", "none"), ("hebbian", "head"), ("early", "head"))
"""Rules and gates, as the kernels name them, whose states stay on chip in the forward of rows that have such a pass."""

NARROW = 16
"""Channels of keys or of values beside those of a row that kernels are built for and proven with: the fewest that a
product on a card sums."""

MASKS = Config(tiles={}, num_warps=4, num_stages=1)
"""How the masks of a chunk's levels are written."""


def _rows(arch: str) -> dict[Key, dict[str, Config]]:
    return {
        (arch, 32, 64): _row(arch, keys=32, values=32, state=32, warps=4),
        (arch, 64, 64): _row(arch, keys=64, values=64, state=64, warps=4),
        (arch, 128, 64): _row(arch, keys=64, values=64, state=64, warps=4) | _DEEP[arch],
        (arch, 256, 32): _row(arch, keys=64, values=64, state=32, warps=4),
    }


def _row(arch: str, *, keys: int, values: int, state: int, warps: int) -> dict[str, Config]:
    """Tiles of `keys` and `values` channels in the kernels of one chunk, of `state` values in the pass over chunks.

    Gates by channel, and all gradients of a chunk's inputs, take more registers: fewer channels at a time. On sm_80,
    where products read both operands from registers, the gradients by channel take twice the warps as well.
    """
    plain = Config(tiles={"K": keys, "V": values}, num_warps=warps)
    narrow = Config(tiles={"K": min(keys, 32), "V": values}, num_warps=warps)
    return {
        "head_overlaps": plain,
        "channel_scores": narrow,
        "solve": Config(tiles={}, num_warps=1),
        "operands": narrow,
        "states": Config(tiles={"V": state}, num_warps=4),
        "scan": Config(tiles={"V": 16}, num_warps=8, num_stages=1),
        "outputs": plain,
        "d_scores": plain,
        "d_solve": plain,
        "d_states": Config(tiles={"V": state}, num_warps=8 if state == 64 else 4),
        "d_inputs": narrow,
        "d_inputs_channel": Config(tiles={"K": 16, "V": values}, num_warps=2 * warps if arch == "sm_80" else warps),
    }


def _fused(*, keys: int, values: int, warps: int) -> dict[str, Config]:
    """What the fused pass takes beside the rest, of `values` of a state with all its keys in a program."""
    scores = Config(tiles={"K": keys}, num_warps=min(warps, 4))
    return {"head_scores": scores, "fused": Config(tiles={"V": values}, num_warps=warps)}


_DEEP = {
    "sm_90": _fused(keys=64, values=64, warps=8),
    "sm_80": _fused(keys=64, values=32, warps=4),
}
"""Of a head dim of 128."""

_SMALL = {("sm_90", 16, 16): _row("sm_90", keys=16, values=16, state=16, warps=1) | _fused(keys=16, values=16, warps=1)}

_OTHERS = (
    {"fused": APART},
    {"channel_scores": Config(tiles={"K": 16, "V": 64}, num_warps=4)},
)
"""For head dim 128: no fused pass, and less of a program's registers for scores by channel."""


def _exact(key: Key) -> dict[str, Config]:
    """Of float32, which no matrix instruction multiplies: a thread holds whole rows and columns of a product, and few
    of them fit. No fused pass, which would spill kilobytes a thread."""
    arch, dim, _ = key
    narrow = Config(tiles={"K": 16, "V": 16}, num_warps=8)
    wide = Config(tiles={"K": 32, "V": 32}, num_warps=8)
    plain = narrow if arch == "sm_80" and dim > 32 else wide
    walk = Config(tiles={"V": 16, "parts": max(dim // 64, 1)}, num_warps=4 if dim == 32 else 8, num_stages=1)
    return {
        **dict.fromkeys(("head_overlaps", "channel_scores", "operands"), narrow),
        **dict.fromkeys(("outputs", "d_scores"), plain),
        **dict.fromkeys(("states", "d_states"), walk),
        "d_solve": Config(tiles={"K": 16, "V": 16}, num_warps=16),
        "d_inputs": wide if dim == 256 else narrow,
        "d_inputs_channel": Config(tiles={"K": 16, "V": 32}, num_warps=16),
        "fused": APART,
    }


_DEEPER = {**_rows("sm_90"), **_rows("sm_80")}

TABLE = Table(
    op=OP,
    package=__package__,
    rows={**_SMALL, **_DEEPER},
    candidates={(arch, 128, 64): _OTHERS for arch in ("sm_90", "sm_80")},
    exact={key: _exact(key) for key in _DEEPER},
)

_SCORES = {
    "sm_90": Config(tiles={"K": 32, "V": 64}, num_warps=8),
    "sm_80": Config(tiles={"K": 16, "V": 64}, num_warps=4),
}
_FEWER: dict[tuple[str, int], dict[str, Config]] = {
    **{(arch, dim): {"channel_scores": config} for arch, config in _SCORES.items() for dim in (64, 128)},
    ("sm_90", 256): {"d_inputs_channel": Config(tiles={"K": 16, "V": 32}, num_warps=4)},
}
"""By architecture and head dim, what would spill: the vectors of a removal stand in registers beside the keys."""

_EXACT_REMOVAL = {
    "operands": Config(tiles={"K": 16, "V": 32}, num_warps=8),
    "d_inputs_channel": Config(tiles={"K": 16, "V": 16}, num_warps=8),
}
"""Of removals in float32: operands that spill for narrow keys neither, and gradients by channel whose threads hold
twice as much with half the warps."""

_FUSED_REMOVAL = Config(tiles={"V": 32}, num_warps=8)


def _removal_row(key: Key, row: Configs) -> Configs:
    fused = {"fused": _FUSED_REMOVAL} if key[1] == 128 else {}
    return {**row, **_FEWER.get(key[:2], {}), **fused}


_OTHER_REMOVALS = {
    "sm_90": (
        {"fused": APART},
        {"channel_scores": Config(tiles={"K": 16, "V": 64}, num_warps=4)},
        {"fused": Config(tiles={"V": 64}, num_warps=8, num_stages=1)},
    ),
    "sm_80": ({"fused": APART},),
}
"""For head dim 128, as `_OTHERS`; and twice the values in a program that loads nothing ahead."""

REMOVAL_TABLE = Table(
    op=REMOVAL_OP,
    package=__package__,
    rows={key: _removal_row(key, row) for key, row in TABLE.rows.items()},
    candidates={(arch, 128, 64): others for arch, others in _OTHER_REMOVALS.items()},
    exact={key: {**row, **_EXACT_REMOVAL} for key, row in TABLE.exact.items()},
)
"""Of delta rules with a removal of their own, by the same kernels: proven apart, as few models have need of it."""


def _step_rows(arch: str) -> dict[Key, dict[str, Config]]:
    return {
        (arch, 32, 0): _step_row(wide=64, warps=2, narrow=16),
        (arch, 64, 0): _step_row(wide=32, warps=2, narrow=8),
        (arch, 128, 0): _step_row(wide=32, warps=4, narrow=8),
        (arch, 256, 0): _step_row(wide=16, warps=4, narrow=8, narrow_warps=2),
    }


def _step_row(*, wide: int, warps: int, narrow: int, narrow_warps: int = 1) -> dict[str, Config]:
    """Tiles of `wide` values where there are many heads in the batch, of `narrow` ones where there are few."""
    return {
        "wide": Config(tiles={"V": wide}, num_warps=warps, num_stages=1),
        "narrow": Config(tiles={"V": narrow}, num_warps=narrow_warps, num_stages=1),
    }


_SMALL_STEP = {("sm_90", 16, 0): _step_row(wide=64, warps=1, narrow=16)}

_OTHER_STEPS = (
    {"wide": Config(tiles={"V": 16}, num_warps=2, num_stages=1)},
    {"wide": Config(tiles={"V": 64}, num_warps=8, num_stages=1)},
)
"""For key dim 128: more programs of less, and fewer of more."""

STEP_TABLE = Table(
    op=STEP_OP,
    package=__package__,
    rows={**_SMALL_STEP, **_step_rows("sm_90"), **_step_rows("sm_80")},
    candidates={(arch, 128, 0): _OTHER_STEPS for arch in ("sm_90", "sm_80")},
)

_LIGHTER: dict[int, dict[str, Config]] = {
    32: {"wide": Config(tiles={"V": 64}, num_warps=4, num_stages=1)},
    128: {"wide": Config(tiles={"V": 16}, num_warps=4, num_stages=1)},
    256: {"narrow": Config(tiles={"V": 8}, num_warps=4, num_stages=1)},
}
"""By key dim in the place of tiles that would spill."""

REMOVAL_STEP_TABLE = Table(
    op=REMOVAL_STEP_OP,
    package=__package__,
    rows={key: {**row, **_LIGHTER.get(key[1], {})} for key, row in STEP_TABLE.rows.items()},
    candidates={
        (arch, 128, 0): ({"wide": Config(tiles={"V": 16}, num_warps=2, num_stages=1)},) for arch in ("sm_90", "sm_80")
    },
)
"""As `REMOVAL_TABLE` of one token."""
