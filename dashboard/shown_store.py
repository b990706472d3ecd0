"""The store that pages read: every row as they can show it, and a remark on each of which something is left out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Self

from archsearch.analysis.validity import Validity
from archsearch.errors import ArchsearchError, foreign_code
from archsearch.storage import MeasurementRecord, SearchRecord, Store, TrialRecord
from archsearch.storage.samples import Sample

from .foreign import Shape, fitted
from .shapes import (
    ALWAYS_WRITTEN,
    UNREAD,
    ArchShape,
    ObjectivesShape,
    PayloadShape,
    SpecShape,
    TrialShape,
)
from .text import SENTENCE, cell, shortened

MOST_REMARKS = 1_000


class ShownStore(Store):
    """A store that hands out what pages can show, whatever was written.

    What does not have the shape that pages read is left out, what is too long is cut, and `remarks` names it.
    """

    _said: dict[str, str]

    @classmethod
    def open(cls, url: str, *, read_only: bool = True, create: bool = False) -> Self:
        """As `Store.open`."""
        opened = super().open(url, read_only=read_only, create=create)
        opened._said = {}
        return opened

    def remarks(self) -> list[str]:
        """A sentence for each row of which something was left out or cut, those of the storage first."""
        return [*super().remarks(), *list(self._said.values())]

    def search(self, name: str | int) -> SearchRecord:
        return self._shown_search(super().search(name))

    def stored_spec(self, name: str) -> Mapping[str, Any]:
        """The spec of a search as it was stored, whatever it holds: to be read by `SearchSpec`, not to be shown."""
        return super().search(name).spec

    def searches(self) -> list[SearchRecord]:
        return [self._shown_search(record) for record in super().searches()]

    def trials(
        self,
        search_id: int,
        *,
        states: Collection[str] | None = None,
        kinds: Collection[str] | None = None,
        digest: str | None = None,
    ) -> list[TrialRecord]:
        found = super().trials(search_id, states=states, kinds=kinds, digest=digest)
        return [self._trial(record) for record in found]

    def trial(self, trial_id: int) -> TrialRecord:
        record = self._trial(super().trial(trial_id))
        search = self.search(record.search_id)
        sound = (self._measurement(search, record, one) for one in record.measurements)
        return replace(record, measurements=tuple(one for one in sound if one is not None))

    def sample(self, name: str, candidates: int) -> Sample:
        found = super().sample(name, candidates)
        return replace(
            found,
            archs={digest: self._arch(f"architecture {digest}", arch) for digest, arch in found.archs.items()},
            params={
                digest: self._fitted(f"choices of {digest}", TrialShape, {"params": params})["params"]
                for digest, params in found.params.items()
            },
        )

    def _shown_search(self, record: SearchRecord) -> SearchRecord:
        who = f"search {cell(record.name)}"
        spec = self._fitted(f"the spec of {who}", SpecShape, record.spec, given=True)
        objectives = self._fitted(who, ObjectivesShape, {"objectives": _listed(record.objectives)})["objectives"]
        return replace(
            record, spec=spec, objectives=self._distinct(who, objectives), reason=self._cut(who, record.reason)
        )

    def _distinct(self, who: str, objectives: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
        """The objectives whose columns are no other's: each has its name, and three more that begin with it."""
        kept, taken = [], set[str]()
        for one in objectives:
            columns = {f"{one['name']}{part}" for part in ("", "_std", "_min", "_max")}
            if columns & taken:
                self._say(f"{who}, {one['name']}", f"{who} has several objectives {cell(one['name'])}: one is shown")
            else:
                kept.append(one)
                taken |= columns
        return tuple(kept)

    def _trial(self, record: TrialRecord) -> TrialRecord:
        who = f"trial {record.id}"
        stored = {name: getattr(record, name) for name in ("params", "violations", "costs")}
        sound = self._fitted(who, TrialShape, {**stored, "seeds": _listed(record.seeds)})
        return replace(
            record,
            arch=self._arch(who, record.arch),
            reason=self._cut(who, record.reason),
            params=sound["params"],
            violations=sound["violations"],
            costs=sound["costs"],
            seeds=tuple(sound["seeds"]),
        )

    def _arch(self, who: str, arch: object) -> Mapping[str, Any]:
        """An architecture that fits as a whole, or one without layers."""
        found, refused = fitted(ArchShape, arch)
        if found is not None and not refused:
            return found.model_dump()
        self._say(f"{who}, architecture", f"{who}: its architecture cannot be read ({', '.join(refused)})")
        return UNREAD

    def _measurement(
        self, search: SearchRecord, record: TrialRecord, one: MeasurementRecord
    ) -> MeasurementRecord | None:
        who = f"trial {record.id}, {cell(one.task)}, seed {one.seed}"
        found, refused = fitted(PayloadShape, one.payload)
        if found is None:
            self._leave_out(who, ", ".join(refused))
            return None
        missing = [name for name in ALWAYS_WRITTEN if name not in one.payload]
        self._say_refused(who, [*refused, *missing])
        sound = replace(one, payload=found.model_dump())
        try:
            with foreign_code(who, "scale"):
                _ = Validity.of(search, replace(record, measurements=(sound,))).sentence
        except ArchsearchError as error:  # nobody could say what its figures are valid for
            self._leave_out(who, str(error))
            return None
        return sound

    def _leave_out(self, who: str, why: str) -> None:
        self._say(who, f"{who}: the measurement cannot be read and is left out ({cell(why, 200)})")

    def _fitted(self, who: str, shape: type[Shape], data: object, *, given: bool = False) -> dict[str, Any]:
        """`data` in its shape, or the shape's defaults; of what is `given` alone where that is wanted."""
        found, refused = fitted(shape, data)
        self._say_refused(who, refused)
        values = (found or shape()).model_dump(exclude_unset=given)
        return {name: value for name, value in values.items() if not given or value is not None}

    def _say_refused(self, who: str, refused: list[str]) -> None:
        if refused:
            self._say(who, f"{who}: {', '.join(map(cell, refused))} cannot be read and is left out")

    def _cut(self, who: str, text: object) -> str:
        given = "" if text is None else str(text)
        if len(given) > SENTENCE:
            self._say(f"{who}, reason", f"{who}: its reason of {len(given):,} characters is cut")
        return shortened(given, SENTENCE)

    def _say(self, who: str, remark: str) -> None:
        if len(self._said) < MOST_REMARKS:
            self._said[who] = remark


def _listed(values: object) -> object:
    """What the storage hands out as a tuple, as JSON has it."""
    return list(values) if isinstance(values, tuple) else values
