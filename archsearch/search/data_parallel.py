"""Data-parallel trials: one candidate trained by several workers, side by side in one reservation of Tune's.

Ray Train's `TorchTrainer` was tried in this place. It reserves beside Tune, and keeps what it has reserved where a
trial's process is killed and no dashboard runs; it starts five helpers for each trial, and all workers anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import ray
from ray import tune
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from archsearch.errors import ArchsearchError
from archsearch.search.actor import TrialActor
from archsearch.search.failures import CrashError, died
from archsearch.search.interfaces import listen_at
from archsearch.search.last_words import hear
from archsearch.training.group import join, meeting_point

GRACE_SECONDS = 5.0
"""How long, once a worker has failed, the others' failures are waited for: the first need not be the one that tells."""


def data_parallel(count: int, demand: Mapping[str, float]) -> Any:
    """A trainable whose trials are trained by `count` workers each, every one with `demand` ("cpu", "gpu").

    It gives the results of `TrialActor`, since that is what each worker runs, on its share.
    """
    bundle = {name.upper(): amount for name, amount in demand.items()}

    class Sized(GroupTrial):
        workers, resources = count, dict(demand)

    return tune.with_resources(Sized, tune.PlacementGroupFactory([{}, *[bundle] * count]))


class Member(TrialActor):
    """One of the workers of a trial. Of Tune it needs nothing."""

    def __init__(self) -> None:
        self._store: Any = None

    def open(self) -> tuple[str, int]:
        """Where the others find this one: the host's address and a port."""
        host = ray.util.get_node_ip_address()
        self._store = meeting_point(host)
        return host, self._store.port

    def join(self, rank: int, size: int, host: str, port: int) -> None:
        """Becomes one of `size`; ends when all have."""
        store = self._store or meeting_point(host, port)
        listen_at(ray.util.get_node_ip_address())
        self._group = join(store, rank, size, cards=bool(ray.get_gpu_ids()))

    def take(self, config: dict[str, Any]) -> dict[str, Any]:
        """Turns to a trial, and says where this worker is."""
        self.setup(config)
        return self._place()

    def follow(self) -> None:
        """Does all of the trial that the first worker does step by step."""
        while not self.step()["done"]:
            pass


class GroupTrial(tune.Trainable):  # type: ignore[misc]
    """Has trials trained by a group of workers, which belong to this process and end with it; trains nothing itself."""

    workers: ClassVar[int]
    resources: ClassVar[Mapping[str, float]]
    _waiting: dict[str, Any] | None
    _members: Sequence[Any] = ()
    _following: Sequence[Any] = ()
    _places: Sequence[dict[str, Any]] = ()
    _ended = True

    def setup(self, config: dict[str, Any]) -> None:
        """Takes the assignment of `config`; the first step begins with it."""
        self._waiting = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Turns to another trial with the same workers; with others after one that was stopped before its end, as all
        but the first would wait for ever for the rest of it."""
        if not self._ended:
            self._give_up()
        self._waiting = new_config
        return True

    def step(self) -> dict[str, Any]:
        """The next result of the trial's first worker; raises what a worker raised."""
        try:
            if not self._members:
                self._members = self._gathered()
            if self._waiting is not None:
                self._places = ray.get([member.take.remote(self._waiting) for member in self._members])
                self._following = [member.follow.remote() for member in self._members[1:]]
                self._waiting, self._ended = None, False
            result = self._next()
            self._ended = bool(result["done"])
            return result
        except (ArchsearchError, ray.exceptions.RayError) as error:
            told = telling([error, *self._failures()])
            raise self._crash(told) if died(told) else told from None

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Tune keeps no checkpoints: an evaluation writes its own."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Tune keeps no checkpoints."""

    def _gathered(self) -> Sequence[Any]:
        """The workers, each with its share of what Tune has reserved, joined to a group."""
        here = PlacementGroupSchedulingStrategy(ray.util.get_current_placement_group())
        kind = ray.remote(Member).options(
            num_cpus=self.resources["cpu"], num_gpus=self.resources.get("gpu", 0.0), scheduling_strategy=here
        )
        members = [kind.remote() for _ in range(self.workers)]
        host, port = ray.get(members[0].open.remote())
        ray.get([member.join.remote(rank, self.workers, host, port) for rank, member in enumerate(members)])
        return members

    def _give_up(self) -> None:
        """Ends the workers, and what the first keeps of the trial."""
        ray.get(self._members[0].leave.remote())
        for member in self._members:
            ray.kill(member)
        self._members, self._following, self._ended = (), (), True

    def _next(self) -> dict[str, Any]:
        """Waits for the first worker, and for what another might raise while the first waits for it."""
        step = self._members[0].step.remote()
        others = list(self._following)
        while True:
            ready, _ = ray.wait([step, *others], num_returns=1)
            found = ray.get(ready[0])
            if ready[0] == step:
                result: dict[str, Any] = found
                return result
            others.remove(ready[0])  # the last steps of a trial need not end together

    def _failures(self) -> list[BaseException]:
        """What the other workers have raised."""
        found: list[BaseException] = []
        if not self._following:
            return found
        ended, _ = ray.wait(list(self._following), num_returns=len(self._following), timeout=GRACE_SECONDS)
        for one in ended:
            try:
                ray.get(one)
            except (ArchsearchError, ray.exceptions.RayError) as error:
                found.append(error)
        return found

    def _crash(self, error: BaseException) -> BaseException:
        """What a worker that died has left to say, else the error as it is; any of them may have been the first."""
        for place in self._places:
            words = hear(place["node_id"], place["words"])
            if words is not None and words.said:
                return CrashError(words.said)
        return error


def telling(errors: Sequence[BaseException]) -> BaseException:
    """Of what the workers of a group raised, what says most: one that is told by itself, then one's death."""
    causes = [getattr(error, "cause", None) or error for error in errors]
    for kind in (ArchsearchError, ray.exceptions.RayActorError, ray.exceptions.RayError):
        for cause in causes:
            if isinstance(cause, kind):
                return cause
    first: BaseException = causes[0]
    return first
