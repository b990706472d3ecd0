"""Failures are told apart by what Ray and a worker's last words say, each in one short sentence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from archsearch.errors import PluginError
from archsearch.search.failures import Failure, Place, classify, describe
from archsearch.search.last_words import Words, kernel_kills, understand
from archsearch.search.limits import Limits
from archsearch.search.workers import _error_of

DIED = (
    "The actor died unexpectedly before finishing this task.\n\tclass_name: TrialActor\n\tpid: 41\n\tip: 10.0.0.7\n"
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: "
)
END_OF_FILE = "Worker unexpectedly exits with a connection error code 2. End of file. Some common causes include: OOM."
MEMORY = (
    """1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.7, ID: 8b) was \
2.87GB used / 23.54GB limit (0.122054)
Selected to kill: (Actor(8f): job ID=01, task name=TrialActor.train, pid=41, actual memory used=0.20GB, worker ID=9f)
Selected to kill: (Actor(90): job ID=01, task name=TrialActor.train, pid=42, actual memory used=1.10GB, worker ID=9e)
"""
    + "Eviction Stats: and so on\n" * 100
)
PLACE = Place(node="gpu7", node_id="8bf45dfc2119", pid=41, words="/tmp/words")
QUIET, KERNEL = Words(), Words(kernel_killed=True, memory=", whose machine has 2 GiB")


def dead(detail: str) -> ray.exceptions.ActorDiedError:
    error = ray.exceptions.ActorDiedError()
    error.error_msg = DIED + detail
    return error


def memory(*, held: str = "0.20GB") -> ray.exceptions.OutOfMemoryError:
    return ray.exceptions.OutOfMemoryError(MEMORY.replace("0.20GB", held))


EXIT_3 = dead("Worker exits unexpectedly. Worker exits with an exit code 3.")
TERMINATED = dead("Worker exits unexpectedly. Worker exits with an exit code 1. The process receives a SIGTERM.")
AWAY = ray.exceptions.ActorUnavailableError("The actor is temporarily unavailable: RpcError", None)
CRASH = Words(said="the worker crashed: segmentation fault (SIGSEGV) in forward (layer.py:7)")
CASES: dict[str, tuple[BaseException, Words | None, bool, str, str]] = {
    "raised": (PluginError("mixer: no"), None, True, "own", "mixer: no"),
    "killed": (dead(END_OF_FILE), QUIET, True, "lost", "killed from outside (SIGKILL)"),
    "terminated": (TERMINATED, QUIET, True, "lost", "ended from outside (SIGTERM)"),
    "crash": (dead(END_OF_FILE), CRASH, True, "crashed", "fault (SIGSEGV) in forward (layer.py:7) on gpu7"),
    "sys.exit": (EXIT_3, QUIET, True, "crashed", "ended itself with exit code 3 on gpu7 (node 8bf45dfc)"),
    "kernel": (dead(END_OF_FILE), KERNEL, True, "crashed", "out of memory: the kernel ended the worker on gpu7"),
    "memory": (memory(held="1.80GB"), None, True, "crashed", "out of memory: Ray ended the worker before"),
    "memory of another": (memory(), None, True, "lost", "it held 0.20GB, and another 1.10GB"),
    "node": (dead(END_OF_FILE), None, False, "lost", "the machine was lost on gpu7 (node 8bf45dfc)"),
    "link": (AWAY, None, True, "lost", "can no longer be reached on gpu7"),
    "ours": (ray.exceptions.ObjectLostError("a" * 40, None, ""), None, True, "lost", "the worker was lost on gpu7"),
}


@pytest.mark.parametrize("case", CASES)
def test_every_end_of_a_worker_has_a_sentence_of_its_own(case: str) -> None:
    error, words, alive, kind, said = CASES[case]
    failure = classify(error, PLACE, words, node_alive=alive)
    assert (failure.kind, failure.again) == (kind, kind != "own")
    assert said in failure.reason
    assert len(failure.reason) < 500
    assert "\n" not in failure.reason


def test_the_figures_of_a_lack_of_memory_are_of_the_worker_and_its_node() -> None:
    reason = classify(memory(held="1.80GB"), PLACE, None, node_alive=True).reason
    assert reason.endswith("it held 1.80GB, 2.87GB of 23.54GB were in use on gpu7")


@pytest.mark.parametrize(
    ("held", "kind"), [("0.00GB", "lost"), ("0.55GB", "lost"), ("0.56GB", "crashed"), ("1.10GB", "crashed")]
)
def test_who_is_ended_for_the_sake_of_another_is_lost(held: str, kind: str) -> None:
    """Where another held at least twice as much; what crashed twice has failed, what was lost is left to `resume`."""
    assert classify(memory(held=held), PLACE, None, node_alive=True).kind == kind


@pytest.mark.parametrize("held", ["0.00GB", "0.20GB"])
def test_who_is_ended_alone_is_at_fault(held: str) -> None:
    text = "\n".join(line for line in MEMORY.splitlines() if "pid=42" not in line)
    error = ray.exceptions.OutOfMemoryError(text.replace("0.20GB", held))
    assert classify(error, PLACE, None, node_alive=True).kind == "crashed"


@pytest.fixture
def errors(tmp_path: Path) -> Callable[[str], BaseException | None]:
    """What a trial has raised of which Tune keeps the text alone; it pickles the errors of tasks and actors."""

    def kept(text: str) -> BaseException | None:
        file = tmp_path / "error.txt"
        file.write_text(text)
        return _error_of(SimpleNamespace(pickled_error_file=None, error_file=str(file)))

    return kept


def test_a_lack_of_memory_is_known_by_its_text(errors: Callable[[str], BaseException | None]) -> None:
    text = MEMORY.replace("0.20GB", "1.80GB")
    found = errors(f"Failure # 1 (occurred at 2026-11-29_12-00-00)\nother\nFailure # 2 (occurred at x)\n{text}\n")
    failure = classify(found, PLACE, None, node_alive=True)
    assert (failure.kind, failure.again) == ("crashed", True)
    assert failure.reason.endswith("it held 1.80GB, 2.87GB of 23.54GB were in use on gpu7")


def test_another_text_is_told_as_it_is(errors: Callable[[str], BaseException | None]) -> None:
    failure = classify(
        errors("Failure # 1 (occurred at x)\nIt began\nNo room was left\n"), PLACE, None, node_alive=True
    )
    assert (failure.kind, failure.reason) == ("own", "TuneError: No room was left")
    assert errors("") is None
    assert _error_of(SimpleNamespace(pickled_error_file=None, error_file=None)) is None


def test_a_worker_that_could_not_begin_says_why_and_is_not_tried_again() -> None:
    error = ray.exceptions.RayActorError(error_msg="Traceback\nValueError: no such card\n", actor_init_failed=True)
    failure = classify(error, None, None, node_alive=True)
    assert failure == Failure(kind="own", reason="the worker could not begin: ValueError: no such card", error=error)


def test_kilobytes_of_another_program_are_cut() -> None:
    assert len(describe(ValueError("x" * 50_000))) < 500


WAYS = {
    "ctypes.string_at(0)": "the worker crashed: segmentation fault (SIGSEGV) in string_at",
    "os.abort()": "the worker crashed: aborted (SIGABRT) in forward (",
    "os._exit(7)": "the worker's process ended itself with exit code 7",
    "os.kill(os.getpid(), 9)": "",
}


@pytest.mark.parametrize("way", WAYS)
def test_the_last_words_of_a_process_say_how_it_ended(way: str, tmp_path: Path) -> None:
    script = f"""
