"""The page of the contract names every part of it."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
from doc_pages import DOCS

from archsearch.hookspecs import HOOKS
from archsearch.layer import LayerInfo
from archsearch.mixer import MixerPlugin, StateTensor, Traffic
from archsearch.model import Context, Mixer, MixerState


def public(cls: type) -> set[str]:
    """What a class defines itself for others to use."""
    own = {name for name, value in vars(cls).items() if callable(value) or isinstance(value, property | classmethod)}
    said = set(inspect.get_annotations(cls))
    return {name for name in own | said if not name.startswith("_")}


def fields(cls: type) -> set[str]:
    """The fields of a dataclass that are its own."""
    return {field.name for field in dataclasses.fields(cls) if not field.name.startswith("_")}


PARTS = {
    "MixerPlugin": public(MixerPlugin),
    "Mixer": public(Mixer),
    "MixerState": public(MixerState) | fields(MixerState),
    "Context": public(Context) | fields(Context),
    "LayerInfo": public(LayerInfo) | fields(LayerInfo),
    "StateTensor": fields(StateTensor),
    "Traffic": fields(Traffic),
    "hooks": set(HOOKS),
}


@pytest.mark.parametrize("part", PARTS)
def test_every_part_is_named(part: str) -> None:
    page = (DOCS / "contract.md").read_text()
    assert PARTS[part]
    assert sorted(name for name in PARTS[part] if name not in page) == []
