"""The window's kernels on the card against explicit products in float64: the band, and one token over its ring."""

from __future__ import annotations

import pytest
import torch
from archsearch_plugins.sliding.ops import window_attention, window_attention_step
from archsearch_plugins.sliding.triton import launch
from archsearch_plugins.sliding.triton.table import TABLE
from gpu_checks import LONG, MANY, PACKED, Op, check, check_past, on_card, rows_of, uneven
from test_sliding_kernels import Case, Held, make_inputs
from torch import Tensor

from archsearch.kernels import Key
from archsearch.ops.laid_out import LaidOut

NAMES = ("q", "k", "v")
SIZES = [(1, 0), (7, 5), (64, 0), (150, 70), (3000, 1)]
rows = pytest.mark.parametrize("key", rows_of(TABLE))
proves = pytest.mark.proves(TABLE)


def held(case: Case, batch: int = 2) -> dict[str, Tensor]:
    return on_card(dict(zip(NAMES, make_inputs(case, batch=batch), strict=True)), NAMES)


def op(impl: str, window: int, sinks: int, bounds: Tensor | None = None) -> Op:
    def run(inputs: dict[str, Tensor]) -> tuple[Tensor]:
        q, k, v = (inputs[name] for name in NAMES)
        return (window_attention(LaidOut(q, k, v, cu_seqlens=bounds), window=window, sinks=sinks, impl=impl),)

    return run  # type: ignore[return-value]


def check_case(key: Key, case: Case, *, bounds: Tensor | None = None, exact: str = "reference") -> None:
    inputs = held(case, batch=1 if bounds is not None or case.tokens > 5000 else 2)
    bounds = None if bounds is None else bounds.to(inputs["q"].device)
    with TABLE.forced(key):
        check(
            op("triton", case.window, case.sinks, bounds),
            op(exact, case.window, case.sinks, bounds),
            inputs,
            trained=NAMES,
        )


@pytest.mark.sample(tokens=65, window=7)
@rows
@proves
@pytest.mark.parametrize("tokens", [1, 15, 63, 64, 65, 100, 256, 1000])
@pytest.mark.parametrize(("window", "sinks"), SIZES, ids=[f"W{window}-S{sinks}" for window, sinks in SIZES])
def test_lengths(key: Key, tokens: int, window: int, sinks: int) -> None:
    check_case(key, Case(tokens, window, sinks, 4, 2, key[1]))


@pytest.mark.sample(queries=40)
@rows
@proves
@pytest.mark.parametrize("queries", [0, 40])
def test_narrower_heads(key: Key, queries: int) -> None:
    check_case(key, Case(100, 33, 3, 2, 1, key[1] - 4, queries))


@rows
@proves
def test_more_tokens_than_16_bits_count(key: Key) -> None:
    check_case(key, Case(LONG, 500, 4, 2, 1, key[1]), exact="chunkwise")


@rows
@proves
def test_many_packed_sequences(key: Key) -> None:
    check_case(key, Case(PACKED, 50, 4, 4, 2, key[1]), bounds=uneven(PACKED, MANY))


@pytest.mark.sample(fewest=32)
@rows
@proves
@pytest.mark.parametrize("fewest", [1024, 32], ids=["whole", "sinks-in-parts"])
def test_filled_rows_of_a_cache(key: Key, monkeypatch: pytest.MonkeyPatch, fewest: int) -> None:
    monkeypatch.setattr(launch, "_FEWEST_ROWS", fewest)
    case = Case(300, 40, 70, 4, 2, key[1], 170)
    tensors, lengths = Held(case, (300, 171, 220)).inputs()
    inputs = on_card({**dict(zip(NAMES, tensors, strict=True)), "lengths": lengths}, NAMES)

    def run(impl: str) -> Op:
        options = {"window": case.window, "sinks": case.sinks, "impl": impl}
        return lambda x: (window_attention(LaidOut(*(x[name] for name in NAMES), lengths=x["lengths"]), **options),)

    with TABLE.forced(key):
        check(run("triton"), run("reference"), inputs, trained=NAMES)


@rows
@proves
def test_queries_of_the_sinks_in_parts(key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_FEWEST_ROWS", 32)
    check_case(key, Case(300, 40, 70, 4, 2, key[1]))


@rows
@proves
def test_the_past_does_not_see_the_future(key: Key) -> None:
    with TABLE.forced(key):
        check_past(op("triton", 70, 3), held(Case(300, 70, 3, 4, 2, key[1])), NAMES, 177)


@pytest.mark.sample(group=2)
@rows
@proves
@pytest.mark.parametrize("group", [1, 2, 16])
def test_step(key: Key, group: int) -> None:
    draw = torch.Generator().manual_seed(3)
    q = torch.randn(3, 2 * group, key[1], generator=draw)
    k, v = torch.randn(2, 3, 700, 2, key[1], generator=draw)
    inputs = on_card({"q": q, "k": k, "v": v, "lengths": torch.tensor([700, 5000, 77])}, NAMES)

    def stepping(impl: str) -> Op:
        return lambda x: (window_attention_step(x["q"], x["k"], x["v"], x["lengths"], impl=impl),)

    with TABLE.forced(key):
        check(stepping("triton"), stepping("reference"), inputs)