import ctypes, os, sys, tempfile
tempfile.tempdir = {str(tmp_path)!r}
from archsearch.search.last_words import LastWords
words = LastWords()
print(words.path, flush=True)
def forward():
    {way}
forward()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode != 0
    path = Path(done.stdout.strip())
    assert path.parent == tmp_path, done.stderr
    heard = understand(path.read_text(), kernel_kills())
    assert heard.said.startswith(WAYS[way])
    assert bool(heard.said) == bool(WAYS[way])
    assert heard.memory.startswith(", whose machine has ")


def test_the_kernel_s_kills_count_from_when_the_worker_began() -> None:
    text = '{"kills": 3, "memory": 1024}\n'
    assert not understand(text, 3).kernel_killed
    assert understand(text, 4).kernel_killed
    assert understand("", 9) == understand("no json\n", 9) == Words()


def test_a_trial_goes_beyond_a_limit_of_time_or_of_silence() -> None:
    now = 0.0
    limits = Limits(max_seconds=100, max_silence=30, clock=lambda: now)
    limits.begin("a")
    now = 30.0
    assert limits.exceeded() == {}
    now = 31.0
    assert limits.exceeded() == {"a": "no step in 30 s (resources.max_silence): its worker was ended"}
    limits.heard("a")
    assert limits.exceeded() == {}
    now = 90.0
    limits.heard("a")
    now = 101.0
    assert limits.exceeded() == {"a": "not done in 100 s (resources.max_seconds): its worker was ended"}
    limits.end("a")
    assert limits.exceeded() == {}


def test_what_a_trial_is_excused_for_counts_as_none_of_its_time() -> None:
    """And not for ever: who proves for longer than a proof may take is silent."""
    now = 0.0
    limits = Limits(max_seconds=100, max_silence=30, clock=lambda: now)
    limits.begin("a")
    now = 20.0
    limits.excuse("a", 400.0)
    now = 400.0
    assert limits.exceeded() == {}
    limits.excuse("a", 400.0)
    now = 900.0
    assert limits.exceeded() == {"a": "no step in 30 s (resources.max_silence): its worker was ended"}
    now = 420.0
    limits.heard("a")
    now = 440.0
    assert limits.exceeded() == {}
    limits.heard("a")
    now = 460.0
    limits.heard("a")
    now = 480.0
    limits.heard("a")
    now = 500.0
    assert limits.exceeded() == {}
    now = 501.0
    assert limits.exceeded() == {"a": "not done in 100 s (resources.max_seconds): its worker was ended"}


def test_without_limits_a_trial_may_take_its_time() -> None:
    now = 0.0
    limits = Limits(clock=lambda: now)
    limits.begin("a")
    now = 1e9
    assert limits.exceeded() == {}


def test_a_child_of_a_worker_has_no_last_words_of_its_own(tmp_path: Path) -> None:
    script = f"""
import os, tempfile
tempfile.tempdir = {str(tmp_path)!r}
from archsearch.search.last_words import LastWords
words = LastWords()
child = os.fork()
if not child:
    os._exit(5)
os.waitpid(child, 0)
print(words.path.read_text().count("exit"))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=280, check=True)
    assert done.stdout.strip() == "0"
