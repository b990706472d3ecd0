"""Workers: trains the orders of a campaign with Ray Tune, on a local Ray or a cluster."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import cloudpickle, tune
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.tune.search import Searcher

from archsearch.errors import ClusterError
from archsearch.search.actor import PROVING, WAITING, Assignment, TrialActor
from archsearch.search.cluster_watch import watching
from archsearch.search.data_parallel import data_parallel
from archsearch.search.failures import Failure, Place, classify, describe, died, said_of
from archsearch.search.last_words import hear
from archsearch.search.ledger import TrialOrder
from archsearch.search.limits import Limits
from archsearch.search.reservations import freeing_orphans
from archsearch.search.tables.resources import ResourcesTable
from archsearch.storage.scraps import passing_folder

_NODES_SHOWN = 8


class TrialSource(Protocol):
    """Where the trials to train come from, and where what came of them goes."""

    def next(self) -> TrialOrder | None:
        """An order; None when there is none now."""
        ...

    @property
    def done(self) -> bool:
        """Whether there will be no further order."""
        ...

    def assignment(self, order: TrialOrder) -> Assignment:
        """What the worker is told."""
        ...

    def placed(self, trial: int, place: Place) -> None:
        """A worker has the trial."""
        ...

    def stops(self, trial: int, result: dict[str, Any]) -> bool:
        """Whether the trial is to be stopped with one of `TrialActor`'s results, which `reported` is then told as its
        last; asked of every result but a trial's own last."""
        ...

    def reported(self, trial: int, result: dict[str, Any]) -> None:
        """One of `TrialActor`'s results."""
        ...

    def failed(self, trial: int, failure: Failure) -> None:
        """The trial's worker raised or died, or was ended as it went beyond a limit."""
        ...

    def gone(self, fault: str) -> None:
        """The cluster is gone, or has no room for trials any more; may be called from another thread."""
        ...

    def stopped(self) -> None:
        """Workers are being stopped; nothing that they still report counts. May be called again."""
        ...


def train(source: TrialSource, stop: threading.Event, *, device: str, resources: ResourcesTable) -> None:
    """Has the orders of `source` trained until it is done or `stop` is set; each takes what `resources` says, with a
    GPU only where the `device` is "cuda". Everything that Tune writes goes to a folder that is removed.
    Raises `ClusterError` when Ray itself fails or has no node for a trial, but not after a signal, which may have
    killed it."""
    demand = demand_of(resources, device)
    check_fits(demand)
    folder = passing_folder()
    limits = Limits(max_seconds=resources.max_seconds, max_silence=resources.max_silence)
    try:
        tuner = tune.Tuner(
            _trainable(resources.workers, demand),
            tune_config=tune.TuneConfig(
                search_alg=_OrderSearcher(source, stop),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=_name,
                trial_dirname_creator=_name,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=folder,
                verbose=0,
                stop=_Stopper(source, stop),
                callbacks=[_Observer(source, limits)],
                failure_config=tune.FailureConfig(max_failures=0),
            ),
        )
        freeing = freeing_orphans() if resources.workers > 1 else nullcontext()
        with (
            watching(lambda node: _fits(node, demand), source.gone),
            freeing,
            suppress(_Stopped),
            _any_death_ends_one_trial(),
        ):
            tuner.fit()
    except (ray.exceptions.RayError, tune.TuneError) as error:
        if not stop.is_set():
            raise ClusterError(f"Ray failed: {describe(error)}: resume the search to go on") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def demand_of(resources: ResourcesTable, device: str) -> dict[str, float]:
    """What each process of a trial takes of a node, in Ray's words."""
    gpu = (1.0 if resources.gpu is None else resources.gpu) if device == "cuda" else 0.0
    return {"cpu": resources.cpu, "gpu": gpu} if gpu else {"cpu": resources.cpu}


def _trainable(count: int, demand: dict[str, float]) -> Any:
    """Trains a trial in one process, or in as many as `count`."""
    return tune.with_resources(TrialActor, demand) if count == 1 else data_parallel(count, demand)


def check_fits(demand: Mapping[str, float]) -> None:
    """Raises `ClusterError` where no node of the cluster has what a trial takes: it would wait for ever."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if not any(_fits(node, demand) for node in nodes):
        asked = " and ".join(f"{amount:g} {what.upper()}" for what, amount in demand.items())
        there = "; ".join(
            " and ".join(f"{node['Resources'].get(key, 0.0):g} {key}" for key in ("CPU", "GPU"))
            for node in nodes[:_NODES_SHOWN]
        )
        raise ClusterError(
            f"a trial takes {asked}, and no node of the cluster has that (they have {there or 'nothing'}): "
            "ask for less in [resources], or start such a node"
        )


def _fits(node: Mapping[str, Any], demand: Mapping[str, float]) -> bool:
    return all(node["Resources"].get(what.upper(), 0.0) >= amount for what, amount in demand.items())


@contextmanager
def _any_death_ends_one_trial() -> Iterator[None]:
    """Tune takes an actor's death only as a `RayActorError`, and ends the whole run at any other: at that of a worker
    which Ray's memory monitor has ended, for one."""
    original = RayActorManager._actor_task_failed

    def failed(self: Any, tracked_actor_task: Any, exception: Exception) -> None:
        known = isinstance(exception, ray.exceptions.RayActorError | ray.exceptions.RayTaskError)
        original(self, tracked_actor_task, exception if known or not died(exception) else _Death(exception))

    RayActorManager._actor_task_failed = failed
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = original


