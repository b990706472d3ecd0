"""Crossings: exact to the token, against a search through every context."""

from __future__ import annotations

from itertools import pairwise

import pytest

from archsearch.analysis.crossings import CURVES, CostCurves, log_contexts, sign_changes
from archsearch.arch import ArchSpec, ModelSpec
from archsearch.costs import CostModel
from archsearch.errors import SpecError
from archsearch.registry import Registry

MODEL = ModelSpec(d_model=64, n_heads=2, channel_mixer="none")


def curves_of(registry: Registry, **patterns: str) -> CostCurves:
    archs = {name: ArchSpec.parse(pattern, registry, MODEL) for name, pattern in patterns.items()}
    return CostCurves(archs, CostModel(registry))


@pytest.mark.parametrize("measure", CURVES)
def test_a_crossing_is_the_first_context_of_the_new_order(registry: Registry, measure: str) -> None:
    curves = curves_of(registry, full="full*2", window="sliding(window=256)*2", linear="kda*2")
    contexts = log_contexts(16, 1200, per_decade=6)
    found = curves.crossings(measure, contexts)
    for crossing in found:
        after = curves.value(crossing.dearer, measure, crossing.context)
        assert after > curves.value(crossing.cheaper, measure, crossing.context)
        assert after == crossing.value
        before = crossing.context - 1
        assert curves.value(crossing.dearer, measure, before) <= curves.value(crossing.cheaper, measure, before)
    seen = {(crossing.cheaper, crossing.dearer, crossing.context) for crossing in found}
    assert seen == brute(curves, measure, 16, 1200)


def brute(curves: CostCurves, measure: str, low: int, high: int) -> set[tuple[str, str, int]]:
    """Every crossing, by looking at every context."""
    found = set()
    for first, second in (("full", "window"), ("full", "linear"), ("window", "linear")):
        last = 0
        for context in range(low, high + 1):
            gap = curves.value(first, measure, context) - curves.value(second, measure, context)
            sign = (gap > 0) - (gap < 0)
            if sign and sign != last and (last or context > low):
                pair = (first, second) if sign < 0 else (second, first)
                found.add((*pair, context))
            last = sign or last
    return found


def test_equal_architectures_never_cross(registry: Registry) -> None:
    curves = curves_of(registry, one="full linear", other="linear full")
    assert all(not curves.crossings(measure, log_contexts(64, 10**6)) for measure in CURVES)


def test_a_window_parts_from_full_attention_behind_its_end(registry: Registry) -> None:
    found = curves_of(registry, full="full", window="sliding(window=256)").crossings("kv_bytes", [16, 64, 512, 4096])
    assert [(one.context, one.cheaper, one.dearer) for one in found] == [(257, "window", "full")]


def test_signs_through_zero() -> None:
    gaps = {1: -1, 2: 0, 3: 0, 4: 2, 5: 1, 6: -3}
    assert sign_changes(lambda at: float(gaps[at]), list(gaps)) == [(4, 1), (6, -1)]
    assert sign_changes(lambda at: 0.0, [1, 10, 100]) == []
    assert sign_changes(lambda at: 1.0, []) == []
    assert sign_changes(lambda at: float(at >= 37), [1, 10, 100]) == [(37, 1)]


def test_the_frame_has_a_row_an_architecture_and_context(registry: Registry) -> None:
    frame = curves_of(registry, full="full*3", linear="linear*3").frame([1000, 2000])
    assert frame[["arch", "context"]].to_numpy().tolist() == [
        ["full", 1000],
        ["full", 2000],
        ["linear", 1000],
        ["linear", 2000],
    ]
    assert frame.loc[1, "kv_bytes"] == 2 * frame.loc[0, "kv_bytes"] == 2 * 3 * 1000 * 2 * 64 * 2
    assert frame.loc[2, "kv_bytes"] == 0


def test_contexts_are_even_on_a_logarithmic_axis() -> None:
    contexts = log_contexts()
    assert (contexts[0], contexts[-1]) == (1_000, 10_000_000)
    ratios = [high / low for low, high in pairwise(contexts)]
    assert max(ratios) < 1.02 * min(ratios)
    with pytest.raises(SpecError, match="must be at least 1"):
        log_contexts(0, 10)
