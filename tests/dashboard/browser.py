"""A dashboard that is served, and a browser that looks at it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from ports import free_port

START_SECONDS, WAIT_MS = 180, 180_000
expect.set_options(timeout=WAIT_MS)  # else 5 s, which a busy machine may need for a page
HEAD_PIXELS = 36


class Served:
    """A running dashboard: its address and its process."""

    def __init__(self, address: str, process: subprocess.Popen[bytes]) -> None:
        self.address, self.process = address, process


@contextmanager
def served(url: str, *, folder: Path | None = None, port: int | None = None) -> Iterator[Served]:
    """``archsearch dashboard`` over the database at `url`, started in `folder`, on `port` or one of its own."""
    port = port or free_port()
    command = [sys.executable, "-c", "from archsearch.cli import main; main()", "dashboard", "--port", str(port)]
    environment = {**os.environ, "ARCHSEARCH_STORAGE": url}
    process = subprocess.Popen(
        command, env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(f"{address}/_stcore/health", process)
        yield Served(address, process)
    finally:
        process.terminate()
        process.wait(timeout=30)


def wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    """Waits until `address` is answered; fails when `process` ends before, or after `START_SECONDS`."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the server ended with {process.returncode} before it answered"
        try:
            with urlopen(address, timeout=5):
                return
        except (URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise AssertionError(f"nobody answered at {address} within {START_SECONDS} s")


@contextmanager
def chromium(*flags: str) -> Iterator[Browser]:
    """A headless chromium, started with some more `flags`; fails, with the remedy, where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.fail("the browser tests need chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", *flags])
        yield browser
        browser.close()


@contextmanager
def window(browser: Browser, *, dark: bool = False) -> Iterator[Page]:
    """A fresh browser window of 1280 pixels, which holds nothing yet."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, color_scheme="dark" if dark else "light", accept_downloads=True
    )
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    try:
        yield page
    finally:
        context.close()


@contextmanager
def viewer(browser: Browser, address: str, *, dark: bool = False) -> Iterator[Page]:
    """A fresh window at `address`, drawn to the end."""
    with window(browser, dark=dark) as page:
        page.goto(address)
        settled(page)
        yield page


def settled(page: Page) -> None:
    """Waits until the page's script has run and what it shows is drawn."""
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]")
    page.wait_for_selector("[data-testid=stHeading]")
    page.wait_for_selector("[data-testid=stStatusWidget]", state="detached")
    page.wait_for_selector("[data-testid=stSkeleton]", state="detached")


def points(page: Page) -> Locator:
    """The candidates that the first chart draws."""
    page.wait_for_selector(".js-plotly-plot .scatterlayer .points path.point")
    return page.locator(".js-plotly-plot").first.locator(".scatterlayer .points path.point")


def click_point(page: Page, trace: str) -> None:
    """Clicks the first point of the trace of that name, as its legend calls it."""
    names = page.evaluate("() => document.querySelector('.js-plotly-plot').data.map(trace => trace.name)")
    index = max(number for number, name in enumerate(names) if name == trace)
    place = page.evaluate(
        """index => {
            const plot = document.querySelector('.js-plotly-plot'), layout = plot._fullLayout;
            const trace = plot._fullData[index], box = plot.getBoundingClientRect();
            return [box.x + layout.xaxis._offset + layout.xaxis.d2p(trace.x[0]),
                    box.y + layout.yaxis._offset + layout.yaxis.d2p(trace.y[0])];
        }""",
        index,
    )
    page.mouse.move(place[0] - 3, place[1])
    page.mouse.move(*place)
    page.wait_for_selector(".hoverlayer .hovertext")
    page.mouse.click(*place)


def click_row(page: Page, table: int, row: int, *, height: float = 35) -> None:
    """Chooses a row, from 0, of a table, from 0; a table is drawn on a canvas, each row `height` pixels high."""
    frame = page.locator("[data-testid=stDataFrame]").nth(table)
    frame.scroll_into_view_if_needed()
    box = frame.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 16, box["y"] + HEAD_PIXELS + height * (row + 0.5))


def wait_for_url(page: Page, pattern: str) -> None:
    """Waits until the URL holds `pattern`."""
    page.wait_for_url(re.compile(pattern))
