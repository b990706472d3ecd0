"""Conformance of a mixer in words and as a table: which laws hold, in which form, and what they were tried on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from archsearch.errors import SpecError
from archsearch.evidence.conformance import ANY, ConformanceRecord, package_of, records_of, tried_source
from archsearch.mixer import MixerPlugin

COMMAND = "pytest -p archsearch.testing.recording --conformance-device cuda --write-conformance"
"""Writes the records on a card, run over the tests of the plugin."""

_OURS = "archsearch_plugins."
_BY_TESTS = "The tests of archsearch try every law of the contract on this mixer, on a CPU with every change"
_UNKNOWN = (
    "The laws of the contract are for the plugin's own tests to try (archsearch.testing.MixerConformance), and whether "
    "they do is not known here"
)
_NO_CARD = "Nothing was recorded on a card."


@dataclass(frozen=True, kw_only=True)
class Conformance:
    """What is recorded of one mixer. ``short`` is for a cell, ``headline`` a sentence; ``failures`` and ``notes`` are
    sentences, and ``table`` has a row a law and a column a form."""

    short: str
    headline: str
    failures: Sequence[str] = ()
    notes: Sequence[str] = ()
    table: pd.DataFrame


def conformance_of(mixer: MixerPlugin[Any]) -> Conformance:
    """What the records in the plugin's package say of a mixer."""
    try:
        known = records_of(mixer)
    except SpecError as error:
        return Conformance(short="cannot be read", headline=str(error), table=pd.DataFrame())
    if not known:
        return _unrecorded(mixer)
    laws = list(dict.fromkeys(law for record in known for law in record.laws))
    failures = [_failure(law, known) for law in laws if _forms(law, "failed", known)]
    stale = _stale(mixer, known)
    held = [law for law in laws if _holds(law, known)]
    short = f"{_laws(len(failures))} failed" if failures else _held(held)
    return Conformance(
        short=f"{short}, other source" if stale else short,
        headline=_headline(held, known),
        failures=failures,
        notes=[*stale, *_left_out(laws, known)],
        table=_table(laws, known),
    )


def _unrecorded(mixer: MixerPlugin[Any]) -> Conformance:
    """What is known without a record: the built-in mixers are tried by the tests of archsearch itself."""
    ours = f"{package_of(mixer)}.".startswith(_OURS)
    said = _BY_TESTS if ours else _UNKNOWN
    short = "tried by tests, not on a card" if ours else "not recorded"
    return Conformance(short=short, headline=f"{said}. {_NO_CARD}", table=pd.DataFrame())


def law_text(law: str) -> str:
    """The name of a law's test as words."""
    return law.removeprefix("test_").replace("_", " ")


def _laws(count: int) -> str:
    return f"{count} law{'s' * (count != 1)}"


def _held(laws: Sequence[str]) -> str:
    return f"{_laws(len(laws))} hold{'s' * (len(laws) == 1)}"


def _forms(law: str, outcome: Any, known: Sequence[ConformanceRecord]) -> list[str]:
    return [record.form for record in known if record.count(law, outcome)]


def _holds(law: str, known: Sequence[ConformanceRecord]) -> bool:
    spoilt = _forms(law, "failed", known) or _forms(law, "declared broken", known)
    return bool(_forms(law, "passed", known)) and not spoilt


def _headline(held: Sequence[str], known: Sequence[ConformanceRecord]) -> str:
    named = [record for record in known if record.form != ANY]
    most = max((len(record.laws) for record in named), default=0)
    forms = ", ".join(
        record.form + (f" for {len(record.laws)} of them" if len(record.laws) < most else "") for record in named
    )
    dates, torches = (
        [*dict.fromkeys(values)] for values in zip(*((one.date, one.torch) for one in known), strict=True)
    )
    verb = "holds" if len(held) == 1 else "hold"
    return (
        f"{_laws(len(held))} {verb}{f' ({forms})' if forms else ''}, recorded {' and '.join(sorted(dates))} "
        f"with torch {' and '.join(sorted(torches))}."
    )


def _failure(law: str, known: Sequence[ConformanceRecord]) -> str:
    cases = [case for record in known for case in record.failed if _is_case_of(law, case)]
    forms = ", ".join(form for form in _forms(law, "failed", known) if form != ANY)
    return f"Fails the law “{law_text(law)}”{f' ({forms})' if forms else ''}: {', '.join(cases)}"


def _is_case_of(law: str, case: str) -> bool:
    return case.rpartition("::")[2].partition("[")[0] == law


def _stale(mixer: MixerPlugin[Any], known: Sequence[ConformanceRecord]) -> list[str]:
    package = package_of(mixer)
    other = [record.form for record in known if package is None or record.source != tried_source(package)]
    if not other:
        return []
    which = "" if len(other) == len(known) else f" ({', '.join(other)})"
    return [f"Recorded for other source than what is installed{which}: the plugin or the suite has changed since."]


def _outcomes(law: str, known: Sequence[ConformanceRecord]) -> set[str]:
    return {outcome for record in known for outcome in record.laws.get(law, {})}


def _left_out(laws: Sequence[str], known: Sequence[ConformanceRecord]) -> list[str]:
    untried = [law_text(law) for law in laws if not _outcomes(law, known)]
    idle = [
        law_text(law) for law in laws if {one for record in known for one in record.laws.get(law, {})} == {"skipped"}
    ]
    slow = [f"{record.untried} {record.form}" for record in known if record.untried]
    return [
        *([f"Not tried: {', '.join(untried)}."] if untried else []),
        *([f"Had nothing to try: {', '.join(idle)}."] if idle else []),
        *([f"Slow cases that were left out: {', '.join(slow)}."] if slow else []),
    ]


def _table(laws: Sequence[str], known: Sequence[ConformanceRecord]) -> pd.DataFrame:
    rows = [{"law": law_text(law)} | {_column(one.form): _cell(law, one) for one in known} for law in laws]
    return pd.DataFrame(rows)


def _column(form: str) -> str:
    return "in any form" if form == ANY else form


def _cell(law: str, record: ConformanceRecord) -> str:
    words = {"failed": "FAILED", "skipped": "with nothing to try"}
    return ", ".join(f"{count} {words.get(outcome, outcome)}" for outcome, count in record.laws.get(law, {}).items())
