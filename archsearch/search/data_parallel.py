"""Data-parallel trials: one candidate trained by several workers side by side, which Ray Train's `TorchTrainer` runs.

The trial is one of Tune's, whose process reserves nothing worth the name and trains nothing: it passes on assignments
and results. The trainer reserves the workers, all at once, and keeps them for the next trial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import ray
from ray import train, tune

from archsearch.errors import ArchsearchError
from archsearch.search.actor import WAITING
from archsearch.search.failures import CrashError, describe, died
from archsearch.search.last_words import hear

if TYPE_CHECKING:
    from archsearch.search.trainer import Trainer

_POLL_SECONDS = 1.0
_END_SECONDS = 20.0
"""How long workers may take to end by themselves."""
_A_BYTE = {"memory": 1}
"""What the trial's own process reserves: Tune knows no reservation of nothing, and of a core workers would miss it."""


def data_parallel(count: int, demand: Mapping[str, float]) -> Any:
    """A trainable whose trials are trained by `count` workers each, every one with `demand` ("cpu", "gpu").

    It gives the results of `TrialActor`, since that is what each worker runs, on its share, and before these some that
    are ``waiting``.
    """

    class Sized(GroupTrial):
        workers, resources = count, dict(demand)

    return tune.with_resources(Sized, _A_BYTE)


class GroupTrial(tune.Trainable):  # type: ignore[misc]
    """Has trials trained by a group of workers, which belong to this process and end with it; trains nothing itself."""

    workers: ClassVar[int]
    resources: ClassVar[Mapping[str, float]]
    _waiting: dict[str, Any] | None
    _trainer: Trainer | None = None
    _coming: Any = None
    _met = False
    _owed = False
    _done = True

    def setup(self, config: dict[str, Any]) -> None:
        """Takes the assignment of `config`; the first step begins with it."""
        self._waiting = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Turns to another trial with the same workers; with others after one that was stopped before its end, as all
        but the first would wait for ever for the rest of it."""
        if not self._done:
            self._answer(False)
            self._part()
        self._waiting = new_config
        return True

    def step(self) -> dict[str, Any]:
        """The next result of the trial's first worker; raises what a worker raised."""
        try:
            return self._next()
        except (train.TrainingFailedError, ray.exceptions.RayError) as error:
            told = telling(causes(error))
            raise self._crash(told) if died(told) else told from None

    def cleanup(self) -> None:
        """Ends the workers."""
        self._answer(False)
        if self._trainer is not None:
            self._trainer.mailbox.assign.remote(None)
            self._trainer.wait(_END_SECONDS if self._met else 0.0)

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Tune keeps no checkpoints: an evaluation writes its own."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Tune keeps no checkpoints."""

    def _next(self) -> dict[str, Any]:
        """Assigns what waits, and waits for the first worker; for long only once the workers have met."""
        self._answer(True)
        if self._waiting is not None:
            self._trainer = self._assigned(self._waiting)
            self._waiting, self._done = None, False
        assert self._trainer is not None
        self._coming = self._coming or self._trainer.mailbox.coming.remote()
        while not ray.wait([self._coming], timeout=_POLL_SECONDS)[0]:
            if self._trainer.ended:
                raise self._trainer.error or ray.exceptions.RayActorError(error_msg="the workers of the trial ended")
            if not self._met:
                return {WAITING: True, "done": False}
        result: dict[str, Any] = ray.get(self._coming)
        self._coming, self._met, self._done = None, True, bool(result["done"])
        self._owed = not self._done
        return result

    def _assigned(self, config: dict[str, Any]) -> Trainer:
        """The trainer whose workers have this trial: the one that is there, unless they have ended for want of one."""
        from archsearch.search.trainer import Trainer  # Ray Train takes a while to be imported

        if self._trainer is not None and ray.get(self._trainer.mailbox.assign.remote(config)):
            return self._trainer
        self._part()
        trainer = Trainer(self.workers, self.resources)
        trainer.mailbox.assign.remote(config)
        return trainer

    def _part(self) -> None:
        """Leaves the workers, who end."""
        if self._trainer is not None:
            self._trainer.leave()
        self._trainer, self._met, self._done = None, False, True

    def _answer(self, go_on: bool) -> None:
        """Tells the first worker, which waits for it, whether its trial goes on."""
        if self._owed and self._trainer is not None:
            self._trainer.mailbox.answer.remote(go_on)
        self._owed = False

    def _crash(self, error: BaseException) -> BaseException:
        """What a worker that died has left to say, else the error as it is; any of them may have been the first."""
        for place in self._places():
            words = hear(place["node_id"], place["words"])
            if words is not None and words.said:
                return CrashError(words.said)
        return error

    def _places(self) -> list[dict[str, Any]]:
        """Where the workers were, as far as they have said so."""
        try:
            found = ray.get(self._trainer.mailbox.places.remote()) if self._trainer is not None else []
        except ray.exceptions.RayError:
            return []
        return list(found)


def causes(error: BaseException) -> list[BaseException]:
    """What the workers of a group raised or died of, out of what Ray Train makes of it."""
    if isinstance(error, train.WorkerGroupError):
        found = list(error.worker_failures.values())
        return [getattr(one, "health_check_failure", one) for one in found] or [error]
    if isinstance(error, train.ControllerError):
        failure = error.controller_failure
        cause = getattr(failure, "cause", None)
        if isinstance(cause, ArchsearchError):
            return [cause]
        return [CrashError(f"the workers of the trial could not begin: {describe(cause or failure)}")]
    return [error]


def telling(errors: Sequence[BaseException]) -> BaseException:
    """Of what the workers of a group raised, what says most: one that is told by itself, then one's death."""
    found = [getattr(error, "cause", None) or error for error in errors]
    for kind in (ArchsearchError, ray.exceptions.RayActorError, ray.exceptions.RayError):
        for cause in found:
            if isinstance(cause, kind):
                return cause
    return found[0]
