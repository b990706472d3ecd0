"""What a cluster says of a spec, a database and a name, by the code that answers there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from jobs_fakes import SPEC

from archsearch.errors import SpecError
from archsearch.jobs import Question, answer
from archsearch.jobs import question as question_module
from archsearch.jobs.open_secrets import open_secrets
from archsearch.jobs.placement import has_room
from archsearch.registry import load_registry
from archsearch.search import Problem, SearchSpec
from archsearch.storage import Driver, Store, mounts

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """The answer of a cluster whose only node is this process."""
    monkeypatch.setattr(
        question_module,
        "_nodes",
        lambda names, question: [
            question_module.here(list(names), look=question.look, wants=question.wants) | {"gpus": 0.0}
        ],
    )
    monkeypatch.chdir(tmp_path)

    def asked(**what: Any) -> dict[str, Any]:
        path = tmp_path / "question.json"
        path.write_text(Question(**{"spec": str(spec), **what}).to_text())
        return answer(Question.read(path))

    return asked


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/searches.db"


def begun(url: str, spec: Path, *, state: str, reason: str = "") -> None:
    """A search of the spec's name that stands so."""
    problem = Problem.of(SearchSpec.load(spec), load_registry())
    with Store.open(url) as store:
        search = store.create_search(
            "quick",
            problem.spec.to_json(),
            [objective.to_json() for objective in problem.objectives],
            parts=[(part.name, part.version, part.digest) for part in problem.parts()],
            driver=Driver.here(),
        )
        if state != "running":
            store.set_search_state(search, state, reason)


def test_a_search_that_would_run(ask: Ask, url: str, tmp_path: Path) -> None:
    found = ask(storage=url)
    assert found["faults"] == []
    assert [name for name, _, _ in found["parts"]] == ["core", "mixer:full", "mixer:sliding", "task:mqar"]
    assert found["nodes"][0]["parts"] == found["parts"]
    assert found["database"] == {"url": url, "search": None}
    assert not (tmp_path / "searches.db").exists(), "who only asks makes no database"


def test_what_a_plugin_asks_for_and_is_not_there_is_told(ask: Ask, url: str) -> None:
    found = ask(storage=url, wants=("pluggy", "tiny-dependency>=1"))
    assert found["lacking"] == ["tiny-dependency>=1"] == found["nodes"][0]["lacking"]


def test_a_wrong_spec_is_a_fault(ask: Ask, url: str, spec: Path) -> None:
    spec.write_text(SPEC.replace('"full"', '"fulll"'))
    ((code, text),) = ask(storage=url)["faults"]
    assert code == 2
    assert 'unknown mixer "fulll"' in text


def test_a_card_that_is_not_there_is_a_fault(ask: Ask, url: str, spec: Path) -> None:
    spec.write_text(f'{SPEC}[recipe]\ndevice = "cuda"\n')
    ((code, text),) = ask(storage=url)["faults"]
    assert (code, "the cluster has no GPU" in text) == (2, True)


def test_a_taken_name_is_a_fault_and_one_that_goes_on_is_none(ask: Ask, url: str, spec: Path) -> None:
    begun(url, spec, state="cancelled", reason="stopped")
    found = ask(storage=url)
    assert found["database"]["search"] == {"state": "cancelled", "reason": "stopped"}
    ((code, text),) = found["faults"]
    assert code == 4
    assert 'already has a search "quick" (cancelled): add --resume' in text
    assert ask(storage=url, resume=True)["faults"] == []


def test_a_search_that_runs_is_a_fault(ask: Ask, url: str, spec: Path) -> None:
    begun(url, spec, state="running")
    ((_, text),) = ask(storage=url, resume=True)["faults"]
    assert 'the search "quick" is running: stop it first' in text
    assert ask(storage=url, resume=True, wait=True)["faults"] == []


