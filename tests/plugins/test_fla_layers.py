"""Layers of retention and RWKV-7 as their code has them, around the naive forms of `fla-core`, by copied weights."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from archsearch_plugins.linear import LinearPlugin
from copied_weights import HEAD_DIM, HEADS, QKV, SHAPE, WIDTH, Names, Parts, copy_weights, pairs, part, same
from torch import Tensor, nn
from torch.testing import assert_close

from archsearch.mixer import LayerInfo
from archsearch.model import Context, MixerState

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

PLUGIN = LinearPlugin()
VALUES, EPS = 2 * HEAD_DIM, 1e-5
RANKS = {"w": 32, "a": 32, "v": 32, "g": 20}
"""Of RWKV-7's maps at this width, but the gate's, which is an option."""


def naive(module: str, name: str) -> Callable[..., Any]:
    """A naive form, of `fla.ops`."""
    pytest.importorskip("fla", reason="the naive forms are those of fla-core 0.6: make test-peers")
    form: Callable[..., Any] = getattr(import_module(f"fla.ops.{module}"), name)
    return form


def map_of(inner: int, outer: int) -> nn.Linear:
    return nn.Linear(inner, outer, bias=False)


def head_major(*given: Tensor) -> list[Tensor]:
    """`[B, T, H V]` as `[B, H, T, V]`."""
    return [x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in given]


def turned(x: Tensor) -> Tensor:
    """Heads `[B, H, T, K]` rotated by halves."""
    angles = torch.outer(
        torch.arange(x.shape[2]).double(), 10000.0 ** (-torch.arange(0, HEAD_DIM, 2).double() / HEAD_DIM)
    )
    cos, sin = angles.cos().float(), angles.sin().float()
    one, other = x.chunk(2, -1)
    return torch.cat((one * cos - other * sin, one * sin + other * cos), -1)


class Retention(nn.Module):
    """Multi-scale retention: rotation, values of twice the width, RMSNorm of each head, a swish gate."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj = map_of(WIDTH, HEADS * HEAD_DIM), map_of(WIDTH, HEADS * HEAD_DIM)
        self.v_proj, self.g_proj = map_of(WIDTH, HEADS * VALUES), map_of(WIDTH, HEADS * VALUES)
        self.g_norm, self.o_proj = nn.RMSNorm(VALUES, eps=EPS), map_of(HEADS * VALUES, WIDTH)

    def forward(self, x: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor | None]:
        q, k, v = head_major(self.q_proj(x), self.k_proj(x), self.v_proj(x))
        o = naive("retention.naive", "naive_retention")(turned(q), turned(k), v).transpose(1, 2)
        return self.o_proj(self.g_norm(o).flatten(2) * F.silu(self.g_proj(x))), None


class LowRank(nn.Module):
    """x W_1 W_2 + b, with an activation between the maps."""

    def __init__(self, rank: int, between: Callable[[Tensor], Tensor], *, bias: bool = True) -> None:
        super().__init__()
        self.down, self.up = map_of(WIDTH, rank), nn.Linear(rank, HEADS * HEAD_DIM, bias=bias)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.up(self.between(self.down(x)))
        return found


class Rwkv7(nn.Module):
    """The time mixing of RWKV-7, whose values but the first layer's are mixed with those."""

    def __init__(self, index: int) -> None:
        super().__init__()
        inner = HEADS * HEAD_DIM
        self.mu = nn.ParameterDict({name: nn.Parameter(torch.zeros(WIDTH)) for name in "rkvgwa"})
        self.r_proj, self.k_proj, self.v_proj, self.o_proj = (
            *(map_of(WIDTH, inner) for _ in "rkv"),
            map_of(inner, WIDTH),
        )
        self.w, self.a = LowRank(RANKS["w"], torch.tanh), LowRank(RANKS["a"], nn.Identity())
        self.v = LowRank(RANKS["v"], nn.Identity()) if index else None
        self.g = LowRank(RANKS["g"], torch.sigmoid, bias=False)
        self.k_k, self.k_a = nn.Parameter(torch.zeros(inner)), nn.Parameter(torch.zeros(inner))
        self.r_k = nn.Parameter(torch.zeros(HEADS, HEAD_DIM))
        self.g_norm = nn.GroupNorm(HEADS, inner, eps=HEAD_DIM * EPS)

    def forward(self, x: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor | None]:
        change = F.pad(x, (0, 0, 1, -1)) - x
        read = {name: x + change * mu for name, mu in self.mu.items()}
        r, k, v = self.r_proj(read["r"]), self.k_proj(read["k"]), self.v_proj(read["v"])
        v = v if self.v is None or first is None else torch.lerp(v, first, self.v(read["v"]).sigmoid())
        log_decay, a = -(-0.5 * torch.ones(())).exp() * self.w(read["w"]).sigmoid(), self.a(read["a"]).sigmoid()
        kappa = F.normalize((k * self.k_k).unflatten(-1, (HEADS, -1)), dim=-1).flatten(2)
        k = k + k * (a - 1) * self.k_a
        heads = head_major(r, k, v, -kappa, kappa * a, log_decay)
        o = naive("generalized_delta_rule.dplr.naive", "dplr_recurrence")(*heads)[0].transpose(1, 2)
        o = self.g_norm((HEAD_DIM**0.5 * o).flatten(0, 1).flatten(1)).view_as(
            v
        )  # there it is scaled, and not in RWKV-7
        r, k, own = (one.unflatten(-1, (HEADS, -1)) for one in (r, k, v))
        o = o + ((r * k * self.r_k).sum(-1, keepdim=True) * own).flatten(2)
        return self.o_proj(o * self.g(read["g"])), v if first is None else first


