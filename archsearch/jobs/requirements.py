"""Requirements: which of those that a package names are not met by what is installed here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution

from packaging.markers import UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement


def missing(requirements: Iterable[str]) -> list[str]:
    """Those of `requirements` (PEP 508) that pip would have to install here: the package is not there, or in another
    version, or what one of its extras asks for is so. One for another system or Python is none of them."""
    found = []
    for text in requirements:
        try:
            met = _met(Requirement(text), extra="")
        except (InvalidRequirement, UndefinedEnvironmentName):
            met = False  # pip says what is wrong with it
        if not met:
            found.append(text)
    return found


def _met(asked: Requirement, *, extra: str) -> bool:
    if asked.marker is not None and not asked.marker.evaluate({"extra": extra}):
        return True
    try:
        held = distribution(asked.name)
    except PackageNotFoundError:
        return False
    if not asked.specifier.contains(held.version, prereleases=True):
        return False
    return all(_met(one, extra=name) for name in asked.extras for one in _of_extra(held.requires or (), name))


def _of_extra(requires: Iterable[str], extra: str) -> Iterator[Requirement]:
    """What an installed package asks for with that extra alone: what it always asks for is there."""
    for text in requires:
        one = Requirement(text)
        if one.marker is not None and not one.marker.evaluate({"extra": ""}) and one.marker.evaluate({"extra": extra}):
            yield one
