"""Data-parallel trials: one candidate trained by several workers, which Ray Train places, joins and watches."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar

import ray
from ray import train, tune
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.queue import Empty, Queue

from archsearch.errors import ArchsearchError, ClusterError
from archsearch.search.actor import TrialActor
from archsearch.search.ray_session import passing_folder
from archsearch.training.group import Group

POLL_SECONDS = 1.0
"""How long a result is waited for before Ray Train is asked whether it has ended."""
_COLLECTIVE_SECONDS = 24 * 3600
"""How long workers wait for each other: one whose neighbour has died is told so, and one that is slow is no fault."""
_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "5",
}


def data_parallel(count: int, demand: Mapping[str, float]) -> Any:
    """A trainable whose trials are trained by `count` workers each, every one with `demand` ("cpu", "gpu").

    It gives the results of `TrialActor`. Ray Train reserves for all workers of a trial at once, or waits; Tune, which
    must reserve something, a byte.
    """

    class Sized(DataParallelTrial):
        workers, resources = count, dict(demand)

    return tune.with_resources(Sized, {"cpu": 0, "memory": 1})


class DataParallelTrial(tune.Trainable):  # type: ignore[misc]
    """Has trials trained by groups of workers, one group a trial; trains nothing itself."""

    workers: ClassVar[int]
    resources: ClassVar[Mapping[str, float]]
    _config: dict[str, Any]
    _run: _GroupRun | None

    def setup(self, config: dict[str, Any]) -> None:
        """Takes the assignment of `config`; the first step begins with it."""
        self._config, self._run = config, None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Turns to another trial, with workers of its own."""
        self._config, self._run = new_config, None
        return True

    def step(self) -> dict[str, Any]:
        """The next result of the trial's first worker; raises what a worker raised."""
        if self._run is None:
            self._run = _GroupRun(self._config, self.workers, self.resources)
        return self._run.next()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Tune keeps no checkpoints: an evaluation writes its own."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Tune keeps no checkpoints."""


class _GroupRun:
    """One trial in a group of workers. They belong to this process, and end with it."""

    def __init__(self, config: Mapping[str, Any], workers: int, resources: Mapping[str, float]) -> None:
        os.environ.update({name: value for name, value in _ENVIRONMENT.items() if name not in os.environ})
        self._results = Queue(actor_options={"num_cpus": 0})
        gpu = bool(resources.get("gpu"))
        self._folder = passing_folder()
        self._trainer = TorchTrainer(
            train_member,
            train_loop_config={"config": dict(config), "results": self._results},
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpu else "gloo", timeout_s=_COLLECTIVE_SECONDS),
            scaling_config=train.ScalingConfig(
                num_workers=workers,
                use_gpu=gpu,
                resources_per_worker={name.upper(): amount for name, amount in resources.items()},
            ),
            run_config=train.RunConfig(
                name="trial", storage_path=self._folder, failure_config=train.FailureConfig(max_failures=0)
            ),
        )
        with_thread = ThreadPoolExecutor(1)
        self._end: Future[Any] = with_thread.submit(self._trainer.fit)
        with_thread.shutdown(wait=False)

    def next(self) -> dict[str, Any]:
        """The next result; the last is given once all workers have ended."""
        while True:
            ended = self._end.done()  # looked at first: what was reported before the end must not be missed
            try:
                result: dict[str, Any] = self._results.get(timeout=POLL_SECONDS)
            except Empty:
                if ended:
                    self._close()
                    raise _raised(self._end.exception()) from None
                continue
            if result["done"]:
                self._end.exception()  # waits; the trial has its result, whatever became of its workers afterwards
                self._close()
            return result

    def _close(self) -> None:
        self._results.shutdown(force=True)
        shutil.rmtree(self._folder, ignore_errors=True)


class _Member(TrialActor):
    """What each worker of a group does: as a whole trial does, on its share. Of Tune it needs nothing."""

    def __init__(self, config: dict[str, Any], group: Group) -> None:
        self._group = group
        self.setup(config)


def train_member(task: dict[str, Any]) -> None:
    """Trains a trial in one worker of a group; the first hands in the results."""
    group = Group.here()
    member, done = _Member(task["config"], group), False
    while not done:
        result = member.step()
        done = result["done"]
        if group.leads:
            task["results"].put(result)


def _raised(error: BaseException | None) -> BaseException:
    """What ended a group: the error that says most of those that are inside what Ray Train raised."""
    if error is None:
        return ClusterError("the workers of the trial ended without a result: resume the search to go on")
    found = list(_inside(error))
    for kind in (ArchsearchError, ray.exceptions.RayActorError, ray.exceptions.RayError):
        for one in found:
            if isinstance(one, kind):
                return one
    return found[-1]


def _inside(error: BaseException) -> Iterator[BaseException]:
    """`error`, and the errors that Ray has packed into it."""
    yield error
    failures = getattr(error, "worker_failures", None) or {}
    packed = [failures[rank] for rank in sorted(failures)]
    names = ("controller_failure", "health_check_failure", "_base_exc", "cause")
    for inner in [*packed, *(getattr(error, name, None) for name in names)]:
        if isinstance(inner, BaseException):
            yield from _inside(inner)
