"""The command line as the pages call it: its answers, its errors in their own sentence, and its limits of time."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

import pytest
from archsearch_dashboard import command_line
from archsearch_dashboard.queries import drafts
from ports import free_port

from archsearch.errors import ArchsearchError


@pytest.fixture
def standing_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A script that stands in for ``archsearch``; it is written by the test."""
    script = tmp_path / "archsearch.py"
    monkeypatch.setattr(command_line, "_START", (sys.executable, str(script)))
    return script


def test_a_cluster_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(command_line.SUBMIT_TO, f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ArchsearchError, match="cannot reach a Ray cluster at") as found:
        command_line.jobs()
    assert "Traceback" not in str(found.value)


def test_a_draft_is_surveyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHSEARCH_STORAGE", f"sqlite:///{tmp_path}/none.db")
    found = command_line.survey(drafts.to_toml(drafts.SMALL))
    assert (found["name"], found["taken"]) == ("my-search", False)
    assert found["space"]["trainable"] > 0
    unknown = drafts.to_toml({**drafts.SMALL, "space": {"mixers": ["ful"]}})
    with pytest.raises(ArchsearchError, match='did you mean "full"'):
        command_line.survey(unknown)


def test_what_does_not_end_is_ended_with_what_it_started(standing_in: Path, tmp_path: Path) -> None:
    held = tmp_path / "held"
    child = f"import fcntl, time; held = open({str(held)!r}, 'w'); fcntl.flock(held, fcntl.LOCK_EX); time.sleep(600)"
    standing_in.write_text(
        f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', {child!r}])\ntime.sleep(600)\n"
    )
    with pytest.raises(ArchsearchError, match=r"`archsearch jobs` gave no answer in \d+ s"):
        command_line.ask(["jobs"], 2.0)
    with held.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # waits for as long as the child lives


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import sys; print('a remark\\nerror: no room\\n  for it', file=sys.stderr); sys.exit(5)", "no room for it"),
        ("import sys; sys.exit(3)", "ended with 3"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("print('nothing')", "printed no answer that can be read"),
        ("print('[]')", "printed no answer that can be read"),
    ],
    ids=["told", "silent", "broken", "text", "list"],
)
def test_a_failure_is_one_sentence(standing_in: Path, script: str, said: str) -> None:
    standing_in.write_text(script)
    with pytest.raises(ArchsearchError, match=said) as found:
        command_line.ask(["jobs"])
    assert "Traceback" not in str(found.value)


def test_a_submission_has_a_key_and_an_owner(standing_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(command_line.SUBMIT_TO, "http://127.0.0.1:1")
    monkeypatch.setenv("ARCHSEARCH_STORAGE", "postgresql://reader@db/x")
    monkeypatch.setenv(command_line.SUBMIT_STORAGE, "postgresql://writer@db/x")
    standing_in.write_text(
        "import json, os, sys\n"
        "print(json.dumps({'words': sys.argv[1:], 'spec': open(sys.argv[2]).read(),"
        " 'storage': os.environ['ARCHSEARCH_STORAGE'], 'owner': os.environ['ARCHSEARCH_OWNER']}))\n"
    )
    found = command_line.submit("name = 'x'", "k", "ada")
    assert found["words"][0] == "submit"
    assert found["words"][2:] == ["--address", "http://127.0.0.1:1", "--json", "--key", "k"]
    assert found["owner"] == "ada"
    assert found["spec"] == "name = 'x'"
    assert found["storage"] == "postgresql://writer@db/x"
    assert not os.path.exists(found["words"][1])


def test_a_job_cannot_be_taken_for_an_option(standing_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    standing_in.write_text("import json, sys\nprint(json.dumps({'logs': ' '.join(sys.argv[1:])}))\n")
    assert command_line.logs("--follow").endswith("--json -- --follow")


def test_jobs_are_noted_by_who_may_write(standing_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`archsearch jobs` writes down what it learns, which the reader of the pages may not."""
    monkeypatch.setenv("ARCHSEARCH_STORAGE", "postgresql://reader@db/x")
    monkeypatch.setenv(command_line.SUBMIT_STORAGE, "postgresql://writer@db/x")
    standing_in.write_text("import json, os\nprint(json.dumps({'jobs': [{'id': os.environ['ARCHSEARCH_STORAGE']}]}))\n")
    assert command_line.jobs() == [{"id": "postgresql://writer@db/x"}]
