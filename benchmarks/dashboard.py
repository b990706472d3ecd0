"""How long the dashboard's pages take over very many trials, beside optuna-dashboard on as many where it is installed.

python benchmarks/dashboard.py [--trials 50000] [--repeats 3] [--database FILE] [--postgres] [--wire]

Seconds from the request of a fresh browser, which holds nothing of the dashboard yet, to a server that has just begun
to listen. First paint: until what the page is for stands there in words or as a table; drawn: until every chart is
drawn too; again: drawn for the next viewer. A filter: from the click until the view has changed. An empty page with a
chart of one point tells what of it is Streamlit, Plotly, the browser and the load of the machine. With --wire no
browser is started: five viewers at once are connections that ask as browsers do, each as if on a machine of its own.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "dashboard")]

from browser import chromium, served, settled, viewer, wait_for, window  # noqa: E402
from dashboard_bulk import copy_into_postgres, fill_many  # noqa: E402
from playwright.sync_api import Browser, Error, Page  # noqa: E402
from ports import free_port  # noqa: E402
from postgres_server import postgres_server  # noqa: E402
from sqlalchemy import MetaData, create_engine, insert, select  # noqa: E402
from wire_viewers import answered  # noqa: E402

SEARCHES = 3
PAINT_SECONDS, FILTER_SECONDS = 2.0, 0.5
VIEWERS, VIEWERS_SECONDS = 5, 3.0
OPTUNA_MS = 600_000
ANSWERED = "[data-testid=stHeading]"
EMPTY = """import streamlit as st
import plotly.graph_objects as go
st.title("empty")
st.plotly_chart(go.Figure(go.Scatter(x=[1], y=[1])))
"""


def main() -> None:
    """Prints one line a figure."""
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--trials", type=int, default=50_000)
    reader.add_argument("--repeats", type=int, default=3)
    reader.add_argument("--database", type=Path, help="A file to fill, or one that was filled before.")
    reader.add_argument("--postgres", action="store_true", help="Read them from a PostgreSQL server of its own.")
    reader.add_argument("--wire", action="store_true", help="Only what needs no browser.")
    given = reader.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = given.database or Path(folder) / "many.db"
        if not path.exists():
            fill_many(str(path), trials=given.trials, searches=SEARCHES)
        print(f"{given.trials:,} trials in {SEARCHES} searches, {given.repeats} repeats: median (least to greatest)")
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before it", flush=True)
        with database(path, postgres=given.postgres) as place:
            wire_viewers(place.url, given.repeats)
            wire_pages(place, given.repeats)
            if given.wire:
                return
            with chromium() as browser:
                empty(browser, Path(folder), given.repeats)
                paints(browser, place.url, given.repeats)
                filters(browser, place.url, given.repeats)
                viewers(browser, place.url, given.repeats)
                optuna(browser, Path(folder), given.trials, given.repeats)


@dataclass(frozen=True)
class Database:
    """The URL of the trials, and the server that holds them, if any."""

    url: str
    server: int | None = None

    def cpu_seconds(self) -> float:
        """Those of the server."""
        return 0.0 if self.server is None else cpu_seconds(self.server)


@contextmanager
def database(path: Path, *, postgres: bool) -> Iterator[Database]:
    """The trials in their file, or as a role that may only read them on a PostgreSQL server."""
    if not postgres:
        yield Database(f"sqlite:///{path}")
        return
    with postgres_server() as server:
        name = server.new_database()
        copy_into_postgres(str(path), server.url(name))
        yield Database(server.reader_url(name), server.pid)


def show(label: str, seconds: Sequence[float], target: float | None = None) -> None:
    """One line of the report."""
    spread = f"{statistics.median(seconds):5.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"
    print(f"{label:<64} {spread:<28}{f' target {target} s' if target else ''}", flush=True)


def timed(action: Callable[[], object]) -> float:
    """Seconds that `action` takes."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


@dataclass(frozen=True)
class View:
    """An address below the server's, and what stands on the page as soon as it answers what it is for."""

    address: str
    answered: str
    title: str = ""

    @property
    def words(self) -> str:
        """A text that stands on the page."""
        return self.title or self.answered.removeprefix("text=")


