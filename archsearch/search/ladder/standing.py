"""What stands of a ladder in a database: whether the searches under the names of its rungs are its own."""

from __future__ import annotations

from collections.abc import Mapping

from archsearch.errors import SpecError
from archsearch.search.ladder.rungs import rung_name
from archsearch.search.spec import SearchSpec
from archsearch.storage import SearchRecord, Store


def check_standing(spec: SearchSpec, store: Store, *, new: bool) -> None:
    """Raises `SpecError` before anything is driven where a search under the name of a rung is of another ladder, or of
    none, as after its first rung was removed; and where a table of a rung that is begun is another one now."""
    records = {record.name: record for record in store.searches()}
    root = records.get(spec.name)
    if new and root is not None:
        return  # the name is taken, which who creates the search says
    below = root
    for index in range(len(spec.rung)):
        name = rung_name(spec.name, index + 2)
        found = records.get(name)
        if found is not None and not _is_of(found, spec.name, index + 2, below):
            raise SpecError(
                f'"{name}" is there already, and was not begun after the rung below it as it is now: remove it '
                f"(`archsearch rm {name}`; results that are measured are found again), or give the ladder another name"
            )
        below = found
    if root is not None:
        _refuse_changed(spec, SearchSpec.from_dict(root.spec), records)


def _is_of(found: SearchRecord, ladder: str, rung: int, below: SearchRecord | None) -> bool:
    climbed = found.spec.get("climbed")
    if below is None or not isinstance(climbed, Mapping):
        return False
    return (climbed.get("ladder"), climbed.get("rung")) == (ladder, rung) and found.created_at >= below.created_at


def _refuse_changed(spec: SearchSpec, stored: SearchSpec, records: Mapping[str, SearchRecord]) -> None:
    for index, table in enumerate(stored.rung):
        name = rung_name(spec.name, index + 2)
        if name in records and spec.rung[index : index + 1] != (table,):
            raise SpecError(
                f"rung[{index}] is begun, as {name}, and was another one then: put the old table back, or give the "
                "changed ladder another name"
            )
