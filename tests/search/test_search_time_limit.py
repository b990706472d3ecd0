"""When a search is to end by itself: what the options say, and what comes first."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from archsearch.errors import SpecError
from archsearch.search.time_limit import TimeLimit

NOON = datetime(2026, 5, 31, 12, tzinfo=UTC)


def test_a_moment_with_a_zone_is_the_same_everywhere() -> None:
    limit = TimeLimit.read(1.5, "2026-05-31T18:00+02:00", now=NOON)
    assert limit.until == datetime(2026, 5, 31, 16, tzinfo=UTC)
    assert limit.arguments == ("--max-hours", "1.5", "--until", "2026-05-31T16:00:00+00:00")
    assert TimeLimit.read(None, limit.arguments[-1], now=NOON).until == limit.until


def test_a_moment_without_a_zone_is_local() -> None:
    local = NOON.astimezone() + timedelta(hours=3)
    assert TimeLimit.read(None, local.replace(tzinfo=None).isoformat(), now=NOON).until == local.astimezone(UTC)


@pytest.mark.parametrize(
    ("hours", "until", "told"),
    [
        (0.0, None, "above 0"),
        (-1.0, None, "above 0"),
        (float("nan"), None, "above 0"),
        (float("inf"), None, "above 0"),
        (None, "soon", "write a moment"),
        (None, "18:00", "write a moment"),
        (None, "2026-05-31T12:00Z", "that is past"),
    ],
)
def test_what_is_no_limit_is_refused(hours: float | None, until: str | None, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        TimeLimit.read(hours, until, now=NOON)


def test_what_the_remedy_names_can_be_typed() -> None:
    with pytest.raises(SpecError) as caught:
        TimeLimit.read(None, "soon", now=NOON)
    _, _, remedy = str(caught.value).partition("write a moment as ")
    moments = [word.strip(",") for word in remedy.split() if word[0].isdigit()]
    assert len(moments) == 2
    for moment in moments:
        assert TimeLimit.read(None, moment, now=NOON - timedelta(days=2)).until is not None


def test_nothing_said_is_no_limit() -> None:
    limit, stop = TimeLimit.read(None, None), threading.Event()
    with limit.watched(stop, pytest.fail):
        assert not stop.wait(0.05)
    assert limit.arguments == ()


@pytest.mark.parametrize("moment", [True, False], ids=["until", "hours"])
def test_what_is_up_first_stops(moment: bool) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    limit = (
        TimeLimit(hours=1000.0, until=past) if moment else TimeLimit(hours=1e-9, until=datetime.max.replace(tzinfo=UTC))
    )
    stop, told = threading.Event(), list[str]()
    with limit.watched(stop, told.append):
        assert stop.wait(120)
    assert told[0].startswith("its time was up at" if moment else "its time of 1e-09 h was up")


def test_who_was_stopped_before_is_not_told() -> None:
    stop = threading.Event()
    stop.set()
    with TimeLimit(hours=1e-9).watched(stop, pytest.fail):
        pass
