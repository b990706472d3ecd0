"""Jobs against a fake client: what is sent, what is told of a job, and how failures are worded."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clocks import Time
from jobs_fakes import Details, FakeClient
from ray.exceptions import AuthenticationError

from archsearch.errors import ClusterError, SpecError
from archsearch.jobs import Cluster, NotScheduledError, follow, stop, wait_for_start
from archsearch.jobs import cluster as cluster_module
from archsearch.jobs.address import is_loopback, read_address

NODE = {
    "hostname": "head",
    "now": 1_700_000_000.0,
    "raylet": {"state": "ALIVE", "isHeadNode": True, "resourcesTotal": {"CPU": 2.0}},
}
URL = "http://127.0.0.1:8265"


# -- addresses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("http://127.0.0.1:8265/", "http://127.0.0.1:8265"),
        ("https://head.example", "https://head.example"),
        ("http://[::1]:8265", "http://[::1]:8265"),
    ],
)
def test_an_address_is_read(given: str, read: str) -> None:
    assert read_address(given) == read


@pytest.mark.parametrize(
    "given",
    [
        "ray://127.0.0.1:10001",
        "127.0.0.1:8265",
        "auto",
        "",
        "http://",
        "http://host:port",
        "os.path://x",
        "http://a..b:1",
        "http://" + "a" * 5000,
        "http://[::1",
        "http://\udcff",
    ],
)
def test_what_is_no_dashboard_url_is_refused(given: str) -> None:
    with pytest.raises(ClusterError, match="dashboard"):
        read_address(given)


@pytest.mark.parametrize("given", ["http://user:secret@host:1", "http://host:1/path", "http://host:1?token=secret"])
def test_an_address_carries_nothing_else(given: str) -> None:
    with pytest.raises(ClusterError, match="write http://host:1") as caught:
        read_address(given)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "alone"),
    [
        ("http://127.0.0.1:8265", True),
        ("http://127.9.9.9:8265", True),
        ("http://localhost:8265", True),
        ("http://[::1]:8265", True),
        ("http://192.0.2.1:8265", False),
        ("http://0.0.0.0:8265", False),
        ("http://name.invalid:8265", False),
    ],
)
def test_what_this_machine_alone_reaches(address: str, alone: bool) -> None:
    assert is_loopback(address) is alone


# -- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job_id", ["a/b", "../x", "", "-x", "a b", "a?b"])
def test_an_id_cannot_reach_another_path(cluster: Cluster, client: FakeClient, job_id: str) -> None:
    with pytest.raises(SpecError, match="job id"):
        cluster.job(job_id)


# -- jobs and their ends ---------------------------------------------------------------------------------------


def test_only_searches_are_listed_the_newest_first(cluster: Cluster, client: FakeClient) -> None:
    for number, job_id in enumerate(("first", "second")):
        client.jobs[job_id] = Details(job_id, metadata={"archsearch": "quick"}, start_time=1_700_000_000_000 + number)
    client.jobs["foreign"] = Details("foreign", metadata={})
    client.jobs["none"] = Details("none", metadata=None)
    assert [job.id for job in cluster.jobs()] == ["second", "first"]


def unknown_jobs() -> list[Callable[[Cluster], object]]:
    return [
        lambda it: it.job("no"),
        lambda it: it.logs("no"),
        lambda it: stop(it, "no"),
        lambda it: follow(it, "no", print, tell=print),
    ]


@pytest.mark.parametrize("ask", unknown_jobs(), ids=["job", "logs", "stop", "follow"])
def test_an_unknown_job_is_told(cluster: Cluster, ask: Callable[[Cluster], object]) -> None:
    with pytest.raises(ClusterError, match='has no job "no": `archsearch jobs --address'):
        ask(cluster)


@pytest.mark.parametrize(
    ("status", "exit_code", "message", "reason"),
    [
        ("FAILED", 127, "failed with exit code 127", "not installed"),
        ("FAILED", 4, "failed with exit code 4, last available logs (truncated):\nlots", "failed with exit code 4"),
        ("FAILED", None, "Job supervisor actor failed to start within 900 s.", "no node of the cluster had room"),
        ("FAILED", 7, "failed with exit code 7", "its time was up"),
        ("PENDING", None, "It may be waiting for resources.", "It may be waiting for resources. If it stays so"),
        ("RUNNING", None, "Job is currently running.", ""),
    ],
)
def test_the_reason_of_a_status(
    cluster: Cluster, client: FakeClient, status: str, exit_code: int | None, message: str, reason: str
) -> None:
    client.jobs["one"] = Details("one", status=status, message=message, driver_exit_code=exit_code)
    told = cluster.job("one").reason
    assert reason in told
    assert bool(told) is bool(reason)
    assert "\n" not in told


def test_following_writes_each_text_once_and_ends_by_status(cluster: Cluster, client: FakeClient) -> None:
    client.script("one", ("PENDING", ""), ("RUNNING", "a\n"), ("RUNNING", ""), ("RUNNING", "b\n"), ("SUCCEEDED", "c\n"))
    written: list[str] = []
    time = Time()
    job = follow(cluster, "one", written.append, tell=pytest.fail, clock=time.clock, sleep=time.sleep)
    assert "".join(written) == "a\nb\nc\n"
    assert job.status == "SUCCEEDED"


def test_following_says_that_a_job_stays_pending(cluster: Cluster, client: FakeClient) -> None:
    client.script("one", *[("PENDING", "")] * 60, ("SUCCEEDED", ""))
    told: list[str] = []
    time = Time()
    follow(cluster, "one", lambda text: None, tell=told.append, clock=time.clock, sleep=time.sleep)
    assert len(told) == 1
    assert "room" in told[0]


@pytest.mark.parametrize("failures", [2, 50])
def test_following_bears_a_short_failure_and_not_a_long_one(
    cluster: Cluster, client: FakeClient, failures: int
) -> None:
    client.script("one", ("RUNNING", "a\n"), ("RUNNING", "b\n"), ("SUCCEEDED", "c\n"))
    written: list[str] = []
    time = Time()

    def write(text: str) -> None:
        written.append(text)
        if text == "a\n":
            client.failures = failures

    if failures == 2:
        follow(cluster, "one", write, tell=pytest.fail, clock=time.clock, sleep=time.sleep)
        assert "".join(written) == "a\nb\nc\n"
    else:
        with pytest.raises(ClusterError, match="cannot reach"):
            follow(cluster, "one", write, tell=pytest.fail, clock=time.clock, sleep=time.sleep)


def test_stopping_waits_for_the_end(cluster: Cluster, client: FakeClient) -> None:
    client.script("one", ("RUNNING", ""), ("RUNNING", ""), ("RUNNING", ""), ("STOPPED", ""))
    time = Time()
    assert stop(cluster, "one", clock=time.clock, sleep=time.sleep).status == "STOPPED"
    assert client.stopped == ["one"]


def test_stopping_leaves_a_finished_job_alone(cluster: Cluster, client: FakeClient) -> None:
    client.script("one", ("SUCCEEDED", ""))
    assert stop(cluster, "one").status == "SUCCEEDED"
    assert client.stopped == []


@pytest.mark.parametrize("status", ["PENDING", "RUNNING"])
def test_stopping_does_not_wait_for_ever(cluster: Cluster, client: FakeClient, status: str) -> None:
    client.script("one", (status, ""))
    time = Time()
    told: list[str] = []
    with pytest.raises(ClusterError, match=f"still {status} after"):
        stop(cluster, "one", tell=told.append, clock=time.clock, sleep=time.sleep)
    assert time.now < 60
    assert told == [f"waiting up to {45 if status == 'RUNNING' else 15} s for job one to stop"]


def test_waiting_for_the_start_is_bounded_and_says_what_is_missing(cluster: Cluster, client: FakeClient) -> None:
    client.script("one", ("PENDING", ""))
    client.jobs["one"].metadata = {"archsearch": "quick", "archsearch.asks": "64 CPUs"}
    client.pages["/nodes?view=summary"] = {"data": {"summary": [NODE, {**NODE, "raylet": {"state": "DEAD"}}]}}
    time, told = Time(), list[str]()
    with pytest.raises(NotScheduledError) as caught:
        wait_for_start(cluster, "one", seconds=120, tell=told.append, clock=time.clock, sleep=time.sleep)
    why = "it asks for 64 CPUs on one node; the cluster has 1 node of at most 2 CPUs"
    assert f"job one has not started in 120 s: {why}: it was asked to stop" in str(caught.value)
    assert 119 < time.now < 123
    assert client.stopped == ["one"]
    assert told[1] == f"job one has not started: {why}; waiting up to 100 s more"


def test_a_dashboard_that_tells_no_nodes_is_no_error(cluster: Cluster, client: FakeClient) -> None:
    for answer in (None, {}, {"data": {"summary": [{"raylet": None}]}}, []):
        client.pages["/nodes?view=summary"] = answer
        assert cluster.nodes() == []


# -- Ray's own client ------------------------------------------------------------------------------------------


@pytest.fixture
def silent_server() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_server_that_never_answers_is_given_up(silent_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "TIMEOUT_SECONDS", 0.2)
    with pytest.raises(ClusterError, match="no answer in"):
        Cluster(silent_server)


def test_nothing_at_the_address(silent_server: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ClusterError, match="cannot reach a Ray cluster"):
        Cluster(f"http://127.0.0.1:{port}")


def test_a_server_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "REQUEST_SECONDS", 0.5)
    done = threading.Event()

    def trickle() -> None:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while not done.wait(0.05):
                connection.sendall(b"x")

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            with pytest.raises(ClusterError, match="no answer in 0 s"):
                Cluster(f"http://127.0.0.1:{port}")
        finally:
            done.set()
            thread.join()


@pytest.mark.parametrize(
    ("path", "told"), [("/none/token", "cannot be read"), ("/dev/null", "is empty")], ids=["absent", "empty"]
)
def test_a_token_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, path: str, told: str) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", path)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)

    def refuse(address: str) -> FakeClient:
        raise AuthenticationError("no token")

    with pytest.raises(ClusterError, match=f"the token file {path} {told}.*: name the cluster's token file"):
        Cluster(URL, connect=refuse)


@pytest.mark.parametrize(("mode", "known"), [("banana", False), ("token ", False), ("Disabled", True), ("", True)])
def test_a_mode_that_ray_does_not_know_is_refused(
    monkeypatch: pytest.MonkeyPatch, client: FakeClient, mode: str, known: bool
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    refused = pytest.raises(ClusterError, match=f'RAY_AUTH_MODE is "{mode}", by which Ray asks nobody for a token')
    with contextlib.nullcontext() if known else refused:
        Cluster(URL, connect=lambda address: client)


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o602])
def test_a_token_that_others_can_read_is_refused(
    monkeypatch: pytest.MonkeyPatch, client: FakeClient, tmp_path: Path, mode: int
) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret")
    token.chmod(mode)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    told = rf"Ray's token file {token} can be read by others \(mode {mode:04o}\): chmod 600 {token}"
    with pytest.raises(ClusterError, match=told):
        Cluster(URL, connect=lambda address: client)
    token.chmod(0o600)
    Cluster(URL, connect=lambda address: client)


def test_the_address_wins_over_the_environment(silent_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "TIMEOUT_SECONDS", 0.2)
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    with pytest.raises(ClusterError, match="no answer in"):
        Cluster(silent_server)
    assert os.environ["RAY_ADDRESS"] == "http://127.0.0.1:1"