def views() -> dict[str, View]:
    """Each page with what it needs to show the large search; trial numbers follow from how it was filled."""
    search, table = f"search=large-{SEARCHES - 1}", "[data-testid=stDataFrame] canvas"
    lead = "text=candidates are on the front"
    return {
        "Searches": View("", table, "Searches"),
        "Front": View(f"front?{search}", lead),
        "Front, all trials": View(f"front?{search}&below=All+trials", lead),
        "Architecture": View(f"architecture?{search}&trial=5", "[data-testid=stMarkdown] code", "Architecture"),
        "Compare": View(f"compare?{search}&trials=5,6,7", "text=Layers that differ"),
        "Ladder, of a search that is none": View(f"ladder?{search}", "text=is no ladder"),
        "Comparison, of a search too large for it": View(f"comparison?{search}", "text=candidates, and at most"),
        "What matters": View(f"matters?{search}", "text=All figures are valid for"),
        "Mixers": View("mixers", "text=can be searched"),
    }


def empty(browser: Browser, folder: Path, repeats: int) -> None:
    """First paint of a page of Streamlit that holds a title and a chart of one point."""
    script = folder / "empty.py"
    script.write_text(EMPTY)
    first, again = [], []
    for _ in range(repeats):
        port = free_port()
        options = ["--server.address=127.0.0.1", f"--server.port={port}", "--server.headless=true"]
        with serving(["-m", "streamlit", "run", str(script), *options], f"http://127.0.0.1:{port}/_stcore/health"):
            for kept in (first, again):
                kept.append(paint(browser, f"http://127.0.0.1:{port}", ANSWERED)[1])
    show("An empty page with a chart: drawn", first)
    show("An empty page with a chart: again", again)


def paints(browser: Browser, url: str, repeats: int) -> None:
    """First paint of each page by a server that was just started, and when it and the next viewer's are drawn."""
    for name, view in views().items():
        first, again = [], []
        for _ in range(repeats):
            with served(url) as dashboard:
                for kept in (first, again):
                    kept.append(paint(browser, f"{dashboard.address}/{view.address}", view.answered))
        show(f"{name}: first paint", [answered for answered, _ in first], PAINT_SECONDS)
        show(f"{name}: drawn", [drawn for _, drawn in first])
        show(f"{name}: again", [drawn for _, drawn in again])


def paint(browser: Browser, address: str, answered: str) -> tuple[float, float]:
    """Seconds until a fresh browser window at `address` shows what `answered` selects, and until all is drawn."""
    with window(browser) as page:
        begun = time.perf_counter()
        page.goto(address, wait_until="commit")
        page.wait_for_selector(answered)
        first = time.perf_counter() - begun
        settled(page)
        return first, time.perf_counter() - begun


def filters(browser: Browser, url: str, repeats: int) -> None:
    """Changes of what is shown, on a page that is open."""
    with (
        served(url) as dashboard,
        viewer(browser, f"{dashboard.address}/{views()['Front, all trials'].address}") as page,
    ):
        chart, words = [], []
        for index in range(repeats):
            chart.append(timed(lambda: switch_group(page)))
            words.append(timed(lambda: find(page, f"kda(key_dim=4) {('full', 'gla', 'moba')[index % 3]}")))  # noqa: B023
    show("Front: a group switched", chart, FILTER_SECONDS)
    show("All trials: a text that filters", words, FILTER_SECONDS)


def wire_viewers(url: str, repeats: int) -> None:
    """`VIEWERS` connections that ask for the front at the same time: when the server has answered the slowest, just
    started, and again."""
    view = views()["Front"]
    text = view.answered.removeprefix("text=")
    words: list[float] = []
    whole: dict[str, list[float]] = {"a server just started": [], "again": []}
    taken = []
    for _ in range(repeats):
        with served(url) as dashboard:
            for kept in whole.values():
                before = cpu_seconds(dashboard.process.pid)
                first, last = answered(f"{dashboard.address}/{view.address}", VIEWERS, text)
                taken.append(cpu_seconds(dashboard.process.pid) - before)
                words.append(max(first))
                kept.append(max(last))
    show(f"Front, sent to {VIEWERS} viewers: its first words", words, VIEWERS_SECONDS)
    for name, seconds in whole.items():
        show(f"Front, sent to {VIEWERS} viewers: all of it, {name}", seconds, VIEWERS_SECONDS)
    show(f"Front, sent to {VIEWERS} viewers: CPU of the server", taken)


