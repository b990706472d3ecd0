"""Pictures of every page of the dashboard over a database, light and dark, for the documentation.

python benchmarks/screenshots.py [--storage URL] [--search NAME] [--output docs/img]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from archsearch.analysis.answer import read_answer
from archsearch.storage import Store, storage_url

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "dashboard"))

from browser import chromium, served, settled, viewer  # noqa: E402
from playwright.sync_api import Page  # noqa: E402

TALLEST = 2400


def main() -> None:
    """Writes <page>.png and <page>-dark.png for each page."""
    reader = argparse.ArgumentParser(description=__doc__)
    reader.add_argument("--storage", help="Database URL; else ARCHSEARCH_STORAGE, else sqlite:///archsearch.db.")
    reader.add_argument("--search", help="The search that is shown; the newest by default.")
    reader.add_argument("--output", type=Path, default=ROOT / "docs" / "img")
    given = reader.parse_args()
    url = storage_url(given.storage)
    given.output.mkdir(parents=True, exist_ok=True)
    with served(url) as dashboard, chromium() as browser:
        for name, view in views(url, given.search).items():
            for dark in (False, True):
                path = given.output / f"{name}{'-dark' if dark else ''}.png"
                with viewer(browser, f"{dashboard.address}/{view}", dark=dark) as page:
                    take(page, path)
                print(path, flush=True)


def views(url: str, name: str | None) -> dict[str, str]:
    """The address of each page, about the search `name` and the best that it found."""
    with Store.open(url, read_only=True) as store:
        name = name or store.searches()[-1].name
        answer = read_answer(store, name)
    trials = [int(trial) for trial in answer.front["trial"]] + [int(trial) for trial in answer.references["trial"]]
    compared = ",".join(str(trial) for trial in trials[:3])
    best = len(answer.front) - 1 if len(answer.front) else 0
    return {
        "searches": "",
        "front": f"front?search={name}",
        "architecture": f"architecture?search={name}&trial={trials[best]}",
        "compare": f"compare?search={name}&trials={compared}",
        "matters": f"matters?search={name}",
        "mixers": "mixers",
    }


def take(page: Page, path: Path) -> None:
    """The whole page, as high as it is."""
    height = page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollHeight")
    page.set_viewport_size({"width": 1280, "height": max(600, min(TALLEST, height + 20))})
    page.wait_for_timeout(1500)
    settled(page)
    page.screenshot(path=path)


if __name__ == "__main__":
    main()
