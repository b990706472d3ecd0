"""``archsearch ladder``, and what ``run`` and ``resume`` tell and ask of one; searches are faked."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_samples import OBJECTIVES, SPEC
from typer.testing import Result

import archsearch.search
from archsearch.cli import climbing
from archsearch.errors import SpecError
from archsearch.search import Problem, SearchOutcome
from archsearch.search.progress import Progress
from archsearch.storage import Store

Run = Callable[..., Result]
TEXT = """
name = "quick"
[model]
d_model = 32
n_layers = 2
channel_mixer = "none"
[space]
mixers = ["full", "linear"]
[[tasks]]
name = "mqar"
setting = "easy"
[recipe]
steps = 2
[objectives]
maximize = ["recall"]
minimize = ["state_bytes"]
[search]
trials = 4
[[rung]]
keep = 2
d_model = 64
n_layers = 4
[ladder]
max_flops = 1e20
"""
TOO_MUCH = TEXT.replace("1e20", "10")


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "quick.toml"
    path.write_text(TEXT)
    return path


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Searches that were begun, each stopped at once."""
    names: list[str] = []

    def run_search(problem: Problem, *, store: Store, **options: Any) -> SearchOutcome:
        names.append(problem.spec.name)
        store.create_search(problem.spec.name, problem.spec.to_json(), OBJECTIVES)
        store.set_search_state(store.search(problem.spec.name).id, "cancelled")
        return SearchOutcome(name=problem.spec.name, state="cancelled", reason="", progress=Progress(), seconds=1.0)

    monkeypatch.setattr(archsearch.search, "run_search", run_search, raising=False)
    monkeypatch.setattr(archsearch.search, "resume_search", run_search, raising=False)
    return names


def test_the_cost_of_a_ladder_is_told_before_it_is_begun(run: Run, spec: Path, begun: list[str]) -> None:
    shown = run("run", str(spec)).stdout
    told = shown.partition("in all")[0]
    assert "quick.rung2" in told
    assert "how long that takes is not known" in shown
    assert "archsearch ladder quick\n" in shown
    assert begun == ["quick"]
    assert told in run("survey", str(spec)).stdout


def test_a_ladder_above_its_limit_is_not_begun_where_nobody_can_be_asked(
    run: Run, spec: Path, begun: list[str]
) -> None:
    spec.write_text(TOO_MUCH)
    error = run("run", str(spec)).exception
    assert isinstance(error, SpecError)
    assert "above ladder.max_flops = 10. Nobody can be asked here whether to begin: add --yes" in str(error)
    assert begun == []
    assert run("run", str(spec), "--yes").exit_code == 130
    assert begun == ["quick"]


@pytest.mark.parametrize(("answer", "code"), [("y\n", 130), ("\n", 1)], ids=["yes", "no"])
def test_on_a_terminal_it_is_asked(
    run: Run, spec: Path, begun: list[str], answer: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    typed = Terminal(answer)
    monkeypatch.setattr(climbing, "sys", type("Sys", (), {"stdin": typed, "stdout": sys.stdout}))
    spec.write_text(TOO_MUCH)
    assert run("run", str(spec)).exit_code == code
    assert begun == (["quick"] if code == 130 else [])


def test_what_a_rung_of_a_ladder_may_be_resumed_with(run: Run, url: str) -> None:
    climbed = {"ladder": "quick", "rung": 2, "below": "quick", "kept": [], "left": {}}
    listed = {"pattern": "listed", "architectures": ["full"]}
    given = {key: value for key, value in SPEC.items() if key not in ("space", "name")}
    spec = {**given, "name": "quick.rung2", "space": listed, "climbed": climbed}
    with Store.open(url) as store:
        store.create_search("quick.rung2", spec, OBJECTIVES)
    error = run("resume", "quick.rung2", "--trials", "3").exception
    assert isinstance(error, SpecError)
    assert '--trials goes with "quick"' in str(error)


def test_the_ladder_command_of_a_search_of_one_size_says_so(run: Run, trials: dict[str, int]) -> None:
    error = run("ladder", "quick").exception
    assert isinstance(error, SpecError)
    assert '"quick" is no ladder' in str(error)