def wire_pages(place: Database, repeats: int) -> None:
    """One connection that asks for each page: when the server, just started, has sent all of it, and the CPU that it
    and the database took, which say the same on a machine that is busy; and again."""
    for name, view in views().items():
        sums = ("a server just started", "again")
        whole, served_by, read_by = ({kept: list[float]() for kept in sums} for _ in range(3))
        for _ in range(repeats):
            with served(place.url) as dashboard:
                for kept in sums:
                    before = cpu_seconds(dashboard.process.pid), place.cpu_seconds()
                    _, last = answered(f"{dashboard.address}/{view.address}", 1, view.words)
                    whole[kept].append(max(last))
                    served_by[kept].append(cpu_seconds(dashboard.process.pid) - before[0])
                    read_by[kept].append(place.cpu_seconds() - before[1])
        for kept in sums:
            show(f"{name}, sent: {kept}", whole[kept], PAINT_SECONDS)
            show(f"{name}, sent: {kept}, CPU of the dashboard", served_by[kept])
            if place.server is not None:
                show(f"{name}, sent: {kept}, CPU of the database", read_by[kept])


def viewers(browser: Browser, url: str, repeats: int) -> None:
    """`VIEWERS` windows that open the front at the same time, in one browser on this machine."""
    view = views()["Front"]
    first, drawn = [], []
    taken: dict[str, list[float]] = {"server": [], "browser": []}
    with served(url) as dashboard:
        server = dashboard.process.pid
        for _ in range(repeats):
            with ExitStack() as windows:
                pages = [windows.enter_context(window(browser)) for _ in range(VIEWERS)]
                for page in pages:  # by a timer of its own, so that none waits for the one before
                    page.evaluate(
                        "where => { setTimeout(() => location.href = where, 0) }", f"{dashboard.address}/{view.address}"
                    )
                begun, before = time.perf_counter(), (cpu_seconds(server), cpu_seconds(os.getpid(), server))
                first.extend(_waits(pages, view.answered, begun))
                after = (cpu_seconds(server), cpu_seconds(os.getpid(), server))
                drawn.extend(_waits(pages, ".js-plotly-plot .main-svg", begun))
                for kept, until, since in zip(taken.values(), after, before, strict=True):
                    kept.append(until - since)
    show(f"Front, {VIEWERS} viewers at once: first paint", first, VIEWERS_SECONDS)
    for name, seconds in taken.items():
        show(f"Front, {VIEWERS} viewers: CPU of the {name} until then", seconds)
    show(f"Front, {VIEWERS} viewers at once: drawn", drawn)


