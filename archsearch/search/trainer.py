"""The workers of data-parallel trials: started, joined and watched by Ray Train's `TorchTrainer`, trial after trial."""

from __future__ import annotations

import itertools
import os
import shutil
import threading
import time
from collections.abc import Mapping
from typing import Any

import ray
from ray import train
from ray.train import torch as ray_torch
from ray.train.backend import Backend

from archsearch.errors import ArchsearchError
from archsearch.search.actor import TrialActor
from archsearch.search.interfaces import listen_at
from archsearch.search.mailbox import Mailbox
from archsearch.storage.scraps import passing_folder
from archsearch.training.group import ALONE, Group, join, meeting_point

GRACE_SECONDS = 5.0
"""How long a worker keeps back an error of foreign code: another may have died before, which would be the cause."""
_LEFT_OUT = ("PlacementGroupCleanerCallback", "DatasetsCallback")
_SETTINGS = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "1000000",
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "inf",
}
"""Of Ray Train: no log, metric or print beside ours; how soon a death is noticed; room and slow workers are waited for,
as `resources.max_silence` says when it was too long."""


class Trainer:
    """A run of `TorchTrainer` in a thread of the trial's process, whose workers train whatever the mailbox assigns."""

    def __init__(self, count: int, resources: Mapping[str, float]) -> None:
        """``resources`` ("cpu", "gpu") are each worker's. Nothing is waited for: a cluster may have no room yet."""
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        self.mailbox = ray.remote(num_cpus=0)(Mailbox).remote()
        self.error: BaseException | None = None
        self._left = False
        self._count, self._resources = count, {name.upper(): amount for name, amount in resources.items()}
        self._thread = threading.Thread(target=self._fit, name="trainer", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether no worker is left, and nothing is reserved for any."""
        return not self._thread.is_alive()

    def wait(self, seconds: float) -> None:
        """Until it has `ended`, for at most `seconds`."""
        self._thread.join(seconds)

    def leave(self) -> None:
        """Asks for nothing of it any more: once it has ended, its mailbox does too."""
        self._left = True
        if self.ended:
            ray.kill(self.mailbox)

    def _fit(self) -> None:
        cards, folder = bool(self._resources.get("GPU")), None
        try:
            folder = passing_folder("train")
            _Trainer(
                train_trials,
                train_loop_config={"mailbox": self.mailbox},
                torch_config=_Meeting(backend="cpu:gloo,cuda:nccl" if cards else "gloo"),
                scaling_config=train.ScalingConfig(
                    num_workers=self._count, use_gpu=cards, resources_per_worker=self._resources
                ),
                run_config=train.RunConfig(
                    name="trials",
                    storage_path=folder,
                    failure_config=train.FailureConfig(
                        max_failures=0, controller_failure_limit=0, max_preemption_failures=0
                    ),
                ),
            ).fit()
        except Exception as error:  # of Ray Train or of any worker: it is told by whoever steps the trial
            self.error = error
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            if self._left:
                ray.kill(self.mailbox)


class _Trainer(ray_torch.TorchTrainer):  # type: ignore[misc]
    """Without two of Ray Train's helpers, each a process.

    One frees what a dead trial has reserved: it asks Ray's dashboard whether that is dead, which a local Ray does not
    have, and then stays itself; `reservations` does it. The other holds Ray's datasets, of which there are none.
    """

    def _create_default_callbacks(self) -> list[Any]:
        found = super()._create_default_callbacks()
        return [callback for callback in found if type(callback).__name__ not in _LEFT_OUT]


class _Meeting(ray_torch.TorchConfig):  # type: ignore[misc]
    """How the workers of a trial become a group: as `training.group` joins processes."""

    @property
    def backend_cls(self) -> type[Backend]:
        """What Ray Train calls."""
        return _MeetingBackend


class _MeetingBackend(Backend):  # type: ignore[misc]
    """On several machines gloo listens where Ray knows these; each worker sees its own cards alone."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Joins them."""
        host, port = worker_group.execute_single(0, open_meeting)
        cards = "nccl" in backend_config.backend
        size = len(worker_group)
        joining = [(rank, size, host, port, cards) for rank in range(size)]
        ray.get([worker_group.execute_single_async(each[0], join_meeting, *each) for each in joining])


_store: Any = None
"""The meeting point that this process has opened."""


def open_meeting() -> tuple[str, int]:
    """Where the others find this worker: the host's address and a port."""
    global _store
    host = ray.util.get_node_ip_address()
    _store = meeting_point(host)
    return host, _store.port


def join_meeting(rank: int, size: int, host: str, port: int, cards: bool) -> None:
    """Becomes one of `size` workers; ends when all have."""
    listen_at(ray.util.get_node_ip_address())
    join(_store or meeting_point(host, port), rank, size, cards=cards)


class LeftError(Exception):
    """The trial was stopped before its end: as the other workers are anywhere within a step, all of them end."""


class Member(TrialActor):
    """One of the workers of a trial. Of Tune it needs nothing."""

    def __init__(self, group: Group = ALONE) -> None:
        self._group = group

    def take(self, config: dict[str, Any]) -> dict[str, Any]:
        """Turns to a trial, and says where this worker is."""
        self.setup(config)
        return self._place()


def train_trials(config: Mapping[str, Any]) -> None:
    """What each worker does: trains one trial of the mailbox after another, with the others."""
    mailbox, group = config["mailbox"], Group.here()
    member = Member(group)
    for number in itertools.count():
        assignment = ray.get(mailbox.assignment.remote(number))
        if assignment is None:
            return
        ray.get(mailbox.placed.remote(group.rank, member.take(assignment)))
        try:
            going = _lead(member, mailbox) if group.leads else _follow(member)
        except ArchsearchError:
            raise
        except Exception:
            time.sleep(GRACE_SECONDS)
            raise
        if not going:
            raise LeftError


def _lead(member: Member, mailbox: Any) -> bool:
    """Does a trial step by step, as it is asked for; False where it was stopped."""
    while True:
        result = member.step()
        if not ray.get(mailbox.offer.remote(result)):
            member.leave()
            return False
        if result["done"]:
            return True


def _follow(member: Member) -> bool:
    """Does all of the trial that the first worker does."""
    while not member.step()["done"]:
        pass
    return True
