"""Sweep: what pure architectures recall against the size of their state, one curve a mixer and number of pairs."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from archsearch.analysis.scores import Score, scores_of
from archsearch.arch import ArchSpec
from archsearch.costs import CostModel
from archsearch.errors import ArchsearchError, SpecError
from archsearch.notation import format_layer

if TYPE_CHECKING:
    from archsearch.registry import Registry
    from archsearch.storage import SearchRecord, Store, TrialRecord

PAIRS = "pairs"
"""The option of a task that says how many pairs are recalled."""

STATE, READ = "state_bytes", "decode_read_bytes"
COSTS: Mapping[str, str] = {STATE: "state", READ: "state read by a token"}
"""What a curve may be drawn against, in words: what decoding keeps, and what a decoded token reads of it."""

DEFAULT_CONTEXT = 32_768


@dataclass(frozen=True, kw_only=True)
class SweepPoint:
    """One mixer in every layer at one number of pairs.

    ``layer`` is its notation, ``mixer`` the name in it; ``costs`` are `COSTS` (bytes) at the ``seq_len`` tokens of the
    task, ``far`` those at the context of the sweep; ``chance`` is the score of a guesser.
    """

    mixer: str
    family: str
    layer: str
    d_model: int
    params: int
    pairs: int
    seq_len: int
    chance: float
    score: Score
    costs: Mapping[str, float]
    far: Mapping[str, float]
    search: str
    trial: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        score = self.score
        return {
            "mixer": self.mixer,
            "family": self.family,
            "layer": self.layer,
            "d_model": self.d_model,
            "params": self.params,
            "pairs": self.pairs,
            "seq_len": self.seq_len,
            "metric": score.metric,
            "mean": score.mean,
            "standard_error": score.error,
            "chance": self.chance,
            "seeds": dict(score.values),
            "diverged": list(score.diverged),
            "learning_rate": score.rates.best,
            "fragile": score.rates.fragile,
            "best_at_end": score.rates.at_end,
            **self.costs,
            **{f"{name}_far": value for name, value in self.far.items()},
            "search": self.search,
            "trial": self.trial,
        }


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The points by mixer, as the searches list them, then by pairs and state; ``waiting`` are the architectures that
    are not measured, each with its state and reason; ``context`` is that of ``SweepPoint.far`` (tokens)."""

    searches: tuple[str, ...]
    context: int
    points: tuple[SweepPoint, ...]
    waiting: tuple[tuple[str, str, str], ...]

    @property
    def pairs(self) -> tuple[int, ...]:
        """The numbers of pairs, ascending."""
        return tuple(sorted({point.pairs for point in self.points}))

    @property
    def mixers(self) -> tuple[str, ...]:
        """The mixers, in order."""
        return tuple(dict.fromkeys(point.mixer for point in self.points))

    @property
    def drawable(self) -> bool:
        """Whether there is a curve: a mixer at several sizes, or one size at several numbers of pairs."""
        return len({(point.mixer, point.layer, point.d_model, point.pairs) for point in self.points}) > len(self.mixers)

    def curve(self, mixer: str, pairs: int, cost: str = STATE) -> list[SweepPoint]:
        """The points of one line, by what they cost."""
        found = [point for point in self.points if (point.mixer, point.pairs) == (mixer, pairs)]
        return sorted(found, key=lambda point: point.costs[cost])

    def frame(self) -> pd.DataFrame:
        """One row a point, and the seeds as text."""
        rows = [point.to_json() for point in self.points]
        for row in rows:
            row["seeds"] = " ".join(f"{seed}:{value:.6g}" for seed, value in row["seeds"].items())
            row["diverged"] = " ".join(map(str, row["diverged"]))
        return pd.DataFrame(rows).rename(columns={f"{name}_far": f"{name}@{self.context}" for name in COSTS})

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "searches": list(self.searches),
            "context": self.context,
            "points": [point.to_json() for point in self.points],
            "waiting": [dict(zip(("pattern", "state", "reason"), one, strict=True)) for one in self.waiting],
        }


