"""``archsearch run`` and ``resume`` around the search itself, which a fake stands in for: what they say in the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from cli_samples import OBJECTIVES, SPEC, add_trial, fill
from typer.testing import Result

import archsearch.search
from archsearch.errors import SpecError, StorageError
from archsearch.search import Problem, SearchOutcome
from archsearch.search.progress import Progress
from archsearch.storage import Store

Run = Callable[..., Result]
TEXT = """
name = "quick"
[model]
d_model = 64
n_layers = 2
[space]
mixers = ["full", "linear"]
[[tasks]]
name = "mqar"
[objectives]
maximize = ["recall"]
minimize = ["state_bytes"]
[search]
trials = 16
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "quick.toml"
    path.write_text(TEXT)
    return path


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Calls of the runner; the search is the sample, ended as the last call wants."""
    calls: list[dict[str, Any]] = []

    def outcome(name: str, state: Any) -> SearchOutcome:
        return SearchOutcome(name=name, state=state, reason="as it should", progress=Progress(trained=8), seconds=12.4)

    def run_search(problem: Problem, *, store: Store, **options: Any) -> SearchOutcome:
        calls.append({"spec": problem.spec, "url": store.url, **options})
        fill(store)
        return outcome(problem.spec.name, "complete")

    def resume_search(problem: Problem, *, store: Store, **options: Any) -> SearchOutcome:
        calls.append({"resumed": problem.spec.name, "spec": problem.spec, "url": store.url, **options})
        return outcome(problem.spec.name, "cancelled")

    monkeypatch.setattr(archsearch.search, "run_search", run_search, raising=False)
    monkeypatch.setattr(archsearch.search, "resume_search", resume_search, raising=False)
    return calls


def test_a_run_ends_with_the_front_the_database_and_what_is_next(
    run: Run, spec: Path, searched: list[dict[str, Any]], url: str
) -> None:
    result = run("run", str(spec))
    assert result.exit_code == 0, result.exception
    shown = result.stdout
    wanted = ("linear(update=delta) full", "complete after 12 s: as it should", f"database: {url}", "valid for")
    following = ("archsearch pareto quick --png front.png\n", "archsearch show 9\n", "archsearch trials quick\n")
    for text in (*wanted, *following):
        assert text in shown, text
    assert searched[0]["address"] is None


def test_a_database_named_here_is_named_in_what_is_next(
    run: Run, spec: Path, searched: list[dict[str, Any]], tmp_path: Path
) -> None:
    other = f"sqlite:///{tmp_path}/other one.db"
    shown = run("run", str(spec), "--storage", other).stdout
    assert searched[0]["url"] == other
    assert f"archsearch trials quick --storage '{other}'" in shown


def test_the_environment_wins_over_the_spec(
    run: Run, spec: Path, searched: list[dict[str, Any]], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec.write_text(TEXT + '[storage]\nurl = "sqlite:///spec.db"\n')
    run("run", str(spec))
    monkeypatch.delenv("ARCHSEARCH_STORAGE")
    shown = run("run", str(spec)).stdout
    assert [call["url"] for call in searched] == [url, "sqlite:///spec.db"]
    assert "archsearch trials quick --storage sqlite:///spec.db" in shown


@pytest.mark.parametrize("words", [["run", "SPEC"], ["run", "SPEC", "--resume"], ["resume", "quick"]], ids=" ".join)
def test_what_a_spec_names_is_looked_for_once(
    run: Run,
    spec: Path,
    trials: dict[str, int],
    searched: list[dict[str, Any]],
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Problem, "of", counted := Mock(side_effect=Problem.of))
    run(*[str(spec) if word == "SPEC" else word for word in words])
    assert len(searched) == counted.call_count == 1


def test_a_spec_that_names_what_is_not_there_makes_no_database(run: Run, spec: Path, tmp_path: Path) -> None:
    spec.write_text(TEXT.replace("mqar", "mqra"))
    error = run("run", str(spec), "--storage", f"sqlite:///{tmp_path}/new.db").exception
    assert isinstance(error, SpecError)
    assert 'did you mean "mqar"' in str(error)
    assert not (tmp_path / "new.db").exists()


def test_trials_are_overridden(run: Run, spec: Path, searched: list[dict[str, Any]]) -> None:
    run("run", str(spec), "--trials", "3")
    assert searched[0]["spec"].search.trials == 3
    assert run("run", str(spec), "--trials", "0").exit_code == 2


def test_json(run: Run, spec: Path, searched: list[dict[str, Any]], url: str) -> None:
    data = json.loads(run("run", str(spec), "--json").stdout)
    assert (data["name"], data["state"], data["database"], data["progress"]["trained"]) == ("quick", "complete", url, 8)
    assert len(data["front"]["points"]) == 3


@pytest.mark.parametrize("words", [["run", "SPEC", "--json"], ["resume", "quick", "--json"]], ids=["run", "resume"])
def test_what_a_library_prints_while_a_search_runs_is_told_beside_the_json(
    run: Run,
    spec: Path,
    trials: dict[str, int],
    searched: list[dict[str, Any]],
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quiet = archsearch.search.resume_search

    def noisy(problem: Problem, **options: Any) -> SearchOutcome:
        print("\x1b[33m(raylet)\x1b[0m a worker died")
        return quiet(problem, **options)

    monkeypatch.setattr(archsearch.search, "resume_search", noisy)
    monkeypatch.setattr(archsearch.search, "run_search", noisy)
    result = run(*[str(spec) if word == "SPEC" else word for word in words])
    assert json.loads(result.stdout)["name"] == "quick"
    assert r"\x1b[33m(raylet)\x1b[0m a worker died" in result.stderr


def test_a_stopped_search_has_its_own_code_and_says_how_to_go_on(
    run: Run, trials: dict[str, int], searched: list[dict[str, Any]]
) -> None:
    result = run("resume", "quick")
    assert result.exit_code == 130
    assert "archsearch resume quick\n" in result.stdout


def test_run_goes_on_when_asked(run: Run, spec: Path, searched: list[dict[str, Any]], url: str) -> None:
    assert run("run", str(spec), "--resume", "--address", "auto").exit_code == 0
    assert run("run", str(spec), "--resume", "--address", "auto").exit_code == 130
    assert searched[1]["resumed"] == "quick"
    assert searched[1]["address"] == "auto"


def test_a_search_without_a_front_says_so(run: Run, spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_search(problem: Problem, *, store: Store, **options: Any) -> SearchOutcome:
        search = store.create_search("quick", SPEC, OBJECTIVES)
        add_trial(store, search, "full", costs=(1e6, 1e4), accuracies=(None,), state="diverged")
        store.set_search_state(search, "complete")
        return SearchOutcome(name="quick", state="complete", reason="", progress=Progress(), seconds=1.0)

    monkeypatch.setattr(archsearch.search, "run_search", run_search, raising=False)
    result = run("run", str(spec))
    assert result.exit_code == 0
    assert "no front yet" in result.stdout
    assert "archsearch show" not in result.stdout


def test_a_misspelt_key_is_told(run: Run, spec: Path) -> None:
    spec.write_text(TEXT.replace("trials", "trails"))
    error = run("run", str(spec)).exception
    assert isinstance(error, SpecError)
    assert 'did you mean "trials"' in str(error)


@pytest.mark.parametrize("relative", ["sqlite:///archsearch.db", "sqlite:///folder/archsearch.db"])
def test_a_submitted_job_keeps_no_database_in_its_own_folder(
    run: Run, spec: Path, searched: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, relative: str
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    error = run("run", str(spec), "--storage", relative).exception
    assert isinstance(error, StorageError)
    assert "set ARCHSEARCH_STORAGE on the cluster" in str(error)
    assert run("run", str(spec)).exit_code == 0
    assert len(searched) == 1


def test_the_exit_codes_are_documented(run: Run) -> None:
    shown = " ".join(run("run", "--help").stdout.split())
    for text in (
        "0 done",
        "2 a spec",
        "3 nothing",
        "4 the database",
        "5 the Ray cluster",
        "6 every training diverged",
        "130 interrupted",
    ):
        assert text in shown
