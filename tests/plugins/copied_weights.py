"""Where the weights of a public layer stand in ours, as data, and the function that copies them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from archsearch.mixer import ModelShape

WIDTH, HEADS, KV_HEADS, HEAD_DIM, TURNED = 32, 4, 2, 16, 8
"""Sizes of every layer that is compared: of the model, of attention, and the channels of a head that are rotated."""

SHAPE = ModelShape(d_model=WIDTH, n_heads=HEADS, n_kv_heads=KV_HEADS, head_dim=HEAD_DIM, dtype="float32")
LATENT = {"kv_lora_rank": 12, "qk_rope_head_dim": TURNED, "qk_nope_head_dim": HEAD_DIM, "v_head_dim": HEAD_DIM}
"""Of multi-head latent attention, by the names of `transformers`."""

INDEX_HEADS, INDEX_DIM = 8, 16
"""Of an index, whose heads are so many that hardly a score is 0: equal ones would leave the choice open."""

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Part:
    """A parameter of theirs, changed step by step."""

    name: str
    changes: tuple[Change, ...] = ()

    def of(self, theirs: Mapping[str, Tensor]) -> Tensor:
        """Its rows as they stand in ours."""
        return reduce(lambda weight, change: change(weight), self.changes, theirs[self.name])


@dataclass(frozen=True)
class Parts:
    """A parameter of ours: `parts` one after the other, or as `together` makes it of them."""

    parts: tuple[Part, ...]
    together: Callable[..., Tensor] = lambda *parts: torch.cat(parts)

    def of(self, theirs: Mapping[str, Tensor]) -> Tensor:
        """The whole of it."""
        return self.together(*(part.of(theirs) for part in self.parts))


Names = Mapping[str, Parts]
"""Each parameter of ours, by its name."""


def part(name: str, *changes: Change) -> Part:
    """One parameter of theirs."""
    return Part(name, changes)


def same(name: str, *changes: Change) -> Parts:
    """A parameter of ours that is one of theirs."""
    return Parts((Part(name, changes),))


def rows(first: int, last: int) -> Change:
    """Rows from `first` up to `last`."""
    return lambda weight: weight[first:last]


def of_heads(heads: int, first: int, last: int) -> Change:
    """Of rows that stand head by head, those from `first` up to `last` of each."""
    return lambda weight: weight.unflatten(0, (heads, -1))[:, first:last].flatten(0, 1)


def pairs(heads: int, turned: int) -> Change:
    """Rows for a rotation of halves (i, i + R / 2), as one of pairs (2 i, 2 i + 1) takes them."""
    order = torch.arange(turned).view(2, -1).T.flatten()

    def change(weight: Tensor) -> Tensor:
        by_head = weight.unflatten(0, (heads, -1))
        return torch.cat((by_head[:, order], by_head[:, turned:]), 1).flatten(0, 1)

    return change


def last_first(heads: int, count: int) -> Change:
    """The last `count` rows of each head before the others: theirs rotate trailing channels, ours leading ones."""
    return lambda weight: weight.unflatten(0, (heads, -1)).roll(count, 1).flatten(0, 1)


def one_more(weight: Tensor) -> Tensor:
    """The scales of a norm that is stored less 1."""
    return 1 + weight


def taps(*parts: Tensor) -> Tensor:
    """Convolutions `[C, 1, width]` as `[width, C]`, whose first tap is the newest token's."""
    return torch.cat(parts)[:, 0].T.flip(0)


def flat(weight: Tensor) -> Tensor:
    """All numbers in a row."""
    return weight.flatten()


def copy_weights(theirs: torch.nn.Module, ours: torch.nn.Module, names: Names) -> None:
    """The weights of `theirs` in `ours`; each parameter of ours must have its place in `names`."""
    found: dict[str, Any] = theirs.state_dict()
    ours.load_state_dict({name: parts.of(found).contiguous() for name, parts in names.items()})