def read_sweep(store: Store, name: str, registry: Registry) -> Sweep:
    """The sweep of a search: of its pure architectures that are measured on tasks with a number of pairs, and of those
    of its other widths (searches ``NAME-d32`` and so on).

    Raises `StorageError` for a search that there is not.
    """
    searches = [store.search(name), *_other_widths(store, name)]
    context = _context(searches[0])
    model = CostModel(registry)
    points: list[SweepPoint] = []
    waiting: list[tuple[str, str, str]] = []
    for search in searches:
        trials = [one for one in store.trials(search.id) if one.kind != "confirm" and one.state != "superseded"]
        waiting += _not_begun(search, {trial.pattern for trial in trials})
        for trial in trials:
            if trial.state in ("complete", "diverged"):
                points += _points(store.trial(trial.id), search.name, context, model, registry)
            else:
                waiting.append((trial.pattern, trial.state, trial.reason))
    order = {mixer: index for index, mixer in enumerate(dict.fromkeys(point.mixer for point in points))}
    points.sort(key=lambda point: (order[point.mixer], point.pairs, point.costs[STATE], point.costs[READ]))
    return Sweep(
        searches=tuple(search.name for search in searches),
        context=context,
        points=tuple(points),
        waiting=tuple(waiting),
    )


def _other_widths(store: Store, name: str) -> list[SearchRecord]:
    other = re.compile(re.escape(name) + r"-d[0-9]+")
    return [search for search in store.searches() if other.fullmatch(search.name)]


def _not_begun(search: SearchRecord, begun: Collection[str]) -> Iterator[tuple[str, str, str]]:
    """The architectures of a list that have no trial, as where the sweep was stopped before them."""
    space, model = search.spec.get("space"), search.spec.get("model")
    listed = space.get("architectures") if isinstance(space, Mapping) else None
    depth = model.get("n_layers") if isinstance(model, Mapping) else None
    for text in listed if isinstance(listed, list | tuple) else ():
        if not {text, f"{text}*{depth}"} & set(begun):
            yield str(text), "not begun", ""


def _context(search: SearchRecord) -> int:
    objectives = search.spec.get("objectives")
    given = objectives.get("context") if isinstance(objectives, Mapping) else None
    return given if isinstance(given, int) and given > 0 else DEFAULT_CONTEXT


def _points(
    trial: TrialRecord, search: str, context: int, model: CostModel, registry: Registry
) -> Iterator[SweepPoint]:
    """None for an architecture of several mixers, or of one that is not installed here."""
    try:
        arch = ArchSpec.from_json(trial.arch, registry)
        pure = len(set(arch.layers)) == 1
        layer = format_layer(arch.layers[0], registry)
        family = registry.resolve(arch.layers[0].mixer).plugin.family
    except ArchsearchError:
        return
    by_task = {measured.task: measured.payload for measured in trial.measurements}
    scores = scores_of((measured.task, measured.payload) for measured in trial.measurements)
    for task, payload in by_task.items():
        pairs = _pairs(payload)
        if not pure or pairs is None:
            continue
        near, far = (model.cost(arch, tokens) for tokens in (int(payload["seq_len"]), context))
        yield SweepPoint(
            mixer=layer.partition("(")[0],
            family=family,
            layer=layer,
            d_model=arch.model.d_model,
            params=near.params,
            pairs=pairs,
            seq_len=int(payload["seq_len"]),
            chance=float(payload["chance"]),
            score=scores[task],
            costs={name: near.measure(name) for name in COSTS},
            far={name: far.measure(name) for name in COSTS},
            search=search,
            trial=trial.id,
        )


def _pairs(payload: Mapping[str, Any]) -> int | None:
    """The number of pairs of a measured task, None where it has none."""
    options = payload["task_options"].get("options", {})
    pairs = options.get(PAIRS) if isinstance(options, Mapping) else None
    return pairs if isinstance(pairs, int) and not isinstance(pairs, bool) else None


def measured(found: Sweep) -> Sweep:
    """`found`, where anything is measured; raises `SpecError` otherwise."""
    if not found.points:
        waiting = f", and {len(found.waiting)} wait" if found.waiting else ""
        raise SpecError(
            f'"{found.searches[0]}" has measured no architecture of one mixer on a task with pairs{waiting}: '
            "`archsearch sweep recall` makes such a search"
        )
    return found
