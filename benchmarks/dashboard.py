"""How long the dashboard's pages take over very many trials, beside optuna-dashboard on as many where it is installed.

python benchmarks/dashboard.py [--trials 50000] [--repeats 3] [--database FILE]

First paint: from the request of a fresh browser until the page is drawn to the end, by a server that has just begun to
listen; again: the same for the next viewer. A filter: from the click until the view has changed. An empty page tells
what of it is Streamlit, the browser and the load of the machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "dashboard"))

from browser import chromium, free_port, served, viewer, wait_for  # noqa: E402
from dashboard_bulk import fill_many  # noqa: E402
from playwright.sync_api import Browser, Page  # noqa: E402

SEARCHES = 3
PAINT_SECONDS, FILTER_SECONDS = 2.0, 0.5
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
    given = reader.parse_args()
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        path = given.database or Path(folder) / "many.db"
        if not path.exists():
            fill_many(str(path), trials=given.trials, searches=SEARCHES)
        print(f"{given.trials:,} trials in {SEARCHES} searches, {given.repeats} repeats: median (least to greatest)")
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before it", flush=True)
        empty(browser, Path(folder), given.repeats)
        paints(browser, f"sqlite:///{path}", given.repeats)
        filters(browser, f"sqlite:///{path}", given.repeats)
        optuna(browser, Path(folder), given.trials, given.repeats)


def show(label: str, seconds: Sequence[float], target: float | None = None) -> None:
    """One line of the report."""
    spread = f"{statistics.median(seconds):5.2f} s ({min(seconds):.2f} to {max(seconds):.2f})"
    print(f"{label:<44} {spread:<28}{f' target {target} s' if target else ''}", flush=True)


def timed(action: Callable[[], object]) -> float:
    """Seconds that `action` takes."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def views() -> dict[str, str]:
    """Each page with what it needs to show the large search; trial numbers follow from how it was filled."""
    search = f"search=large-{SEARCHES - 1}"
    return {
        "Searches": "", "Front": f"front?{search}", "Front, all trials": f"front?{search}&below=All+trials",
        "Architecture": f"architecture?{search}&trial=5", "Compare": f"compare?{search}&trials=5,6,7",
        "What matters": f"matters?{search}", "Mixers": "mixers",
    }  # fmt: skip


def empty(browser: Browser, folder: Path, repeats: int) -> None:
    """First paint of a page of Streamlit that holds a title and a chart of one point."""
    script = folder / "empty.py"
    script.write_text(EMPTY)
    first = []
    for _ in range(repeats):
        port = free_port()
        options = ["--server.address=127.0.0.1", f"--server.port={port}", "--server.headless=true"]
        with serving(["-m", "streamlit", "run", str(script), *options], f"http://127.0.0.1:{port}/_stcore/health"):
            paint(browser, f"http://127.0.0.1:{port}")
            first.append(timed(lambda: paint(browser, f"http://127.0.0.1:{port}")))  # noqa: B023
    show("An empty page: again", first)


def paints(browser: Browser, url: str, repeats: int) -> None:
    """First paint of each page by a server that was just started, and of the next viewer's."""
    for name, view in views().items():
        first, again = [], []
        for _ in range(repeats):
            with served(url) as dashboard:
                for kept in (first, again):
                    kept.append(timed(lambda: paint(browser, f"{dashboard.address}/{view}")))  # noqa: B023
        show(f"{name}: first paint", first, PAINT_SECONDS)
        show(f"{name}: again", again)


def paint(browser: Browser, address: str) -> None:
    """Opens `address` in a fresh browser window until it is drawn."""
    with viewer(browser, address):
        pass


def filters(browser: Browser, url: str, repeats: int) -> None:
    """Changes of what is shown, on a page that is open."""
    with served(url) as dashboard, viewer(browser, f"{dashboard.address}/{views()['Front, all trials']}") as page:
        chart, words = [], []
        for index in range(repeats):
            chart.append(timed(lambda: switch_group(page)))
            words.append(timed(lambda: find(page, f"kda(key_dim=4) {('full', 'gla', 'moba')[index % 3]}")))  # noqa: B023
    show("Front: a group switched", chart, FILTER_SECONDS)
    show("All trials: a text that filters", words, FILTER_SECONDS)


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
    first = []
    for _ in range(repeats):
        with optuna_served(url) as address:
            first.append(timed(lambda: optuna_paint(browser, f"{address}/dashboard/studies/{studies[-1]}")))
    show(f"optuna-dashboard {version('optuna-dashboard')}: a study's first paint", first)


def fill_optuna(url: str, trials: int) -> list[int]:
    """Studies with three objectives and twelve categorical choices, as `fill_many` has."""
    import random

    from dashboard_bulk import LAYERS, MIXERS
    from optuna import create_study, logging
    from optuna.distributions import CategoricalDistribution
    from optuna.trial import create_trial

    logging.set_verbosity(logging.WARNING)
    rng, choice = random.Random(0), CategoricalDistribution(MIXERS)
    found = []
    for index in range(SEARCHES):
        study = create_study(
            storage=url, study_name=f"large-{index}", directions=["maximize", "minimize", "minimize"]
        )  # fmt: skip
        distributions = {f"layer{layer}": choice for layer in range(LAYERS)}
        study.add_trials(
            create_trial(
                params={name: rng.choice(MIXERS) for name in distributions}, distributions=distributions,
                values=[rng.random(), rng.random() * 1e8, rng.random() * 1e8],
            )
            for _ in range(trials // SEARCHES)
        )  # fmt: skip
        found.append(study._study_id)
    return found


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


def optuna_paint(browser: Browser, address: str) -> None:
    """Opens a study in a fresh browser window until its first chart is drawn."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector(".js-plotly-plot .main-svg", timeout=300_000)
    context.close()


if __name__ == "__main__":
    main()
