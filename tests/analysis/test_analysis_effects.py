"""Effects: what is built into synthetic candidates comes out, with errors that hold as often as they claim."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from archsearch.analysis.composition import composition
from archsearch.analysis.contrasts import clear, contrast, mean_error
from archsearch.analysis.designs import Designs
from archsearch.analysis.effects import decay_effect, place_effect, share_effect
from archsearch.errors import SpecError

FULL = {"mixer": "full", "options": {"rope": 0.0}}


def linear(decay: str = "none", form: str = "none", update: str = "delta") -> dict[str, Any]:
    """A stored layer with a decay."""
    return {"mixer": "linear", "options": {"update": update, "decay": decay, "decay_form": form}}


def arch(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"model": {}, "layers": list(layers)}


def is_full(mixer: str) -> bool:
    return mixer == "full"


def designs_of(*archs: dict[str, Any]) -> Designs:
    return Designs.of(list(archs))


def test_depths_that_differ_are_refused() -> None:
    with pytest.raises(SpecError, match="2 depths"):
        designs_of(arch(FULL), arch(FULL, FULL))


def test_changes_are_found_as_by_hand() -> None:
    kinds = [FULL, linear("head"), linear("channel")]
    archs = [arch(*layers) for layers in itertools.product(kinds, repeat=3)]
    designs = designs_of(*archs)
    places, first, second = designs.changes(np.zeros_like(designs.codes))
    found = {
        (place, *sorted((a, b))) for place, a, b in zip(places.tolist(), first.tolist(), second.tolist(), strict=True)
    }
    expected = set()
    for a, b in itertools.combinations(range(len(archs)), 2):
        differing = [i for i in range(3) if archs[a]["layers"][i] != archs[b]["layers"][i]]
        if len(differing) == 1:
            expected.add((differing[0], a, b))
    assert found == expected
    assert len(places) == len(expected)


def test_candidates_of_other_backbones_and_layers_of_other_widths_are_told_apart() -> None:
    small, large = ({"model": {"n_heads": heads}} for heads in (2, 4))
    wide = {**FULL, "ffn_dim": 64}
    designs = designs_of(
        arch(FULL, FULL) | small, arch(linear(), FULL) | large, arch(linear(), FULL) | small, arch(wide, FULL) | small
    )
    assert designs.layers == (FULL, linear(), wide)
    _, first, second = designs.changes(np.zeros_like(designs.codes))
    assert {tuple(sorted(pair)) for pair in zip(first.tolist(), second.tolist(), strict=True)} == {
        (0, 2),
        (0, 3),
        (2, 3),
    }
    swapped = designs_of(arch(FULL, linear()) | small, arch(linear(), FULL) | large, arch(linear(), FULL) | small)
    *_, first, second = swapped.swaps()
    assert [sorted(pair) for pair in zip(first.tolist(), second.tolist(), strict=True)] == [[0, 2]]


def test_a_fit_holds_the_backbone_equal() -> None:
    kinds, found, values = (FULL, linear()), [], []
    for number in range(80):
        large = number % 4 == 0
        layers = [kinds[0] if number % 8 < (6 if large else 2) else kinds[1], kinds[number // 8 % 2]]
        found.append(arch(*layers) | {"model": {"n_heads": 4 if large else 2}})
        values.append(10.0 * large + sum(layer is FULL for layer in layers))
    fit = composition(designs_of(*found), np.array(values), np.array([1.0, -1.0]))
    assert fit.mean == pytest.approx(1.0)


def test_swaps_are_found_as_by_hand() -> None:
    kinds = [FULL, linear("head"), linear("channel")]
    archs = [arch(*layers) for layers in itertools.product(kinds, repeat=4)][::2]
    designs = designs_of(*archs)
    found = {
        (low, high, *sorted((a, b)))
        for low, high, a, b in zip(*(part.tolist() for part in designs.swaps()), strict=True)
    }
    expected = set()
    for (a, one), (b, other) in itertools.combinations(enumerate(archs), 2):
        differing = [i for i in range(4) if one["layers"][i] != other["layers"][i]]
        if len(differing) == 2:
            i, j = differing
            if one["layers"][i] == other["layers"][j] and one["layers"][j] == other["layers"][i]:
                expected.add((i, j, a, b))
    assert found == expected
    assert len(designs.swaps()[0]) == len(expected)


@pytest.mark.parametrize("archs", [[], [arch(FULL)], [arch(FULL, linear())]], ids=["none", "one-layer", "one"])
def test_too_few_candidates_have_no_pairs(archs: list[dict[str, Any]]) -> None:
    designs = Designs.of(archs)
    values = np.ones(len(archs))
    assert share_effect(designs, values, is_full).changes.empty
    assert decay_effect(designs, values).changes.empty
    found = place_effect(designs, values, is_full)
    assert found.later.pairs == 0
    assert found.moves.empty


def test_share_levels_and_one_more_full_layer() -> None:
    archs = [arch(*layers) for layers in itertools.product([FULL, linear("head"), linear("none")], repeat=4)]
    designs = Designs.of(archs)
    fulls = np.array([sum(layer is FULL for layer in one["layers"]) for one in archs], dtype=float)
    effect = share_effect(designs, 0.25 * fulls, is_full)
    assert effect.levels[["level", "mean", "candidates"]].to_numpy().tolist() == [
        ["0 of 4", 0.0, 16],
        ["1 of 4", 0.25, 32],
        ["2 of 4", 0.5, 24],
        ["3 of 4", 0.75, 8],
        ["4 of 4", 1.0, 1],
    ]
    by_method = effect.changes.set_index("method")
    assert by_method["mean"].to_dict() == pytest.approx({"pairs": 0.25, "fit": 0.25})
    assert by_method["error"].to_dict() == pytest.approx({"pairs": 0.0, "fit": 0.0}, abs=1e-9)
    assert by_method.loc["pairs", "count"] == 4 * 2 * 27


def test_decay_pairs_differ_in_the_decay_alone() -> None:
    head, channel = linear("head", "mamba2"), linear("channel", "kda")
    other = linear("channel", "gla", update="hebbian")
    archs = [arch(FULL, head), arch(FULL, channel), arch(FULL, other), arch(head, head), arch(channel, head)]
    values = np.array([0.5, 0.75, 0.0, 0.25, 0.5])
    effect = decay_effect(Designs.of(archs), values)
    assert effect.levels[["level", "mean", "candidates"]].to_numpy().tolist() == [
        ["head", 0.375, 2],
        ["channel", 0.375, 2],
    ]
    assert effect.changes.to_numpy().tolist() == [["head", "channel", "pairs", 0.25, 0.0, 2, True]]


def test_decay_pairs_skip_what_has_no_value() -> None:
    archs = [arch(linear("none")), arch(linear("head")), arch(linear("channel"))]
    effect = decay_effect(Designs.of(archs), np.array([0.5, np.nan, 0.75]))
    assert effect.changes[["before", "after", "mean"]].to_numpy().tolist() == [["none", "channel", 0.25]]
    assert effect.levels["level"].tolist() == ["none", "channel"]


def test_moving_the_full_layer_later() -> None:
    one, two = linear("head"), linear("channel")
    archs = [arch(FULL, one, two), arch(one, FULL, two), arch(two, one, FULL), arch(one, two, FULL)]
    values = np.array([0.1, 0.4, 0.6, 0.9])
    effect = place_effect(Designs.of(archs), values, is_full)
    assert effect.moves[["low", "high", "pairs"]].to_numpy().tolist() == [[0, 1, 1], [0, 2, 1], [1, 2, 1]]
    assert effect.moves["mean"].tolist() == pytest.approx([0.3, 0.5, 0.5])
    assert effect.later.mean == pytest.approx((0.3 + 0.5 + 0.5) / 3)
    assert effect.levels["level"].tolist() == ["layer 1", "layer 2", "layer 3"]


def test_contrast_of_disjoint_pairs_has_the_textbook_error() -> None:
    values = np.array([0.0, 1.0, 0.0, 3.0, 0.0, 2.0])
    found = contrast(values, np.array([0, 2, 4]), np.array([1, 3, 5]))
    assert (found.mean, found.pairs, found.candidates) == (2.0, 3, 6)
    assert found.error == pytest.approx(np.std([1, 3, 2], ddof=1) / np.sqrt(3))


def test_contrast_of_pairs_that_share_a_candidate_is_less_sure() -> None:
    rng = np.random.default_rng(0)
    misses = 0
    for _ in range(400):
        values = rng.normal(size=33)
        found = contrast(values, np.repeat(np.arange(3), 10), np.arange(3, 33))
        misses += abs(found.mean) > 2.0 * found.error
    assert misses / 400 < 0.25  # three shared candidates tell little; as if independent it would miss in half
    naive = contrast(values, np.arange(15), np.arange(15, 30))
    assert naive.pairs == 15


@pytest.mark.parametrize(
    ("mean", "error", "freedom", "expected"),
    [
        (2.0, 1.0, 1, False),
        (2.0, 1.0, 100, True),
        (1.9, 1.0, 1000, False),
        (0.0, 0.0, 5, False),
        (1.0, np.nan, 5, False),
    ],
    ids=["two-pairs", "many", "below", "nothing", "unknown-error"],
)
def test_clear_is_students_bound(mean: float, error: float, freedom: int, expected: bool) -> None:
    assert clear(mean, error, freedom) is expected


def test_contrast_of_one_pair_has_no_error() -> None:
    found = contrast(np.array([1.0, 2.0]), np.array([0]), np.array([1]))
    assert found.mean == 1.0
    assert np.isnan(found.error)


def test_mean_error_of_few() -> None:
    assert np.isnan(mean_error(np.array([]))[0])
    assert mean_error(np.array([2.0]))[0] == 2.0
    assert np.isnan(mean_error(np.array([2.0]))[1])


def test_composition_recovers_what_layers_add() -> None:
    rng = np.random.default_rng(0)
    kinds = [FULL, linear("head"), linear("channel"), {"mixer": "sliding", "options": {}}]
    archs = [arch(*(kinds[index] for index in rng.integers(0, 4, 6))) for _ in range(300)]
    designs = Designs.of(archs)
    worth = {"full": 0.3, "head": 0.1, "channel": 0.15, "": 0.0}
    values = np.array(
        [
            sum(worth[str(layer["options"].get("decay", "full" if layer is FULL else ""))] for layer in one["layers"])
            for one in archs
        ]
    ) + rng.normal(scale=0.02, size=300)
    effect = decay_effect(designs, values).changes.set_index(["before", "after", "method"])
    fit = effect.loc[("head", "channel", "fit")]
    assert abs(fit["mean"] - 0.05) < 3 * fit["error"] < 0.01
    assert fit["count"] == 300


def test_composition_says_nothing_of_too_few_or_of_what_never_varies() -> None:
    designs = Designs.of([arch(FULL, linear("head"))] * 40)
    weights = np.array([1.0, -1.0])
    assert composition(designs, np.linspace(0, 1, 40), weights).candidates == 0
    few = Designs.of([arch(FULL, FULL), arch(FULL, linear("head")), arch(linear("head"), linear("head"))])
    assert composition(few, np.array([1.0, 2.0, 3.0]), weights).candidates == 0