def attention(turned: int, *, gated: bool = False, normed: bool = False) -> Names:
    """Of grouped heads: `turned` channels rotated as halves, a gate interleaved with the queries, norms less 1."""
    asked = (of_heads(HEADS, 0, HEAD_DIM),) if gated else ()
    qkv = (
        part("q_proj.weight", *asked, pairs(HEADS, turned)),
        part("k_proj.weight", pairs(KV_HEADS, turned)),
        part("v_proj.weight"),
    )
    names = {"qkv.weight": Parts(qkv), "out.weight": same("o_proj.weight")}
    if gated:
        names["output_gate.weight"] = same("q_proj.weight", of_heads(HEADS, HEAD_DIM, 2 * HEAD_DIM))
    if normed:
        names |= {f"{kind}_norm.weight": same(f"{kind}_norm.weight", one_more, pairs(1, turned)) for kind in "qk"}
    return names


def delta(*keys: Change) -> Names:
    """Of delta rules whose projections are apart; `keys` changes those of q and k."""
    return {
        "conv.weight": Parts((part("conv1d.weight"),), taps),
        "decay.A_log": same("A_log", flat),
        "decay.dt_bias": same("dt_bias"),
        "norm.weight": same("o_norm.weight"),
        "out.weight": same("o_proj.weight"),
    }


QKV = (part("q_proj.weight"), part("k_proj.weight"), part("v_proj.weight"))

_EACH = 2 * HEAD_DIM
"""Value channels of the two value heads that a key head of Qwen3-Next serves."""

QWEN3_NEXT: Names = {
    **delta(),
    "proj.weight": Parts(
        (
            part("in_proj_qkvz.weight", of_heads(KV_HEADS, 0, HEAD_DIM)),
            part("in_proj_qkvz.weight", of_heads(KV_HEADS, HEAD_DIM, 2 * HEAD_DIM)),
            part("in_proj_qkvz.weight", of_heads(KV_HEADS, 2 * HEAD_DIM, 2 * HEAD_DIM + _EACH)),
            part("in_proj_qkvz.weight", of_heads(KV_HEADS, 2 * HEAD_DIM + _EACH, 2 * HEAD_DIM + 2 * _EACH)),
            part("in_proj_ba.weight", of_heads(KV_HEADS, 2, 4)),
            part("in_proj_ba.weight", of_heads(KV_HEADS, 0, 2)),
        )
    ),
    "norm.weight": same("norm.weight"),
    "out.weight": same("out_proj.weight"),
}

OLMO_HYBRID: Names = {
    **delta(),
    "proj.weight": Parts((*QKV, part("g_proj.weight"), part("a_proj.weight"), part("b_proj.weight"))),
}

KIMI_DELTA: Names = {
    **delta(),
    "decay.A_log": same("forget_gate.A_log", flat),
    "decay.dt_bias": same("forget_gate.dt_bias"),
    "decay.up.weight": same("forget_gate.f_b_proj.weight"),
    "proj.weight": Parts((*QKV, part("g_a_proj.weight"), part("forget_gate.f_a_proj.weight"), part("b_proj.weight"))),
    "gate_up.weight": same("g_b_proj.weight"),
    "gate_up.bias": same("g_b_proj.weight", lambda weight: torch.zeros(len(weight))),
}

BOUNDED_DELTA: Names = {
    **{name: parts for name, parts in KIMI_DELTA.items() if name != "decay.dt_bias"},
    "decay.bias": same("forget_gate.dt_bias"),
}

BAILING_DELTA: Names = {
    **{name: parts for name, parts in BOUNDED_DELTA.items() if not name.startswith(("gate_up", "decay.up"))},
    "proj.weight": Parts((*QKV, part("g_proj.weight"), part("forget_gate.f_proj.weight"), part("b_proj.weight"))),
}

LIGHTNING: Names = {
    "proj.weight": Parts(
        (
            *(part("qkv_proj.weight", of_heads(HEADS, i * HEAD_DIM, (i + 1) * HEAD_DIM)) for i in range(3)),
            part("output_gate.weight"),
        )
    ),
    "norm.weight": same("norm.weight"),
    "out.weight": same("out_proj.weight"),
}

