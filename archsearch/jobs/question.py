"""The question that a cluster is asked before a search is sent there, and its answer, from the cluster's side.

The answer is one line of JSON in the log of a small job, which runs as the search would: by the same command, in the
same folder and with the same plugins.
"""

from __future__ import annotations

import json
import platform
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from archsearch.errors import ArchsearchError, SpecError, StorageError
from archsearch.jobs.listeners import listeners
from archsearch.jobs.open_secrets import open_secrets
from archsearch.jobs.placement import ELSEWHERE, database_fault, has_room, placement_faults
from archsearch.jobs.requirements import missing
from archsearch.registry import Registry, load_registry
from archsearch.search import SearchSpec
from archsearch.storage import Store, hide, storage_url
from archsearch.storage.engine import check_path
from archsearch.storage.url import read_url, refuse_passing_folder, sqlite_path
from archsearch.version import __version__

MARK = "archsearch-answer: "
NODE_SECONDS = 60.0
"""How long a node may take to say what is installed there."""
INSTALL_SECONDS = 600.0
"""How much longer where Ray has pip make an environment there first."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked: of a spec, whether it would run; of a search, how it stands; the ports and the cards when `look`.

    ``spec`` is a file of the job's folder; ``allowed``, ``wait`` and ``retrain`` are what a search that goes on
    (``resume``) is allowed; ``cpus`` and ``gpus`` are what its own process asks of one node.
    """

    spec: str | None = None
    search: str | None = None
    storage: str | None = None
    resume: bool = False
    allowed: tuple[str, ...] = ()
    wait: bool = False
    retrain: bool = False
    look: bool = False
    cpus: float = 0.0
    gpus: float = 0.0
    wants: tuple[str, ...] = ()
    installs: bool = False

    @property
    def node_seconds(self) -> float:
        """How long a node may take to answer."""
        return NODE_SECONDS + (INSTALL_SECONDS if self.installs else 0.0)

    def to_text(self) -> str:
        """As a file of the job's folder holds it."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, path: Path) -> Question:
        """Reads `to_text`'s file; raises `SpecError` for one of another archsearch."""
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**held, **{name: tuple(held.get(name, ())) for name in ("allowed", "wants")}})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise SpecError(f"{path} is no question of this archsearch ({error}): submit with {__version__}") from None


def answer(question: Question) -> dict[str, Any]:
    """What this node, and every other, says; ``faults`` are (exit code, sentence), the first of them first to be
    mended."""
    registry = load_registry()
    faults: list[tuple[int, str]] = []
    parts, wants_gpu = _parts(question, registry, faults)
    database = _database(question, registry, parts, faults)
    broken = [report for report in registry.reports() if report.status in ("failed", "conflict")]
    found = {
        "archsearch": __version__,
        "ray": ray.__version__,
        "python": platform.python_version(),
        "host": socket.gethostname(),
        "clock": time.time(),
        "parts": parts,
        "plugins": registry.fingerprint(),
        "broken": [[report.name, report.version, report.error or ""] for report in broken],
        "database": database,
        "nodes": _nodes([name for name, _, _ in parts], question),
        "open_secrets": open_secrets(),
        "faults": faults,
    }
    lacking = [*missing(question.wants), *(text for node in found["nodes"] for text in node.get("lacking", ()))]
    found["lacking"] = list(dict.fromkeys(lacking))
    faults += [(4, text) for text in placement_faults(found["nodes"], question.cpus, question.gpus)]
    if wants_gpu and not any(node.get("gpus") for node in found["nodes"]):
        faults.append((2, 'recipe.device = "cuda", but the cluster has no GPU: use "cpu" or "auto"'))
    return found


def _parts(question: Question, registry: Registry, faults: list[tuple[int, str]]) -> tuple[list[list[str]], bool]:
    """What the spec's results would be made of here, and whether it wants a GPU."""
    from archsearch.search import Problem

    if question.spec is None:
        return [], False
    try:
        spec = SearchSpec.load(question.spec)
        problem = Problem.of(spec, registry)
    except ArchsearchError as error:
        faults.append((error.exit_code, str(error)))
        return [], False
    return [[part.name, part.version, part.digest] for part in problem.parts()], spec.recipe.device == "cuda"


def _database(
    question: Question, registry: Registry, parts: list[list[str]], faults: list[tuple[int, str]]
) -> dict[str, Any]:
    """Where the search would be kept, whether that can be opened, and how the search of its name stands there."""
    found: dict[str, Any] = {"url": "", "search": None}
    try:
        spec = None if question.spec is None else SearchSpec.load(question.spec)
    except ArchsearchError:
        return found  # told by whoever poses the problem
    try:
        url = storage_url(question.storage, spec=None if spec is None else spec.storage.url)
        found["url"] = hide(url)
        refuse_passing_folder(url)
        path = sqlite_path(read_url(url))
        if path is not None and not path.exists():
            check_path(path, url, read_only=False, create=True)
            return found
        with Store.open(url, create=False) as store:
            name = question.search if spec is None else spec.name
            if name is not None and name in [record.name for record in store.searches()]:
                record = store.search(name)
                found["search"] = {"state": record.state_now(), "reason": record.reason}
                if spec is not None:
                    _check_name(question, spec, store, parts)
    except ArchsearchError as error:
        faults.append((error.exit_code, str(error)))
    return found


