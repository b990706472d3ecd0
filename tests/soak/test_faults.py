"""Faults of one trial, of its machine or of a disk, on both databases: each told as what it is, while others go on."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from machine_room import available_bytes, watched
from postgres_server import PostgresServer
from soak import LIMIT, SPEC, Soak, end

from archsearch.storage import TrialRecord, upgrade

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]
DRIVER = Path(__file__).parents[1] / "search" / "search_driver.py"
HOSTILE = (
    SPEC.replace('mixers = ["full", "sliding"]', 'mixers = ["hostile", "sliding"]\n[space.hostile]\nway = ["{way}"]')
    .replace("trials = 2", 'trials = 1\nreferences = ["hostile(way={way})", "sliding(window=8)"]\nretries = {retries}')
    .replace("n_layers = 2", "n_layers = 1")
)


def hostile(
    soak: Soak, way: str, *, retries: int = 1, resources: str = "", **environ: str
) -> tuple[TrialRecord, list[TrialRecord], str]:
    """The trial whose mixer misbehaves in that way, the others, and what was said."""
    spec = soak.folder / "tiny.toml"
    text = HOSTILE.replace("{way}", way).replace("{retries}", str(retries)) + resources
    spec.write_text(text.format(name="tiny", steps=30, seed=0))
    command = [soak.python, str(DRIVER), "run", str(spec), soak.url]
    paths = {"PYTHONPATH": str(DRIVER.parent)}
    done = subprocess.run(
        command, env=soak.environ | paths | environ, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    trials = soak.trials("tiny")
    bad = next(trial for trial in trials if "hostile" in trial.pattern)
    return bad, [trial for trial in trials if "hostile" not in trial.pattern], done.stdout + done.stderr


BACKENDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]


@pytest.fixture(params=BACKENDS)
def soak(tmp_path: Path, request: pytest.FixtureRequest) -> Soak:
    if request.param == "sqlite":
        return Soak(tmp_path, f"sqlite:///{tmp_path}/faults.db")
    return Soak(tmp_path, request.getfixturevalue("postgres_url"))


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("exits", "the worker's process ended itself with exit code 1 on "),
        ("segfaults", "the worker crashed: segmentation fault (SIGSEGV) in string_at"),
    ],
)
def test_a_mixer_that_ends_its_process_fails_alone(soak: Soak, way: str, said: str) -> None:
    bad, others, _ = hostile(soak, way)
    assert (bad.state, bad.attempts) == ("failed", 2)
    assert said in bad.reason
    assert len(bad.reason) < 500
    assert {trial.state for trial in others} == {"complete"}


def test_a_forward_that_hangs_is_ended_and_told_as_such(soak: Soak) -> None:
    bad, others, _ = hostile(soak, "sleeps", resources="[resources]\nmax_silence = 60\n")
    assert (bad.state, bad.attempts) == ("failed", 0)
    assert bad.reason == "no step in 60 s (resources.max_silence): its worker was ended"
    assert {trial.state for trial in others} == {"complete"}


def test_a_worker_out_of_memory_fails_alone_with_its_figure(soak: Soak) -> None:
    limits = watched(max(4 * 2**30, available_bytes() // 3))  # others may take some meanwhile
    bad, others, said = hostile(soak, "eats", retries=0, **limits)
    assert bad.state == "failed"
    assert bad.reason.startswith("out of memory: Ray ended the worker before the machine ran out: it held ")
    assert "were in use on" in bad.reason
    assert {trial.state for trial in others} == {"complete"}
    assert "Traceback" not in said


def test_a_gpu_that_no_node_has_is_refused_at_once(soak: Soak) -> None:
    spec = soak.spec("gpu")
    spec.write_text(spec.read_text() + "[resources]\ngpu = 1\n")
    process = soak.start("run", str(spec))
    try:
        assert process.wait(LIMIT) == 2
    finally:
        end(process)
    assert "resources.gpu = 1, but the workers have no GPU" in soak.log()


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of a few megabytes, which every user reaches."""
    folder = Path(tempfile.mkdtemp(prefix="small-"))
    folder.chmod(0o755)
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
    folder.rmdir()


@pytest.fixture(params=BACKENDS)
def crowded(small_disk: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Soak]:
    """A soak whose database lies on the small disk; of PostgreSQL its tables, and its log elsewhere."""
    if request.param == "sqlite":
        yield Soak(small_disk, f"sqlite:///{small_disk}/search.db")
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    place = small_disk / "tables"
    place.mkdir()
    server.give(place)
    server.execute(f"CREATE TABLESPACE small LOCATION '{place}'")
    server.execute("CREATE DATABASE crowded TEMPLATE template0 TABLESPACE small")
    try:
        upgrade(server.url("crowded"))
        yield Soak(tmp_path, server.url("crowded"))
    finally:
        server.drop_database("crowded")
        server.execute("DROP TABLESPACE small")


def test_a_full_disk_is_told_and_resume_goes_on_once_there_is_room(small_disk: Path, crowded: Soak) -> None:
    soak = crowded
    process = soak.start("run", str(soak.spec("full")))
    ballast = small_disk / "ballast"
    try:
        soak.training("full", process)
        fill(ballast)
        assert process.wait(LIMIT) == 4, soak.log()
    finally:
        ballast.unlink(missing_ok=True)
        end(process)
    if soak.folder != small_disk:  # else the log had no room either
        assert "disk is full: make room" in soak.log()
    assert soak.finish("full")
    trials = soak.trials("full")
    assert {trial.state for trial in trials} == {"complete"}
    keys = [found.key for trial in trials for found in trial.measurements]
    assert len(keys) == len(set(keys))


def fill(ballast: Path) -> None:
    """Takes what room the file system has."""
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(2**12))
