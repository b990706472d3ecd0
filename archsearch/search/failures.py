"""Failures: why a trial has no result, told apart: its own error, its worker's end, a limit, a lost machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import ray
from ray import tune

from archsearch.errors import ArchsearchError
from archsearch.search.last_words import Words
from archsearch.units import parse_quantity

Kind = Literal["own", "crashed", "lost"]
_LONGEST = 400
"""Characters of a sentence that another program wrote."""
_FAR_MORE = 2.0
"""As many times what a worker held another must have held to have been the cause."""

_LOW_MEMORY = "running low on memory"
_CODE = re.compile(r"exit code (-?\d+)")
_MEMORY = re.compile(r"was ([\d.]+ ?[KMGT]?B) used / ([\d.]+ ?[KMGT]?B) limit")
_HELD = re.compile(r"pid=(\d+), actual memory used=(\d+(?:\.\d+)? ?[KMGT]?B)")
_PID = re.compile(r"^\s*pid: (\d+)$", re.MULTILINE)
_RAISED = re.compile(r"^(?:ray\.exceptions\.)?\w*(?:Error|Exception)\b.*$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a worker runs: the host's name and its node in the cluster, a card's name or "cpu", the numbers of its
    GPUs, the process, and the file of its last words."""

    node: str
    node_id: str = ""
    device: str = "cpu"
    gpus: Sequence[str] = ()
    pid: int = 0
    words: str = ""

    def to_json(self) -> dict[str, Any]:
        """What is stored with a trial."""
        return {"node": self.node, "device": self.device, "gpus": list(self.gpus), "pid": self.pid}

    def __str__(self) -> str:
        return f"{self.node} (node {self.node_id[:8]})" if self.node_id else self.node


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a trial gave no result, in a sentence.

    ``own``: it raised, or went beyond a limit: it would again. ``crashed``: its process ended, by itself or for want of
    memory, which may be chance: it is tried again, and then has failed. ``lost``: its worker or machine was taken from
    it: it is tried again, and then preempted. ``error`` is what it raised.
    """

    kind: Kind
    reason: str
    error: BaseException | None = None

    @property
    def again(self) -> bool:
        """Whether another worker may have more luck."""
        return self.kind != "own"


class CrashError(ray.exceptions.RayActorError):  # type: ignore[misc]
    """The death of one of several workers of a trial, with its last words."""

    def __init__(self, said: str) -> None:
        super().__init__(error_msg=said)
        self.said = said

    def __reduce__(self) -> tuple[type[CrashError], tuple[str]]:
        return CrashError, (self.said,)


def died(error: BaseException | None) -> bool:
    """Whether it was the worker that ended, not the code that it ran that raised."""
    if isinstance(error, ray.exceptions.RayActorError):
        return not error.actor_init_failed
    return isinstance(error, ray.exceptions.RayError) and not isinstance(error, ray.exceptions.RayTaskError)


def classify(error: BaseException | None, place: Place | None, words: Words | None, *, node_alive: bool) -> Failure:
    """What the end of a trial was: `error` is what came from Ray or the trial, `place` where its worker ran, `words`
    the last ones of the worker, None where none can be heard, `node_alive` what Ray says of its machine."""
    if not died(error):
        return Failure(kind="own", reason=describe(error), error=error)
    assert error is not None
    if memory := _out_of_memory(error, place):
        return memory
    where = f" on {place}" if place else ""
    if isinstance(error, CrashError):
        return Failure(kind="crashed", reason=f"{error.said}{where}", error=error)
    if getattr(error, "preempted", False):
        return Failure(kind="lost", reason=f"the machine was taken back{where}", error=error)
    if not node_alive:
        return Failure(kind="lost", reason=f"the machine was lost{where}", error=error)
    text = str(error)
    if words is not None and words.said:
        return Failure(kind="crashed", reason=f"{words.said}{where}", error=error)
    if code := _CODE.search(text):
        return _exited(int(code[1]), text, where, error)
    if words is not None and words.kernel_killed:
        return Failure(
            kind="crashed", reason=f"out of memory: the kernel ended the worker{where}{words.memory}", error=error
        )
    if isinstance(error, ray.exceptions.ActorUnavailableError):
        return Failure(kind="lost", reason=f"the worker can no longer be reached{where}", error=error)
    if isinstance(error, ray.exceptions.ActorDiedError):
        return Failure(kind="lost", reason=f"the worker died{where}: it was killed from outside (SIGKILL)", error=error)
    return Failure(kind="lost", reason=f"the worker was lost{where}: {describe(error)}", error=error)


def _exited(code: int, text: str, where: str, error: BaseException) -> Failure:
    if "SIGTERM" in text:
        return Failure(kind="lost", reason=f"the worker died{where}: it was ended from outside (SIGTERM)", error=error)
    reason = f"the worker's process ended itself with exit code {code}{where}"
    return Failure(kind="crashed", reason=reason, error=error)


def _out_of_memory(error: BaseException, place: Place | None) -> Failure | None:
    """What it was where Ray's memory monitor ended the worker, with the figures out of Ray's kilobytes of text.

    The monitor ends several at once, the latest first, whatever they hold: one beside which another held far more was
    ended for that one's sake, and is lost rather than at fault.
    """
    text = str(error)
    if not isinstance(error, ray.exceptions.OutOfMemoryError) and _LOW_MEMORY not in text:
        return None
    pid = str(place.pid) if place else next(iter(_PID.findall(text)), "")
    held = dict(_HELD.findall(text))
    mine = held.get(pid) or (next(iter(held.values())) if len(held) == 1 else "")
    most = max(held.values(), key=_bytes, default="")
    aside = bool(mine) and most != mine and _bytes(most) >= _FAR_MORE * _bytes(mine)
    figures = _MEMORY.search(text)
    sentence = "out of memory: Ray ended the worker before the machine ran out"
    parts = [f"it held {mine}, and another {most}" if aside else f"it held {mine}"] if mine else []
    if figures:
        parts.append(f"{figures[1]} of {figures[2]} were in use{f' on {place.node}' if place else ''}")
    reason = f"{sentence}: {', '.join(parts)}" if parts else sentence
    return Failure(kind="lost" if aside else "crashed", reason=reason, error=error)


def _bytes(text: str) -> float:
    """Of what Ray writes as "0.20GB"."""
    return parse_quantity(text, unit="bytes")


def said_of(text: str) -> BaseException | None:
    """The error that Tune's file of errors tells of last, by its text; None where it tells nothing."""
    said = text.rpartition("Failure # ")[2].partition("\n")[2].strip()
    kind = ray.exceptions.OutOfMemoryError if _LOW_MEMORY in said else tune.TuneError
    error: BaseException | None = kind(said) if said else None
    return error


def describe(error: BaseException | None) -> str:
    """One line on what was raised, whoever made its text."""
    if error is None:
        return "the worker failed without a message"
    if isinstance(error, ArchsearchError):
        return str(error)
    try:
        text = str(error)
    except Exception:  # an exception of foreign code makes its own text
        text = ""
    if isinstance(error, ray.exceptions.RayActorError) and error.actor_init_failed:
        raised = _RAISED.findall(text)
        return f"the worker could not begin: {cut(raised[-1] if raised else last_line(text))}"
    return f"{type(error).__name__}: {cut(last_line(text)) or 'no message'}"


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def cut(text: str) -> str:
    """A text of another program, as much of it as a reason may have."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