XLSTM: Names = {
    "proj.weight": Parts(
        tuple(part(f"{one}.weight") for one in ("q", "k", "v", "ogate_preact", "fgate_preact", "igate_preact"))
    ),
    "decay.bias": same("fgate_preact.bias"),
    "core.bias": same("igate_preact.bias"),
    "norm.weight": same("multihead_norm.weight"),
    "norm.bias": same("multihead_norm.weight", torch.zeros_like),
    "out.weight": same("out_proj.weight"),
}

GATED_CONV: Names = {
    "project.weight": same("in_proj.weight"),
    "conv.weight": Parts((part("conv.weight"),), taps),
    "out.weight": same("out_proj.weight"),
}

STATE = 8
"""Channels of a key of Mamba-2, which all heads share."""
_VALUES, _KEYS = HEADS * HEAD_DIM, STATE
_INNER = (
    rows(_VALUES + _KEYS, _VALUES + 2 * _KEYS),
    rows(_VALUES, _VALUES + _KEYS),
    rows(0, _VALUES),
)
"""C, B and x, which are q, k and v, where x, B and C stand."""


def _mamba2(name: str, *before: Change) -> tuple[Part, ...]:
    q, k, v = _INNER
    return part(name, *before, q), part(name, *before, k), part(name, *before, v)


MAMBA2: Names = {
    "proj.weight": Parts(
        (
            *_mamba2("in_proj.weight", rows(_VALUES, 2 * _VALUES + 2 * _KEYS)),
            part("in_proj.weight", rows(0, _VALUES)),
            part("in_proj.weight", rows(2 * _VALUES + 2 * _KEYS, 2 * _VALUES + 2 * _KEYS + HEADS)),
        )
    ),
    "conv.weight": Parts(_mamba2("conv1d.weight"), taps),
    "conv_bias": Parts(_mamba2("conv1d.bias")),
    "decay.A_log": same("A_log"),
    "decay.dt_bias": same("dt_bias"),
    "skip": same("D"),
    "norm.weight": same("norm.weight"),
    "out.weight": same("out_proj.weight"),
}

LATENTS: Names = {
    "q_up.weight": same("q_proj.weight"),
    "kv_down.weight": same("kv_a_proj_with_mqa.weight"),
    "kv_norm.weight": same("kv_a_layernorm.weight"),
    "kv_up.weight": same("kv_b_proj.weight"),
    "out.weight": same("o_proj.weight"),
}
LOW_RANK_LATENTS: Names = {
    **LATENTS,
    "q_down.weight": same("q_a_proj.weight"),
    "q_norm.weight": same("q_a_layernorm.weight"),
    "q_up.weight": same("q_b_proj.weight"),
}


def small_heads(query: Parts, key: Parts) -> Names:
    """Of an index."""
    return {"scorer.query.weight": query, "scorer.key.weight": key}


DSA: Names = {
    **{name: parts for name, parts in LOW_RANK_LATENTS.items() if name != "q_up.weight"},
    "q.weight": same("q_b_proj.weight"),
    **small_heads(same("indexer.wq_b.weight", pairs(INDEX_HEADS, TURNED)), same("indexer.wk.weight", pairs(1, TURNED))),
    "scorer.weights.weight": same("indexer.weights_proj.weight"),
    "scorer.key_norm.weight": same("indexer.k_norm.weight", pairs(1, TURNED)),
    "scorer.key_norm.bias": same("indexer.k_norm.bias", pairs(1, TURNED)),
}

POOLED: Names = {
    **{name: parts for name, parts in LOW_RANK_LATENTS.items() if name != "q_up.weight"},
    "q.weight": same("q_b_proj.weight"),
    **small_heads(same("indexer.wq_b.weight"), same("indexer.wk.weight")),
    "scorer.weights.weight": same("indexer.weights_proj.weight"),
    "scorer.key_norm.weight": same("indexer.k_norm.weight"),
    "scorer.key_norm.bias": same("indexer.k_norm.bias"),
    "scorer.gate.weight": same("indexer.index_kpool_compress_gate"),
    "scorer.bias": same("indexer.index_kpool_compress_ape"),
}