def _check_name(question: Question, spec: SearchSpec, store: Store, parts: list[list[str]]) -> None:
    """Raises what `run` would raise for a search of that name."""
    from archsearch.search.changes import check_growth, refuse_changed_source, source_changes

    record = store.search(spec.name)
    if not question.resume:
        raise StorageError(
            f'{store.url} already has a search "{spec.name}" ({record.state_now()}): add --resume to go on '
            "with it, or give this one another name"
        )
    if record.state_now() == "running" and not question.wait:
        raise StorageError(
            f'the search "{spec.name}" is running: stop it first (`archsearch jobs` lists the jobs), or add --wait to '
            "go on once its driver is dead"
        )
    check_growth(SearchSpec.from_dict(record.spec), spec, question.allowed)
    if not question.retrain:
        now = {name: (version, digest) for name, version, digest in parts}
        refuse_changed_source(spec.name, source_changes(store.parts(record.id), now))


def _nodes(names: list[str], question: Question) -> list[dict[str, Any]]:
    """What every node of the cluster says; one that does not answer in time says so.

    Those on which the search's own process may run, too, are asked for its database.
    """

    def describe(names: list[str], how: dict[str, Any]) -> dict[str, Any]:  # by value: a node may have no archsearch
        import platform
        import socket
        import time

        said: dict[str, Any] = {"host": socket.gethostname(), "python": platform.python_version(), "clock": time.time()}
        try:
            from archsearch.jobs.question import here

            return {**said, **here(names, **how)}
        except ImportError as error:
            return {**said, "fault": f"archsearch cannot be imported there ({error})"}

    ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        task = ray.remote(num_cpus=0, max_retries=0)(describe)
        asked, head, database = {}, ray.get_runtime_context().get_node_id(), _places(question)
        for node in nodes:
            place = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            how: dict[str, Any] = {"look": question.look, "wants": list(question.wants)}
            if database and node["NodeID"] != head and has_room(node["Resources"], question.cpus, question.gpus):
                how["database"] = database
            asked[task.options(scheduling_strategy=place).remote(names, how)] = node
        ray.wait(list(asked), num_returns=len(asked), timeout=question.node_seconds)
        return [_said(reference, node, question.node_seconds) for reference, node in asked.items()]
    finally:
        ray.shutdown()


def _places(question: Question) -> list[str | None]:
    """What names the database: the command line's and the spec's; nothing where the search runs on the head node."""
    if not (question.cpus or question.gpus) or question.spec is None:
        return []
    try:
        return [question.storage, SearchSpec.load(question.spec).storage.url]
    except ArchsearchError:
        return []  # told by whoever poses the problem


def _said(reference: Any, node: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    held = node["Resources"]
    known = {
        "host": node["NodeManagerHostname"],
        "address": node["NodeManagerAddress"],
        "cpus": held.get("CPU", 0.0),
        "gpus": held.get("GPU", 0.0),
    }
    try:
        return {**known, **ray.get(reference, timeout=0)}
    except ray.exceptions.GetTimeoutError:
        return {**known, "silent": f"it did not answer in {seconds:.0f} s"}
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return {**known, "silent": lines[-1] if lines else type(error).__name__}


def here(
    names: list[str], *, look: bool, wants: Sequence[str] = (), database: Sequence[str | None] = ()
) -> dict[str, Any]:
    """What is installed on this node: the parts of `names` by version and digest; its cards and what Ray listens on if
    `look`; what it lacks of what is wanted; what stands between it and a `database`, which the command line and the
    spec name so; which of its variables hold a password."""
    registry = load_registry()
    told: dict[str, Any] = {"archsearch": __version__, "ray": ray.__version__, "parts": []}
    told["open_secrets"] = open_secrets()
    for name in names:
        try:
            made = registry.parts_named([name])
            told["parts"] += [[part.name, part.version, part.digest] for part in made]
        except ArchsearchError as error:
            told["parts"].append([name, "none", str(error)])
    told["plugins"], told["lacking"] = registry.fingerprint(), missing(wants)
    if database:
        told[ELSEWHERE] = database_fault(*database)
    return {**told, "cards": _cards(), "ports": listeners()} if look else told


def _cards() -> list[str]:
    """The first card of this node, and whether kernels run on it, in words; none where there is no card."""
    from archsearch.bench.device import device_named
    from archsearch.bench.environment import card_of
    from archsearch.kernels.device import obstacle
    from archsearch.kernels.machine import driver_of

    device = device_named("")
    if device.type != "cuda":
        return []
    why = obstacle(device)
    return [f"{card_of(device)}, driver {driver_of(device)}: {f'no kernels: {why}' if why else 'kernels run'}"]
