"""What a reader of a comparison must know, in plain words: for the tables of the command and for the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from archsearch.analysis.compared import Comparison
from archsearch.analysis.scores import Score
from archsearch.analysis.speed import LEAST_LOOKS

FEW = 3
"""With fewer seeds the noise is hardly known."""


def of_one_rate(scores: Iterable[Score]) -> Iterator[str]:
    """What is not known where a single learning rate was tried."""
    tried = {rate for score in scores for rate in score.rates.means}
    if len(tried) == 1:
        yield (
            f"one learning rate, {tried.pop():g}, was tried: nothing tells whether another one would give another "
            "order: give recipe.learning_rates three"
        )


def remarks(found: Comparison) -> Iterator[str]:
    """What a reader of the figures must know, a sentence each, which begins small and ends without a stop."""
    scores = [score for row in found.rows for score in row.scores.values()]
    if found.comparisons:
        yield _of_the_family(found)
    yield from _of_the_metrics(found)
    yield from _of_the_seeds(found)
    if any(row.speeds for row in found.rows):
        yield (
            "to half and to 95% are the tokens until validation first has so much of what full attention gains in all, "
            "with the same seed; between two looks the way is a straight line"
        )
    yield from _of_the_rates(scores)
    yield from _of_the_ends([score for score in scores if score.primary])
    yield from _of_the_terms(found)


def _of_the_family(found: Comparison) -> str:
    count = found.comparisons
    any_of = "the one comparison that is made" if count == 1 else f"any of the {count} comparisons that are made"
    over = "" if count == 1 else ", of every other architecture on every metric,"
    return (
        f"differences are from {found.baseline.pattern}, of the same seed, which saw the same batches, and intervals "
        f"are 95%, each for its own row alone; better and worse are those that chance alone gives in {any_of}{over} "
        "less often than once in 20 (Holm), so that an interval may leave out zero and its row be within noise, which "
        "is not equal: more seeds tell"
    )


def _of_the_metrics(found: Comparison) -> Iterator[str]:
    further = [name for name in found.scored if not found.score(name).primary]
    if further:
        tasks = dict.fromkeys(found.score(name).task for name in further)
        primary = _and([f"{task}.{found.score(task).metric}" for task in tasks])
        yield (
            f"learning rates are chosen by {primary} on validation, and {_and(further)} "
            f"{'is' if len(further) == 1 else 'are'} of the models so chosen"
        )
    if any(found.score(name).budget is not None for name in found.scored):
        yield (
            "tokens of an architecture have no mean where the training of a seed did not suffice, and then no verdict"
        )
    for name in found.untimed:
        yield (
            f"not compared: {name}, as full attention in every layer, by which it is timed, is not measured or gains "
            f"nothing there, or validation was looked at fewer than {LEAST_LOOKS} times"
        )


def _of_the_seeds(found: Comparison) -> Iterator[str]:
    stopped = {row.digest for row in found.rows if any(score.diverged for score in row.scores.values())}
    seeds = [len(score.values) for row in found.rows if row.digest not in stopped for score in row.scores.values()]
    fewest = min(seeds, default=FEW)
    if fewest < FEW:
        yield f"{fewest} seed{'s tell' if fewest != 1 else ' tells'} little: recipe.seeds = 3 or more shows the noise"
    for row in found.rows:
        if row.digest in stopped:
            where = next(score.task for score in row.scores.values() if score.diverged)
            yield f"given up where a seed diverged on {where}: {row.pattern}, which may lack later runs on every task"


def _of_the_rates(scores: Sequence[Score]) -> Iterator[str]:
    yield from of_one_rate(scores)
    if any(score.rates.fragile for score in scores):
        yield "fragile: every other learning rate keeps less than half of what the best one gains above chance"
    ends = sorted({score.rates.at_end for score in scores} - {""})
    if ends:
        yield (
            f"some are best at the {' or '.join(ends)} of the learning rates: a wider recipe.learning_rates may move "
            "them"
        )


def _of_the_ends(scores: Sequence[Score]) -> Iterator[str]:
    """Trainings that ended early have not had as much as the others."""
    ended = sum(len(score.solved) for score in scores)
    if ended:
        yield (
            f"{ended} of {sum(len(score.values) for score in scores)} trainings ended before their last step, as "
            "validation had reached recipe.stop_at, and have read fewer tokens: what they would have come to is not "
            "known, and recipe.stop_at = 0 gives all the same"
        )


def _of_the_terms(found: Comparison) -> Iterator[str]:
    """Rows that a matching does not speak for, and why none is shown."""
    if found.not_told:
        yield found.not_told
    if found.matching is None or found.matching.has_steps:
        return
    matched = {row.digest for row in found.matching.rows}
    for row in found.rows:
        if row.digest not in matched:
            yield f"not matched, as it is none of the list: {row.pattern}, which stands beside the others as it is"


def not_compared(found: Comparison) -> Iterator[str]:
    """The architectures that are not measured, a sentence each."""
    for pattern, state, reason in found.waiting:
        yield f"not compared: {pattern} is {state}" + (f": {reason}" if reason else "")


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