class _Death(ray.exceptions.RayActorError):  # type: ignore[misc]
    """A death of another class, as Tune takes it."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(error_msg=type(cause).__name__)
        self.cause = cause


def _name(trial: Any) -> str:
    return f"trial_{trial.config['trial']}_{trial.config['attempt']}"


class _Stopped(BaseException):
    """Leaves Tune's loop; no `Exception`, so that nothing on the way takes it for a failure."""


class _Unsaved:
    """Tune pickles and copies what it is given: nothing of this goes with it, so that no secret reaches a disk."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __deepcopy__(self, memo: Any) -> Any:
        return self


class _OrderSearcher(_Unsaved, Searcher):  # type: ignore[misc]
    """Gives Tune the source's orders as configs."""

    def __init__(self, source: TrialSource, stop: threading.Event) -> None:
        super().__init__()
        self._source, self._stop = source, stop
        self._attempts = itertools.count(1)

    def suggest(self, trial_id: str) -> Any:
        """A config, None when there is nothing now, or FINISHED."""
        order = None if self._stop.is_set() else self._source.next()
        if order is not None:
            return {"trial": order.trial, "attempt": next(self._attempts), **self._source.assignment(order).to_config()}
        return Searcher.FINISHED if self._stop.is_set() or self._source.done else None

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """The callback has told the source."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing is saved: the store has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing is restored."""


class _Stopper(_Unsaved, tune.Stopper):  # type: ignore[misc]
    """Stops the trials that the source gives up, and leaves Tune once the event is set, when the source has noted it.

    Tune would stop its trials one by one through Ray, which a signal to the whole process group has killed already,
    and would wait for it; ending Ray ends the workers anyway.
    """

    def __init__(self, source: TrialSource, stop: threading.Event) -> None:
        self._source, self._stop = source, stop

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether this trial is stopped: its worker then turns to another one."""
        passing = WAITING in result or PROVING in result or "place" in result or result["done"]
        return not passing and self._source.stops(result["trial"], result)

    def stop_all(self) -> bool:
        """Whether a signal came."""
        if self._stop.is_set():
            self._source.stopped()
            raise _Stopped
        return False


class _Observer(_Unsaved, tune.Callback):  # type: ignore[misc]
    """Tells the source of places, results and failures, and ends the worker of a trial that goes beyond a limit."""

    def __init__(self, source: TrialSource, limits: Limits) -> None:
        self._source, self._limits = source, limits
        self._running: dict[str, Any] = {}
        self._places: dict[str, Place] = {}
        self._ended: dict[str, str] = {}

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """An actor has the trial."""
        self._running[trial.trial_id] = trial
        self._limits.begin(trial.trial_id)

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        """A slice was trained, or is about to be; while it waits for workers a trial has not begun, and what it proves
        of kernels counts as none of its time."""
        if WAITING in result:
            self._limits.begin(trial.trial_id)
            return
        if PROVING in result:
            self._limits.excuse(trial.trial_id, result[PROVING])
            return
        self._limits.heard(trial.trial_id)
        if "place" in result:
            self._places[trial.trial_id] = place = Place(**result["place"])
            self._source.placed(trial.config["trial"], place)
            return
        if result["done"]:
            self._forget(trial)
        self._source.reported(trial.config["trial"], result)

    def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
        """A turn of Tune's loop, ten times a second."""
        for trial_id, reason in self._limits.exceeded().items():
            actor = self._running[trial_id].temporary_state.ray_actor
            if trial_id not in self._ended and actor is not None:
                self._ended[trial_id] = reason
                ray.kill(actor)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """The worker raised or died."""
        place, reason = self._places.get(trial.trial_id), self._ended.get(trial.trial_id)
        self._forget(trial)
        failure = _failure(_error_of(trial), place) if reason is None else Failure(kind="own", reason=reason)
        self._source.failed(trial.config["trial"], failure)

    def _forget(self, trial: Any) -> None:
        self._limits.end(trial.trial_id)
        for held in (self._running, self._places, self._ended):
            held.pop(trial.trial_id, None)


def _failure(error: BaseException | None, place: Place | None) -> Failure:
    """What the end of a worker at `place` was; its node is asked for its last words."""
    if not died(error) or place is None:
        return classify(error, place, None, node_alive=True)
    alive = any(node["NodeID"] == place.node_id and node["Alive"] for node in ray.nodes())
    words = hear(place.node_id, place.words) if alive else None
    return classify(error, place, words, node_alive=alive)


def _error_of(trial: Any) -> BaseException | None:
    """What the worker raised; Tune keeps it in a file beside the trial, and of what is no actor's or task's own error,
    as that of the memory monitor may come, the text alone."""
    file = trial.pickled_error_file
    if file is None or not Path(file).exists():
        text = trial.error_file
        return said_of(Path(text).read_text(errors="replace")) if text is not None and Path(text).exists() else None
    try:
        error: BaseException = cloudpickle.loads(Path(file).read_bytes())
    except Exception as unread:  # an exception of foreign code, whose class may be known on the worker alone
        return RuntimeError(f"the worker raised what cannot be read here ({type(unread).__name__}: {unread})")
    cause: BaseException | None = getattr(error, "cause", None)
    return cause or error