def cpu_seconds(root: int, without: int = 0) -> float:
    """CPU seconds of a process and of all that come from it, but for those of `without`: they say the same on a machine
    that is busy."""
    children, seconds = defaultdict(list), {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            _, _, told = (folder / "stat").read_text().rpartition(") ")
            fields = told.split()  # from the state on, as proc_pid_stat(5) has them
            children[int(fields[1])].append(int(folder.name))
            own_and_ended = sum(map(int, fields[11:15]))  # of its own, and of its children that have ended
            seconds[int(folder.name)] = own_and_ended / os.sysconf("SC_CLK_TCK")
    total, left = 0.0, [root]
    while left:
        process = left.pop()
        if process != without:
            total += seconds.get(process, 0.0)
            left += children[process]
    return total


def _waits(pages: Sequence[Page], selector: str, begun: float) -> list[float]:
    """Seconds since `begun` until each of `pages` shows what `selector` selects."""
    left, found = list(pages), []
    while left:
        for page in list(left):
            with suppress(Error):  # a page that is just being left for the next address has no document
                if page.locator(selector).count():
                    left.remove(page)
                    found.append(time.perf_counter() - begun)
        time.sleep(0.02)
    return found


def switch_group(page: Page) -> None:
    """Shows or hides the failed candidates."""
    shown = "document.querySelector('.js-plotly-plot').data.some(trace => (trace.name || '').startsWith('failed'))"
    before = page.evaluate(f"() => {shown}")
    page.get_by_role("button", name="failed").click()
    page.wait_for_function(f"before => ({shown}) !== before", arg=before)


def find(page: Page, text: str) -> None:
    """Filters the trials by a text in their pattern."""
    counted = page.get_by_text(" trials, 50 a page")
    before = counted.inner_text()
    field = page.get_by_label("Text in pattern or reason")
    field.fill(text)
    field.press("Enter")
    page.wait_for_function(
        "before => [...document.querySelectorAll('[data-testid=stCaptionContainer]')]"
        ".some(node => node.innerText.includes('a page') && node.innerText !== before)",
        arg=before,
    )


def optuna(browser: Browser, folder: Path, trials: int, repeats: int) -> None:
    """optuna-dashboard on one study a search, with as many trials and objectives."""
    if find_spec("optuna_dashboard") is None:
        print("optuna-dashboard is not installed (pip install optuna-dashboard): nothing to stand beside")
        return
    url = f"sqlite:///{folder}/optuna.db"
    studies = fill_optuna(url, trials)
    frames: list[float] = []
    trials_there: list[float] = []
    for _ in range(repeats):
        with optuna_served(url) as address:
            for kept, seconds in zip((frames, trials_there), optuna_paint(browser, address, studies[-1]), strict=True):
                kept.append(seconds)
    name = f"optuna-dashboard {version('optuna-dashboard')}"
    show(f"{name}: empty frame of a study", frames)
    show(f"{name}: its trials are there", trials_there)


def fill_optuna(url: str, trials: int) -> list[int]:
    """Studies with three objectives and twelve categorical choices, as `fill_many` has.

    Optuna writes the first trial of each; the others are its rows again, with values of their own, in bulk: by Optuna's
    own session a trial takes 40 ms.
    """
    from dashboard_bulk import LAYERS, MIXERS
    from optuna import create_study, logging
    from optuna.distributions import CategoricalDistribution
    from optuna.trial import create_trial

    logging.set_verbosity(logging.WARNING)
    distributions = {f"layer{layer}": CategoricalDistribution(MIXERS) for layer in range(LAYERS)}
    first = create_trial(
        params=dict.fromkeys(distributions, MIXERS[0]), distributions=distributions, values=[0.5, 1e7, 1e7]
    )
    found = []
    for index in range(SEARCHES):
        study = create_study(storage=url, study_name=f"large-{index}", directions=["maximize", "minimize", "minimize"])
        study.add_trial(first)
        found.append(study._study_id)
    repeat_first_trials(url, trials // SEARCHES, len(MIXERS))
    return found


def repeat_first_trials(url: str, trials: int, choices: int) -> None:
    """Repeats the one trial of each study in the database at `url` until it has `trials`, with random values."""
    rng = random.Random(0)
    engine, tables = create_engine(url), MetaData()
    tables.reflect(engine)
    children = {"trial_params": ("param_value", lambda: rng.randrange(choices)), "trial_values": ("value", rng.random)}
    with engine.begin() as connection:
        firsts = connection.execute(select(tables.tables["trials"])).mappings().all()
        free = max(row["trial_id"] for row in firsts) + 1
        for first in firsts:
            rows = [dict(first) | {"trial_id": free + number, "number": number} for number in range(1, trials)]
            connection.execute(insert(tables.tables["trials"]), rows)
            free += trials
            for name, (column, draw) in children.items():
                table = tables.tables[name]
                given = connection.execute(select(table).where(table.c.trial_id == first["trial_id"])).mappings().all()
                key = next(iter(table.primary_key)).name
                plain = [{name: value for name, value in one.items() if name != key} for one in given]
                connection.execute(
                    insert(table),
                    [one | {"trial_id": row["trial_id"], column: draw()} for row in rows for one in plain],
                )
    engine.dispose()


@contextmanager
def optuna_served(url: str) -> Iterator[str]:
    """optuna-dashboard on a port of its own."""
    port = free_port()
    start = "from optuna_dashboard._cli import main; main()"
    address = f"http://127.0.0.1:{port}"
    with serving(["-c", start, url, "--host", "127.0.0.1", "--port", str(port)], f"{address}/dashboard/"):
        yield address


@contextmanager
def serving(arguments: Sequence[str], answers: str) -> Iterator[None]:
    """A server that Python runs, from when it answers at `answers` on."""
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(answers, process)
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


def optuna_paint(browser: Browser, address: str, study: int) -> tuple[float, float]:
    """Seconds until a fresh browser window shows the frame of a study's chart, and until the study's trials are there,
    without which the frame is empty."""
    with window(browser) as page:
        begun = time.perf_counter()
        asked = f"/api/studies/{study}?"
        with page.expect_event("requestfinished", lambda request: asked in request.url, timeout=OPTUNA_MS):
            page.goto(f"{address}/dashboard/studies/{study}", wait_until="commit")
            page.wait_for_selector(".js-plotly-plot .main-svg")
            first = time.perf_counter() - begun
        return first, time.perf_counter() - begun


if __name__ == "__main__":
    main()
