"""``add``, ``edit``, ``archive``, ``rm``, ``prune`` and ``db import``, ``backup`` and ``restore``."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import typer
from cli_samples import OBJECTIVES
from typer.testing import CliRunner, Result

import archsearch.search
from archsearch.cli import app
from archsearch.errors import NotationError, SpecError, StorageError
from archsearch.search import SearchOutcome
from archsearch.search.checkpoint_place import checkpoint_name
from archsearch.search.progress import Progress
from archsearch.storage import Driver, NewTrial, Store

Run = Callable[..., Result]
SPEC: dict[str, Any] = {
    "name": "mine",
    "model": {"d_model": 64, "n_layers": 2, "n_heads": 2},
    "space": {"mixers": ["full", "linear"]},
    "tasks": [{"name": "mqar"}],
    "objectives": {"maximize": ["recall"], "minimize": ["state_bytes"]},
    "budget": {"state_bytes": "16 MiB"},
}


@pytest.fixture
def mine(url: str) -> int:
    """A search that has ended, to which candidates are added."""
    with Store.open(url) as store:
        search = store.create_search("mine", SPEC, OBJECTIVES[:2], owner="ada")
        store.set_search_state(search, "complete")
    return search


def _listed(run: Run, *words: str) -> list[str]:
    return [search["name"] for search in json.loads(run("searches", "--json", *words).stdout)["searches"]]


def _data(result: Result) -> Any:
    assert result.exception is None, result.exception
    return json.loads(result.stdout)


def test_candidates_are_added_and_what_becomes_of_them_is_told(run: Run, mine: int, url: str) -> None:
    shown = run("add", "mine", "full linear", "full").stdout
    for text in ("waiting", "full linear", "infeasible", "exceeds 16 MiB", "`archsearch resume mine` trains them"):
        assert text in shown, text
    data = _data(run("add", "mine", "linear full", "full", "--json"))
    assert [(row["state"], row["trial"]) for row in data["candidates"]] == [("waiting", None), ("infeasible", None)]
    with Store.open(url, read_only=True) as store:
        patterns = [proposal.pattern for proposal in store.proposals(mine)]
    assert patterns == ["full linear", "full*2", "linear full"]


def test_one_that_the_search_has_is_told_with_its_trial(
    run: Run, mine: int, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHSEARCH_OWNER", "ada")
    run("add", "mine", "full linear")
    with Store.open(url) as store:
        (proposal,) = store.proposals(mine)
        trial = store.add_trial(
            mine,
            NewTrial(
                kind="added",
                state="diverged",
                arch=proposal.arch,
                digest=proposal.digest,
                pattern=proposal.pattern,
                params={},
                seeds=[],
                costs={},
                violations={},
                reason="loss was nan at step 12",
            ),
        )
        store.link_proposal(proposal.id, trial)
    (row,) = _data(run("add", "mine", "full linear", "--json"))["candidates"]
    assert (row["trial"], row["state"]) == (trial, "diverged")
    assert row["remark"] == "the search has it: it is diverged (loss was nan at step 12)"
    assert "trains them" not in run("add", "mine", "full linear").stdout
    assert _data(run("show", str(trial), "--json"))["kind"] == "added"
    assert "added by ada" in run("show", str(trial)).stdout


def test_a_program_adds_by_json_lines(run: Run, mine: int) -> None:
    lines = '"full linear"\n\n{"pattern": "linear full", "score": 3}\n'
    result = CliRunner().invoke(app, ["add", "mine", "-", "--json"], input=lines)
    assert [row["pattern"] for row in _data(result)["candidates"]] == ["full linear", "linear full"]
    for line in ("full*2", "[1]", '{"arch": "full"}', "3"):
        error = CliRunner().invoke(app, ["add", "mine", "-"], input=f'"full"\n{line}\n').exception
        assert isinstance(error, SpecError)
        assert "line 2 of standard input is no pattern" in str(error)


def test_a_bad_pattern_adds_nothing(run: Run, mine: int, url: str) -> None:
    error = run("add", "mine", "full linear", "full lineer").exception
    assert isinstance(error, NotationError)
    assert 'did you mean "linear"' in str(error)
    assert "\n  full lineer\n       ^" in str(error)
    with Store.open(url, read_only=True) as store:
        assert store.proposals(mine) == []


def test_a_search_that_runs_takes_candidates_by_itself(run: Run, url: str) -> None:
    with Store.open(url) as store:
        store.create_search("mine", SPEC, OBJECTIVES[:2], driver=Driver.here())
    assert "mine is running and takes them up" in run("add", "mine", "full linear", "--run").stdout


def test_added_with_run_they_are_trained_at_once(
    run: Run, mine: int, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resumed = []

    def resume_search(problem: Any, *, store: Store, **_: Any) -> SearchOutcome:
        resumed.append([proposal.pattern for proposal in store.proposals(mine, waiting=True)])
        return SearchOutcome(name="mine", state="complete", reason="", progress=Progress(trained=1), seconds=1.0)

    monkeypatch.setattr(archsearch.search, "resume_search", resume_search, raising=False)
    data = _data(run("add", "mine", "full linear", "--run", "--json"))
    assert resumed == [["full linear"]]
    assert (data["state"], data["name"]) == ("complete", "mine")


def test_a_search_is_tagged_noted_and_given_away(run: Run, trials: dict[str, int]) -> None:
    data = _data(
        run("edit", "quick", "--tag", "paper", "--tag", "gpu", "--note", "figure 3", "--owner", "ada", "--json")
    )
    assert (data["tags"], data["note"], data["owner"]) == (["paper", "gpu"], "figure 3", "ada")
    shown = run("edit", "quick", "--untag", "gpu").stdout
    assert "owner: ada" in shown
    assert "tags: paper\n" in shown
    shown = run("searches").stdout
    assert "tags" in shown
    assert "paper" in shown
    assert "quick: note: figure 3" in shown
    assert "owner" not in shown, "one owner alone tells nothing"


def test_searches_are_chosen_by_owner_and_tag(run: Run, trials: dict[str, int], mine: int) -> None:
    run("edit", "quick", "--tag", "paper", "--owner", "grace")
    assert _listed(run) == ["quick", "mine"]
    assert _listed(run, "--tag", "paper") == ["quick"]
    assert _listed(run, "--owner", "ada") == ["mine"]
    shown = run("searches").stdout
    for text in ("owner", "grace", "ada"):
        assert text in shown


def test_an_archived_search_is_listed_with_all_alone(run: Run, trials: dict[str, int], mine: int) -> None:
    assert "quick: archived" in run("archive", "quick").stdout
    assert (_listed(run), _listed(run, "--all")) == (["mine"], ["quick", "mine"])
    assert "1 more are archived" in run("searches").stdout
    assert "archived" in run("searches", "--all").stdout
    assert run("show", str(trials["mixed"])).exit_code == 0
    assert "quick: listed again" in run("archive", "quick", "--undo").stdout
    assert _listed(run) == ["quick", "mine"]


def test_a_name_that_is_not_there_archives_none(run: Run, trials: dict[str, int]) -> None:
    error = run("archive", "quick", "quack").exception
    assert isinstance(error, StorageError)
    assert _listed(run) == ["quick"]


def test_what_is_removed_is_told_first_and_asked_for(run: Run, trials: dict[str, int], mine: int) -> None:
    error = run("rm", "quick").exception
    assert isinstance(error, SpecError)
    assert "add --yes" in str(error)
    shown = run("rm", "quick", "--dry-run").stdout
    assert "9 trials" in shown
    assert _listed(run) == ["quick", "mine"]
    data = _data(run("rm", "quick", "--yes", "--json"))
    assert (data["removed"], data["searches"], data["trials"]) == (True, ["quick"], 9)
    assert data["measurements"] > 0
    assert data["size_bytes"] > 10_000
    assert _listed(run) == ["mine"]
    assert "removed 1 searches" in run("rm", "mine", "-y").stdout


@pytest.mark.parametrize("form", ["none", "path", "file", "store"])
def test_checkpoints_go_with_their_search_or_are_named(
    run: Run, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    places = {"path": f"{tmp_path}/kept", "file": f"file://{tmp_path}/kept", "store": "s3://bucket/kept/"}
    spec = {**SPEC, "resources": {"checkpoints": places[form]}} if form in places else SPEC
    kept = {}
    with Store.open(url) as store:
        for name in ("gone", "stays"):
            store.set_search_state(store.create_search(name, {**spec, "name": name}, OBJECTIVES[:2]), "interrupted")
            place = f"{tmp_path}/kept" if form in ("path", "file") else str(tmp_path / "cache/archsearch/checkpoints")
            kept[name] = Path(place) / checkpoint_name(store.url, name)
            kept[name].mkdir(parents=True)
            (kept[name] / "7.pt").touch()
    named = f"s3://bucket/kept/{kept['gone'].name}" if form == "store" else str(kept["gone"])
    assert f"checkpoints: {named}\n" in run("rm", "gone", "--dry-run").stdout
    assert kept["gone"].exists()
    result = run("rm", "gone", "--yes", "--json")
    assert _data(result)["checkpoints"] == ([named] if form == "store" else [])
    assert (f"checkpoints may be left in {named}: remove them there" in result.stderr) is (form == "store")
    assert (kept["gone"].exists(), kept["stays"].exists()) == (form == "store", True)


@pytest.fixture
def ladder(url: str, mine: int) -> None:
    """A ladder of three rungs, which ended long ago, another search beside it, and a rung of another ladder."""
    with Store.open(url) as store:
        for name, climbed in (
            ("climb", None),
            ("climb.rung2", ("climb", 2)),
            ("climb.rung3", ("climb", 3)),
            ("climb.rung4", ("steep", 2)),
        ):
            of = {"rung": [{}, {}]} if climbed is None else {"climbed": {"ladder": climbed[0], "rung": climbed[1]}}
            store.set_search_state(store.create_search(name, {**SPEC, "name": name, **of}, OBJECTIVES[:2]), "complete")
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        connection.execute("UPDATE search SET finished_at = '2025-01-01 00:00:00.000000'")
        connection.commit()


@pytest.mark.usefixtures("ladder")
def test_rungs_go_with_what_they_stand_on(run: Run) -> None:
    shown = run("rm", "climb.rung2", "--dry-run").stdout
    assert "climb.rung3: complete" in shown
    assert shown.count("a rung that stands on it") == 1
    assert _data(run("rm", "climb.rung3", "--dry-run", "--json"))["searches"] == ["climb.rung3"]
    both = _data(run("rm", "climb.rung3", "mine", "climb.rung2", "--dry-run", "--json"))
    assert both["searches"] == ["climb.rung3", "mine", "climb.rung2"]
    assert _data(run("rm", "climb", "--yes", "--json"))["searches"] == ["climb", "climb.rung2", "climb.rung3"]
    assert _listed(run) == ["mine", "climb.rung4"]


@pytest.mark.usefixtures("ladder")
def test_pruning_keeps_what_a_rung_stands_on_as_long_as_that(run: Run) -> None:
    words = ("prune", "--older-than", "90d", "--everyone", "--dry-run")
    run("archive", "climb", "climb.rung3")
    assert _data(run(*words, "--json"))["searches"] == ["climb.rung3"]
    assert "kept, as rungs stand on it: climb" in run(*words).stdout
    run("archive", "climb.rung2")
    assert _data(run(*words, "--json"))["searches"] == ["climb", "climb.rung2", "climb.rung3"]


def test_one_is_asked_on_a_terminal(
    run: Run, trials: dict[str, int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Terminal:
        def __init__(self, answer: str) -> None:
            self._answer = answer

        def isatty(self) -> bool:
            return True

        def readline(self) -> str:
            return f"{self._answer}\n"

    from archsearch.cli import remove

    for answer, kept in (("n", 1), ("", 1), ("y", 0)):
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        with suppress(typer.Exit):
            remove.rm(["quick"])
        assert len(_listed(run)) == kept


def test_pruning_takes_what_is_archived_or_in_a_state(run: Run, trials: dict[str, int], mine: int, url: str) -> None:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        connection.execute("UPDATE search SET finished_at = '2025-01-01 00:00:00.000000'")
        connection.commit()
    words = ("prune", "--older-than", "90d", "--everyone", "--dry-run", "--json")
    assert _data(run(*words))["searches"] == []
    run("archive", "mine")
    assert _data(run(*words))["searches"] == ["mine"]
    assert _data(run(*words, "--state", "complete,failed"))["searches"] == ["quick", "mine"]
    assert _data(run(*words, "--state", "failed"))["searches"] == []
    assert "no search is to be removed" in run("prune", "--older-than", "40y").stdout
    run("prune", "--older-than", "12w", "--owner", "ada", "--yes")
    assert _listed(run, "--all") == ["quick"]


def test_searches_of_others_are_pruned_when_asked_alone(
    run: Run, mine: int, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHSEARCH_OWNER", "grace")
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        connection.execute("UPDATE search SET finished_at = '2025-01-01 00:00:00.000000'")
        connection.commit()
    shown = run("prune", "--older-than", "1d", "--state", "complete", "--yes").stdout
    assert "no search is to be removed (1 of other owners: --everyone)" in shown
    assert _listed(run) == ["mine"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--older-than", "soon"), "write a number and h, d, w or y, as in 90d"),
        (("--older-than", "90d", "--state", "complte"), 'did you mean "complete"'),
        (("--older-than", "90d", "--state", "running"), "no such state"),
    ],
)
def test_what_prune_cannot_use_is_told(run: Run, mine: int, words: tuple[str, ...], told: str) -> None:
    error = run("prune", *words).exception
    assert isinstance(error, SpecError)
    assert told in str(error)


def test_a_backup_is_made_and_put_back(run: Run, trials: dict[str, int], url: str, tmp_path: Path) -> None:
    data = _data(run("db", "backup", "copy.db", "--json"))
    assert (data["searches"], data["trials"], data["database"]) == (1, 9, url)
    assert "copy.db exists" in str(run("db", "backup", "copy.db").exception)
    assert run("db", "backup", "copy.db", "--force").exit_code == 0
    other = f"sqlite:///{tmp_path}/other.db"
    shown = run("db", "restore", "copy.db", "--storage", other).stdout
    assert "1 searches with 9 trials" in shown
    assert json.loads(run("trials", "quick", "--json", "--storage", other).stdout) == json.loads(
        run("trials", "quick", "--json").stdout
    )
    assert "empty database" in str(run("db", "restore", "copy.db").exception)


def test_searches_of_another_file_are_brought(run: Run, trials: dict[str, int], tmp_path: Path) -> None:
    team = ("--storage", f"sqlite:///{tmp_path}/team.db")
    assert run("db", "upgrade", *team).exit_code == 0
    shown = run("db", "import", "searches.db", *team).stdout
    for text in ("quick", "imported", "9"):
        assert text in shown
    (row,) = _data(run("db", "import", "searches.db", "--json", *team))["searches"]
    assert row["outcome"] == "already here"
    assert _listed(run, *team) == ["quick"]


def test_a_taken_name_is_refused_with_the_remedy_and_renamed(run: Run, trials: dict[str, int], tmp_path: Path) -> None:
    place = f"sqlite:///{tmp_path}/team.db"
    with Store.open(place) as store:
        store.create_search("quick", {}, OBJECTIVES)
    result = run("db", "import", "searches.db", "--json", "--storage", place)
    assert result.exit_code == 4
    (row,) = json.loads(result.stdout)["searches"]
    assert "add --rename quick=NEW_NAME" in row["reason"]
    result = run("db", "import", f"sqlite:///{tmp_path}/searches.db", "--rename", "quick=hers", "--storage", place)
    assert result.exit_code == 0
    assert _listed(run, "--storage", place) == ["quick", "hers"]
    for pair in ("quick", "quick=", "=hers", "quick=a b", f"quick={'x' * 101}"):
        assert "write OLD=NEW" in str(run("db", "import", "searches.db", "--rename", pair).exception)
