"""Live views: a search as it goes, redrawn on a terminal, as plain lines in a pipe."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from archsearch.analysis.objectives import Objective
from archsearch.analysis.running_front import FrontPoint
from archsearch.cli.pace import Pace
from archsearch.printable import printable
from archsearch.search.ledger import TrialOrder
from archsearch.search.progress import Progress
from archsearch.search.view import Briefing, TrialProgress, View

LINE_SECONDS = 15.0
"""Between two plain lines on one running trial."""
FRONT_ROWS = 12


def make_view(console: Console) -> View:
    """The live view on a terminal, plain lines elsewhere."""
    return LiveView(console) if console.is_terminal else LineView(console)


class LineView(View):
    """One line an event."""

    def __init__(self, console: Console, *, pace: Pace | None = None) -> None:
        self._console = console
        self._pace = pace or Pace()
        self._said: dict[int, float] = {}
        self._briefing: Briefing | None = None
        self._promised = False

    def begun(self, briefing: Briefing) -> None:
        """The briefing."""
        self._briefing = briefing
        for line in briefing_lines(briefing):
            self._say(line)

    def trial_started(self, order: TrialOrder) -> None:
        """A line."""
        self._pace.start(order.trial)
        self._said[order.trial] = time.monotonic()
        self._say(f"trial {order.trial} ({order.kind}) started: {order.pattern}")

    def trial_progressed(self, order: TrialOrder, progress: TrialProgress) -> None:
        """A line now and then, and once how long all will take, as soon as it is known."""
        self._pace.progressed(order, progress)
        self._promise()
        if time.monotonic() - self._said.get(order.trial, 0.0) >= LINE_SECONDS:
            self._said[order.trial] = time.monotonic()
            self._say(f"trial {order.trial}: {progress_text(progress)}")

    def trial_ended(self, order: TrialOrder, state: str, reason: str) -> None:
        """A line with the time that it took."""
        seconds = self._pace.end(order.trial)
        self._promise()
        self._say(f"trial {order.trial} {state} after {duration(seconds)}" + (f": {reason}" if reason else ""))

    def advanced(self, progress: Progress, front: Sequence[FrontPoint]) -> None:
        """The counts and the time left."""
        assert self._briefing is not None
        left = self._pace.left(remaining_trials(progress, front, self._briefing), self._briefing.concurrency)
        self._say(f"{counts_text(progress)}; front of {len(front)}{left_text(left)}")

    def noted(self, text: str) -> None:
        """A line."""
        self._say(text)

    def ended(self, state: str, reason: str) -> None:
        """How it ended."""
        self._say(f"search {state}" + (f": {reason}" if reason else ""))

    def _promise(self) -> None:
        briefing = self._briefing
        if self._promised or briefing is None:
            return
        seconds = self._pace.left(briefing.planned, briefing.concurrency)
        if seconds is not None:
            self._promised = True
            self._say(
                f"at most about {duration(seconds)} for {briefing.planned} trials, by the first steps of a worker"
            )

    def _say(self, text: str) -> None:
        self._console.print(printable(text), soft_wrap=True, highlight=False, markup=False)


class LiveView(View):
    """Progress, running trials, the best front so far and the time left, redrawn in place."""

    def __init__(self, console: Console, *, pace: Pace | None = None) -> None:
        self._console = console
        self._pace = pace or Pace()
        self._running: dict[int, tuple[TrialOrder, TrialProgress | None]] = {}
        self._progress, self._front = Progress(), list[FrontPoint]()
        self._briefing: Briefing | None = None
        self._live: Live | None = None

    def begun(self, briefing: Briefing) -> None:
        """The briefing stays above; the rest is redrawn below."""
        self._briefing = briefing
        self._progress.planned = briefing.planned
        for line in briefing_lines(briefing):
            self._say(line)
        self._live = Live(console=self._console, get_renderable=self._draw, refresh_per_second=2, transient=True)
        self._live.start()

    def trial_started(self, order: TrialOrder) -> None:
        """A row more."""
        self._pace.start(order.trial)
        self._running[order.trial] = (order, None)

    def trial_progressed(self, order: TrialOrder, progress: TrialProgress) -> None:
        """The row's progress."""
        self._pace.progressed(order, progress)
        self._running[order.trial] = (order, progress)

    def trial_ended(self, order: TrialOrder, state: str, reason: str) -> None:
        """A row less; what went wrong stays above."""
        self._pace.end(order.trial)
        self._running.pop(order.trial, None)
        if state != "complete":
            self._say(f"trial {order.trial} {state}: {reason}")

    def advanced(self, progress: Progress, front: Sequence[FrontPoint]) -> None:
        """New counts, a new front."""
        self._progress, self._front = progress, list(front)

    def ended(self, state: str, reason: str) -> None:
        """Takes the live part away."""
        if self._live is not None:
            self._live.stop()
        self._say(f"search {state}" + (f": {reason}" if reason else ""))

    def noted(self, text: str) -> None:
        """A line above the live part."""
        self._say(text)

    def _say(self, text: str) -> None:
        self._console.print(printable(text), highlight=False, markup=False)

    def _draw(self) -> RenderableType:
        if self._briefing is None:
            return Text("")
        progress = self._progress
        left = self._pace.left(remaining_trials(progress, self._front, self._briefing), self._briefing.concurrency)
        bar = ProgressBar(total=max(1, progress.planned), completed=progress.finished, width=30)
        head = Table.grid(padding=(0, 1))
        head.add_row(bar, counts_text(progress) + left_text(left))
        return Group(head, *self._running_rows(), front_table(self._front, self._briefing.objectives))

    def _running_rows(self) -> list[Text]:
        rows = []
        for order, progress in list(self._running.values()):
            shown = progress_text(progress) if progress is not None else "starting"
            rows.append(
                Text(
                    f"  trial {order.trial} {order.kind:9} {shown:38} {printable(order.pattern)}",
                    overflow="ellipsis",
                    no_wrap=True,
                )
            )
        return rows


