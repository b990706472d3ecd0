"""Linear attention: what a token gets depends on no later token, and on no other sequence, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from archsearch_plugins.linear.channel import decay as channel_decay
from linear_cases import DECAYS, RULES, Inputs, attend, make_inputs
from torch import Tensor

GATES = [0.0, -1e-3, -0.4, -1.7, -7.4, -20.0, -59.0, -111.0, -1000.0, -torch.inf]
CHANGES = {"q": [3.0, -50.0], "k": [8**-0.5, 0.0], "v": [3.0, -50.0], "log_decay": GATES, "beta": [0.0, 1.0]}
CUTS = [(1, 0), (2, 1), (16, 15), (17, 16), (31, 30), (33, 32), (64, 63), (65, 64), (100, 65), (128, 127), (150, 40)]


def single(inputs: Inputs) -> Inputs:
    return {name: None if x is None else x.float() for name, x in inputs.items()}


def output(inputs: Inputs, *, trained: bool, cu_seqlens: Tensor | None = None) -> Tensor:
    """Of the op without gradients, or as it runs in training."""
    given = {name: None if x is None else x.detach().clone().requires_grad_(trained) for name, x in inputs.items()}
    with torch.set_grad_enabled(trained):
        return attend(given, cu_seqlens=cu_seqlens)[0].detach()


def changes(inputs: Inputs, *, batch: slice, tokens: slice) -> Iterator[Inputs]:
    """The inputs with some tokens of some rows changed: every input by itself, to each of `CHANGES`."""
    for name, x in inputs.items():
        if x is None or name == "initial_state" or x.dim() == 1:
            continue
        for value in CHANGES[name]:
            changed = x.clone()
            changed[batch, tokens] = value
            yield dict(inputs, **{name: changed})


@pytest.mark.parametrize("trained", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("low", [-0.5, -4.0], ids=str)
def test_the_past_does_not_see_the_future(low: float, decay: str, rule: str, trained: bool) -> None:
    for T, at in CUTS:
        inputs = single(make_inputs(T=T, decay=decay, rule=rule, low=low, K=8, V=6, H=1, HV=1))
        before = output(inputs, trained=trained)
        for changed in changes(inputs, batch=slice(None), tokens=slice(at, None)):
            after = output(changed, trained=trained)
            assert torch.equal(before[:, :at], after[:, :at])


@pytest.mark.parametrize("trained", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("T", [16, 64, 100])
def test_a_row_of_the_batch_does_not_see_another(T: int, decay: str, rule: str, trained: bool) -> None:
    inputs = single(make_inputs(T=T, decay=decay, rule=rule, low=-0.5, K=8, V=6, B=3))
    before = output(inputs, trained=trained)
    for changed in changes(inputs, batch=slice(1, 2), tokens=slice(None)):
        after = output(changed, trained=trained)
        assert torch.equal(before[::2], after[::2])


@pytest.mark.parametrize("trained", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("decay", DECAYS)
def test_a_packed_sequence_does_not_see_another(decay: str, rule: str, trained: bool) -> None:
    inputs = single(make_inputs(T=120, decay=decay, rule=rule, low=-0.5, K=8, V=6, B=1, state=False))
    bounds = torch.tensor([0, 50, 90, 120])
    before = output(inputs, trained=trained, cu_seqlens=bounds)
    for changed in changes(inputs, batch=slice(None), tokens=slice(50, 90)):
        after = output(changed, trained=trained, cu_seqlens=bounds)
        assert torch.equal(before[:, :50], after[:, :50])
        assert torch.equal(before[:, 90:], after[:, 90:])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("decay", DECAYS)
def test_training_computes_what_inference_does(decay: str, rule: str) -> None:
    for low in (-0.5, -4.0, -200.0):
        inputs = single(make_inputs(T=100, decay=decay, rule=rule, low=low, K=8, V=6))
        assert torch.equal(output(inputs, trained=False), output(inputs, trained=True))


def test_a_change_reaches_what_may_see_it() -> None:
    inputs = single(make_inputs(T=80, decay="channel", rule="delta", low=-0.5, K=8, V=6))
    for changed in changes(inputs, batch=slice(1, 2), tokens=slice(30, 31)):
        assert not torch.equal(output(inputs, trained=False)[1, 30:], output(changed, trained=False)[1, 30:])


def test_queries_too_small_for_their_digits_see_no_future_either() -> None:
    inputs = single(make_inputs(T=64, decay="channel", rule="hebbian", low=-3.0, K=8, V=6))
    inputs["q"] = 1e-25 * inputs["q"]  # type: ignore[operator]
    inputs["v"] = 1e15 * inputs["v"]  # type: ignore[operator]
    before = output(inputs, trained=False)
    for changed in changes(inputs, batch=slice(None), tokens=slice(63, None)):
        assert torch.equal(before[:, :63], output(changed, trained=False)[:, :63])


@pytest.mark.parametrize("rule", RULES)
def test_both_forms_of_a_row_are_taken(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows up to the strong gate by factors, the others by halves; all by halves where gates may not be looked at."""
    inputs = single(make_inputs(T=64, decay="channel", rule=rule, low=-0.5, K=8, V=6))
    inputs["log_decay"][:, 40] = -200.0  # type: ignore[index]
    mixed = output(inputs, trained=False)
    mild = output(dict(inputs, log_decay=inputs["log_decay"].clamp(min=-0.5)), trained=False)  # type: ignore[union-attr]
    assert torch.equal(mixed[:, :40], mild[:, :40])
    monkeypatch.setattr(channel_decay, "_may_look", lambda log_decay: False)
    halves = output(inputs, trained=False)
    torch.testing.assert_close(halves, mixed, rtol=1e-5, atol=1e-6)
    assert not torch.equal(halves[:, :40], mixed[:, :40])
    assert rule == "delta" or torch.equal(halves[:, 40:], mixed[:, 40:])
