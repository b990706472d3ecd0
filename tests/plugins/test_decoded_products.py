"""What a decoded token is said to multiply is what its step multiplies, for every mixer, within 5%.

Counted are the products of the form that the cost names: torch's, and those of two vectors that are added to a state,
which torch runs elementwise. What is zero is masked, or a state that nothing was written to: it is not needed. A
sequence of softmax attention needs the pairs of its tokens, decoded one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from archsearch.mixer import ModelShape
from archsearch.model import Context
from archsearch.registry import Registry
from archsearch.testing.case import Case
from archsearch.testing.products import Counter
from archsearch.testing.stack import Stack

aten = torch.ops.aten
SHAPE = ModelShape(d_model=32, n_heads=4, n_kv_heads=2, head_dim=16, dtype="float32")
TOKENS = 0b1111000 + 1
"""Of a hierarchy of states as many levels are held as in the mean, (7 + 1) / 2."""
QUICK = ("full", "moba", "nsa", "infllm", "kda", "mamba1", "mamba3", "ttt-linear", "log-linear-mamba2", "zeta", "hymba")
"""What the default run tries; `make test-arena` tries every mixer and preset."""

DECODES_OTHERWISE = {
    "evicting": "sequences are attended to densely",
    "latent": "latents are multiplied out in sequences, and absorbed by decoded tokens",
}


def needed_products(run: Callable[[], object]) -> float:
    """FLOPs, 2 a multiply-add, of the matrix products of `run()` that are needed."""
    return _Needed().of(run)


class _Needed(Counter):
    def __init__(self) -> None:
        super().__init__()
        self.halves: list[Tensor] = []
        """What is left of queries by their sign: its zeros are no mask."""

    def counted(self, op: Any, args: Sequence[Any], named: Mapping[str, Any], out: Any) -> float:
        flops = super().counted(op, args, named, out)
        if op is aten.clamp or (op is aten.clone and self._is_half(args[0])):
            self.halves.append(out)
        if op in (aten.mm, aten.bmm):
            return flops * (1.0 if self._is_half(args[0]) else _filled(args[0])) * _columns(args[1])
        if op in (aten.mul, aten.addcmul) and _is_outer(args[-2:], out):
            return 2.0 * out.numel() * _filled(args[-2] * args[-1])
        return flops

    def _is_half(self, factor: Tensor) -> bool:
        return any(half.untyped_storage().data_ptr() == factor.untyped_storage().data_ptr() for half in self.halves)


def _filled(factor: Tensor) -> float:
    """The share of a factor that is not zero: weights of what is masked are."""
    return float((factor != 0).double().mean()) if factor.numel() else 1.0


def _columns(factor: Tensor) -> float:
    """The share of the columns of a right factor that are not all zero, as states are that nothing was written to."""
    return float((factor != 0).any(-2).double().mean()) if factor.numel() else 1.0


def _is_outer(factors: Any, out: Tensor) -> bool:
    """Whether each of two factors is repeated along an axis of the other."""
    tensors = [factor for factor in factors if isinstance(factor, Tensor)]
    return len(tensors) == 2 and out.numel() > max(factor.numel() for factor in tensors)


def stepped(case: Case) -> float:
    """What the step of the last of `TOKENS` tokens multiplies."""
    mixer, x = case.mixer(), case.inputs(1, TOKENS)

    def done(one: Any) -> float:
        with torch.no_grad():
            _, state = one(x[:, :-1], state=one.init_state(1, TOKENS), ctx=Context(want_state=True))
        return needed_products(lambda: one.step(x[:, -1], state=state, ctx=Context(want_state=True)))

    before = mixer.before() if isinstance(mixer, Stack) else None
    return done(mixer) - (0.0 if before is None else done(before))


def case_of(name: str, registry: Registry) -> Case:
    layer = registry.layer(name)
    values = {key: getattr(layer.options, key) for key in type(layer.options).model_fields}
    return Case.of(registry.mixer(layer.mixer), values, registry=registry, shape=SHAPE)


def check(name: str, registry: Registry) -> None:
    case = case_of(name, registry)
    said, counts = case.figures().flops(phase="decode", context=TOKENS).matmul, []
    for impl in ("auto", "reference"):
        with case.using(impl):
            counts.append(stepped(case))
    assert any(said == pytest.approx(counted, rel=0.05) for counted in counts), (name, said, counts)
    if case.plugin.family not in ("full", "sliding", "sparse") or case.plugin.name in DECODES_OTHERWISE:
        return
    if getattr(case.options, "weighting", "").startswith("path") or getattr(case.options, "kv_rank", 0):
        return  # a sequence moves its keys block by block; or multiplies latents out
    each = [case.figures().flops(phase="decode", context=count + 1).matmul for count in range(TOKENS)]
    assert case.figures().flops(phase="prefill", context=TOKENS).matmul == pytest.approx(sum(each), rel=0.05)


@pytest.mark.parametrize("name", QUICK)
def test_a_step_multiplies_what_its_cost_says(name: str, installed: Registry) -> None:
    check(name, installed)


@pytest.mark.arena
def test_steps_of_all_multiply_what_their_costs_say(installed: Registry) -> None:
    names = sorted({name for plugin in installed.mixers() for name in (plugin.name, *plugin.presets)})
    wrong = {}
    for name in names:
        try:
            check(name, installed)
        except AssertionError as error:
            wrong[name] = str(error).partition("\n")[0]
    assert wrong == {}
