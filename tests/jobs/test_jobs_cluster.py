"""A search on a real Ray head that listens here: submit, jobs, logs, stop, going on, and a plugin that goes along."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from job_wheels import asking_wheel, tiny_dependency
from ray_head import Head, ray_head

from archsearch.storage import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SPEC = """
name = "{name}"
[model]
d_model = 32
n_layers = 1
n_heads = 2
channel_mixer = "none"
[space]
mixers = ["full", "sliding"]
[space.full]
rope = [1.0]
[space.sliding]
window = [8]
sinks = [0]
rope = [1.0]
[[tasks]]
name = "mqar"
setting = "easy"
[recipe]
steps = {steps}
eval_every = 5
[objectives]
maximize = ["recall"]
minimize = ["state_bytes"]
[search]
trials = 2
confirm_seeds = 0
concurrency = 1
"""


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """One whose pip knows a folder of wheels and no index."""
    wheels = tmp_path_factory.mktemp("wheels")
    tiny_dependency(wheels)
    with ray_head(PIP_NO_INDEX="1", PIP_FIND_LINKS=str(wheels)) as found:
        yield found


def jobs(head: Head) -> dict[str, Any]:
    listed = json.loads(head.archsearch("jobs", "--json").partition("\nwaiting")[0])["jobs"]
    return {job["id"]: job for job in listed}


def spec(folder: Path, name: str, *, steps: int) -> str:
    path = folder / f"{name}.toml"
    path.write_text(SPEC.format(name=name, steps=steps))
    return str(path)


def test_a_search_runs_to_its_end(head: Head, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/searches.db"
    words = ("submit", spec(tmp_path, "short", steps=5), "--storage", url)
    told = head.archsearch(*words, "--job-id", "one")
    assert "archsearch logs one" in told
    assert "submitted before: short as job one" in head.archsearch(*words)
    followed = head.archsearch("logs", "one", "--follow")
    assert "next:\n  archsearch pareto short" in followed
    assert jobs(head)["one"]["status"] == "SUCCEEDED"
    with Store.open(url, read_only=True) as store:
        assert store.search("short").state == "complete"
    again = head.archsearch(*words, "--cpus", "1", code=4)
    assert 'already has a search "short" (complete): add --resume to go on with it' in again


def test_a_stopped_search_goes_on_until_its_time_is_up(head: Head, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/searches.db"
    words = ("submit", spec(tmp_path, "long", steps=400), "--storage", url)
    head.archsearch(*words, "--job-id", "long-1")
    deadline = time.monotonic() + 400
    while "started" not in head.archsearch("logs", "long-1") and time.monotonic() < deadline:
        time.sleep(1)
    stopped = head.archsearch("stop", "long-1")
    assert "job long-1: STOPPED\nsearch long: cancelled: stopped by a signal" in stopped
    with Store.open(url, read_only=True) as store:
        assert not store.trials(store.search("long").id, states=("running", "queued"))
    head.archsearch(*words, "--job-id", "long-2", "--resume", "--max-hours", "1e-6")
    assert "its time was up (--max-hours, --until)" in head.archsearch("logs", "long-2", "--follow", code=1)
    assert jobs(head)["long-2"]["exit_code"] == 7
    head.archsearch(*words, "--job-id", "long-3", "--resume")
    head.archsearch("logs", "long-3", "--follow")
    with Store.open(url, read_only=True) as store:
        search = store.search("long")
        assert search.state == "complete"
        assert {trial.state for trial in store.trials(search.id)} == {"complete"}


def test_what_would_fail_is_not_sent(head: Head, tmp_path: Path) -> None:
    before = set(jobs(head))
    told = head.archsearch("submit", spec(tmp_path, "lost", steps=5), code=4)
    assert "on the cluster: sqlite:///archsearch.db lies in the folder of this job" in told
    nowhere = f"sqlite:///{tmp_path}/none/searches.db"
    told = head.archsearch("submit", spec(tmp_path, "lost", steps=5), "--storage", nowhere, code=4)
    assert f"on the cluster: {nowhere}: there is no directory {tmp_path}/none" in told
    assert set(jobs(head)) == before


def test_a_plugin_goes_along_to_driver_and_workers(head: Head, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path}/searches.db"
    written = Path(head.folder) / "author"
    written.mkdir()
    new_plugin("my-mixer", written)
    path = tmp_path / "mine.toml"
    text = SPEC.format(name="mine", steps=5)
    path.write_text(text.replace('["full", "sliding"]', '["my-mixer"]').replace(_between(text), ""))
    lacking = head.archsearch("submit", str(path), "--storage", url, code=2)
    assert 'unknown mixer "my-mixer"' in lacking
    head.archsearch("submit", str(path), "--storage", url, "--plugin", str(written / "my-mixer"), "--job-id", "mine")
    head.archsearch("logs", "mine", "--follow")
    with Store.open(url, read_only=True) as store:
        trials = store.trials(store.search("mine").id)
        assert {trial.state for trial in trials} == {"complete"}
        assert any("my-mixer" in trial.pattern for trial in trials)


def test_what_a_plugin_asks_for_is_installed_for_its_job(head: Head, tmp_path: Path) -> None:
    url, path = f"sqlite:///{tmp_path}/searches.db", tmp_path / "asking.toml"
    text = SPEC.format(name="asking", steps=5)
    path.write_text(text.replace('["full", "sliding"]', '["mine"]').replace(_between(text), ""))
    words = ("submit", str(path), "--storage", url, "--plugin")
    told = head.archsearch(*words, str(asking_wheel(tmp_path)), "--job-id", "asking")
    assert "the cluster lacks tiny-dependency>=1: Ray has pip install it there" in told
    head.archsearch("logs", "asking", "--follow")
    with Store.open(url, read_only=True) as store:
        trials = store.trials(store.search("asking").id)
        assert {trial.state for trial in trials} == {"complete"}
        assert any("mine" in trial.pattern for trial in trials)
    told = head.archsearch(*words, str(asking_wheel(tmp_path, "nowhere-to-be-found")), "--resume", code=5)
    assert "pip on the cluster: No matching distribution found for nowhere-to-be-found" in told


def new_plugin(name: str, folder: Path) -> None:
    import subprocess
    import sys

    words = [sys.executable, "-m", "archsearch.cli", "new-plugin", name, "--kind", "recurrent"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True, timeout=300)


def _between(text: str) -> str:
    """The tables of mixers that the search does not use."""
    return text[text.index("[space.full]") : text.index("[[tasks]]")]


def test_a_job_without_room_is_given_up(head: Head, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/searches.db"
    words = ("--storage", url, "--job-id", "large", "--cpus", "64", "--schedule-timeout", "5")
    told = head.archsearch("submit", spec(tmp_path, "large", steps=5), *words, code=5)
    assert "has not started in 5 s: it asks for 64 CPUs on one node; the cluster has 1 node of at most 2 CPUs" in told
    assert "it asks for 64 CPUs" in head.archsearch("jobs")


def test_an_unknown_job_is_told(head: Head) -> None:
    for command in ("logs", "stop"):
        assert 'has no job "none"' in head.archsearch(command, "none", code=5)


def test_a_client_without_the_token_is_told(head: Head) -> None:
    assert "set RAY_AUTH_MODE=token" in head.archsearch("jobs", code=5, RAY_AUTH_MODE="disabled")


def test_doctor_looks_at_the_cluster(head: Head) -> None:
    url = f"sqlite:///{head.folder}/none-yet.db"
    told = head.archsearch("doctor", "--storage", url, "--json")
    found = json.loads(told[told.index("{") : told.rindex("}") + 1])
    checks = {one["name"]: one for one in found["checks"]}
    assert {"authentication", "archsearch", "ray", "python", "plugins", "database", "clocks"} < set(checks)
    ((status, detail),) = [(one["status"], one["detail"]) for name, one in checks.items() if name.startswith("ports ")]
    assert status in ("ok", "note")
    assert "gcs_server at " in detail
    (node,) = [check for name, check in checks.items() if name.startswith("node ")]
    assert (node["status"], node["detail"]) == ("ok", "2 CPUs, 0 GPUs")
