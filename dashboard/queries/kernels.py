"""Kernel figures as tables: what the result files of the repository hold, by the mixer that each op belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from archsearch.bench.results.files import gather_results
from archsearch.bench.results.frames import kernel_frame
from archsearch.bench.results.schema import Environment, Results
from archsearch.evidence.conformance import package_of
from archsearch.evidence.proofs import SHARED
from archsearch.evidence.standing import standings
from archsearch.mixer import MixerPlugin
from archsearch.op_forms import CORE, OpForm
from archsearch.registry import Registry

RESULTS = Path("benchmarks") / "results"
"""Where measured kernel figures lie in the repository, from the folder that the dashboard was started in."""

FIGURE_COLUMNS = (
    "mixer",
    "op",
    "phase",
    "shape",
    "by",
    "ms",
    "spread",
    "of_bound",
    "note",
    "card",
    "date",
    "versions",
)
FORM_COLUMNS = ("mixer", "op", "form", "card", "proven", "why")


def held_results(folder: Path = RESULTS) -> tuple[list[Results], list[str]]:
    """The result files of a folder that hold kernels, and a sentence for each file that cannot be read whole."""
    found, errors = gather_results([folder] if folder.is_dir() else [])
    return [results for results in found if results.kernels], errors


def kernel_figures(held: Iterable[Results], registry: Registry) -> pd.DataFrame:
    """`FIGURE_COLUMNS`, a row an op, phase, shape and contender; what was not measured has its reason as ``note``."""
    owners = owners_of_ops(registry)
    parts = [_figures(results, owners) for results in held]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(FIGURE_COLUMNS))


def runs_not_ended(held: Iterable[Results]) -> list[str]:
    """A sentence for each run that has not come to its end, so that what it lacks is not taken for what failed."""
    return [
        f"The run of {results.environment.date} on {results.environment.card} was ended early, or goes on: "
        f"rows held of it: {len(results.kernels):,}. What they lack is not measured."
        for results in held
        if not results.complete
    ]


def owners_of_ops(registry: Registry) -> dict[str, str]:
    """The mixer that each op belongs to: named as it, as a preset, or as registered for it."""
    return {
        op: mixer.name
        for mixer in registry.mixers()
        for op in (mixer.name, *registry.presets_of(mixer.name), *registry.measured(mixer.name).names)
    }


def _figures(results: Results, owners: Mapping[str, str]) -> pd.DataFrame:
    frame = kernel_frame([results])
    named = frame.assign(
        mixer=frame["op"].map(lambda op: owners.get(op, CORE)),
        by=(frame["by"] + " " + frame["form"]).str.strip(),
        spread=[_spread(*ends) for ends in zip(frame["ms_low"], frame["ms_high"], strict=True)],
        of_bound=pd.to_numeric(frame["fraction_of_bound"]),
        ms=pd.to_numeric(frame["ms"]),
        versions=_versions(results.environment),
        note=[_note(*said) for said in zip(frame["status"], frame["reason"], strict=True)],
    )
    return named[list(FIGURE_COLUMNS)]


def _spread(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None or low != low else f"{low:.3g} to {high:.3g}"


def _note(status: str, reason: str) -> str:
    return reason if status == "measured" else ": ".join(filter(None, (status, reason)))


def _versions(found: Environment) -> str:
    return f"archsearch {found.archsearch}, torch {found.torch}, Triton {found.triton}, driver {found.driver}"


def forms_table(forms: Iterable[OpForm]) -> pd.DataFrame:
    """`FORM_COLUMNS`, a row an op and a card: which form runs there, proven when, and why; mixers without kernels
    last."""
    rows = [
        (one.mixer, one.op, one.named, f"{one.card or 'none'}{' (here)' * one.here}", one.proven, one.why)
        for one in sorted(forms, key=lambda one: not one.has_kernels)
    ]
    return pd.DataFrame(rows, columns=list(FORM_COLUMNS))


def forms_in_words(forms: Iterable[OpForm]) -> str:
    """How many ops have kernels, and of how many any are taken on a card that is known here."""
    having = [one for one in forms if one.has_kernels]
    known, taken = len({one.op for one in having}), len({one.op for one in having if "triton" in one.form})
    if not taken:
        return f"{known} ops have kernels, of which none is taken: PyTorch runs them all."
    return f"{known} ops have kernels; on some card those of {taken} are taken."


def rows_table(mixer: MixerPlugin[Any]) -> pd.DataFrame:
    """Each row of the mixer's kernels, and of the core's, in each dtype that was put to the proof or is listed: the
    form that runs, why, on which card, and proven when."""
    package = package_of(mixer)
    found = [asdict(row) for row in standings([*([package] if package else []), SHARED])]
    return pd.DataFrame(found).drop(columns=["arch", "listed"], errors="ignore")
