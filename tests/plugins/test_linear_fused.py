"""The forward whose states stay on chip, interpreted, against the recurrence in float64."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from archsearch_plugins.linear.decays import Decay
from archsearch_plugins.linear.triton import table
from archsearch_plugins.linear.triton.builds import blank_call
from archsearch_plugins.linear.triton.checks import draw_inputs
from archsearch_plugins.linear.triton.launch.fused import attend
from archsearch_plugins.linear.triton.launch.plan import make_plan, recording
from archsearch_plugins.linear.triton.table import APART, FUSED, TABLE
from linear_cases import assert_near
from linear_cases import attend as run

pytestmark = pytest.mark.usefixtures("poisoned_memory")
KEY = ("sm_90", 16, 16)
KINDS = list(itertools.product(("delta", "hebbian"), ("none", "constant", "head", "channel")))


@pytest.fixture
def all_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rule and decay by the fused pass, whatever the table says."""
    monkeypatch.setattr(table, "FUSED", tuple(itertools.product(("delta", "hebbian"), ("none", "head", "channel"))))


def check(rule: str, decay: str, tokens: int, bounds: tuple[int, ...] | None = None) -> None:
    """Outputs and last state within 1e-5 of the reference's, by the ratio of root mean squares."""
    inputs = draw_inputs(decay, rule, tokens=tokens, dim=16)
    cu_seqlens = None if bounds is None else torch.tensor(bounds)
    if bounds is not None:
        draw = torch.Generator().manual_seed(2)
        inputs["initial_state"] = torch.randn(len(bounds) - 1, 2, 16, 16, generator=draw)
    exact = {name: x.double() for name, x in inputs.items()}
    options = {"chunk_size": 16, "cu_seqlens": cu_seqlens, "early": rule == "early"}
    found = run(inputs, impl="triton", **options)
    wanted = run(exact, impl="reference", **options)
    for got, exactly in zip(found, wanted, strict=True):
        assert (got.double() - exactly).square().mean().sqrt() < 1e-5 * exactly.square().mean().sqrt()


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sequences of few chunks are cut into segments too."""
    monkeypatch.setattr(table, "SHORTEST_SEGMENT", 1)
    monkeypatch.setattr(table, "FEWEST_SEGMENTS", 2)


def test_the_pass_of_one_sequence() -> None:
    check("delta", "head", 37)


@pytest.mark.parametrize(("rule", "decay"), FUSED)
def test_the_pass_of_packed_sequences(rule: str, decay: str) -> None:
    check(rule, decay, 37, (0, 19, 19, 37))


@pytest.mark.usefixtures("cut")
def test_the_pass_of_one_sequence_cut_along_time() -> None:
    check("delta", "head", 37)


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize(("rule", "decay"), FUSED)
def test_the_pass_of_packed_sequences_cut_along_time(rule: str, decay: str) -> None:
    check(rule, decay, 37, (0, 33, 33, 37))


@pytest.mark.parametrize(("rule", "decay"), FUSED)
def test_gradients_as_a_model_is_trained(rule: str, decay: str) -> None:
    """Packed, from no state and without the last one, where the backward makes anew what the pass did not keep."""
    drawn = draw_inputs(decay, rule, tokens=20, dim=16, heads=(1, 1))
    del drawn["initial_state"]
    weights = torch.randn(drawn["v"].shape, generator=torch.Generator().manual_seed(1))
    found = {}
    for impl, dtype in (("triton", torch.float32), ("reference", torch.float64)):
        leaves = {name: x.to(dtype).requires_grad_() for name, x in drawn.items()}
        options = {"cu_seqlens": torch.tensor((0, 3, 3, 20)), "want_state": False, "early": rule == "early"}
        o, _ = run(leaves, impl=impl, chunk_size=16, **options)
        grads = torch.autograd.grad((o * weights.to(dtype)).sum(), list(leaves.values()))
        found[impl] = dict(zip(leaves, grads, strict=True))
    assert_near(found["triton"], found["reference"], 1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("all_kinds")
@pytest.mark.parametrize("bounds", [None, (0, 19, 19, 37)], ids=["one", "packed"])
@pytest.mark.parametrize("pieces", ["whole", "cut"])
@pytest.mark.parametrize(("rule", "decay"), KINDS)
def test_the_pass_of_every_kind(
    rule: str, decay: str, pieces: str, bounds: tuple[int, ...] | None, request: pytest.FixtureRequest
) -> None:
    if pieces == "cut":
        request.getfixturevalue("cut")
    check(rule, decay, 37, bounds)


def test_the_past_does_not_see_the_future() -> None:
    inputs = draw_inputs("head", "delta", tokens=24, dim=16)
    changed = {name: x.clone() for name, x in inputs.items()}
    for name in ("q", "k", "v", "beta", "log_decay"):
        changed[name][:, 18] = -30.0 if name == "log_decay" else 3.0
    before, after = (run(given, impl="triton", chunk_size=16)[0] for given in (inputs, changed))
    assert torch.equal(before[:, :18], after[:, :18])
    assert not torch.equal(before[:, 18:], after[:, 18:])


def kernels_of(
    rule: str,
    key: tuple[str, int, int],
    *,
    chunks: int = 1,
    decay: Decay = "head",
    dtype: torch.dtype = torch.bfloat16,
) -> list[str]:
    """The kernels that a forward launches."""
    inputs, _, state = blank_call(key, rule, decay, tokens=chunks * key[2])
    inputs = replace(inputs, q=inputs.q.to(dtype), k=inputs.k.to(dtype), v=inputs.v.to(dtype))
    with inputs.table.forced(key, exact=dtype == torch.float32), recording() as record:
        attend(inputs, make_plan(inputs, 1, None, key[2]), state, want_final=True)
    return [call.kernel.fn.__name__ for call in record]


def test_no_state_and_no_write_goes_to_memory() -> None:
    assert kernels_of("delta", KEY) == ["head_scores", "solve", "fused"]
    assert kernels_of("delta", ("sm_90", 128, 64)) == ["head_scores", "solve", "fused"]
    assert kernels_of("delta", ("sm_90", 128, 64), decay="none") == ["head_scores", "solve", "fused"]
    assert kernels_of("hebbian", ("sm_90", 128, 64)) == ["head_scores", "fused"]
    assert kernels_of("early", ("sm_90", 128, 64)) == ["head_scores", "solve", "fused"]


def test_few_heads_are_cut_along_time() -> None:
    many = table.SHORTEST_SEGMENT * 8
    assert kernels_of("delta", KEY, chunks=many) == ["head_scores", "solve", "fused", "fused", "scan", "fused"]
    assert kernels_of("hebbian", KEY, chunks=many) == ["head_scores", "fused", "scan", "fused"]


@pytest.mark.parametrize(
    ("key", "decay"), [(KEY, "channel"), (("sm_90", 256, 32), "head")], ids=["other-gates", "no-room-for-the-state"]
)
def test_what_has_no_such_pass_goes_by_its_states(key: tuple[str, int, int], decay: Decay) -> None:
    assert kernels_of("delta", key, decay=decay)[-2:] == ["states", "outputs"]


def test_float32_is_fused_where_a_program_holds_it() -> None:
    wide = {"dtype": torch.float32}
    assert kernels_of("delta", KEY, **wide) == ["head_scores", "solve", "fused"]
    assert kernels_of("delta", ("sm_90", 128, 64), **wide) == [
        "head_overlaps",
        "solve",
        "operands",
        "states",
        "outputs",
    ]
    assert kernels_of("hebbian", ("sm_90", 128, 64), **wide) == ["states", "outputs"]


def test_a_candidate_goes_without_the_pass() -> None:
    key = ("sm_90", 128, 64)
    number = next(index for index, configs in enumerate(TABLE.candidates[key]) if configs.get("fused") == APART)
    TABLE.use(key, number)
    try:
        assert kernels_of("delta", key) == ["head_overlaps", "solve", "operands", "states", "outputs"]
    finally:
        TABLE.use(key, None)


def test_what_is_fused_is_named_as_the_kernels_name_it() -> None:
    assert all(
        rule in ("delta", "hebbian", "late", "early") and gates in ("none", "head", "channel") for rule, gates in FUSED
    )


@pytest.mark.parametrize(("rule", "cut"), [("delta", False), ("early", False), ("hebbian", True)])
def test_a_factor_of_many_channels_fits_into_no_program(rule: str, cut: bool) -> None:
    key = ("sm_90", 256, 32)
    inputs, _, _ = blank_call(key, rule, "head", tokens=key[2] * table.SHORTEST_SEGMENT * 8)
    with inputs.table.forced(key):
        assert (make_plan(inputs, 1, None, key[2]).segments > 1) == cut