def front_table(front: Sequence[FrontPoint], objectives: Sequence[Objective]) -> Table:
    """The best candidates so far, a row each; those without fresh seeds carry a question mark."""
    table = Table(title="best so far (? not yet confirmed on fresh seeds)", title_justify="left", box=None)
    table.add_column("trial", justify="right")
    for objective in objectives:
        table.add_column(objective.name, justify="right")
    table.add_column("architecture", overflow="ellipsis", no_wrap=True)
    for point in front[:FRONT_ROWS]:
        cells = [objective.show(point.values[objective.name]) for objective in objectives]
        mark = "" if point.confirmed else " ?"
        table.add_row(str(point.trial), *cells, Text(printable(point.pattern) + mark))
    if len(front) > FRONT_ROWS:
        table.add_row("", *("" for _ in objectives), f"and {len(front) - FRONT_ROWS} more")
    return table


def briefing_lines(briefing: Briefing) -> list[str]:
    """What a person should know before the first trial."""
    looked = briefing.survey
    which = "all of them" if looked.exhaustive else f"{looked.judged:,} random ones"
    parts = [f"{looked.within_budget:.1%} of {which} meet the budget"]
    if looked.unexercised:
        parts.append(f"{looked.unexercised / looked.judged:.1%} have sparsity that the tasks are too short for")
    if looked.refused:
        share = looked.refused.count / looked.judged
        parts.append(f"{share:.1%} cannot stand as they do, such as {printable(looked.refused.reason)}")
    trials = f"{briefing.trials} trials"
    if briefing.planned != briefing.trials:
        trials = f"{briefing.planned} trials to train (references and {briefing.trials} candidates)"
    return [
        f"{briefing.name}: {looked.candidates:,} possible candidates; {'; '.join(parts)}",
        f"{trials}, {briefing.concurrency} at a time{', then the front on fresh seeds' if briefing.confirms else ''}",
        f"database {briefing.database}",
    ]


def remaining_trials(progress: Progress, front: Sequence[FrontPoint], briefing: Briefing) -> int:
    """Trials that are left, the confirmations of the front so far included."""
    left = max(0, progress.planned - progress.finished)
    if briefing.confirms and not progress.confirming:
        left += sum(not point.confirmed for point in front)
    return left


def counts_text(progress: Progress) -> str:
    """Trials done, and what was not trained."""
    text = f"{progress.finished}/{progress.planned} trials"
    for count, what in (
        (progress.failed, "failed"),
        (progress.diverged, "diverged"),
        (progress.pruned, "pruned"),
        (progress.refused, "refused"),
        (progress.repeated, "repeated"),
        (progress.reused, "from the store"),
    ):
        text += f", {count} {what}" if count else ""
    return text


def progress_text(progress: TrialProgress) -> str:
    """Task, step and the latest value."""
    value = "" if progress.value is None else f" {progress.value:.3f}"
    return f"{printable(progress.task)} seed {progress.seed} step {progress.step}/{progress.total_steps}{value}"


def left_text(seconds: float | None) -> str:
    """The end of a line."""
    return "" if seconds is None else f"; about {duration(seconds)} left"


def duration(seconds: float) -> str:
    """ "45 s", "3 min 20 s", "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
