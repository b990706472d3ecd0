"""Linear attention in float32, in training: every output and gradient within 1e-5 of a loop over tokens in float64."""

from __future__ import annotations

import pytest
import torch
from linear_cases import RULES, Inputs, assert_near, make_inputs, results

LENGTHS = [1, 15, 16, 17, 64, 100, pytest.param(256, marks=pytest.mark.slow)]
CONSTANT = [-20.0, -18.0, -12.0, -9.0, -7.4, -6.0, -5.0, -3.7, -2.5, -1.9, -1.72, -1.6, -1.0, -0.3, -0.05, -1e-3, 0.0]


def assert_precise(inputs: Inputs) -> None:
    """Of inputs that float32 holds."""
    inputs = {name: None if x is None else x.float().double() for name, x in inputs.items()}
    expected = results(inputs, dtype=torch.float64, impl="reference")
    assert_near(results(inputs, dtype=torch.float32, impl="chunkwise"), expected, 1e-5)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("decay", ["constant", "head", "channel"])
@pytest.mark.parametrize("T", LENGTHS)
def test_gates_of_one_strength(T: int, decay: str, rule: str) -> None:
    for strength in CONSTANT:
        inputs = make_inputs(T=T, decay=decay, rule=rule, K=8, V=6, B=1)
        inputs["log_decay"] = torch.full_like(inputs["log_decay"], strength)  # type: ignore[arg-type]
        assert_precise(inputs)
        if strength in CONSTANT[::4]:
            assert_precise(dict(inputs, initial_state=None))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("decay", ["head", "channel"])
@pytest.mark.parametrize("T", LENGTHS)
def test_gates_of_mixed_strength(T: int, decay: str, rule: str) -> None:
    """Uniform, mostly weak with strong ones among them, strong from the middle on, and strong in one head alone."""
    for kind in ("uniform", "mostly weak", "strong at last", "one head"):
        inputs = make_inputs(T=T, decay=decay, rule=rule, K=8, V=6, B=1)
        gates = inputs["log_decay"]
        assert gates is not None
        if kind == "mostly weak":
            gates.copy_(-20 * (gates / -20) ** 8)
        elif kind == "strong at last":
            gates[:, : T // 2] *= 1e-3
        elif kind == "one head":
            gates[:, :, 0] *= 1e-3
        assert_precise(inputs)


@pytest.mark.parametrize("chunk_size", [16, 32, 64, 128])
@pytest.mark.parametrize("decay", ["constant", "head", "channel"])
def test_gates_of_one_strength_in_chunks_of_any_size(decay: str, chunk_size: int) -> None:
    for strength in CONSTANT[::3]:
        inputs = make_inputs(T=130, decay=decay, rule="delta", K=8, V=6, B=1)
        inputs["log_decay"] = torch.full_like(inputs["log_decay"], strength)  # type: ignore[arg-type]
        inputs = {name: None if x is None else x.float().double() for name, x in inputs.items()}
        expected = results(inputs, dtype=torch.float64, impl="reference")
        assert_near(results(inputs, dtype=torch.float32, impl="chunkwise", chunk_size=chunk_size), expected, 1e-5)


@pytest.mark.parametrize("size", [1e-8, 1e4], ids=str)
@pytest.mark.parametrize("decay", ["head", "channel"])
def test_small_and_large_queries_and_keys(decay: str, size: float) -> None:
    for low in (-0.1, -3.4, -20.0):
        inputs = make_inputs(T=100, decay=decay, rule="hebbian", K=8, V=6, B=1, low=low)
        inputs["q"], inputs["k"] = size * inputs["q"], inputs["k"] / size  # type: ignore[operator]
        assert_precise(inputs)
