"""Workers: trains the orders of a campaign with Ray Tune, on a local Ray or a cluster."""

from __future__ import annotations

import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import cloudpickle, tune
from ray.tune.search import Searcher

from archsearch.errors import ArchsearchError, ClusterError
from archsearch.search.actor import Assignment, TrialActor
from archsearch.search.data_parallel import data_parallel
from archsearch.search.ledger import TrialOrder
from archsearch.search.ray_session import passing_folder


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

    def reported(self, trial: int, result: dict[str, Any]) -> None:
        """One of `TrialActor`'s results."""
        ...

    def failed(self, trial: int, reason: str, error: BaseException | None) -> None:
        """The trial's worker raised or died."""
        ...

    def stopped(self) -> None:
        """Workers are being stopped; nothing that they still report counts. May be called again."""
        ...


def train(source: TrialSource, stop: threading.Event, *, device: str, workers: int = 1) -> None:
    """Has the orders of `source` trained until it is done or `stop` is set, each by `workers` processes, which take one
    CPU, and a GPU where the `device` is "cuda". Everything that Tune writes goes to a folder that is removed.
    Raises `ClusterError` when Ray itself fails, but not after a signal, which may have killed it."""
    folder = passing_folder()
    try:
        tuner = tune.Tuner(
            _trainable(workers, _resources(device)),
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
                stop=_OnSignal(source, stop),
                callbacks=[_ResultCallback(source)],
                failure_config=tune.FailureConfig(max_failures=0),
            ),
        )
        with suppress(_Stopped):
            tuner.fit()
    except (ray.exceptions.RayError, tune.TuneError) as error:
        if not stop.is_set():
            raise ClusterError(f"Ray failed: {describe(error)}: resume the search to go on") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _trainable(workers: int, demand: dict[str, float]) -> Any:
    """Trains a trial in one process, or in as many as `workers`."""
    return tune.with_resources(TrialActor, demand) if workers == 1 else data_parallel(workers, demand)


def _resources(device: str) -> dict[str, float]:
    return {"cpu": 1.0, "gpu": 1.0} if device == "cuda" else {"cpu": 1.0}


def _name(trial: Any) -> str:
    return f"trial_{trial.config['trial']}"


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

    def suggest(self, trial_id: str) -> Any:
        """A config, None when there is nothing now, or FINISHED."""
        order = None if self._stop.is_set() else self._source.next()
        if order is not None:
            return {"trial": order.trial, **self._source.assignment(order).to_config()}
        return Searcher.FINISHED if self._stop.is_set() or self._source.done else None

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """The callback has told the source."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing is saved: the store has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing is restored."""


class _OnSignal(_Unsaved, tune.Stopper):  # type: ignore[misc]
    """Leaves Tune once the event is set, when the source has noted it.

    Tune would stop its trials one by one through Ray, which a signal to the whole process group has killed already,
    and would wait for it; ending Ray ends the workers anyway.
    """

    def __init__(self, source: TrialSource, stop: threading.Event) -> None:
        self._source, self._stop = source, stop

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Whether a signal came."""
        if self._stop.is_set():
            self._source.stopped()
            raise _Stopped
        return False


class _ResultCallback(_Unsaved, tune.Callback):  # type: ignore[misc]
    """Tells the source of results and failures."""

    def __init__(self, source: TrialSource) -> None:
        self._source = source

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **info: Any) -> None:
        """A slice was trained."""
        self._source.reported(trial.config["trial"], result)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """The worker raised or died."""
        error = _error_of(trial)
        self._source.failed(trial.config["trial"], describe(error), error)


def _error_of(trial: Any) -> BaseException | None:
    """What the worker raised; Tune keeps it in a file beside the trial."""
    file = trial.pickled_error_file
    if file is None or not Path(file).exists():
        return None
    try:
        error: BaseException = cloudpickle.loads(Path(file).read_bytes())
    except Exception as unread:  # an exception of foreign code, whose class may be known on the worker alone
        return RuntimeError(f"the worker raised what cannot be read here ({type(unread).__name__}: {unread})")
    cause: BaseException | None = getattr(error, "cause", None)
    return cause or error


def describe(error: BaseException | None) -> str:
    """One line on why a worker failed."""
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return "out of memory: Ray ended the worker before the machine ran out"
    if isinstance(error, ray.exceptions.RayActorError):
        return "the worker died: it was killed, ran out of memory, or its machine was lost"
    if isinstance(error, ArchsearchError):
        return str(error)
    if error is None:
        return "the worker failed without a message"
    try:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    except Exception:  # an exception of foreign code makes its own text
        lines = []
    return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"
