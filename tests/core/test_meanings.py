"""What options mean is read from the docstring of their class, or from the field's description."""

from __future__ import annotations

from pydantic import Field

from archsearch.mixer import MixerOptions


class Base(MixerOptions):
    """Options that others build on.

    ``width``: channels of a head, which
    may go on in a second line.
    ``a``, ``b``: two numbers; see ``width``.

    ``late``: not explained as a field, but said here.

    A paragraph that ends it, with ``c``: in its middle.
    """

    width: int = 1
    a: int = 0
    b: int = 0
    c: int = 0


class Derived(Base):
    """``a``: another number."""

    told: int = Field(default=0, description="by its field")


class Silent(MixerOptions):
    mute: int = 0


def test_meanings_are_those_of_the_docstring() -> None:
    assert Base.meanings() == {
        "width": "channels of a head, which may go on in a second line",
        "a": "two numbers; see width",
        "b": "two numbers; see width",
        "c": "",
    }


def test_a_derived_class_says_more_and_else() -> None:
    assert Derived.meanings() == {**Base.meanings(), "a": "another number", "told": "by its field"}


def test_nothing_is_made_up() -> None:
    assert Silent.meanings() == {"mute": ""}
