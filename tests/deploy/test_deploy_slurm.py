"""The batch script for SLURM against stand-ins of `srun` and `scontrol`: its Ray, its end, and its return."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy_files import DEPLOY
from ports import free_port
from tiny_spec import tiny_spec

SCRIPT = DEPLOY / "slurm" / "archsearch.sbatch"
SRUN = r"""#!/usr/bin/env bash
# Runs a step here: options are noted, the command is run.
options=()
while [[ ${1:-} == --* ]]; do options+=("$1"); shift; done
echo "srun ${options[*]} $*" >> "$CALLS"
exec "$@"
"""
SCONTROL = r"""#!/usr/bin/env bash
echo "scontrol $*" >> "$CALLS"
if [ "$1 $2" = "show hostnames" ]; then echo "${NODES:-n1 n2}" | tr ' ' '\n'; fi
"""
HOSTNAME = "#!/usr/bin/env bash\necho '127.0.1.1 10.9.8.7 '\n"
RAY = r"""#!/usr/bin/env bash
trap 'echo "ray ended" >> "$CALLS"; exit 0' TERM
echo "ray $* mode=$RAY_AUTH_MODE" >> "$CALLS"
[ "$1" = start ] || exit 0
echo "$(stat -c %a "$RAY_AUTH_TOKEN_PATH") $(wc -c < "$RAY_AUTH_TOKEN_PATH")" >> "$CALLS.token"
while :; do sleep 0.1; done
"""
SEARCH = r"""#!/usr/bin/env bash
trap 'echo "search stopped" >> "$CALLS"; exit 130' TERM
if [ -n "${STUBBORN:-}" ]; then trap 'echo "search goes on" >> "$CALLS"' TERM; fi
while [ "$(wc -l < "$CALLS.token")" -lt 2 ]; do sleep 0.1; done
echo "archsearch $*" >> "$CALLS"
if [ -n "${CODE:-}" ]; then exit "$CODE"; fi
while :; do sleep 0.1; done
"""
PROGRAMS = {"srun": SRUN, "scontrol": SCONTROL, "hostname": HOSTNAME, "ray": RAY, "archsearch": SEARCH}


class Job:
    """One run of the script, as SLURM starts it."""

    def __init__(self, folder: Path, **more: str) -> None:
        self.folder, self.calls_file, self.said = folder, folder / "calls", ""
        binaries = folder / "venv" / "bin"
        binaries.mkdir(parents=True)
        for name, text in PROGRAMS.items():
            (binaries / name).write_text(text)
            (binaries / name).chmod(0o755)
        Path(f"{self.calls_file}.token").touch()
        self.environment = {
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "HOME": str(folder),
            "VENV": str(folder / "venv"),
            "CALLS": str(self.calls_file),
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NODELIST": "n[1-2]",
            "SLURM_CPUS_PER_TASK": "3",
            "ARCHSEARCH_STORAGE": "postgresql://archsearch_writer@db/archsearch",
            **more,
        }
        self.process = subprocess.Popen(
            ["bash", str(SCRIPT), "spec.toml", "--trials", "9"],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []

    def until(self, text: str) -> None:
        """Waits for a call."""
        limit = time.monotonic() + 120
        while not any(text in call for call in self.calls()):
            assert time.monotonic() < limit, (text, self.calls())
            time.sleep(0.05)

    def ended(self, seconds: float = 120) -> int:
        """The exit code; what was printed is then in `said`."""
        self.said = self.process.communicate(timeout=seconds)[0]
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()


@pytest.fixture
def job(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Job]:
    job = Job(tmp_path, **getattr(request, "param", {}))
    yield job
    job.close()


@pytest.mark.parametrize("job", [{"CODE": "0"}], indirect=True)
def test_a_ray_of_its_own_runs_the_search_and_ends_with_it(job: Job) -> None:
    assert job.ended() == 0
    calls = job.calls()
    head, worker = sorted(
        call for call in calls if call.startswith("srun") and "ray start" in call
    )  # both begin at once
    assert "--nodelist=n1" in head
    assert "--nodelist=n2" in worker
    port = 20000 + 4711
    assert f"--num-cpus 3 --head --node-ip-address 10.9.8.7 --port {port}" in head
    assert f"--address 10.9.8.7:{port}" in worker
    wanted = f"archsearch run spec.toml --resume --wait --address 10.9.8.7:{port} --trials 9"
    assert wanted in calls
    assert calls.count("ray ended") == 2
    assert not any("requeue" in call for call in calls)


@pytest.mark.parametrize("job", [{"CODE": "0"}], indirect=True)
def test_the_token_is_the_job_s_own_and_gone_after_it(job: Job) -> None:
    assert job.ended() == 0
    assert {call.rpartition("mode=")[2] for call in job.calls() if call.startswith("ray start")} == {"token"}
    assert set(Path(f"{job.calls_file}.token").read_text().splitlines()) == {"600 64"}
    assert list((job.folder / ".archsearch").iterdir()) == []
    assert stat.S_IMODE((job.folder / ".archsearch").stat().st_mode) == 0o700


def test_a_preempted_job_stops_the_search_and_is_queued_again(job: Job) -> None:
    job.until("archsearch run")
    job.process.send_signal(signal.SIGUSR1)
    assert job.ended() == 130
    calls = job.calls()
    assert calls.index("search stopped") < calls.index("ray ended") < calls.index("scontrol requeue 4711")
    assert "preempted: the search stops" in job.said


def test_a_cancelled_job_stops_the_search_and_stays_away(job: Job) -> None:
    job.until("archsearch run")
    job.process.send_signal(signal.SIGTERM)
    assert job.ended() == 130
    assert "search stopped" in job.calls()
    assert not any("requeue" in call for call in job.calls())


@pytest.mark.parametrize("job", [{"STUBBORN": "1", "STOP_SECONDS": "1"}], indirect=True)
def test_a_search_that_does_not_stop_is_killed_and_queued_again(job: Job) -> None:
    job.until("archsearch run")
    job.process.send_signal(signal.SIGUSR1)
    job.until("search goes on")
    job.process.send_signal(signal.SIGUSR1)
    assert job.ended() == 128 + signal.SIGKILL
    assert "scontrol requeue 4711" in job.calls()


@pytest.mark.parametrize("job", [{"CODE": "3"}], indirect=True)
def test_the_search_s_own_end_is_the_job_s(job: Job) -> None:
    assert job.ended() == 3
    assert not any("requeue" in call for call in job.calls())


@pytest.mark.parametrize("job", [{"ARCHSEARCH_STORAGE": ""}], indirect=True)
def test_without_a_database_that_stays_nothing_starts(job: Job) -> None:
    assert job.ended() == 1
    assert "ARCHSEARCH_STORAGE: set it to the database" in job.said
    assert job.calls() == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_real_ray_runs_a_search_that_goes_on_after_preemption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ray` and `archsearch` are the real ones, on one node; the second job finishes what the first began."""
    from archsearch.storage import Store

    for name, module in {"ray": "ray.scripts.scripts", "archsearch": "archsearch.cli"}.items():
        call = f"{sys.executable} -P -c 'from {module} import main; main()'"
        monkeypatch.setitem(PROGRAMS, name, f'#!/usr/bin/env bash\necho "{name} $*" >> "$CALLS"\nexec {call} "$@"\n')
    monkeypatch.delitem(PROGRAMS, "hostname")
    url = f"sqlite:///{tmp_path}/searches.db"
    more = {"ARCHSEARCH_STORAGE": url, "SLURM_CPUS_PER_TASK": "1", "NODES": "n1", "RAY_raylet_start_wait_time_s": "240"}

    def begun(folder: str) -> Job:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "spec.toml").write_text(tiny_spec(200))
        monkeypatch.chdir(tmp_path / folder)
        return Job(tmp_path / folder, **more, RAY_PORT=str(free_port()), OMP_NUM_THREADS="1")

    first = begun("first")
    try:
        with Store.open(url) as store:
            limit = time.monotonic() + 300
            while not (store.searches() and store.trials(store.searches()[0].id, states=["running"])):
                assert time.monotonic() < limit
                assert first.process.poll() is None, (first.ended(), first.said)
                time.sleep(0.2)
            first.process.send_signal(signal.SIGUSR1)
            assert first.ended() == 130, first.said
            assert "scontrol requeue 4711" in first.calls()
            assert store.search("tiny").state == "cancelled"
    finally:
        first.close()
    second = begun("second")
    try:
        assert second.ended(seconds=1200) == 0, second.said
        with Store.open(url) as store:
            assert store.search("tiny").state == "complete"
        assert not any("requeue" in call for call in second.calls())
    finally:
        second.close()
