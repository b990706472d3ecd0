"""What is sent for a search and what never is, and that one submission is one job, however often it is sent."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import ray
from jobs_fakes import SPEC, Details, FakeClient, good_answer

from archsearch.errors import ArchsearchError, ClusterError, SpecError, StorageError
from archsearch.jobs import Cluster, Job, Plugins, Rows, Submission, Wishes, check_open, open_rows, prepare, submit
from archsearch.search.time_limit import TimeLimit
from archsearch.storage.jobs import Jobs

Send = Callable[..., tuple[Job, bool]]


@pytest.fixture
def send(cluster: Cluster, client: FakeClient, rows: Rows) -> Send:
    """Submits to a cluster that has what it takes."""

    def submitted(submission: Submission, **how: Any) -> tuple[Job, bool]:
        client.answer = client.answer or good_answer(submission.parts)
        return submit(cluster, submission, rows, **how)

    return submitted


# -- what is sent ----------------------------------------------------------------------------------------------


def test_a_submission_sends_the_spec_alone(spec: Path, send: Send, client: FakeClient) -> None:
    (spec.parent / "secret.env").write_text("password")
    wishes = Wishes(storage="sqlite:////data/it's.db", cpus=2, gpus=0.5)
    job, new = send(prepare(spec, wishes=wishes), job_id="one")
    assert client.files["search.toml"] == SPEC
    assert sorted(client.files) == ["question.json", "search.toml"]
    (sent,) = client.sent
    run = ["archsearch", "run", "search.toml", "--address", "auto", "--storage", "sqlite:////data/it's.db"]
    assert shlex.split(sent["entrypoint"]) == run
    assert sorted(sent["runtime_env"]) == ["env_vars", "working_dir"]
    variables = {"ARCHSEARCH_OWNER", "RAY_JOB_STOP_SIGNAL", "RAY_JOB_STOP_WAIT_TIME_S"}
    assert set(sent["runtime_env"]["env_vars"]) == variables
    assert (sent["entrypoint_num_cpus"], sent["entrypoint_num_gpus"]) == (2, 0.5)
    assert (job.id, job.search, job.status, job.asks, new) == ("one", "quick", "PENDING", "2 CPUs and 0.5 GPUs", True)


def test_what_a_search_is_allowed_goes_along(spec: Path, send: Send, client: FakeClient) -> None:
    limit = TimeLimit(hours=1.5, until=datetime(2099, 5, 31, 16, tzinfo=UTC)).arguments
    send(prepare(spec, wishes=Wishes(resume=True, grow=True, wait=True, retrain=True, limit=limit)))
    (sent,) = client.sent
    assert shlex.split(sent["entrypoint"])[5:] == [
        "--resume",
        "--grow",
        "--wait",
        "--retrain",
        "--max-hours",
        "1.5",
        "--until",
        "2099-05-31T16:00:00+00:00",
    ]
    question = json.loads(client.files["question.json"])
    assert question["resume"]
    assert question["wait"]
    assert question["retrain"]
    assert "search.trials" in question["allowed"]


def test_a_requirement_is_installed_there_and_the_command_is_that_pythons(
    spec: Path, send: Send, client: FakeClient
) -> None:
    send(prepare(spec, plugins=Plugins(requirements=("mine==1.2",))))
    (sent,) = client.sent
    assert sent["runtime_env"]["pip"] == ["mine==1.2"]
    assert shlex.split(sent["entrypoint"])[:4] == ["python", "-m", "archsearch.cli", "run"]


def test_no_variable_of_this_process_is_sent(
    spec: Path, send: Send, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHSEARCH_STORAGE", "postgresql://u:hunter2@h/d")
    send(prepare(spec))
    assert "hunter2" not in str((client.sent, client.files))


@pytest.mark.parametrize("url", ["postgresql://u:hunter2@h/d", "postgresql://h/d?password=hunter2"])
@pytest.mark.parametrize("where", ["option", "spec"])
def test_a_password_is_refused(spec: Path, url: str, where: str) -> None:
    if where == "spec":
        spec.write_text(f'{SPEC}[storage]\nurl = "{url}"\n')
    with pytest.raises(ClusterError, match="ARCHSEARCH_STORAGE_FILE") as caught:
        prepare(spec, wishes=Wishes(storage=url if where == "option" else None))
    assert "hunter2" not in str(caught.value)


def test_a_wrong_spec_is_refused_here(spec: Path, tmp_path: Path) -> None:
    spec.write_text(SPEC.replace("d_model", "d_modle"))
    with pytest.raises(SpecError, match="d_model"):
        prepare(spec)
    with pytest.raises(SpecError, match="cannot read"):
        prepare(tmp_path / "none.toml")


# -- one submission, one job -----------------------------------------------------------------------------------


def test_the_same_submission_is_the_same_job(spec: Path, send: Send, client: FakeClient) -> None:
    first, new = send(prepare(spec))
    assert new
    assert first.id.startswith("quick-")
    assert send(prepare(spec)) == (first, False)
    other, new = send(prepare(spec, wishes=Wishes(cpus=1)))
    assert new
    assert other.id != first.id
    assert len(client.sent) == 2


def test_the_row_is_there_before_the_job_is(
    spec: Path, send: Send, client: FakeClient, rows: Rows, state_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def submit_job(**options: Any) -> str:
        if options["metadata"]:
            with Jobs.open(f"sqlite:///{state_home}/archsearch/jobs.db", read_only=True) as jobs:
                seen.extend((record.name, record.state, record.search, record.owner) for record in jobs.all())
        return original(**options)

    original = client.submit_job
    monkeypatch.setattr(client, "submit_job", submit_job)
    monkeypatch.setenv("ARCHSEARCH_OWNER", "ada")
    job, _ = send(prepare(spec))
    assert seen == [(job.id, "preparing", "quick", "ada")]
    assert job.owner == "ada"
    with Jobs.open(f"sqlite:///{state_home}/archsearch/jobs.db", read_only=True) as jobs:
        assert [record.state for record in jobs.all()] == ["pending"]


def test_a_lost_answer_can_be_asked_for_again(spec: Path, send: Send, client: FakeClient) -> None:
    client.lose = True
    with pytest.raises(ClusterError, match=r"no answer in .* the same command finds out, and makes no second one"):
        send(prepare(spec))
    job, new = send(prepare(spec))
    assert (len(client.sent), len(client.jobs), new) == (1, 1, False)
    assert job.id in client.jobs


def test_a_submission_that_never_arrived_is_sent_again_as_the_same_job(
    spec: Path, send: Send, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**options: Any) -> str:
        if options["metadata"]:
            raise ConnectionError("Failed to connect")
        return original(**options)

    original = client.submit_job
    monkeypatch.setattr(client, "submit_job", fail)
    with pytest.raises(ClusterError, match="cannot reach"):
        send(prepare(spec))
    monkeypatch.setattr(client, "submit_job", original)
    _, new = send(prepare(spec))
    assert new
    assert len(client.sent) == 1


@pytest.mark.parametrize("status", ["FAILED", "STOPPED"])
def test_what_failed_or_was_stopped_can_be_submitted_again(
    spec: Path, send: Send, client: FakeClient, status: str
) -> None:
    first, _ = send(prepare(spec))
    client.jobs[first.id].status = status
    second, new = send(prepare(spec))
    assert new
    assert second.id != first.id
    assert send(prepare(spec)) == (second, False)


def test_a_job_that_the_cluster_has_lost_can_be_submitted_again(spec: Path, send: Send, client: FakeClient) -> None:
    first, _ = send(prepare(spec))
    client.jobs.clear()
    second, new = send(prepare(spec))
    assert new
    assert second.id != first.id


def test_a_key_names_a_submission_for_good(spec: Path, send: Send, client: FakeClient) -> None:
    first, _ = send(prepare(spec), key="of the form")
    client.jobs[first.id].status = "FAILED"
    found, new = send(prepare(spec, wishes=Wishes(cpus=1)), key="of the form")
    assert (found.id, found.status, new) == (first.id, "FAILED", False)
    client.jobs.clear()
    with pytest.raises(StorageError, match='the key "of the form" is that of the job'):
        send(prepare(spec), key="of the form")


def test_an_id_that_exists_is_told(spec: Path, send: Send, client: FakeClient) -> None:
    client.jobs["one"] = Details("one", metadata={"archsearch": "other", "archsearch.key": "other"})
    with pytest.raises(ClusterError, match='already has a job "one": give another --job-id'):
        send(prepare(spec), job_id="one")


def test_of_two_at_once_one_job_is_made(
    spec: Path, send: Send, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = send(prepare(spec))
    listed = iter([[]])  # the second looked before the first was there
    monkeypatch.setattr(client, "list_jobs", lambda: next(listed))
    monkeypatch.setattr(Rows, "free_lost", lambda *what, **how: None)
    assert send(prepare(spec)) == (first, False)
    assert len(client.jobs) == 1


def test_what_is_known_here_and_not_there_is_told(
    spec: Path, cluster: Cluster, send: Send, client: FakeClient, rows: Rows
) -> None:
    job, _ = send(prepare(spec))
    assert rows.learn(cluster.address, cluster.jobs()) == []
    client.jobs.clear()
    (lost,) = rows.learn(cluster.address, cluster.jobs())
    assert (lost.name, lost.state) == (job.id, "lost")


def test_a_database_that_cannot_be_reached_leaves_the_rows_here(state_home: Path) -> None:
    told: list[str] = []
    with open_rows("postgresql://me:s3cret@127.0.0.1:1/none", told.append) as rows:
        assert not rows.shared
    assert len(told) == 1
    assert str(state_home / "archsearch" / "jobs.db") in told[0]
    assert "s3cret" not in told[0]


# -- what the cluster says -------------------------------------------------------------------------------------

OTHER = ["mixer:full", "archsearch 0.1.0 r9", "0" * 16]


def answers() -> dict[str, tuple[Callable[[Any], dict[str, Any]], type[ArchsearchError], str]]:
    """What a cluster may say, the kind of error that follows and its words."""

    def other(parts: Any) -> list[Any]:
        return [OTHER if part[0] == "mixer:full" else list(part) for part in parts]

    def node(parts: Any, /, **changes: Any) -> list[Any]:
        return [good_answer(parts)["nodes"][0], {**good_answer(parts)["nodes"][0], "host": "second", **changes}]

    return {
        "another archsearch": (
            lambda parts: good_answer(parts, archsearch="9.9"),
            ClusterError,
            "the cluster has archsearch 9.9 and this is",
        ),
        "a spec that is none there": (
            lambda parts: good_answer(parts, faults=[[2, 'unknown mixer "mine"']], broken=[["mine", "1", "no torch"]]),
            SpecError,
            'on the cluster: unknown mixer "mine"; plugins that cannot be used there: mine 1 (no torch)',
        ),
        "a name that is taken": (
            lambda parts: good_answer(parts, faults=[[4, 'already has a search "quick"']]),
            StorageError,
            'already has a search "quick"',
        ),
        "other plugins": (
            lambda parts: good_answer(parts, parts=other(parts)),
            ClusterError,
            "the cluster has mixer:full archsearch 0.1.0 r9 0000000000000000",
        ),
        "other plugins on a node": (
            lambda parts: good_answer(parts, nodes=node(parts, parts=other(parts))),
            ClusterError,
            "node second has mixer:full archsearch 0.1.0 r9 0000000000000000",
        ),
        "a plugin that a node lacks": (
            lambda parts: good_answer(parts, nodes=node(parts, parts=list(parts)[1:])),
            ClusterError,
            "(none)",
        ),
        "a node without archsearch": (
            lambda parts: good_answer(parts, nodes=node(parts, fault="archsearch cannot be imported there")),
            ClusterError,
            "node second: archsearch cannot be imported there",
        ),
    }


@pytest.mark.parametrize(("answer", "kind", "told"), answers().values(), ids=answers())
def test_what_would_fail_there_is_not_sent(
    spec: Path,
    send: Send,
    client: FakeClient,
    rows: Rows,
    answer: Callable[[Any], dict[str, Any]],
    kind: type[ArchsearchError],
    told: str,
) -> None:
    submission = prepare(spec)
    client.answer = answer(submission.parts)
    with pytest.raises(kind) as caught:
        send(submission)
    assert told in str(caught.value)
    assert client.jobs == {}
    client.answer = good_answer(submission.parts)
    assert send(submission)[1], "a submission that was refused can be sent once the cluster is put right"


def test_what_ends_nothing_is_told(spec: Path, send: Send, client: FakeClient) -> None:
    submission = prepare(spec)
    core = [[*part[:2], "0" * 16] if part[0] == "core" else list(part) for part in submission.parts]
    silent = {"host": "third", "silent": "it did not answer in 60 s"}
    there = good_answer(core)
    client.answer = {**there, "nodes": [*there["nodes"], silent]}
    told: list[str] = []
    send(submission, tell=told.append)
    assert "node third could not be asked: it did not answer in 60 s" in told
    assert any("another source of archsearch" in text for text in told)


@pytest.mark.parametrize("place", ["head", "worker"])
def test_a_password_that_every_job_can_read_is_refused(spec: Path, send: Send, client: FakeClient, place: str) -> None:
    submission = prepare(spec)
    there = good_answer(submission.parts)
    if place == "head":
        client.answer = {**there, "open_secrets": ["ARCHSEARCH_STORAGE"]}
    else:
        worker = {**there["nodes"][0], "host": "worker", "open_secrets": ["ARCHSEARCH_STORAGE"]}
        client.answer = {**there, "nodes": [*there["nodes"], worker]}
    with pytest.raises(ClusterError) as caught:
        send(submission)
    assert f"(ARCHSEARCH_STORAGE on {place})" in str(caught.value)
    for remedy in ("PGPASSFILE", "ARCHSEARCH_STORAGE_FILE", "--insecure submits all the same"):
        assert remedy in str(caught.value)
    assert client.jobs == {}
    told: list[str] = []
    assert send(submission, insecure=True, tell=told.append)[1]
    assert any(f"(ARCHSEARCH_STORAGE on {place})" in text for text in told)


def test_a_ray_of_another_version_is_told_before_anything_is_sent(spec: Path, send: Send, client: FakeClient) -> None:
    client.pages["/api/version"] = {"ray_version": "2.999.1"}
    client.answer = {**good_answer([]), "archsearch": "9.9"}
    told: list[str] = []
    with pytest.raises(ClusterError, match=r"archsearch 9\.9"):
        send(prepare(spec), tell=told.append)
    assert told[0] == (
        f"the cluster has Ray 2.999.1 and this machine {ray.__version__}: jobs are read by either; "
        "`pip install 'ray[default,tune]==2.999.1'` here makes them one"
    )


@pytest.mark.parametrize("version", ["2.40.0", "3.0.0", "2.60.0rc1"])
def test_a_ray_that_runs_no_search_is_sent_nothing(spec: Path, send: Send, client: FakeClient, version: str) -> None:
    client.pages["/api/version"] = {"ray_version": version}
    with pytest.raises(ClusterError) as caught:
        send(prepare(spec))
    assert f"the cluster has Ray {version} and this machine {ray.__version__}, and a search needs >=2.60, <3" in str(
        caught.value
    )
    assert (client.questions, client.jobs) == ({}, {})


@pytest.mark.parametrize(
    ("details", "logs", "told"),
    [
        (Details("q", status="FAILED", driver_exit_code=2), "No such command 'question'", "older than this one"),
        (Details("q", status="FAILED", driver_exit_code=127), "sh: archsearch: not found", "is not installed"),
        (Details("q", status="FAILED", driver_exit_code=1), "a\nerror: no room\n", "error: no room"),
        (Details("q", status="SUCCEEDED", driver_exit_code=0), "archsearch-answer: {", "could not say"),
    ],
    ids=["older", "absent", "broken", "cut"],
)
def test_a_cluster_that_cannot_say_is_told(
    spec: Path, send: Send, client: FakeClient, monkeypatch: pytest.MonkeyPatch, details: Details, logs: str, told: str
) -> None:
    monkeypatch.setattr(client, "submit_job", lambda **options: options["submission_id"])
    monkeypatch.setattr(client, "get_job_info", lambda job_id: details)
    monkeypatch.setattr(client, "get_job_logs", lambda job_id: logs)
    with pytest.raises(ClusterError, match=told):
        send(prepare(spec))


# -- who may come in -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "mode", "refused"),
    [
        ("http://127.0.0.1:8265", "disabled", False),
        ("http://192.0.2.1:8265", "token", False),
        ("http://192.0.2.1:8265", "disabled", True),
        ("http://192.0.2.1:8265", None, True),
    ],
)
def test_an_open_cluster_is_refused_unless_told(
    client: FakeClient, address: str, mode: str | None, refused: bool
) -> None:
    if mode is not None:
        client.pages["/api/authentication_mode"] = {"authentication_mode": mode}
    cluster = Cluster(address, connect=lambda address: client)
    check_open(cluster, insecure=True)
    if refused:
        with pytest.raises(ClusterError, match="whoever reaches that port runs code on the cluster"):
            check_open(cluster, insecure=False)
    else:
        check_open(cluster, insecure=False)
