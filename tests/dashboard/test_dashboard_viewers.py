"""Several viewers at once: what they look at is read, judged and drawn once for all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from archsearch_dashboard.connection import store
from archsearch_dashboard.figures.front import View
from archsearch_dashboard.reading import answers
from archsearch_dashboard.reading import front as reading
from dashboard_samples import open_page, texts, well

from archsearch.storage import Store

VIEWERS = 5


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each thing was made that takes long over many trials."""
    made: Counter[str] = Counter()

    def counting(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **named: Any) -> Any:
            made[name] += 1
            return work(*given, **named)

        return counted

    for module, name in (
        (answers, "read_answer"),
        (reading, "front_of"),
        (reading, "best_within"),
        (reading, "front_figure"),
        (reading, "off_scale"),
        (reading.candidates, "candidates_table"),
        (reading.budgets, "ladder"),
    ):
        monkeypatch.setattr(module, name, counting(name, getattr(module, name)))
    for name in ("candidates_frame", "values_frame"):
        monkeypatch.setattr(Store, name, counting(name, getattr(Store, name)))
    return made


def test_the_next_viewers_of_a_front_make_nothing_anew(url: str, built: Counter[str]) -> None:
    first = well(open_page("front", search="quick"))
    once = dict(built)
    assert set(once) == {
        *("read_answer", "front_of", "best_within", "front_figure", "off_scale", "candidates_table", "ladder"),
        *("candidates_frame", "values_frame"),
    }
    for _ in range(VIEWERS - 1):
        assert texts(well(open_page("front", search="quick"))) == texts(first)
    assert dict(built) == once


def test_viewers_at_the_same_time_wait_for_the_one_who_makes_it(url: str, built: Counter[str]) -> None:
    search = store().search("quick")
    begin = Barrier(VIEWERS)

    def look(_: int) -> int:
        begin.wait()
        names = [item.name for item in answers.answer(search).objectives]
        front = reading.read_front(search, names)
        x, y = front.answer.objectives[:2]
        return id(reading.picture(front, View(x=x, y=y)).figure)

    with ThreadPoolExecutor(VIEWERS) as pool:
        assert len(set(pool.map(look, range(VIEWERS)))) == 1
    assert {built[name] for name in ("read_answer", "front_of", "front_figure", "candidates_frame")} == {1}


def test_another_choice_is_another_picture_of_the_same_front(url: str, built: Counter[str]) -> None:
    well(open_page("front", search="quick"))
    once = dict(built)
    well(open_page("front", search="quick", show=["failed", "infeasible"]))
    assert {name for name in built if built[name] > once[name]} == {"front_figure", "off_scale"}
    well(open_page("front", search="quick", max_state_bytes="10 MiB"))
    assert built["best_within"] == once["best_within"] + 1
    assert built["front_of"] == once["front_of"]
