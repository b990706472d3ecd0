"""The Triton kernels of linear attention, interpreted, against the recurrence in float64."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from archsearch_plugins.linear.triton import table
from archsearch_plugins.linear.triton.builds import blank_call
from archsearch_plugins.linear.triton.checks import REMOVALS, draw_inputs
from archsearch_plugins.linear.triton.launch import sequences as launch
from archsearch_plugins.linear.triton.launch.forward import padded_keys, parts_of
from archsearch_plugins.linear.triton.table import TABLE
from linear_cases import attend
from torch import Tensor

pytestmark = pytest.mark.usefixtures("poisoned_memory")
DECAYS = ("none", "constant", "head", "channel")
RULES = ("hebbian", "delta")
SEGMENTED = (("channel", "delta"), ("head", "hebbian"))


def make_inputs(
    decay: str, rule: str, *, T: int, H: int = 1, HV: int = 2, K: int = 32, B: int = 1
) -> dict[str, Tensor]:
    """What the checks of a row draw, by the names of shapes."""
    return draw_inputs(decay, rule, tokens=T, dim=K, batch=B, heads=(H, HV))


def run(
    inputs: dict[str, Tensor],
    impl: str,
    dtype: torch.dtype,
    cu_seqlens: Tensor | None = None,
    *,
    early: bool = False,
) -> dict[str, Tensor]:
    """Output, last state, and the gradient of every input, by name."""
    given = {name: x.detach().to(dtype, copy=True).requires_grad_() for name, x in inputs.items()}
    o, last = attend(given, impl=impl, chunk_size=16, cu_seqlens=cu_seqlens, early=early)
    generator = torch.Generator().manual_seed(1)
    weights = (torch.randn(*x.shape, generator=generator, dtype=torch.float64) for x in (o, last))
    sum((x * weight.to(dtype)).sum() for x, weight in zip((o, last), weights, strict=True)).backward()  # type: ignore[union-attr]
    return {"o": o, "last": last, **{f"d_{name}": x.grad for name, x in given.items()}}  # type: ignore[dict-item]


def check(
    inputs: dict[str, Tensor],
    cu_seqlens: Tensor | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    within: float = 1e-5,
    early: bool = False,
) -> None:
    """Every result of the kernels within 1e-5 of the reference's, by the ratio of root mean squares."""
    wanted = run(inputs, "reference", torch.float64, cu_seqlens, early=early)
    for name, got in run(inputs, "triton", dtype, cu_seqlens, early=early).items():
        scale = wanted[name].square().mean().sqrt() + 1e-30
        assert (got.double() - wanted[name]).square().mean().sqrt() / scale < within, name


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("decay", DECAYS)
def test_every_rule_and_decay(decay: str, rule: str) -> None:
    check(make_inputs(decay, rule, T=37))


@pytest.mark.parametrize("T", [1, 15, 16, 33])
def test_lengths_around_the_chunk(T: int) -> None:
    check(make_inputs("channel", "delta", T=T, K=16))


@pytest.mark.parametrize(
    ("decay", "rule", "sizes"),
    [
        ("head", "delta", {"T": 65, "K": 60}),
        ("channel", "hebbian", {"T": 65, "K": 64, "HV": 1}),
        ("none", "delta", {"T": 20, "K": 128, "H": 2, "HV": 4}),
        ("constant", "hebbian", {"T": 20, "K": 16, "H": 2, "HV": 6, "B": 3}),
    ],
    ids=["T65-D60", "T65-D64", "D128-H2-HV4", "B3-H2-HV6"],
)
def test_head_dims_and_groups(decay: str, rule: str, sizes: dict[str, int]) -> None:
    check(make_inputs(decay, rule, **sizes))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("T", "K", "decay", "rule"),
    [
        *itertools.product((1, 15, 63, 64, 65, 100), (32, 60, 64, 128), ("head", "channel"), RULES),
        *itertools.product((256, 1000), (32,), ("head", "channel"), RULES),
    ],
)
def test_everything(T: int, K: int, decay: str, rule: str) -> None:
    check(make_inputs(decay, rule, T=T, K=K))


@pytest.mark.parametrize(("decay", "rule"), [("head", "delta"), ("channel", "delta"), ("constant", "hebbian")])
def test_float16(decay: str, rule: str) -> None:
    inputs = {name: x.half().float() for name, x in make_inputs(decay, rule, T=37).items()}
    check(inputs, dtype=torch.float16, within=1e-2)


@pytest.mark.parametrize(
    ("decay", "rule"),
    [
        pytest.param(decay, rule, marks=() if (decay, rule) in SEGMENTED else pytest.mark.slow)
        for decay, rule in itertools.product(DECAYS, RULES)
    ],
)
@pytest.mark.parametrize("packed", [None, (0, 50, 50, 70)], ids=["one", "packed"])
def test_sequences_cut_into_segments(
    decay: str, rule: str, packed: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "SHORTEST_SEGMENT", 1)
    monkeypatch.setattr(table, "FEWEST_SEGMENTS", 2)
    inputs, bounds = make_inputs(decay, rule, T=70, K=16), None
    if packed is not None:
        bounds = torch.tensor(packed)
        inputs["initial_state"] = torch.randn(3, 2, 16, 16, generator=torch.Generator().manual_seed(2))
    check(inputs, bounds)


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


@pytest.mark.parametrize("strength", [-0.5, -7.4, -18.0], ids=str)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("decay", ["head", "channel"])
def test_strong_gates_keep_the_precision_of_their_gradient(decay: str, rule: str, strength: float) -> None:
    inputs = make_inputs(decay, rule, T=20, K=16)
    inputs["log_decay"].fill_(strength)
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