def test_growth_and_changed_source_are_judged(ask: Ask, url: str, spec: Path) -> None:
    begun(url, spec, state="cancelled")
    spec.write_text(f"{SPEC}[search]\ntrials = 500\n")
    ((code, text),) = ask(storage=url, resume=True)["faults"]
    assert (code, "add --grow" in text) == (2, True)
    assert ask(storage=url, resume=True, allowed=("search.trials",))["faults"] == []
    with Store.open(url) as store:
        store.set_parts(store.search("quick").id, [("mixer:full", "archsearch 0.0.1 r1", "0" * 16)])
    ((_, text),) = ask(storage=url, resume=True, allowed=("search.trials",))["faults"]
    assert "mixer:full had archsearch 0.0.1 r1" in text
    assert ask(storage=url, resume=True, allowed=("search.trials",), retrain=True)["faults"] == []


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite:////none/searches.db", "there is no directory /none"),
        ("postgresql://me:s3cret@127.0.0.1:1/none", "127.0.0.1"),
        ("sqlite:///searches.db", "lies in the folder of this job"),
    ],
)
def test_a_database_that_cannot_be_used_is_a_fault(
    ask: Ask, url: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    ((code, text),) = ask(storage=url)["faults"]
    assert code == 4
    assert told in text or "driver is not installed" in text
    assert "s3cret" not in text


@pytest.mark.parametrize("absent", [True, False], ids=["absent", "there"])
def test_a_database_on_a_network_file_system_is_a_fault(
    ask: Ask, url: str, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: bool
) -> None:
    if not absent:
        begun(url, spec, state="cancelled")
    (tmp_path / "mounts").write_text(f"server:/team {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "mounts")
    ((code, text),) = ask(storage=url, resume=True)["faults"]
    assert (code, "lies on a network file system (nfs4)" in text) == (4, True)
    assert (tmp_path / "searches.db").exists() is not absent


@pytest.mark.parametrize("storage", [None, "sqlite:////data/a.db"], ids=["by-it", "by-an-option"])
def test_a_password_in_the_environment_is_told(ask: Ask, monkeypatch: pytest.MonkeyPatch, storage: str | None) -> None:
    """Also where another database is used: who may submit reads it all the same."""
    monkeypatch.setenv("ARCHSEARCH_STORAGE", "postgresql://me:s3cret@127.0.0.1:1/none")
    monkeypatch.delenv("PGPASSWORD", raising=False)
    found = ask(storage=storage)
    assert found["open_secrets"] == found["nodes"][0]["open_secrets"] == ["ARCHSEARCH_STORAGE"]
    assert "s3cret" not in str(found)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"ARCHSEARCH_STORAGE": "postgresql://me@h/d", "PGPASSFILE": "/etc/pgpass"}, []),
        ({"ARCHSEARCH_STORAGE": "sqlite:////data/a.db", "ARCHSEARCH_STORAGE_FILE": "/etc/storage"}, []),
        ({"ARCHSEARCH_STORAGE": "postgresql://h/d?password=s3cret"}, ["ARCHSEARCH_STORAGE"]),
        ({"DATABASE_URL": "postgres://me:s3cret@h/d", "PGPASSWORD": "s3cret"}, ["DATABASE_URL", "PGPASSWORD"]),
        ({"PGPASSWORD": "", "NOTE": "a:b@c password=d"}, []),
    ],
    ids=["passfile", "file", "option", "others", "none"],
)
def test_variables_that_hold_a_password_are_named(environ: dict[str, str], expected: list[str]) -> None:
    assert open_secrets(environ) == expected


def test_a_question_of_another_version_is_told(tmp_path: Path) -> None:
    path = tmp_path / "question.json"
    for text in ("{", '{"colour": 1}', "[]"):
        path.write_text(text)
        with pytest.raises(SpecError, match="no question of this archsearch"):
            Question.read(path)


def test_a_plugin_that_is_not_there_is_told_by_a_node() -> None:
    (part,) = question_module.here(["mixer:nobody"], look=False)["parts"]
    assert part[:2] == ["mixer:nobody", "none"]


SERVER = "postgresql://me:s3cret@127.0.0.1:1/none"


@pytest.mark.parametrize(
    ("given", "spec", "told"),
    [
        ("sqlite:////data/a.db", None, "sqlite:////data/a.db would be another file than on the head node"),
        (None, None, "sqlite:///archsearch.db would be another file than on the head node"),
        (None, SERVER, "127.0.0.1"),
    ],
    ids=["file", "none", "server"],
)
def test_a_node_that_would_write_elsewhere_says_so(
    monkeypatch: pytest.MonkeyPatch, given: str | None, spec: str | None, told: str
) -> None:
    monkeypatch.delenv("ARCHSEARCH_STORAGE_FILE", raising=False)
    said = question_module.here([], look=False, database=[given, spec])["database_fault"]
    assert told in said or "driver is not installed" in said
    assert "s3cret" not in said


@pytest.mark.postgres
def test_a_node_that_reaches_the_database_has_no_fault(postgres_url: str) -> None:
    assert question_module.here([], look=False, database=[postgres_url, None])["database_fault"] == ""


def test_a_place_without_the_database_is_a_fault(ask: Ask, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        {"host": "head"},
        {"host": "far", "database_fault": "there is none"},
        {"host": "low", "database_fault": ""},
    ]
    monkeypatch.setattr(question_module, "_nodes", lambda names, question: nodes)
    ((code, text),) = ask(storage=url, cpus=2.0, gpus=0.5)["faults"]
    assert code == 4
    assert text.startswith(
        "the search's own process asks for 2 CPUs and 0.5 GPUs and may start on node far, where there is none: "
    )
    assert "leave out --cpus and --gpus" in text


@pytest.mark.parametrize(
    ("resources", "room"),
    [({"CPU": 2.0}, False), ({"CPU": 2.0, "GPU": 1.0}, True), ({"GPU": 1.0}, False), ({}, False)],
)
def test_room_is_of_one_node(resources: dict[str, float], room: bool) -> None:
    assert has_room(resources, 2.0, 0.5) is room


@pytest.mark.parametrize(
    ("device", "triton", "expected"),
    [
        ("cpu", True, []),
        ("cuda", True, ["H200, driver 580.1: kernels run"]),
        (
            "cuda",
            False,
            ['H200, driver 580.1: no kernels: Triton is not installed (pip install "archsearch[kernels]")'],
        ),
    ],
    ids=["none", "kernels", "no-triton"],
)
def test_a_node_tells_its_card_and_whether_kernels_run(
    monkeypatch: pytest.MonkeyPatch, device: str, triton: bool, expected: list[str]
) -> None:
    monkeypatch.setattr("archsearch.bench.device.device_named", lambda name: torch.device(device))
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "H200")
    monkeypatch.setattr("archsearch.kernels.machine.told_by", lambda *command: "580.1\n580.1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if triton or name != "triton" else None)
    found = question_module.here([], look=True)
    assert found["cards"] == expected
    assert "cards" not in question_module.here([], look=False)
