"""The Triton kernels of linear attention, interpreted, against the recurrence in float64."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from archsearch_plugins.linear.ops import linear_attention
from archsearch_plugins.linear.table import TABLE
from torch import Tensor

DECAYS = ("none", "constant", "head", "channel")
RULES = ("hebbian", "delta")


def make_inputs(
    decay: str, rule: str, *, T: int, H: int = 1, HV: int = 2, K: int = 32, B: int = 1
) -> dict[str, Tensor]:
    """Signed float32 inputs `[B, T, ...]` with an initial state."""
    generator = torch.Generator().manual_seed(T)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    gates = {"constant": (HV,), "head": (B, T, HV), "channel": (B, T, HV, K)}
    inputs = {
        "q": normal(B, T, H, K), "k": F.normalize(normal(B, T, H, K), dim=-1), "v": normal(B, T, HV, K),
        "initial_state": normal(B, HV, K, K),
    }  # fmt: skip
    if decay != "none":
        inputs["log_decay"] = -2 * torch.rand(gates[decay], generator=generator)
    if rule == "delta":
        inputs["beta"] = torch.rand(B, T, HV, generator=generator)
    return inputs


def run(
    inputs: dict[str, Tensor], impl: str, dtype: torch.dtype, cu_seqlens: Tensor | None = None
) -> dict[str, Tensor]:
    """Output, last state, and the gradient of every input, by name."""
    given = {name: x.detach().to(dtype, copy=True).requires_grad_() for name, x in inputs.items()}
    o, last = linear_attention(**given, impl=impl, chunk_size=16, cu_seqlens=cu_seqlens)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    weights = (torch.randn(*x.shape, generator=generator, dtype=torch.float64) for x in (o, last))
    sum((x * weight.to(dtype)).sum() for x, weight in zip((o, last), weights, strict=True)).backward()  # type: ignore[union-attr]
    return {"o": o, "last": last, **{f"d_{name}": x.grad for name, x in given.items()}}  # type: ignore[dict-item]


def check(inputs: dict[str, Tensor], cu_seqlens: Tensor | None = None) -> None:
    """Every result of the kernels within 1e-5 of the reference's, by the ratio of root mean squares."""
    wanted = run(inputs, "reference", torch.float64, cu_seqlens)
    for name, got in run(inputs, "triton", torch.float32, cu_seqlens).items():
        scale = wanted[name].square().mean().sqrt() + 1e-30
        assert (got.double() - wanted[name]).square().mean().sqrt() / scale < 1e-5, name


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("decay", DECAYS)
def test_every_rule_and_decay(decay: str, rule: str) -> None:
    check(make_inputs(decay, rule, T=37))


@pytest.mark.parametrize("T", [1, 15, 16, 33])
def test_lengths_around_the_chunk(T: int) -> None:
    check(make_inputs("channel", "delta", T=T))


@pytest.mark.parametrize(("decay", "rule"), [("head", "hebbian"), ("channel", "delta")])
def test_packed_sequences_with_an_empty_one(decay: str, rule: str) -> None:
    inputs = make_inputs(decay, rule, T=24)
    inputs["initial_state"] = torch.randn(3, 2, 32, 32, generator=torch.Generator().manual_seed(2))
    check(inputs, torch.tensor([0, 19, 19, 24]))


@pytest.mark.parametrize("decay", ["head", "channel"])
def test_gates_that_forget_all_and_nothing(decay: str) -> None:
    inputs = make_inputs(decay, "delta", T=20)
    inputs["log_decay"][:, 3] = -1000.0
    inputs["log_decay"][:, 7:12] = 0.0
    check(inputs)


@pytest.mark.parametrize(("decay", "rule"), [("head", "delta"), ("channel", "hebbian")])
def test_the_past_does_not_see_the_future(decay: str, rule: str) -> None:
    inputs = make_inputs(decay, rule, T=24)
    before = run(inputs, "triton", torch.float32)["o"]
    changed = {name: x.clone() for name, x in inputs.items()}
    for name in changed.keys() - {"initial_state"}:
        changed[name][:, 18] = -30.0 if name == "log_decay" else 3.0
    after = run(changed, "triton", torch.float32)["o"]
    assert torch.equal(before[:, :18], after[:, :18])
    assert not torch.equal(before[:, 18:], after[:, 18:])


@pytest.mark.slow
@pytest.mark.parametrize(("key", "decay", "rule"), list(itertools.product(TABLE.rows, DECAYS, RULES)), ids=str)
def test_every_row_of_the_table(key: tuple[str, int, int], decay: str, rule: str) -> None:
    with TABLE.forced(key):
        check(make_inputs(decay, rule, T=70, K=min(key[1], 60)))
