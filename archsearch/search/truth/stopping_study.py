"""The study of early stopping: searches replayed with rules and without: what these save, and what they lose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from archsearch.analysis.front import non_dominated
from archsearch.errors import SpecError, listing
from archsearch.search.survey import Survey, survey
from archsearch.search.tables.search import EarlyStopTable
from archsearch.search.truth.archive import Trained
from archsearch.search.truth.case import Case
from archsearch.search.truth.replay import posed, replay
from archsearch.search.truth.table import TruthTable


@dataclass(frozen=True, kw_only=True)
class StoppingCase:
    """A case of a table, of which each candidate is trained with so many ``seeds``."""

    case: Case
    seeds: int

    @classmethod
    def of(cls, table: TruthTable, *, tasks: Sequence[str] = (), seeds: int | None = None) -> StoppingCase:
        """Some `tasks` of a table against the costs of its spec, with as many of its seeds as are whole, or `seeds`;
        left out, all tasks. Raises `SpecError` where the table has not as many, or not what early stopping looks at."""
        known = table.problem.tasks
        unknown = [task for task in tasks if task not in known]
        if unknown:
            raise SpecError(f'the table has no task "{unknown[0]}": it has {listing(known)}')
        rates = table.problem.spec.recipe.learning_rates
        if len(rates) > 1:
            raise SpecError(
                f"the table was measured with {len(rates)} learning rates and has the curve of the best one alone, and "
                "early stopping looks at all: measure one with a single rate"
            )
        kept = tasks or list(known)
        objectives = table.problem.objectives
        case = Case.of(table, [one.name for one in objectives if one.is_cost or one.name.rpartition(".")[0] in kept])
        if seeds is not None and not 1 <= seeds <= len(case.seeds):
            raise SpecError(f"the table has {len(case.seeds)} whole seeds of {case.name}: {seeds} cannot be taken")
        return cls(case=case, seeds=len(case.seeds) if seeds is None else seeds)

    @cached_property
    def survey(self) -> Survey:
        """That of the space, which is equal for every search."""
        return survey(self.case.problem)

    def search(self, sampler: str, *, trials: int, seed: int, table: EarlyStopTable | None) -> Searched:
        """A search of so many trials, with the rule of `table` or none."""
        problem = posed(self.case, sampler, trials=trials, seed=seed, seeds=self.seeds, early_stop=table)
        return Searched(case=self.case, trained=replay(self.case, problem, looked=self.survey).trained)


@dataclass(frozen=True, kw_only=True)
class Searched:
    """A search over a table; what it came to is judged on test, by the seeds that it trained with."""

    case: Case
    trained: tuple[Trained, ...]

    @cached_property
    def complete(self) -> list[str]:
        """The candidates that were trained to the end."""
        return [trial.digest for trial in self.trained if not trial.stopped]

    @cached_property
    def stopped(self) -> list[str]:
        """Those that were stopped."""
        return [trial.digest for trial in self.trained if trial.stopped]

    @property
    def saved(self) -> float:
        """The share of the training steps of its candidates that were not trained."""
        return 1.0 - sum(trial.steps for trial in self.trained) / sum(trial.in_full for trial in self.trained)

    @property
    def share(self) -> float:
        """The share of the table's hypervolume that the search found."""
        seeds = self.trained[0].seeds
        found = self.case.volume(self.case.losses(self.complete, seeds, "test"))
        return found / self.case.true_volume(seeds, "test")

    @property
    def wrongly(self) -> int:
        """How many of the stopped would have stood on the front of all candidates that the search drew."""
        drawn = [*self.complete, *self.stopped]
        stands = non_dominated(self.case.losses(drawn, self.trained[0].seeds, "test"))
        return len({digest for digest, kept in zip(drawn, stands, strict=True) if kept} & set(self.stopped))

    @property
    def wrongly_true(self) -> int:
        """How many of the stopped stand on the front of the whole table."""
        front = {arch.digest for arch in self.case.true_front(self.trained[0].seeds)}
        return len(front & set(self.stopped))


@dataclass(frozen=True, kw_only=True)
class StoppingRow:
    """What a rule did over several searches, ``seeds`` of them: means over these of what `Searched` says of one.

    ``volume`` is the share of the table's hypervolume, ``volume_without`` that of the same searches without the rule.
    """

    sampler: str
    table: EarlyStopTable
    seeds: int
    trials: int
    saved: float
    volume: float
    volume_without: float
    stopped: float
    wrongly: float
    wrongly_true: float


def studied(
    posed: StoppingCase, *, samplers: Sequence[str], tables: Sequence[EarlyStopTable], trials: int, searches: int
) -> Iterator[StoppingRow]:
    """A row for each sampler and rule, as they come."""
    for sampler in samplers:
        plain = [posed.search(sampler, trials=trials, seed=seed, table=None) for seed in range(searches)]
        without = fmean(one.share for one in plain)
        for table in tables:
            found = [posed.search(sampler, trials=trials, seed=seed, table=table) for seed in range(searches)]
            yield StoppingRow(
                sampler=sampler,
                table=table,
                seeds=searches,
                trials=trials,
                saved=fmean(one.saved for one in found),
                volume=fmean(one.share for one in found),
                volume_without=without,
                stopped=fmean(len(one.stopped) for one in found),
                wrongly=fmean(one.wrongly for one in found),
                wrongly_true=fmean(one.wrongly_true for one in found),
            )
