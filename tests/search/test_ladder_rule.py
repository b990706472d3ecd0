"""How a pattern is carried up a ladder: units repeat, anything else is stretched in place, widths keep their share."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from search_fakes import fake_registry

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.errors import SpecError
from archsearch.search.ladder.stretch import carried, stretched, unit_of
from archsearch.search.tables.space import SpaceTable

REGISTRY = fake_registry()
MIXERS = ["dense", "window", "recurrent"]
FREE = SpaceTable.model_validate({"mixers": MIXERS})
PERIODIC = SpaceTable.model_validate({"mixers": MIXERS, "pattern": "periodic", "period": 3})
RATIO = SpaceTable.model_validate({"mixers": MIXERS, "pattern": "ratio", "ratios": [1, 3]})


def arch(text: str, **model: object) -> ArchSpec:
    given = {"d_model": 16, "n_heads": 2, "channel_mixer": "none"} | model
    return ArchSpec.parse(text, REGISTRY, ModelSpec.model_validate(given))


def letters(layers: Sequence[object]) -> str:
    return "".join(layer.mixer[0] for layer in layers)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "space", "unit"),
    [
        ("dense*4", FREE, 1),
        ("dense window dense window", FREE, 2),
        ("dense window dense window dense", FREE, 2),
        ("dense window window", FREE, 0),
        ("dense window recurrent dense", FREE, 0),
        ("dense window recurrent dense", PERIODIC, 3),
        ("dense window window", PERIODIC, 3),
        ("window*3 dense window", RATIO, 4),
        ("window dense window", RATIO, 2),
    ],
)
def test_a_unit_is_the_shortest_that_the_space_allows_or_that_stands_there_twice(
    text: str, space: SpaceTable, unit: int
) -> None:
    assert unit_of(arch(text).layers, space) == unit


@pytest.mark.parametrize(
    ("text", "n_layers", "unit", "then"),
    [
        ("dense window recurrent", 7, 3, "dwrdwrd"),
        ("window*3 dense window", 8, 4, "wwwdwwwd"),
        ("dense window recurrent", 6, 0, "ddwwrr"),
        ("dense window recurrent", 5, 0, "ddwwr"),
        ("dense window recurrent dense", 4, 0, "dwrd"),
    ],
)
def test_units_repeat_and_are_cut_and_others_are_stretched(text: str, n_layers: int, unit: int, then: str) -> None:
    assert letters(stretched(arch(text).layers, n_layers, unit)) == then


@pytest.mark.parametrize("n_layers", range(5, 24))
def test_a_stretched_pattern_keeps_order_ends_and_shares(n_layers: int) -> None:
    layers = arch("dense window recurrent window dense").layers
    places = [index * 5 // n_layers for index in range(n_layers)]
    found = stretched(layers, n_layers, 0)
    assert found == tuple(layers[place] for place in places)
    assert (found[0], found[-1]) == (layers[0], layers[-1])
    assert places == sorted(places)
    assert all(abs(places.count(place) - n_layers / 5) < 1 for place in range(5))


def test_a_pattern_is_not_carried_to_fewer_layers() -> None:
    with pytest.raises(SpecError, match="3 layers cannot be carried to 2"):
        stretched(arch("dense window recurrent").layers, 2, 0)


def test_own_widths_keep_their_share_of_the_backbone() -> None:
    small = arch("dense:ffn_dim=32 window:ffn_dim=0 recurrent", d_model=48, channel_mixer="swiglu", ffn_dim=128)
    large = ModelSpec(d_model=96, n_heads=2, channel_mixer="swiglu", ffn_dim=256)
    assert [layer.ffn_dim for layer in carried(small, large, 3, 0).layers] == [64, 0, None]
    assert [layer.ffn_dim for layer in carried(small, small.model, 3, 0).layers] == [32, 0, None]
    odd = ModelSpec(d_model=96, n_heads=2, channel_mixer="swiglu", ffn_dim=200)
    assert carried(small, odd, 3, 0).layers[0].ffn_dim == 48


def test_widths_of_a_mixture_stay_what_its_experts_can_share() -> None:
    moe = {"channel_mixer": "moe", "n_experts": 4, "experts_per_token": 3}
    small = arch("dense:ffn_dim=48 window", expert_dim=32, **moe)
    large = ModelSpec.model_validate({"d_model": 32, "n_heads": 2, "expert_dim": 64, **moe})
    there = carried(small, large, 2, 0)
    assert there.layers[0].ffn_dim == 96
    assert there.model.of_layer(there.layers[0]).expert_dim == 32
