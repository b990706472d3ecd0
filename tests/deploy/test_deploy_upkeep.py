"""Backups and retention by the clock: what the script does, and that every place runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deploy_files import DEPLOY, KUBERNETES, compose, documents

from archsearch.storage import Store

SCRIPT = DEPLOY / "container" / "upkeep.sh"
HEALTH = DEPLOY / "container" / "health.sh"
SEARCH = r"""#!/usr/bin/env bash
echo "archsearch $*" >> "$CALLS"
if [ -n "${FAULT:-}" ]; then exit 4; fi
if [ "$1 $2" = "db backup" ]; then echo backup > "$3"; fi
"""
SLEEP = r"""#!/usr/bin/env bash
echo "sleep $1" >> "$CALLS"
[ "$(grep -c '^sleep' "$CALLS")" -lt "${SLEEPS:-2}" ]
"""
Upkeep = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def backups(tmp_path: Path) -> Path:
    folder = tmp_path / "backups"
    folder.mkdir()
    return folder


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    return tmp_path / "calls"


@pytest.fixture
def upkeep(tmp_path: Path, backups: Path, calls: Path) -> Upkeep:
    """Runs the script with stand-ins of what it calls."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {"archsearch": SEARCH, "sleep": SLEEP}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)

    def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{folder}:{os.environ['PATH']}", "BACKUPS": str(backups), "CALLS": str(calls), **more}
        command = ["bash", str(SCRIPT), *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    return run


def older(backups: Path, count: int) -> list[str]:
    """Backups of earlier days, the oldest first."""
    names = [f"archsearch-202501{day:02}T031700Z.db" for day in range(1, count + 1)]
    for name in names:
        (backups / name).write_text(name)
        os.utime(backups / name, (0, 0))
    return names


def test_a_backup_is_added_and_the_oldest_go(upkeep: Upkeep, backups: Path) -> None:
    names = older(backups, 4)
    (backups / "by-hand.db").touch()
    done = upkeep("backup", KEEP="3")
    assert done.returncode == 0, done.stderr
    held = sorted(path.name for path in backups.iterdir())
    assert held[:2] == names[2:]
    assert held[2] > names[3]
    assert held[3:] == ["by-hand.db"]


def test_a_backup_that_fails_removes_none(upkeep: Upkeep, backups: Path) -> None:
    names = older(backups, 4)
    assert upkeep("backup", KEEP="1", FAULT="yes").returncode == 4
    assert sorted(path.name for path in backups.iterdir()) == names


@pytest.mark.parametrize(
    ("words", "more"),
    [([], {}), (["else"], {}), (["daily"], {}), (["backup", "x"], {}), (["backup"], {"KEEP": "0"})],
    ids=["nothing", "other", "daily-what", "two", "keep-none"],
)
def test_a_wrong_call_is_told(upkeep: Upkeep, calls: Path, words: list[str], more: dict[str, str]) -> None:
    done = upkeep(*words, **more)
    assert done.returncode == 2
    assert "usage: upkeep.sh" in done.stderr or "KEEP=0" in done.stderr
    assert not calls.exists()


def test_nothing_is_removed_until_somebody_says_after_how_long(upkeep: Upkeep, calls: Path) -> None:
    assert "nothing is removed" in upkeep("prune").stdout
    assert not calls.exists()
    upkeep("prune", PRUNE_OLDER_THAN="1y")
    assert calls.read_text() == "archsearch prune --older-than 1y --everyone --yes\n"


def test_a_day_without_a_backup_begins_with_one(upkeep: Upkeep, backups: Path, calls: Path) -> None:
    older(backups, 1)
    upkeep("daily", "backup", SLEEPS="2")
    done = [line.split()[0] for line in calls.read_text().splitlines()]
    assert done == ["archsearch", "sleep", "archsearch", "sleep"]
    waited = [int(line.split()[1]) for line in calls.read_text().splitlines() if line.startswith("sleep")]
    assert all(0 < seconds <= 86400 for seconds in waited)
    calls.unlink()
    upkeep("daily", "backup", SLEEPS="1")
    assert calls.read_text().startswith("sleep "), "there is one of today"


def test_a_failure_is_tried_again_soon(upkeep: Upkeep, calls: Path) -> None:
    done = upkeep("daily", "backup", FAULT="yes", RETRY="7", SLEEPS="2")
    assert [line for line in calls.read_text().splitlines() if line.startswith("sleep")] == ["sleep 7", "sleep 7"]
    assert "backup failed: it is tried again in 7 s" in done.stderr


def test_old_backups_are_no_sign_of_health(backups: Path) -> None:
    def healthy() -> bool:
        environment = {**os.environ, "PART": "backup", "BACKUPS": str(backups)}
        return subprocess.run(["bash", str(HEALTH)], env=environment).returncode == 0

    older(backups, 2)
    assert not healthy()
    (backups / "archsearch-20261130T031700Z.db").touch()
    assert healthy()


def ran(words: list[str]) -> list[str]:
    """What the script of the image is asked for."""
    assert words[:2] == ["bash", "/usr/local/lib/archsearch/upkeep.sh"]
    assert "deploy/container/upkeep.sh" in (DEPLOY / "container" / "Containerfile").read_text()
    return words[2:]


def test_compose_runs_it_when_asked() -> None:
    services = compose()["services"]
    for name, role, place in (("backup", "reader", "/backups"), ("prune", "writer", "/data")):
        service = services[name]
        assert service["profiles"] == ["upkeep"]
        assert ran(service["command"]) == ["daily", name]
        assert f"//archsearch_{role}@" in service["environment"]["ARCHSEARCH_STORAGE"]
        assert service["secrets"] == [{"source": f"{role}_pgpass", "target": "pgpass"}]
        assert [volume.rpartition(":")[2] for volume in service["volumes"]] == [place]
        assert not {"ports", "cluster"} & {*service, *service["networks"]}
    assert services["prune"]["environment"]["PRUNE_OLDER_THAN"] == "${PRUNE_OLDER_THAN:-}", "none unless asked"


def test_kubernetes_runs_it_by_the_clock() -> None:
    jobs = {found["metadata"]["name"]: found for found in documents(KUBERNETES / "upkeep.yaml")}
    claimed = {name for name, found in jobs.items() if found["kind"] == "PersistentVolumeClaim"}
    assert claimed == {"backups"}
    for name, role, suspended in (("backup", "reader", False), ("prune", "writer", True)):
        spec: dict[str, Any] = jobs[name]["spec"]
        assert spec.get("suspend", False) is suspended, "what removes searches waits until somebody wishes it"
        assert spec["concurrencyPolicy"] == "Forbid"
        pod = spec["jobTemplate"]["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert ran(container["args"]) == [name]
        assert f"//archsearch_{role}@" in str(container["env"])
        assert {"secretName": f"archsearch-{role}", "defaultMode": 0o440} in [
            one.get("secret") for one in pod["volumes"]
        ]


@pytest.mark.slow
def test_it_backs_up_a_database_that_is_there(tmp_path: Path, backups: Path) -> None:
    url = f"sqlite:///{tmp_path}/searches.db"
    with Store.open(url) as store:
        store.create_search("kept", {"name": "kept"}, [])
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ARCHSEARCH_STORAGE": url,
        "BACKUPS": str(backups),
        "PRUNE_OLDER_THAN": "1y",
    }
    for word in ("backup", "prune"):
        subprocess.run(["bash", str(SCRIPT), word], env=environment, check=True)
    (file,) = backups.iterdir()
    with Store.open(f"sqlite:///{file}", read_only=True) as store:
        assert [search.name for search in store.searches()] == ["kept"]
