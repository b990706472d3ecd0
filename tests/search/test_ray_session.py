"""Joining a cluster: every wait has an end, says what it waits for, and hears a signal."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator

import pytest
from ports import free_port

from archsearch.errors import ClusterError, SpecError
from archsearch.search import ray_session
from archsearch.search.presence import StopSignals
from archsearch.search.ray_session import JoiningStopped, check_room, cluster_address, workers
from archsearch.storage.scraps import passing_folder


@pytest.fixture
def mute() -> Iterator[str]:
    """The address of something that takes connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield f"127.0.0.1:{listening.getsockname()[1]}"


def join(address: str, stop: threading.Event | None = None, *, concurrency: int = 1) -> list[str]:
    said: list[str] = []
    with workers(concurrency, address, device="cpu", stop=stop or threading.Event(), tell=said.append):
        raise AssertionError("there is no cluster to join")
    return said


def test_an_address_where_nothing_listens_is_told_before_ray_is_asked() -> None:
    with pytest.raises(ClusterError, match=r"nothing listens at \"127\.0\.0\.1:\d+\" .*start the cluster"):
        join(f"127.0.0.1:{free_port()}")


@pytest.mark.parametrize(
    "address", ["nonsense", "127.0.0.1:", "127.0.0.1:99999999", "127.0.0.1:-1", "host name:1", "a\0b:1", ":", "::::"]
)
def test_an_address_that_is_none_is_refused_in_a_sentence(address: str) -> None:
    with pytest.raises(ClusterError, match=r"is no address of a Ray cluster|nothing listens"):
        join(address)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_url_of_a_dashboard_is_told_with_what_takes_it(scheme: str) -> None:
    said = r"is the URL of a Ray dashboard, which takes jobs: `archsearch submit SPEC`\. Here give the address that"
    with pytest.raises(ClusterError, match=said):
        join(f"{scheme}://127.0.0.1:8265")


def test_what_listens_and_never_answers_is_given_up(mute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_session, "JOIN_SECONDS", 1.0)
    with pytest.raises(ClusterError, match=f"what listens at {mute} has not answered as a Ray cluster in 1 s"):
        join(mute)


def test_a_signal_ends_the_wait_for_a_cluster(mute: str) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(JoiningStopped):
        join(mute, stop)


def test_the_wait_says_what_it_waits_for(mute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_session, "JOIN_SECONDS", 0.1)
    said: list[str] = []
    with (
        pytest.raises(ClusterError),
        workers(1, mute, device="cpu", stop=threading.Event(), tell=said.append),
    ):
        raise AssertionError
    assert said == [f"waiting for the Ray cluster at {mute}, at most 0 s"]


def test_auto_without_a_cluster_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_session, "JOIN_SECONDS", 60.0)
    with pytest.raises(ClusterError, match="no Ray cluster answers at auto"):
        join("auto")


@pytest.mark.parametrize(("given", "variable"), [(None, ""), (None, "  "), ("", ""), (None, None), ("local", "x:1")])
def test_an_empty_address_means_a_ray_of_ones_own(
    given: str | None, variable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    assert cluster_address(given) is None


def test_the_option_comes_before_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "there:6379")
    assert cluster_address("here:6379") == "here:6379"
    assert cluster_address(None) == "there:6379"


@pytest.mark.parametrize("address", [None, "127.0.0.1:1"], ids=["a Ray of one's own", "a cluster"])
def test_a_token_that_is_not_there_is_told_before_ray_is_asked(
    address: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", f"{tmp_path}/absent")
    with (
        pytest.raises(ClusterError, match="absent cannot be read"),
        workers(1, address, device="cpu", stop=threading.Event(), tell=print),
    ):
        raise AssertionError


def test_a_mode_that_ray_does_not_know_is_told_before_ray_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "banana")
    with (
        pytest.raises(ClusterError, match=r'RAY_AUTH_MODE is "banana".*: set it to token, or to disabled'),
        workers(1, None, device="cpu", stop=threading.Event(), tell=print),
    ):
        raise AssertionError


def test_more_workers_than_memory_holds_are_refused_with_the_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(SpecError, match=r"search.concurrency = 4000000 needs at least 1\.\d+ PiB .* at a time"):
        check_room(4_000_000, None)
    check_room(4_000_000, "10.0.0.1:6379")


def test_no_folder_for_temporary_files_is_a_sentence(tmp_path: object) -> None:
    with pytest.raises(ClusterError, match="set TMPDIR"):
        passing_folder(parent=f"{tmp_path}/absent")


@pytest.mark.parametrize("code", [1, signal.SIGTERM], ids=["the node's handler", "the driver's handler"])
def test_sigterm_that_ray_takes_while_it_starts_is_a_stop(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(**options: object) -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(code))
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(ray_session.ray, "init", start)
    signals = StopSignals()
    with (
        signals.listening(),
        pytest.raises(JoiningStopped),
        workers(1, None, device="cpu", stop=signals.stop, tell=str),
    ):
        raise AssertionError("Ray has not started")


def test_an_exit_that_no_signal_asked_for_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_session.ray, "init", lambda **options: sys.exit(3))
    with pytest.raises(SystemExit), workers(1, None, device="cpu", stop=threading.Event(), tell=str):
        raise AssertionError("Ray has not started")


def test_signals_that_a_library_took_meanwhile_are_heard_again_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    signals = StopSignals()
    with signals.listening():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with signals.listening():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.stop.wait(120)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            FileNotFoundError(2, "No such file or directory", "/nowhere"),
            r"'/nowhere': it needs HOME and TMPDIR to be folders that can be written",
        ),
        (
            Exception("The current node timed out during startup."),  # as Ray raises it
            r"timed out during startup: try again when less runs on the machine",
        ),
    ],
    ids=["a home in which it cannot write", "not up in time"],
)
def test_a_ray_that_cannot_start_is_told_with_the_remedy(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(**options: object) -> None:
        raise error

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray_session.ray, "init", start)
    with (
        pytest.raises(ClusterError, match=said),
        workers(1, None, device="cpu", stop=threading.Event(), tell=str),
    ):
        raise AssertionError("Ray has not started")
