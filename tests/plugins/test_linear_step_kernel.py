"""The kernel of one decoded token of linear attention, interpreted, against the recurrence in float64."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from archsearch_plugins.linear.ops import linear_attention_step
from archsearch_plugins.linear.tokens import Tokens
from archsearch_plugins.linear.triton import table
from archsearch_plugins.linear.triton.checks import REMOVALS
from archsearch_plugins.linear.triton.launch import step as launch_step
from archsearch_plugins.linear.triton.table import STEP_TABLE
from linear_cases import Inputs, step
from torch import Tensor

from archsearch.errors import KernelUnavailableError

DECAYS = ["none", "constant", "head", "channel"]
KINDS = list(itertools.product(["hebbian", "delta"], DECAYS))
OWN = list(itertools.product(REMOVALS, DECAYS))
SIZES = {
    "B1-H1-K16-V16": (1, 1, 1, 16, 16),
    "B3-H1-HV3-K60-V60": (3, 1, 3, 60, 60),
    "B2-H2-HV4-K128-V17": (2, 2, 4, 128, 17),
    "B2-H2-K5-V12": (2, 2, 2, 5, 12),
    "B1-H1-K256-V16": (1, 1, 1, 256, 16),
}


def make_inputs(size: str, rule: str, decay: str, *, low: float = -3.0) -> Inputs:
    """Signed inputs of one token, float32; q and k are cut out of one tensor, as a layer's are."""
    batch, heads, value_heads, key_dim, value_dim = SIZES[size]
    draw = torch.Generator().manual_seed(3)
    gates = {
        "none": None,
        "constant": (value_heads,),
        "head": (batch, value_heads),
        "channel": (batch, value_heads, key_dim),
    }[decay]
    q, k = F.normalize(torch.randn(batch, 2 * heads, key_dim, generator=draw), dim=-1).chunk(2, dim=1)
    given: Inputs = {
        "q": q,
        "k": k,
        "v": torch.randn(batch, value_heads, value_dim, generator=draw),
        "state": torch.randn(batch, value_heads, key_dim, value_dim, generator=draw),
        "log_decay": None if gates is None else low * torch.rand(gates, generator=draw),
        "beta": torch.rand(batch, value_heads, generator=draw) if rule == "delta" else None,
    }
    if rule in REMOVALS:
        rates = torch.rand(batch, value_heads, key_dim, generator=draw)
        apart = F.normalize(torch.randn(batch, value_heads, key_dim, generator=draw), dim=-1)
        given["read"] = apart if rule.endswith("apart") else rates * k.repeat_interleave(value_heads // heads, dim=1)
        given["along"] = rates * apart if rule.endswith("apart") else None
    return given


def double(inputs: Inputs) -> Inputs:
    return {name: None if x is None else x.double() for name, x in inputs.items()}


def ratio(actual: Tensor, expected: Tensor) -> float:
    """RMS(difference) / RMS(expected), infinite where something is not finite."""
    difference = (actual.detach().double() - expected.detach()).square().mean().sqrt()
    found = float(difference / expected.detach().square().mean().sqrt().clamp(min=1e-30))
    return found if actual.isfinite().all() else float("inf")


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the launcher allocates is full of NaN until the kernel writes it."""
    plain = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *args, **options: plain(*args, **options).fill_(torch.nan))


@pytest.mark.parametrize(
    ("size", "rule", "decay"),
    [
        *((size, *kind) for size in SIZES for kind in KINDS),
        *((size, *kind) for size in ("B2-H2-HV4-K128-V17", "B2-H2-K5-V12") for kind in OWN),
    ],
)
def test_equals_the_recurrence_in_float64(size: str, rule: str, decay: str) -> None:
    inputs, early = make_inputs(size, rule, decay), rule.startswith("early")
    expected = step(double(inputs), impl="reference", scale=0.3, early=early)
    actual = step(inputs, impl="triton", scale=0.3, early=early)
    assert [ratio(a, e) for a, e in zip(actual, expected, strict=True)] == pytest.approx([0, 0], abs=1e-6)
    assert [x.dtype for x in actual] == [torch.float32, torch.float32]


@pytest.mark.parametrize(("rule", "decay"), [*KINDS, *OWN])
def test_every_gradient_equals_the_recurrences(rule: str, decay: str) -> None:
    inputs = make_inputs("B2-H2-HV4-K128-V17", rule, decay)
    found = {}
    for impl, given in (("reference", double(inputs)), ("triton", inputs)):
        leaves = {name: None if x is None else x.detach().requires_grad_() for name, x in given.items()}
        outputs = step(leaves, impl=impl, early=rule.startswith("early"))
        draw = torch.Generator().manual_seed(4)
        torch.autograd.backward(list(outputs), [torch.randn(x.shape, generator=draw).to(x.dtype) for x in outputs])
        found[impl] = {name: x.grad for name, x in leaves.items() if x is not None}
    for name, gradient in found["triton"].items():
        assert gradient is not None, name
        assert ratio(gradient, found["reference"][name]) <= 1e-5, name  # type: ignore[arg-type]


@pytest.mark.parametrize(("rule", "decay"), [*KINDS, *OWN])
def test_in_place_overwrites_the_state_and_nothing_else(rule: str, decay: str) -> None:
    inputs, early = make_inputs("B3-H1-HV3-K60-V60", rule, decay), rule.startswith("early")
    o, after = step(inputs, impl="triton", early=early)
    given = {name: None if x is None else x.clone() for name, x in inputs.items()}
    again, same = step(given, impl="triton", in_place=True, early=early)
    assert same is given["state"]
    assert torch.equal(same, after)
    assert torch.equal(again, o)
    for name, x in given.items():
        assert x is None or name == "state" or torch.equal(x, inputs[name]), name  # type: ignore[arg-type]


def test_a_view_of_a_cache_is_overwritten_in_place() -> None:
    inputs = make_inputs("B3-H1-HV3-K60-V60", "delta", "head")
    cache = inputs["state"].clone()[:, None]  # type: ignore[union-attr]
    _, after = step(inputs, impl="triton")
    step(dict(inputs, state=cache[:, 0]), impl="triton", in_place=True)
    assert torch.equal(cache[:, 0], after)


@pytest.mark.parametrize("state", ["strided", "half", "trained"])
def test_a_state_that_cannot_be_overwritten_is_left_alone(state: str) -> None:
    inputs = make_inputs("B3-H1-HV3-K60-V60", "delta", "channel")
    memory = inputs["state"]
    assert memory is not None
    given = {
        "strided": memory.transpose(2, 3).contiguous().transpose(2, 3),
        "half": memory.half(),
        "trained": memory.clone().requires_grad_(),
    }[state]
    before = given.detach().clone()
    inputs["state"] = given
    o, after = step(inputs, impl="triton", in_place=True)
    expected_o, expected = step(double(inputs), impl="reference")
    assert torch.equal(given, before)
    assert ratio(after, expected) <= 1e-6
    assert ratio(o, expected_o) <= 1e-6


@pytest.mark.parametrize("gate", [-1000.0, -torch.inf, 0.0], ids=str)
@pytest.mark.parametrize("decay", ["constant", "head", "channel"])
def test_closed_and_open_gates(decay: str, gate: float) -> None:
    inputs = make_inputs("B2-H2-HV4-K128-V17", "delta", decay)
    inputs["log_decay"].flatten()[::2] = gate  # type: ignore[union-attr]
    expected = step(double(inputs), impl="reference")
    actual = step(inputs, impl="triton")
    assert [ratio(a, e) for a, e in zip(actual, expected, strict=True)] == pytest.approx([0, 0], abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_low_precision_inputs_are_computed_in_float32(dtype: torch.dtype) -> None:
    inputs = make_inputs("B3-H1-HV3-K60-V60", "delta", "channel")
    inputs = {name: x.to(dtype) if name in "qkv" else x for name, x in inputs.items()}  # type: ignore[union-attr]
    o, after = step(inputs, impl="triton")
    expected_o, expected = step(double(inputs), impl="reference")
    assert o.dtype == dtype
    assert after.dtype == torch.float32
    assert ratio(o, expected_o) <= 5e-3
    assert ratio(after, expected) <= 1e-6


ROWS = [
    pytest.param(key, marks=[] if key[:2] == ("sm_90", 64) else pytest.mark.slow, id=f"{key[0]}-K{key[1]}")
    for key in STEP_TABLE.rows
]


@pytest.mark.parametrize("crowd", [1, 10**6], ids=["wide", "narrow"])
@pytest.mark.parametrize("key", ROWS)
def test_every_configuration(key: tuple[str, int, int], crowd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "STEP_CROWD", crowd)
    draw = torch.Generator().manual_seed(5)
    shapes = {"q": (2, 1, key[1]), "k": (2, 1, key[1]), "v": (2, 2, 70), "state": (2, 2, key[1], 70)}
    inputs: Inputs = {name: torch.randn(shape, generator=draw) / key[1] ** 0.25 for name, shape in shapes.items()}
    inputs |= {"log_decay": -torch.rand(2, 2, key[1], generator=draw), "beta": torch.rand(2, 2, generator=draw)}
    with STEP_TABLE.forced(key):
        actual = step(inputs, impl="triton")
    expected = step(double(inputs), impl="reference")
    assert [ratio(a, e) for a, e in zip(actual, expected, strict=True)] == pytest.approx([0, 0], abs=1e-6)


def test_both_ops_keep_the_rules_of_custom_ops() -> None:
    inputs = make_inputs("B2-H2-K5-V12", "delta", "channel")
    tests = ("test_schema", "test_faketensor", "test_autograd_registration", "test_aot_dispatch_dynamic")
    trained = [x.detach().requires_grad_() for x in inputs.values()]  # type: ignore[union-attr]
    torch.library.opcheck(launch_step.step, (*trained, None, 0.3, "channel", False), test_utils=tests)
    plain = [x.clone() for x in inputs.values()]  # type: ignore[union-attr]
    torch.library.opcheck(launch_step.step_in_place, (*plain, None, 0.3, "channel", False), test_utils=tests)


def test_no_sequences_and_no_values() -> None:
    o, after = step(
        {"q": torch.ones(0, 1, 4), "k": torch.ones(0, 1, 4), "v": torch.ones(0, 1, 4), "state": torch.ones(0, 1, 4, 4)},
        impl="triton",
    )
    assert o.shape == (0, 1, 4)
    assert after.shape == (0, 1, 4, 4)


def test_what_cannot_run_says_why() -> None:
    wide = torch.zeros(1, 1, 300)
    with pytest.raises(KernelUnavailableError, match="head_dim = 300 has no Triton configuration on sm_90: 256"):
        linear_attention_step(Tokens(wide, wide, wide), torch.zeros(1, 1, 300, 300), impl="triton")
    exact = torch.zeros(1, 1, 8, dtype=torch.float64)
    with pytest.raises(KernelUnavailableError, match="linear_attention_step"):
        linear_attention_step(Tokens(exact, exact, exact), torch.zeros(1, 1, 8, 8), impl="triton")
