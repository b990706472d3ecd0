"""Testing for plugin authors: the conformance suite to inherit, and a toy mixer to copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from archsearch.testing.conformance import MixerConformance

__all__ = ["MixerConformance"]


def __getattr__(name: str) -> Any:
    # the suite imports torch and pytest, which the toy next to it must not
    if name == "MixerConformance":
        from archsearch.testing.conformance import MixerConformance

        return MixerConformance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
