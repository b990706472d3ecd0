"""Changes: in what a search that goes on differs from what it began with, and what of that is let through."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from archsearch.costs import Budget
from archsearch.errors import SpecError
from archsearch.search.spec import SearchSpec
from archsearch.storage.spec_keys import FREE, GROWING

_ABSENT = object()


@dataclass(frozen=True, kw_only=True)
class Change:
    """One key of the spec whose value is another one now; None where the key is absent."""

    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key} was {_shown(self.before)} and is {_shown(self.now)}"


def check_growth(stored: SearchSpec, given: SearchSpec, allowed: Collection[str]) -> None:
    """Raises `SpecError` where `given` differs from `stored` by more than growth of keys that `allowed` names, of
    `GROWING`: it lists every other difference, key by key, with the remedy.
    """
    changes = [change for change in _changes(stored.to_json(), given.to_json()) if not _among(change.key, FREE)]
    refused = [change for change in changes if not _grows(change, stored, given)]
    if refused:
        raise SpecError(
            f'the search "{stored.name}" began with another spec: {"; ".join(map(str, refused))}: '
            "put the old values back, or give the changed search another name"
        )
    unstated = [change for change in changes if _among(change.key, GROWING) not in allowed]
    if unstated:
        raise SpecError(
            f'the search "{stored.name}" began with another spec: {"; ".join(map(str, unstated))}: '
            "add --grow to go on with the new values, or put the old ones back"
        )


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> Iterator[Change]:
    for key in dict.fromkeys([*before, *now]):
        old, new = before.get(key, _ABSENT), now.get(key, _ABSENT)
        path = f"{where}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _changes(old, new, f"{path}.")
        elif old != new:
            yield Change(key=path, before=_plain(old), now=_plain(new))


def _among(key: str, keys: Collection[str]) -> str | None:
    """The one of `keys` that `key` is, or lies in."""
    return next((one for one in keys if key == one or key.startswith(f"{one}.")), None)


def _grows(change: Change, stored: SearchSpec, given: SearchSpec) -> bool:
    key = _among(change.key, GROWING)
    if key == "budget":
        return _wider(stored, given)
    if key in ("search.concurrency", "search.early_stop", "search.second_seeds", "rung"):
        return True
    return key is not None and change.now > change.before


def _wider(stored: SearchSpec, given: SearchSpec) -> bool:
    """Whether every candidate within the stored budget is within the given one."""
    context = stored.objectives.context
    before, now = (dict(Budget.parse(spec.budget, context=context).limits) for spec in (stored, given))
    return all(term in before and limit >= before[term] for term, limit in now.items())


def _plain(value: Any) -> Any:
    return None if value is _ABSENT else value


def _shown(value: Any) -> str:
    return "not given" if value is None else json.dumps(value, default=str)


@dataclass(frozen=True, kw_only=True)
class SourceChange:
    """A part of a search (a mixer, a task, the core) whose source is another one than the stored results had."""

    part: str
    before: tuple[str, str] | None
    now: tuple[str, str] | None

    def __str__(self) -> str:
        before, now = (" ".join(made) if made else "nothing recorded" for made in (self.before, self.now))
        return f"{self.part} had {before}, has {now}"


def source_changes(stored: Mapping[str, tuple[str, str]], now: Mapping[str, tuple[str, str]]) -> list[SourceChange]:
    """The parts in use whose (version, digest) differ from those that a search has recorded, by name."""
    return [
        SourceChange(part=name, before=stored.get(name), now=made)
        for name, made in sorted(now.items())
        if stored.get(name) != made
    ]


def refuse_changed_source(name: str, changes: Collection[SourceChange]) -> None:
    """Raises `SpecError` for a search that would go on with other source than it began with."""
    if changes:
        raise SpecError(
            f'what computes the results of "{name}" has changed since it began: {"; ".join(map(str, changes))}: '
            f"put the old source back, or `archsearch resume {name} --retrain` sets the old results aside "
            "(they stay to be read) and trains again"
        )


def affected(
    arch: Mapping[str, Any], changes: Collection[SourceChange], teacher: Collection[str] = ()
) -> list[SourceChange]:
    """The changes that a trial's results depend on, by its stored architecture: those of its mixers and the teacher's,
    of any task and of the core."""
    mixers = {f"mixer:{name}" for name in (*(layer.get("mixer") for layer in arch.get("layers", ())), *teacher)}
    return [change for change in changes if not change.part.startswith("mixer:") or change.part in mixers]
