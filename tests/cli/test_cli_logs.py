"""What a command says on stderr as JSON lines: events of a search, warnings, and the error that it ends with."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.request import urlopen

import pytest
from cli_samples import fill
from typer.testing import Result

from archsearch.cli import logs, output
from archsearch.cli.events import EventView
from archsearch.cli.logs import LogFormat, Remarks, choose_format
from archsearch.cli.watching import Watching
from archsearch.errors import SpecError
from archsearch.search.ledger import TrialOrder
from archsearch.search.progress import Progress
from archsearch.search.view import TrialProgress, View
from archsearch.storage import Store

ORDER = TrialOrder(trial=7, kind="search", arch=cast("Any", None), pattern="full", runs=())


@pytest.fixture(autouse=True)
def text_again() -> Iterator[None]:
    level, handlers = logs.log.level, logs.log.handlers[:]
    yield
    output.tell_lines_with(None)
    logs.log.setLevel(level)
    logs.log.handlers[:] = handlers


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store.open(url) as store:
        fill(store)
        yield store


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_every_event_has_the_search_and_the_trial(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    choose_format(LogFormat.json)
    logs.log.addHandler(Remarks())
    name = store.searches()[0].name
    view: View = EventView(store, name)
    view.noted("waiting")
    view.begun(cast("Any", SimpleNamespace(planned=3, concurrency=2, database="sqlite:///x")))
    view.trial_started(ORDER)
    view.trial_progressed(ORDER, TrialProgress(task="mqar", seed=1, step=5, total_steps=9, value=float("nan")))
    view.trial_ended(ORDER, "failed", "two\nlines")
    view.advanced(Progress(planned=3, finished=1, failed=1), [])
    view.ended("failed", "all of it")
    said = lines(capsys)
    events = ["noted", "begun", "trial_started", "trial_progressed", "trial_ended", "advanced", "ended"]
    assert [line["event"] for line in said] == events
    assert {line["search"] for line in said} == {name}
    assert {line["search_id"] for line in said[1:]} == {store.search(name).id}
    assert [line.get("trial") for line in said] == [None, None, 7, 7, 7, None, None]
    progressed, ended = said[3], said[4]
    assert (progressed["task"], progressed["seed"], progressed["step"], progressed["value"]) == ("mqar", 1, 5, None)
    assert (ended["state"], ended["reason"]) == ("failed", "two\nlines")
    assert {"time", "level", "logger", "message"} <= set(said[0])


def test_warnings_remarks_and_errors_are_lines_of_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    choose_format(LogFormat.json)
    logs.log.addHandler(Remarks())
    logs.log.warning("a checkpoint of %s is left alone", "x")
    output.tell("cancelled")
    output.tell("error: no such thing: try another")
    with output.prints_told():
        print("a library prints\n")
    said = [(line["level"], line["message"]) for line in lines(capsys)]
    assert said == [
        ("warning", "a checkpoint of x is left alone"),
        ("info", "cancelled"),
        ("error", "no such thing: try another"),
        ("info", "a library prints"),
    ]


def test_text_stays_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    choose_format(None)
    logs.log.addHandler(Remarks())
    logs.log.setLevel(logging.INFO)
    logs.log.info("not told")
    logs.log.warning("told")
    output.tell("error: so it is")
    assert capsys.readouterr().err == "told\nerror: so it is\n"


def test_the_environment_chooses_where_no_option_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHSEARCH_LOG_FORMAT", "json")
    assert choose_format(None) is LogFormat.json
    assert choose_format(LogFormat.text) is LogFormat.text
    monkeypatch.setenv("ARCHSEARCH_LOG_FORMAT", "yaml")
    with pytest.raises(SpecError, match='ARCHSEARCH_LOG_FORMAT is "yaml": write text or json'):
        choose_format(None)


def test_metrics_are_served_while_a_search_is_watched(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARCHSEARCH_METRICS", "20000-60000")
    name = store.searches()[0].name
    with Watching(json=True).view(store, name) as view:
        where = capsys.readouterr().err.split()[-1]
        assert where.startswith("http://127.0.0.1:")
        text = urlopen(where).read().decode()
        view.trial_started(ORDER)
    assert f'archsearch_trials{{search="{name}",state="complete"}}' in text


def test_a_bad_address_is_refused_before_anything_is_stored(
    run: Callable[..., Result], tmp_path: Path, url: str
) -> None:
    spec = tmp_path / "spec.toml"
    spec.write_text(
        'name = "quick"\n[model]\nd_model = 64\nn_layers = 2\n[space]\nmixers = ["full", "linear"]\n'
        '[[tasks]]\nname = "mqar"\n[objectives]\nmaximize = ["recall"]\nminimize = ["state_bytes"]\n'
    )
    result = run("run", str(spec), "--metrics", "everywhere")
    assert isinstance(result.exception, SpecError)
    with Store.open(url) as store:
        assert store.searches() == []


@pytest.mark.slow
def test_a_search_logs_json_alone_and_serves_its_metrics(tmp_path: Path, url: str) -> None:
    """The command itself, in a process of its own: every line on stderr is JSON, and ends with the search's state."""
    spec = tmp_path / "spec.toml"
    spec.write_text(
        'name = "tiny"\n[model]\nd_model = 16\nn_layers = 2\nn_heads = 1\nchannel_mixer = "none"\n[space]\n'
        'mixers = ["full", "sliding"]\n[space.sliding]\nwindow = [8]\nsinks = [0]\n[[tasks]]\nname = "mqar"\n'
        'setting = "easy"\n[recipe]\nsteps = 2\neval_every = 1000\n[objectives]\nmaximize = ["recall"]\n'
        'minimize = ["state_bytes"]\ncontext = 1024\n[search]\ntrials = 2\nconcurrency = 1\n'
    )
    asked = ["run", str(spec), "--storage", url, "--log-format", "json", "--metrics", "20000-60000", "--json"]
    code = "import sys; from archsearch.cli import main; sys.argv[0] = 'archsearch'; main()"
    done = subprocess.run([sys.executable, "-c", code, *asked], capture_output=True, text=True, check=True)
    said = [json.loads(line) for line in done.stderr.splitlines()]
    assert json.loads(done.stdout)["state"] == "complete"
    assert said[0]["message"].startswith("metrics at http://127.0.0.1:")
    assert (said[-1]["event"], said[-1]["state"]) == ("ended", "complete")
    assert {line["event"] for line in said} >= {"begun", "trial_started", "trial_progressed", "trial_ended", "advanced"}