_ASKED = INDEX_HEADS * INDEX_DIM
QSA: Names = {
    **attention(TURNED, gated=True, normed=True),
    **small_heads(
        same("indexer.index_qk_proj.weight", rows(0, _ASKED), pairs(INDEX_HEADS, TURNED)),
        same("indexer.index_qk_proj.weight", rows(_ASKED, _ASKED + INDEX_DIM), pairs(1, TURNED)),
    ),
    "scorer.query_norm.weight": same("indexer.q_layernorm.weight", one_more, pairs(1, TURNED)),
    "scorer.key_norm.weight": same("indexer.k_layernorm.weight", one_more, pairs(1, TURNED)),
}
M3: Names = {
    **attention(TURNED, normed=True),
    **small_heads(
        same("indexer.q_proj.weight", pairs(KV_HEADS, TURNED)), same("indexer.k_proj.weight", pairs(1, TURNED))
    ),
    "scorer.query_norm.weight": same("indexer.q_norm.weight", one_more, pairs(1, TURNED)),
    "scorer.key_norm.weight": same("indexer.k_norm.weight", one_more, pairs(1, TURNED)),
}

O_GROUPS, BLOCK = 2, 4


def _whole_output(low: Tensor, up: Tensor) -> Tensor:
    """The output projection of groups of heads as one matrix, for channels in our order."""
    by_group = torch.block_diag(*low.unflatten(0, (O_GROUPS, -1)))
    return last_first(HEADS, TURNED)((up @ by_group).T).T


def _of_groups(low: Tensor) -> Tensor:
    """Matrices of groups of heads, for channels in our order."""
    heads = HEADS // O_GROUPS
    return torch.stack([last_first(heads, TURNED)(one.T).T for one in low.unflatten(0, (O_GROUPS, -1))])


def _series(prefix: str, count: int, width: int) -> Names:
    """Of a compressor: contents and gates of a block and, of two series, of the one before, which stands first."""
    order = [rows(i * width, (i + 1) * width) for i in reversed(range(count))]
    turned = last_first(1, TURNED)
    made = (part(f"{prefix}{kind}_proj.weight", series, turned) for series in order for kind in ("kv", "gate"))

    def biases(weight: Tensor) -> Tensor:
        return torch.stack([turned(series(weight.T)).T for series in order])

    return {
        "project.weight": Parts(tuple(made)),
        "bias": same(f"{prefix}position_bias", biases),
        "norm.weight": same(f"{prefix}kv_norm.weight", turned),
    }


def compressed(count: int, *, grouped: bool = False) -> Names:
    """Of DeepSeek-V4's attention over entries of `count` series, of two with an index; ``grouped``: its output
    projection in two halves, as it has it."""
    names = {
        "q_down.weight": same("q_a_proj.weight"),
        "q_norm.weight": same("q_a_norm.weight"),
        "q_up.weight": same("q_b_proj.weight", last_first(HEADS, TURNED)),
        "row.weight": same("kv_proj.weight", last_first(1, TURNED)),
        "row_norm.weight": same("kv_norm.weight", last_first(1, TURNED)),
        "sink": same("sinks"),
        "out.weight": Parts((part("o_a_proj.weight"), part("o_b_proj.weight")), _whole_output),
    }
    names |= {f"compressor.{name}": parts for name, parts in _series("compressor.", count, HEAD_DIM).items()}
    if grouped:
        names |= {"out_down.weight": same("o_a_proj.weight", _of_groups), "out.weight": same("o_b_proj.weight")}
    if count == 2:
        inner = _series("compressor.indexer.", count, INDEX_DIM)
        names |= {f"index.compressor.{name}": parts for name, parts in inner.items()}
        asked = last_first(INDEX_HEADS, TURNED)
        names["index.query.weight"] = same("compressor.indexer.q_b_proj.weight", asked)
        names["index.weights.weight"] = same("compressor.indexer.scorer.weights_proj.weight")
    return names
