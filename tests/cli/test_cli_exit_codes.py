"""Every exit status that the command line documents, by its cause, from the process itself."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from interrupts import hears_interrupts
from reference.commands import exit_codes

MAIN = [sys.executable, "-m", "archsearch"]
SPEC = """
name = "tight"
[model]
d_model = 32
n_layers = 1
n_heads = 2
[space]
mixers = ["full"]
[[tasks]]
name = "mqar"
setting = "easy"
[objectives]
maximize = ["recall"]
minimize = ["state_bytes"]
[budget]
state_bytes = "1 B"
"""
DIVERGES = ("evaluate", "full", "--task", "mqar:easy", "--learning-rate", "1e30", "--steps", "3", "--batch-size", "2")
CASES = {
    "an answer": (0, ("trials", "quick"), "9 of 9 trials"),
    "help": (0, ("--help",), "Usage: archsearch"),
    "a file that cannot be written": (1, ("pareto", "quick", "--csv", "none/a.csv"), "name another file"),
    "a file that a command cannot make": (1, ("report", "quick", "-o", "/proc/none.html"), "name another file"),
    "no command": (2, (), "Usage: archsearch"),
    "another command": (2, ("serach",), "No such command"),
    "another option": (2, ("trials", "quick", "--bogus"), "No such option"),
    "a pattern": (2, ("cost", "fulll"), 'did you mean "full"'),
    "a deep pattern": (2, ("cost", "[" * 500 + "full" + "]" * 500), "nest more than 32 deep"),
    "no context": (2, ("cost", "full", "--context", ","), "names no context"),
    "an infinite context": (2, ("cost", "full", "--context", "1e400"), "beyond what is counted"),
    "a context that is no number": (2, ("cost", "full", "--context", "nan"), "is no quantity"),
    "a size of 400 digits": (2, ("cost", "full", "--vocab-size", "9" * 400), "less than or equal to 2147483648"),
    "a port": (2, ("dashboard", "--port", "65536"), "--port"),
    "a seed": (2, ("evaluate", "full", "--task", "mqar:easy", "--seed", "-1"), "--seed"),
    "seeds": (2, ("evaluate", "full", "--task", "mqar:easy", "--seeds", "99999999999"), "recipe.seeds"),
    "steps": (2, ("evaluate", "full", "--task", "mqar:easy", "--steps", "9" * 30), "recipe.steps"),
    "a rate": (2, ("evaluate", "full", "--task", "mqar:easy", "--learning-rate", "inf"), "recipe.learning_rates"),
    "a deep setting": (
        2,
        ("evaluate", "full", "--task", "mqar:easy", "--set", "recipe.betas=" + "[" * 5000),
        "nests too deeply",
    ),
    "a long setting": (
        2,
        ("evaluate", "full", "--task", "mqar:easy", "--set", "recipe.steps=" + "9" * 5000),
        "cannot be read",
    ),
    "a trial": (2, ("show", "9" * 5000), "names no trial"),
    "bytes that are no text": (2, ("cost", b"full \xff"), r"unexpected '\udcff'"),
    "a spec": (2, ("run", "none.toml"), "cannot read the spec"),
    "a spec without end": (2, ("run", "/dev/zero"), "that is no spec"),
    "a budget of true": (2, ("run", "true.toml"), "state_bytes"),
    "a size of true": (2, ("cost", "full", "--d-model", "true"), "--d-model"),
    "a setting of true": (2, ("evaluate", "full", "--task", "mqar:easy", "--set", "recipe.steps=true"), "steps = true"),
    "a model of true": (2, ("evaluate", "full", "--task", "mqar:easy", "--set", "model.ffn_dim=true"), "ffn_dim ="),
    "a deep spec": (2, ("run", "deep.toml"), "is nested too deeply"),
    "a spec with a long number": (2, ("run", "long.toml"), "is no TOML file"),
    "nothing feasible": (3, ("run", "tight.toml"), "budget"),
    "no database": (4, ("searches", "--storage", "sqlite:///none.db"), "there is no database"),
    "a database of another kind": (4, ("searches", "--storage", "mysql://h/d"), "not supported"),
    "no search": (4, ("pareto", "quikc"), "has no search"),
    "a bare @": (4, ("searches", "--storage", "postgresql://u:p@s3cret@h/d"), "write %40"),
    "no cluster": (5, ("jobs", "--address", "http://127.0.0.1:1"), "cannot reach a Ray cluster"),
    "no host": (5, ("jobs", "--address", "http://a..b:1"), "label empty or too long"),
    "a time that is up": (7, ("run", "loose.toml", "--max-hours", "1e-9"), "its time of 1e-09 h was up"),
    "a moment that is past": (2, ("run", "loose.toml", "--until", "2020-01-01"), "that is past"),
    "no training that held": (6, DIVERGES, "diverged"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the commands run, with the specs that they name."""
    (tmp_path / "tight.toml").write_text(SPEC)
    (tmp_path / "loose.toml").write_text(SPEC.partition("[budget]")[0].replace("tight", "loose"))
    (tmp_path / "true.toml").write_text(SPEC.replace('"1 B"', "true"))
    (tmp_path / "deep.toml").write_text(SPEC.replace('"1 B"', "[" * 5000))
    (tmp_path / "long.toml").write_text(SPEC.replace('"1 B"', "9" * 5000))
    return tmp_path


@pytest.mark.door  # a process each
@pytest.mark.parametrize(("code", "words", "told"), CASES.values(), ids=CASES)
def test_exit_status_by_cause(
    folder: Path, url: str, trials: dict[str, int], code: int, words: tuple[str | bytes, ...], told: str
) -> None:
    environment = {**os.environ, "ARCHSEARCH_STORAGE": url, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*MAIN, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert told in (done.stdout if code in (0, 6, 7) else done.stderr)
    assert "Traceback" not in done.stderr
    assert "defect" not in done.stderr
    assert "s3cret" not in done.stderr
    assert len(done.stderr) < 3000


@pytest.mark.parametrize("words", [("jobs",), ("logs", "one"), ("stop", "one")], ids=lambda words: words[0])
def test_an_interrupt_ends_the_wait_for_a_cluster(words: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        command = [*MAIN, *words, "--address", address]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=hears_interrupts) as process:
            connection, _ = server.accept()  # it asks, and is never answered
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=240)
            connection.close()
    assert process.returncode == 130, told
    assert "Traceback" not in told


def test_every_documented_status_has_a_cause() -> None:
    assert set(exit_codes()) == {code for code, _, _ in CASES.values()} | {130}
