"""A search over options that say nothing beside others: they are left at their defaults, no layer is drawn twice."""

from __future__ import annotations

from typing import Any

import pytest

from archsearch.errors import OptionsError
from archsearch.layer import LayerSpec
from archsearch.registry import Registry
from archsearch.search.choices import MixerChoices, mixer_choices


def choices(name: str, registry: Registry, **narrowed: Any) -> MixerChoices:
    def accepts(layer: LayerSpec) -> None:
        pass

    return mixer_choices(name, {option: tuple(values) for option, values in narrowed.items()}, registry, accepts)


def test_an_option_of_some_choices_is_drawn_for_those_alone(installed: Registry) -> None:
    sizes = {"block_size": [4], "window": [8], "rope": [0.0]}
    entry = choices("compressed", installed, top_k=[0, 8], index_heads=[2], index_dim=[8, 16], **sizes)
    found = [(layer.options.top_k, layer.options.index_heads, layer.options.index_dim) for layer in entry.layers]  # type: ignore[attr-defined]
    assert found == [(0, 4, 16), (8, 2, 8), (8, 2, 16)]
    assert entry.reference == entry.layers[0]
    assert entry.choices_of(entry.layers[0]) == {"top_k": 0}
    assert entry.choices_of(entry.layers[2]) == {"top_k": 8, "index_dim": 16}


def test_what_is_searched_by_default_holds_no_layer_twice(installed: Registry) -> None:
    for name in ("hca", "topk", "static"):
        entry = choices(name, installed)
        read = {tuple(pair for pair in one.options if pair[0] not in one.options.unread()) for one in entry.layers}
        assert len(read) == len(entry.layers)
    (only,) = choices("topk", installed, rope=[0.0]).layers
    assert (only.options.index_heads, only.options.index_dim) == (4, 16)  # type: ignore[attr-defined]


def test_a_value_beside_another_that_does_not_read_it_is_no_error(installed: Registry) -> None:
    entry = choices("full", installed, rope=[0.0, 0.5], rope_base=[500.0, 1e6])
    found = [(layer.options.rope, layer.options.rope_base) for layer in entry.layers]  # type: ignore[attr-defined]
    assert found == [(0.0, 10000.0), (0.5, 500.0), (0.5, 1e6)]


def test_a_value_that_no_candidate_would_read_is_refused(installed: Registry) -> None:
    assert len(choices("hca", installed, top_k=[0], index_heads=[4]).layers) > 1
    with pytest.raises(OptionsError, match=r"space.hca.index_heads = 2: .* says nothing of top_k=0: use top_k above 0"):
        choices("hca", installed, top_k=[0], index_heads=[4, 2])
