"""Pictures of every page of the dashboard, the front in the dark too, for the documentation.

python benchmarks/screenshots.py [--storage URL] [--output docs/img]

They show the quickstart's result: that of the database, else of a run into a scratch one, which takes minutes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from archsearch.analysis.answer import read_answer
from archsearch.errors import StorageError
from archsearch.storage import Store, storage_url
from archsearch.storage.url import read_url

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "dashboard")]

from browser import chromium, served, settled, viewer  # noqa: E402
from playwright.sync_api import Page  # noqa: E402

SEARCH, TALLEST, SETTLE_MS = "quickstart", 3600, 2000
DARK = ("front",)


def main() -> None:
    """Writes <page>.png for each page, and <page>-dark.png for those of `DARK`."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--storage", help="Database URL; else ARCHSEARCH_STORAGE, else sqlite:///archsearch.db.")
    reader.add_argument("--output", type=Path, default=ROOT / "docs" / "img")
    given = reader.parse_args()
    output = given.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        url = storage_url(given.storage)
        if not holds(url):
            url = f"sqlite:///{folder}/archsearch.db"
            run_quickstart(url)
        url = enter_folder(url)
        with served(url) as dashboard:
            for name, view in views(url).items():
                for dark in (False, True)[: 2 if name in DARK else 1]:
                    path = output / f"{name}{'-dark' if dark else ''}.png"
                    with viewer(browser, f"{dashboard.address}/{view}", dark=dark) as page:
                        take(page, path)
                    print(path, flush=True)


def holds(url: str) -> bool:
    """Whether the database at `url` has a quickstart that ran to its end."""
    try:
        with Store.open(url, read_only=True) as store:
            return store.search(SEARCH).state == "complete"
    except StorageError:
        return False


def run_quickstart(url: str) -> None:
    """Runs the quickstart into the database at `url`."""
    run = "from archsearch.cli import main; main()"
    spec = ROOT / "examples" / "quickstart.toml"
    subprocess.run([sys.executable, "-c", run, "run", str(spec), "--storage", url], check=True)


def enter_folder(url: str) -> str:
    """The URL of the database at `url` from the folder that a SQLite file lies in, which becomes the current one: a
    picture shows no path of the machine that it was taken on."""
    parsed = read_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return url
    file = Path(parsed.database).resolve()
    os.chdir(file.parent)
    return f"sqlite:///{file.name}"


def views(url: str) -> dict[str, str]:
    """The address of each page, about the quickstart and the best that it found."""
    with Store.open(url, read_only=True) as store:
        answer = read_answer(store, SEARCH)
    front, references = ([int(trial) for trial in rows["trial"]] for rows in (answer.front, answer.references))
    compared = ",".join(map(str, [*front[-2:], *references[:1]]))
    return {
        "searches": "",
        "front": f"front?search={SEARCH}",
        "architecture": f"architecture?search={SEARCH}&trial={front[-1]}",
        "compare": f"compare?search={SEARCH}&trials={compared}",
        "matters": f"matters?search={SEARCH}&lines=true",
        "mixers": "mixers",
    }


def take(page: Page, path: Path) -> None:
    """The whole page, as high as it is once everything is drawn."""
    page.wait_for_timeout(SETTLE_MS)
    settled(page)
    height = page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollHeight")
    page.set_viewport_size({"width": 1280, "height": max(600, min(TALLEST, height + 20))})
    page.wait_for_timeout(SETTLE_MS)
    settled(page)
    page.screenshot(path=path)


if __name__ == "__main__":
    main()
