"""``searches``, ``trials``, ``db`` and ``doctor``; and what reading a database must not import."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from archsearch.cli import doctor
from archsearch.errors import SpecError, StorageError
from archsearch.storage import head

Run = Callable[..., Result]


def test_searches(run: Run, trials: dict[str, int]) -> None:
    (search,) = json.loads(run("searches", "--json").stdout)["searches"]
    assert (search["name"], search["state"], search["trials"], search["complete"]) == ("quick", "complete", 9, 7)
    shown = run("searches").stdout
    assert "quick" in shown
    assert "16 candidates were trained" in shown


def test_a_database_without_searches_says_what_to_do(run: Run) -> None:
    assert run("db", "upgrade").exit_code == 0
    assert "`archsearch run SPEC` makes one" in run("searches").stdout


@pytest.mark.parametrize(
    "words", [("searches",), ("trials", "quick"), ("pareto", "quick"), ("show", "1"), ("db", "current")]
)
def test_no_database_is_told_and_none_is_made(run: Run, words: tuple[str, ...], tmp_path: Path) -> None:
    error = run(*words).exception
    assert isinstance(error, StorageError)
    assert "there is no database" in str(error)
    assert list(tmp_path.iterdir()) == []


def test_trials_have_reasons_and_validation_figures(run: Run, trials: dict[str, int]) -> None:
    data = json.loads(run("trials", "quick", "--json").stdout)
    by_id = {trial["trial"]: trial for trial in data["trials"]}
    assert len(by_id) == data["total"] == 9
    assert by_id[trials["mixed"]]["recall"] == pytest.approx(0.925)
    assert by_id[trials["confirm"]]["recall"] == pytest.approx(0.92)
    assert by_id[trials["diverged"]]["recall"] is None
    assert by_id[trials["infeasible"]]["state_bytes"] == 24 * 2**20
    shown = run("trials", "quick").stdout
    for text in ("loss was nan at step 12", "exceeds 9 MiB", "not exercised: sliding(window=64) sees all"):
        assert text in shown


def test_trials_by_state_and_number(run: Run, trials: dict[str, int]) -> None:
    words = ("trials", "quick", "--json", "--state", "diverged", "--state", "infeasible")
    data = json.loads(run(*words).stdout)
    assert [trial["trial"] for trial in data["trials"]] == [trials["infeasible"], trials["diverged"]]
    data = json.loads(run(*words, "--limit", "1").stdout)
    assert [trial["trial"] for trial in data["trials"]] == [trials["diverged"]]
    assert data["total"] == 2


def test_an_unknown_state_names_the_nearest(run: Run, trials: dict[str, int]) -> None:
    error = run("trials", "quick", "--state", "complte").exception
    assert isinstance(error, SpecError)
    assert 'did you mean "complete"' in str(error)


def test_db(run: Run, url: str) -> None:
    assert json.loads(run("db", "upgrade", "--json").stdout)["current"] == head()
    assert json.loads(run("db", "current", "--json").stdout) == {"database": url, "current": head(), "head": head()}
    assert "up to date" in run("db", "current").stdout


def test_reading_imports_neither_torch_nor_ray(trials: dict[str, int], url: str) -> None:
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom archsearch.cli import app\n"
        f"for words in (['pareto', 'quick'], ['show', '{trials['mixed']}'], ['trials', 'quick'], ['searches'],"
        " ['db', 'current'], ['pareto', 'quick', '--json']):\n"
        "    result = CliRunner().invoke(app, words)\n    assert result.exit_code == 0, (words, result.exception)\n"
        "print(sorted({'torch', 'ray', 'optuna', 'matplotlib', 'alembic'} & set(sys.modules)))\n"
    )
    environment = {**os.environ, "ARCHSEARCH_STORAGE": url}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.fixture
def quick_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imports of the large libraries take seconds: these answer at once."""
    monkeypatch.setattr(
        doctor,
        "_PROBES",
        {"torch": "print('2.0'); print('cpu, 1 threads')", "ray": "print('2.1')", "triton": "import no_such_module"},
    )


@pytest.mark.usefixtures("quick_probes")
def test_doctor_finds_nothing_broken(run: Run, trials: dict[str, int]) -> None:
    result = run("doctor", "--json")
    data = json.loads(result.stdout)
    checks = {check["name"]: check for check in data["checks"]}
    assert checks["torch"]["detail"] == "2.0"
    assert checks["device"]["detail"] == "cpu, 1 threads"
    assert checks["triton"]["status"] == "note"
    assert checks["database"]["status"] == "ok"
    assert "1 searches" in checks["database"]["detail"]
    broken = [check for check in data["checks"] if check["status"] == "broken"]
    assert (result.exit_code, data["ok"]) == ((1, False) if broken else (0, True))


@pytest.mark.usefixtures("quick_probes")
def test_doctor_takes_a_database_that_is_yet_to_be_made_for_no_fault(run: Run, tmp_path: Path) -> None:
    checks = {check["name"]: check for check in json.loads(run("doctor", "--json").stdout)["checks"]}
    assert checks["database"]["status"] == "note"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick_probes")
def test_doctor_fails_for_a_file_that_is_no_database(run: Run, tmp_path: Path) -> None:
    (tmp_path / "searches.db").write_bytes(b"text" * 500)
    result = run("doctor")
    assert result.exit_code == 1
    assert "not a SQLite database" in result.stdout
    assert "broken: database" in result.stdout


@pytest.mark.usefixtures("quick_probes")
def test_doctor_fails_for_another_schema(run: Run, trials: dict[str, int], tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "searches.db") as connection:
        connection.execute("UPDATE archsearch_version SET version_num = '9999'")
    connection.close()
    result = run("doctor")
    assert result.exit_code == 1
    assert "newer than this archsearch" in result.stdout


def test_doctor_tells_a_library_that_takes_its_process_down(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_PROBES", {"torch": "import os; os.abort()", "ray": "import no_such_module"})
    result = run("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert result.exit_code == 1
    assert checks["torch"]["status"] == checks["ray"]["status"] == "broken"
    assert "No module named 'no_such_module'" in checks["ray"]["detail"]


@pytest.mark.usefixtures("quick_probes")
def test_doctor_tells_too_little_room(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LEAST_DISK_BYTES", 2**80)
    result = run("doctor")
    assert result.exit_code == 1
    assert "make room" in result.stdout
