"""The dashboard in a real browser: from the front to the evidence, and the same view for a colleague."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from browser import (
    WAIT_MS,
    Served,
    chromium,
    click_point,
    click_row,
    points,
    served,
    settled,
    viewer,
    wait_for_url,
    window,
)
from dashboard_samples import HTML_NAME, add_trial, fill, half_finished
from playwright.sync_api import Browser, Page, expect

from archsearch.storage import Store

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1200)]  # a busy machine draws slowly


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    return {}


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory, trials: dict[str, int]) -> Iterator[Served]:
    """A dashboard over every sample; it is only read."""
    url = f"sqlite:///{tmp_path_factory.mktemp('browser')}/searches.db"
    trials.update(fill(url))
    with served(url) as found:
        yield found


def query(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def recall(page: Page) -> str:
    return page.locator("[data-testid=stMetricValue]").inner_text().strip()


def test_from_a_search_to_the_front_to_an_architecture(browser: Browser, dashboard: Served) -> None:
    with viewer(browser, dashboard.address) as page:
        click_row(page, 0, 0, height=40)
        wait_for_url(page, "/front")
        expect(page.get_by_role("heading", name="Front of quick")).to_be_visible()
        assert query(page)["search"] == ["quick"]


def test_a_click_on_a_point_opens_the_trial(browser: Browser, dashboard: Served, trials: dict[str, int]) -> None:
    with viewer(browser, f"{dashboard.address}/front?search=quick&z=none") as page:
        points(page)
        click_point(page, "front, confirmed")
        wait_for_url(page, "/architecture")
        settled(page)
        assert query(page)["trial"] == [str(trials["confirm-delta"])]
        assert query(page)["search"] == ["quick"]
        expect(page.get_by_text("deltanet(key_dim=4)").first).to_be_visible()
        page.go_back()
        expect(page.get_by_role("heading", name="Front of quick")).to_be_visible()
        settled(page)
        points(page)
        assert "/front" in page.url


def test_a_click_on_a_row_opens_the_trial(browser: Browser, dashboard: Served, trials: dict[str, int]) -> None:
    with viewer(browser, f"{dashboard.address}/front?search=quick") as page:
        click_row(page, 0, 1)
        wait_for_url(page, "/architecture")
        assert query(page)["trial"] == [str(trials["confirm-window"])]


def test_the_keyboard_alone_opens_a_trial(browser: Browser, dashboard: Served, trials: dict[str, int]) -> None:
    with viewer(browser, f"{dashboard.address}/front?search=quick") as page:
        page.locator("[data-testid=data-grid-canvas]").wait_for()
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("() => document.activeElement.tagName") == "CANVAS":
                break
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Shift+Space")
        wait_for_url(page, "/architecture")
        settled(page)
        assert query(page)["trial"] == [str(trials["confirm-window"])]


def test_two_architectures_side_by_side(browser: Browser, dashboard: Served, trials: dict[str, int]) -> None:
    with viewer(browser, f"{dashboard.address}/front?search=quick") as page:
        page.get_by_role("link", name="Compare with the next").click()
        wait_for_url(page, "/compare")
        settled(page)
        assert query(page)["trials"] == [f"{trials['two-full']},{trials['confirm-mixed']}"]
        expect(page.get_by_text(str(trials["confirm-mixed"])).first).to_be_visible()


def test_a_budget_is_set_by_keyboard_and_shared_by_its_url(browser: Browser, dashboard: Served) -> None:
    with viewer(browser, f"{dashboard.address}/front?search=quick") as page:
        before = recall(page)
        slider = page.get_by_role("slider").first
        slider.focus()
        for _ in range(4):
            slider.press("ArrowLeft")
        wait_for_url(page, "max_state_bytes=")
        expect(page.locator("[data-testid=stMetricValue]")).not_to_have_text(before)
        settled(page)
        after, address = recall(page), page.url
        assert float(after) < float(before)
    with viewer(browser, address) as page:
        assert recall(page) == after
        assert query(page) == parse_qs(urlsplit(address).query)


def test_switches_and_axes_are_in_the_url(browser: Browser, dashboard: Served) -> None:
    with viewer(browser, f"{dashboard.address}/front?search=quick") as page:
        few = points(page).count()
        page.get_by_role("button", name="failed").click()
        wait_for_url(page, "show=failed")
        page.wait_for_function(
            "few => document.querySelectorAll('.js-plotly-plot .points path.point').length > few", arg=few
        )
        page.get_by_text("log upwards").click()
        wait_for_url(page, "logy=true")
        page.get_by_text("All trials").click()
        wait_for_url(page, "below=All")
        settled(page)
        many, address = points(page).count(), page.url
    with viewer(browser, address) as page:
        assert points(page).count() == many > few
        expect(page.get_by_text("19 trials, 50 a page")).to_be_visible()


def test_downloads(browser: Browser, dashboard: Served, tmp_path: Path) -> None:
    with viewer(browser, f"{dashboard.address}/front?search=quick") as page:
        files = {}
        for label in ("Download every candidate", "Download the report"):
            with page.expect_download() as waited:
                page.get_by_role("button", name=label).click()
            path = tmp_path / waited.value.suggested_filename
            waited.value.save_as(path)
            files[path.name] = path.read_text()
    table = files["quick-candidates.csv"].splitlines()
    assert table[0].startswith("trial,number,pattern,digest,kind,state,seeds,confirmed")
    assert len(table) == 17
    assert all("valid for 3 layers of d_model 64" in line for line in table[1:])
    report = tmp_path / "quick.html"
    assert report.exists()
    context = browser.new_context(offline=True)
    opened = context.new_page()
    opened.goto(report.as_uri())
    assert opened.locator(".js-plotly-plot .point").count() >= 16
    context.close()


@pytest.mark.parametrize(
    ("view", "suffix", "head"),
    [("front", ".svg", b"<svg"), ("compare", ".png", b"\x89PNG"), ("matters", ".png", b"\x89PNG")],
    ids=["front-svg", "compare-png", "matters-png"],
)
def test_figures_are_downloaded(
    browser: Browser, dashboard: Served, tmp_path: Path, view: str, suffix: str, head: bytes
) -> None:
    with viewer(browser, f"{dashboard.address}/{view}?search=quick") as page:
        page.locator(".js-plotly-plot").last.hover(force=True)
        with page.expect_download() as waited:
            page.locator(".modebar-btn[data-title^='Download plot']").last.click()
        assert waited.value.suggested_filename.endswith(suffix)
        waited.value.save_as(tmp_path / "figure")
    assert (tmp_path / "figure").read_bytes().startswith(head)


@pytest.mark.parametrize(
    "view",
    [
        "",
        "front?search=quick",
        "front?search=quick&below=All+trials",
        "architecture?search=quick",
        "compare?search=quick",
        "matters?search=quick",
        "mixers",
    ],
    ids=["searches", "front", "trials", "architecture", "compare", "matters", "mixers"],
)
def test_no_table_has_a_second_way_out(browser: Browser, dashboard: Served, view: str) -> None:
    """Streamlit's own download would write cells as formulas: only the page's button is left."""
    with viewer(browser, f"{dashboard.address}/{view}") as page:
        tables = page.locator("[data-testid=stDataFrame]")
        expect(tables.first).to_be_visible()
        for index in range(tables.count()):
            tables.nth(index).hover(force=True)
            expect(tables.nth(index).get_by_role("button", name="Search")).to_be_visible()
            expect(tables.nth(index).get_by_role("button", name="Download as CSV")).to_have_count(0)
        assert page.locator("[data-testid=stDownloadButton]").count() >= 1


def test_a_small_table_is_downloaded_by_the_button_below_it(
    browser: Browser, dashboard: Served, tmp_path: Path
) -> None:
    with viewer(browser, f"{dashboard.address}/architecture?search=quick") as page:
        with page.expect_download() as waited:
            page.get_by_role("button", name="Download as CSV").first.click()
        waited.value.save_as(tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text().startswith("layer,text,family,options\n1,")


def test_names_are_shown_and_never_run(browser: Browser, dashboard: Served) -> None:
    dialogs: list[str] = []
    with viewer(browser, f"{dashboard.address}/") as page:
        page.on("dialog", lambda dialog: dialogs.append(dialog.message))
        page.goto(f"{dashboard.address}/front?search={HTML_NAME.replace('&', '%26').replace('#', '%23')}")
        settled(page)
        expect(page.get_by_role("heading", name=f"Front of {HTML_NAME[:30]}")).to_be_visible()
        points(page)
        page.goto(f"{dashboard.address}/front?search=:material/home:%20%24x%24%20-%3E%20**y**")
        settled(page)
        told = page.locator("[data-testid=stAlert]").first.inner_text().replace("\u2060", "")
        assert "“:material/home: $x$ -> **y**”" in told
        page.go_back()
        settled(page)
        assert page.locator("[data-testid=stHeading] b, [data-testid=stHeading] a[href*='example.org']").count() == 0
    assert not dialogs


def test_a_running_search_adds_a_point_by_itself(browser: Browser, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/searches.db"
    with Store.open(url) as store:
        found = half_finished(store, "live")
        with served(url) as dashboard, viewer(browser, f"{dashboard.address}/front?search=live") as page:
            expect(page.get_by_text("1 of 2 measured candidates")).to_be_visible()
            add_trial(store, found["search"], "deltanet(key_dim=4)*3", (0.5,))
            store.heartbeat(found["search"])
            expect(page.get_by_text("2 of 3 measured candidates")).to_be_visible(timeout=WAIT_MS)
            assert page.locator("[data-testid=stAlert]").count() == 0


def test_five_viewers_while_a_search_writes(browser: Browser, tmp_path: Path) -> None:
    url, failures, written = f"sqlite:///{tmp_path}/searches.db", [], []
    stop = threading.Event()

    def write(store: Store, search: int) -> None:
        patterns = [f"{name}(key_dim=4)*{count}" for name in ("kda", "gla", "retnet", "deltanet") for count in (1, 2)]
        try:
            while not stop.is_set():
                written.append(add_trial(store, search, patterns[len(written) % len(patterns)], (0.4,)))
                store.heartbeat(search)
                stop.wait(0.02)
        except Exception as error:
            failures.append(error)

    with Store.open(url) as store:
        search = half_finished(store, "live")["search"]
        writer = threading.Thread(target=write, args=(store, search))
        with served(url) as dashboard:
            writer.start()
            try:
                _look_around(browser, dashboard)
            finally:
                stop.set()
                writer.join()
    assert not failures
    assert len(written) > 20


def _look_around(browser: Browser, dashboard: Served) -> None:
    """Five windows, each led through the pages and refreshed by itself while the search writes."""
    contexts = [browser.new_context(viewport={"width": 1280, "height": 900}) for _ in range(5)]
    pages = [context.new_page() for context in contexts]
    for page in pages:
        page.set_default_timeout(WAIT_MS)
    for view in ("front?search=live", "front?search=live&below=All+trials", ""):
        for page in pages:
            page.goto(f"{dashboard.address}/{view}", wait_until="commit")
        for page in pages:
            page.wait_for_selector("[data-testid=stHeading]")
            page.wait_for_selector("[data-testid=stDataFrame]")
            assert page.locator("[data-testid=stAlert], [data-testid=stException]").count() == 0
    for context in contexts:
        context.close()


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 101), ("evil.example.org", 403)])
def test_only_known_hosts_are_answered(dashboard: Served, host: str, status: int) -> None:
    parts = urlsplit(dashboard.address)
    connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=30)
    headers = {
        "Host": f"{host}:{parts.port}",
        "Origin": f"http://{host}:{parts.port}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    connection.request("GET", "/_stcore/stream", headers=headers)
    assert connection.getresponse().status == status
    connection.close()


def test_every_page_opens_without_torch_or_ray(browser: Browser, dashboard: Served, trials: dict[str, int]) -> None:
    compared = f"{trials['mixed']},{trials['two-full']}"
    views = ["", "front", f"architecture?trial={trials['mixed']}", f"compare?trials={compared}", "matters", "mixers"]
    for view in views:
        with viewer(browser, f"{dashboard.address}/{view}") as page:
            assert page.locator("[data-testid=stException], [data-testid=stAlertContentError]").count() == 0, view
    loaded = Path(f"/proc/{dashboard.process.pid}/maps").read_text()
    assert "_sqlite3" in loaded
    assert "libtorch" not in loaded
    assert "/ray/" not in loaded


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_lines_are_read_in_the_theme_s_colours_and_nothing_is_fetched_from_elsewhere(
    browser: Browser, dashboard: Served, dark: bool
) -> None:
    with window(browser, dark=dark) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{dashboard.address}/matters?search=quick&lines=true")
        settled(page)
        page.wait_for_selector(".parcoords .axis .tick text")
        ink, ground = page.evaluate(
            """() => [getComputedStyle(document.querySelector('.parcoords .axis .tick text')).fill,
                      getComputedStyle(document.querySelector('[data-testid=stApp]')).color]"""
        )
        assert ink == ground
        page.wait_for_function("() => document.querySelector('link[rel~=icon]').href.startsWith('data:image/svg')")
        local = (dashboard.address, "data:", "blob:", dashboard.address.replace("http", "ws"))
        assert [address for address in asked if not address.startswith(local)] == []
