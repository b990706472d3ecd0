"""Options that came later: at their defaults layers are written, and found again, as before there were any."""

from __future__ import annotations

from typing import ClassVar

from archsearch.arch import digest_of
from archsearch.mixer import MixerOptions
from archsearch.registry import Registry


class Before(MixerOptions):
    window: int = 8


class After(Before):
    later: ClassVar[tuple[str, ...]] = ("sinks",)

    sinks: int = 0


def test_a_later_option_at_its_default_is_not_written() -> None:
    assert digest_of(After().model_dump(mode="json")) == digest_of(Before().model_dump(mode="json"))
    assert After(sinks=2).model_dump() == {"window": 8, "sinks": 2}
    for options in (After(), After(sinks=2), After(window=4)):
        assert After.model_validate(options.model_dump(mode="json")) == options


def test_every_later_option_of_the_built_in_mixers_is_one_of_theirs(installed: Registry) -> None:
    named = {(plugin.name, name) for plugin in installed.mixers() for name in plugin.options.later}
    assert ("ssm", "rank") in named
    known = {(plugin.name, name) for plugin in installed.mixers() for name in plugin.options.model_fields}
    assert named <= known