@pytest.mark.parametrize("rule", REMOVALS)
@pytest.mark.parametrize("decay", DECAYS)
def test_every_removal(decay: str, rule: str) -> None:
    check(make_inputs(decay, rule, T=21, K=16), early=rule.startswith("early"))


@pytest.mark.parametrize(("decay", "rule"), [("head", "early"), ("channel", "late"), ("channel", "early apart")])
@pytest.mark.parametrize("sizes", [{"T": 1}, {"T": 16}, {"T": 20, "K": 60, "H": 2, "HV": 4}], ids=str)
def test_removals_of_other_sizes(decay: str, rule: str, sizes: dict[str, int]) -> None:
    check(make_inputs(decay, rule, **{"K": 16, **sizes}), early=rule.startswith("early"))


@pytest.mark.parametrize(("decay", "rule"), [("head", "early"), ("channel", "late"), ("channel", "early")])
def test_removals_in_float16(decay: str, rule: str) -> None:
    inputs = {name: x.half().float() for name, x in make_inputs(decay, rule, T=37).items()}
    check(inputs, dtype=torch.float16, within=1e-2, early=rule == "early")


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
@pytest.mark.parametrize(("decay", "rule"), [("head", "early"), ("channel", "early apart")])
def test_removals_of_packed_sequences_with_an_empty_one(
    decay: str, rule: str, cut: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cut:
        monkeypatch.setattr(table, "SHORTEST_SEGMENT", 1)
        monkeypatch.setattr(table, "FEWEST_SEGMENTS", 2)
    inputs = make_inputs(decay, rule, T=40, K=16)
    inputs["initial_state"] = torch.randn(3, 2, 16, 16, generator=torch.Generator().manual_seed(2))
    check(inputs, torch.tensor([0, 33, 33, 40]), early=True)


@pytest.mark.parametrize("rule", REMOVALS)
@pytest.mark.parametrize("decay", ["head", "channel"])
def test_removals_under_gates_that_forget_all_and_nothing(decay: str, rule: str) -> None:
    inputs = make_inputs(decay, rule, T=20, K=16)
    inputs["log_decay"][:, 3] = -1000.0
    inputs["log_decay"][:, 7:12] = 0.0
    check(inputs, early=rule.startswith("early"))


@pytest.mark.parametrize("strength", [-0.5, -7.4, -18.0], ids=str)
@pytest.mark.parametrize("decay", ["head", "channel"])
def test_early_removals_keep_the_precision_of_the_gates_gradient(decay: str, strength: float) -> None:
    inputs = make_inputs(decay, "early", T=20, K=16)
    inputs["log_decay"].fill_(strength)
    check(inputs, early=True)


def arguments(decay: str, rule: str) -> tuple[object, ...]:
    """Of the op itself."""
    inputs = make_inputs(decay, rule, T=18, K=16)
    inputs["taken"] = inputs.get("read", inputs.get("beta"))  # type: ignore[assignment]
    names = ("q", "k", "v", "log_decay", "taken", "initial_state")
    tensors = (None if inputs.get(name) is None else inputs[name].requires_grad_() for name in names)
    return (*tensors, None, 0.3, 16, True, decay, rule == "early")


@pytest.mark.parametrize(("decay", "rule"), [("channel", "delta"), ("none", "hebbian"), ("head", "early")])
def test_the_op_keeps_the_rules_of_custom_ops(decay: str, rule: str) -> None:
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(launch.sequence, arguments(decay, rule), test_utils=tests)


@pytest.mark.slow
@pytest.mark.parametrize(("key", "decay", "rule"), list(itertools.product(TABLE.rows, DECAYS, RULES)), ids=str)
def test_every_row_of_the_table(key: tuple[str, int, int], decay: str, rule: str) -> None:
    with TABLE.forced(key):
        check(make_inputs(decay, rule, T=70, K=min(key[1], 60)))


@pytest.mark.parametrize(("decay", "rule"), [("head", "delta"), ("none", "hebbian")])
def test_the_tiles_of_float32_cut_a_product_along_what_it_sums(decay: str, rule: str) -> None:
    key = ("sm_90", 128, 64)
    assert TABLE.exact[key]["states"].tiles["parts"] > 1
    with TABLE.forced(key, exact=True):
        check(make_inputs(decay, rule, T=20, K=128))


@pytest.mark.parametrize("key", TABLE.exact, ids=str)
@pytest.mark.parametrize("key_dim", [1, 16, 24, 32, 64, 128, 256])
def test_a_product_in_parts_sums_16_channels_at_least(key: tuple[str, int, int], key_dim: int) -> None:
    """As a card's products do; heads of values may be wider than those of keys."""
    inputs, _, _ = blank_call(key, "delta", "head", tokens=key[2], dtype=torch.float32)
    config, inputs = TABLE.exact[key]["states"], replace(inputs, q=torch.empty(key[2], 1, key_dim, device="meta"))
    parts = parts_of(inputs, config)
    assert 1 <= parts <= config.tiles["parts"]
    assert padded_keys(inputs) // parts >= 16


def test_keys_narrower_than_values_in_float32() -> None:
    inputs = make_inputs("head", "hebbian", T=20, K=16)
    inputs["v"] = torch.randn(1, 20, 2, 100, generator=torch.Generator().manual_seed(3))
    del inputs["initial_state"]
    with TABLE.forced(("sm_90", 128, 64), exact=True):
        check(inputs)