QK = tuple(part(one.name, pairs(HEADS, HEAD_DIM)) for one in QKV[:2])
RETENTION: Names = {
    "proj.weight": Parts((*QK, QKV[2], part("g_proj.weight"))),
    "norm.weight": same("g_norm.weight"),
    "out.weight": same("o_proj.weight"),
}
RWKV7: Names = {
    "shift.mu": Parts(tuple(part(f"mu.{name}") for name in "rkvgwa"), lambda *mu: torch.stack(mu)),
    "proj.weight": Parts(
        tuple(
            part(name) for name in (*(f"{one}_proj.weight" for one in "rkv"), *(f"{one}.down.weight" for one in "gwa"))
        )
    ),
    "decay.up.weight": same("w.up.weight"),
    "decay.bias": same("w.up.bias"),
    "write.up.weight": same("a.up.weight"),
    "write.up.bias": same("a.up.bias"),
    "write.removed": same("k_k"),
    "write.follows": same("k_a"),
    "gate_up.weight": same("g.up.weight"),
    "bonus": same("r_k"),
    "norm.weight": same("g_norm.weight"),
    "norm.bias": same("g_norm.bias"),
    "out.weight": same("o_proj.weight"),
}
MIXING: Names = {f"first_values.{name}": same(f"v.{name}") for name in ("down.weight", "up.weight", "up.bias")}

LAYERS: dict[str, tuple[list[nn.Module], list[Names], dict[str, Any]]] = {
    "retnet": ([Retention()], [RETENTION], {"rope": 1.0, "value_dim": VALUES, "norm_eps": EPS}),
    "rwkv7": (
        [Rwkv7(0), Rwkv7(1), Rwkv7(2)],
        [RWKV7, RWKV7 | MIXING, RWKV7 | MIXING],
        {"first_values": True, "output_norm": "group", "norm_eps": EPS, "inner_gate": True, "gate_rank": RANKS["g"]},
    ),
}


def through(layers: list[nn.Module], states: list[MixerState], x: Tensor) -> tuple[Tensor, list[MixerState]]:
    """`x` `[B, T, D]` through layers that add to it, each normed, after their states."""
    ctx, after = Context(want_state=True), []
    for layer, state in zip(layers, states, strict=True):
        y, state = layer(x, state=state, ctx=ctx)
        x, after = F.rms_norm(x + y, x.shape[-1:]), [*after, state]
    return x, after


@pytest.mark.parametrize("preset", LAYERS)
@torch.no_grad()
def test_layers_of_copied_weights_give_the_same_and_decode_the_same(preset: str) -> None:
    theirs, names, more = LAYERS[preset]
    torch.manual_seed(0)
    options = PLUGIN.parse_options({**PLUGIN.presets[preset], **more})
    ours = [PLUGIN.build(options, SHAPE, LayerInfo(index=at, depth=len(theirs))).eval() for at in range(len(theirs))]
    for public, own, given in zip(theirs, ours, names, strict=True):
        for weights in public.parameters():
            nn.init.normal_(weights, std=0.3)
        copy_weights(public, own, given)
    x = torch.randn(2, 75, WIDTH)
    wanted, first = x, None
    for public in theirs:
        y, first = public(wanted, first)
        wanted = F.rms_norm(wanted + y, y.shape[-1:])
    for prefill in (75, 13):
        out, states = through([*ours], [own.init_state(2, 75) for own in ours], x[:, :prefill])
        found = [out]
        for token in range(prefill, 75):
            out, states = through([*ours], states, x[:, token : token + 1])
            found.append(out)
        assert_close(torch.cat(found, 1), wanted, rtol=1e-4, atol=1e-4)
