"""Ray: starting one on this machine, or joining a cluster; every wait is bounded and can be interrupted."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from archsearch.errors import ClusterError, SpecError
from archsearch.ray_settings import address_fault, token_fault
from archsearch.storage.scraps import passing_folder, sweep
from archsearch.training import device_kind
from archsearch.training.memory import machine_bytes
from archsearch.units import format_quantity

OBJECT_STORE_BYTES = 100 * 2**20
WORKER_BYTES = 300 * 2**20
"""What a worker takes at least once it has imported torch."""
JOIN_SECONDS = 30.0
"""How long a cluster may take to answer."""
_POLL_SECONDS = 0.2
_LOCAL_ENVIRONMENT = {
    "RAY_gcs_rpc_server_reconnect_timeout_s": "45",
    "RAY_worker_killing_policy_by_group": "true",
}
"""Ray ends a driver whose Ray was killed, by default after a minute of waiting for it; `cluster_watch` is sooner. Where
memory runs low its monitor ends several workers at once by default, the innocent among them; by group it ends one."""
_ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "60",
}


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Where trials are trained: on this machine or a cluster, and on which kind of device, "cpu" or "cuda"."""

    local: bool
    device: str


class JoiningStopped(Exception):  # noqa: N818 - leaves a wait, and is no failure
    """A signal came while a cluster, or a proof of kernels ahead of the trials, was waited for, or Ray was starting or
    ending."""


@contextmanager
def workers(
    concurrency: int, address: str | None, *, device: str, stop: threading.Event, tell: Callable[[str], None]
) -> Iterator[Workers]:
    """A Ray to train on, which is shut down afterwards if it was started here; `device` is the recipe's.

    An initialised Ray is used as it is; else the cluster at `address` or ``RAY_ADDRESS``, else a new local one.
    What killed drivers left in the folder for temporary files is removed. `tell` hears what is waited for. Raises
    `ClusterError` when the cluster cannot be reached, and `JoiningStopped` once `stop` is set while a cluster is waited
    for or Ray takes the signals.
    """
    sweep(None, _short_folder())
    with _heeding_ray(stop), _environment(_ENVIRONMENT), _quiet():
        if ray.is_initialized():
            yield _workers(len(ray.nodes()) == 1, device)
            return
        fault = token_fault(os.environ)
        if fault:
            raise ClusterError(fault)
        address = cluster_address(address)
        if address is not None:
            with _joined(address, stop, tell):
                yield _workers(False, device)
            return
        with _environment(_LOCAL_ENVIRONMENT), _local(concurrency):
            yield _workers(True, device)


@contextmanager
def _heeding_ray(stop: threading.Event) -> Iterator[None]:
    """Ray takes SIGTERM for itself while it starts, and answers it by `sys.exit`, with one code or another."""
    try:
        yield
    except SystemExit:
        if not stop.wait(_POLL_SECONDS * 5):  # set by the thread that reads the signals
            raise
        raise JoiningStopped from None


def cluster_address(address: str | None) -> str | None:
    """The cluster to join: `address`, else ``RAY_ADDRESS`` unless it is empty, else None for a Ray of one's own."""
    named = (address or os.environ.get("RAY_ADDRESS", "")).strip()
    return None if named in ("", "local") else named


def _workers(local: bool, device: str) -> Workers:
    """A trial gets a GPU where the cluster has any and the recipe may use it."""
    gpu = device != "cpu" and bool(ray.cluster_resources().get("GPU", 0.0))
    usable = gpu and (not local or device_kind("auto") == "cuda")
    return Workers(local=local, device="cuda" if usable else "cpu")


def check_room(concurrency: int, address: str | None, *, workers: int = 1) -> None:
    """Raises `SpecError` for more trials at a time, each of so many workers, than this machine has memory for, where
    they would run on it alone.

    To be asked before anything of a search is stored: what is refused here must not become the search's own spec.
    """
    if ray.is_initialized() or cluster_address(address) is not None:
        return
    needed = concurrency * workers * WORKER_BYTES
    held = machine_bytes()
    if needed > held:
        each = f" of resources.workers = {workers} each" if workers > 1 else ""
        raise SpecError(
            f"search.concurrency = {concurrency}{each} needs at least {format_quantity(needed, unit='bytes')} of "
            f"memory for its workers, and this machine has {format_quantity(held, unit='bytes')}: "
            f"at most {max(1, held // (workers * WORKER_BYTES))} at a time"
        )


@contextmanager
def _local(concurrency: int) -> Iterator[None]:
    folder = passing_folder(parent=_short_folder())
    try:
        _start(concurrency, folder)
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _start(concurrency: int, folder: str) -> None:
    try:
        ray.init(
            address="local",
            num_cpus=max(concurrency, os.cpu_count() or 1),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=folder,
        )
    except Exception as error:  # a node that takes too long is an `Exception` of no further kind
        late = "timed out" in str(error)
        needs = "HOME and TMPDIR to be folders that can be written, and `archsearch doctor` looks at what else"
        remedy = "try again when less runs on the machine" if late else f"it needs {needs}"
        raise ClusterError(f"Ray cannot start on this machine: {str(error).rstrip('.')}: {remedy}") from None


def _short_folder() -> str | None:
    """Where Ray's files go: its sockets' paths may have 107 characters, which a deep ``TMPDIR`` would exceed."""
    return None if len(tempfile.gettempdir()) <= 22 else "/tmp"  # 85 are Ray's own, with a pid of 7 digits


@contextmanager
def _joined(address: str, stop: threading.Event, tell: Callable[[str], None]) -> Iterator[None]:
    _check_answers(address, stop, tell)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise ClusterError(f"the Ray cluster at {address} cannot be joined: {_last_line(str(error))}") from None
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str, stop: threading.Event, tell: Callable[[str], None]) -> None:
    """Ray waits for a cluster that does not answer for a quarter of an hour and hears no Ctrl-C: so another process
    asks first, for as long as `JOIN_SECONDS`."""
    fault = address_fault(address)
    if fault:
        raise ClusterError(fault)
    if "://" in address:  # Ray's client, which bounds its own wait
        return
    tell(f"waiting for the Ray cluster at {address}, at most {JOIN_SECONDS:.0f} s")
    asked = [sys.executable, "-P", "-m", "ray.scripts.scripts", "health-check", "--address", address]
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        process = subprocess.Popen(asked, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        try:
            _wait_for(process, address, stop)
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            said.seek(0)
            raise ClusterError(
                f"no Ray cluster answers at {address}: {_last_line(said.read())}: is `ray start` running there, and is "
                "this the address that it printed (host:6379)?"
            )


def _wait_for(process: subprocess.Popen[bytes], address: str, stop: threading.Event) -> None:
    until = time.monotonic() + JOIN_SECONDS
    while process.poll() is None:
        if stop.wait(_POLL_SECONDS):
            raise JoiningStopped
        if time.monotonic() > until:
            raise ClusterError(
                f"what listens at {address} has not answered as a Ray cluster in {JOIN_SECONDS:.0f} s: "
                "give the address that `ray start --head` printed (host:6379)"
            )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "no word of why"


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Ray and Tune read these when they are used; a caller's own settings are kept and put back."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update({name: value for name, value in settings.items() if before[name] is None})
    try:
        yield
    finally:
        for name in [name for name, value in before.items() if value is None]:
            os.environ.pop(name, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Tune logs what the view shows better."""
    levels = {name: logging.getLogger(name).level for name in ("ray", "ray.tune")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
