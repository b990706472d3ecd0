"""The machine: what a search needs of its folders, memory and encoding, and of the variables by which Ray is found."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from archsearch.evidence.folder import VARIABLE, cache_folder
from archsearch.ray_settings import address_fault, token_exposed, token_fault
from archsearch.units import format_quantity

LEAST_MEMORY_BYTES = 2 * 2**30
_MEMORY = Path("/proc/meminfo")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at; a "note" is no obstacle, "broken" is."""

    name: str
    status: Literal["ok", "note", "broken"]
    detail: str


def machine_checks(least_disk_bytes: int, least_shm_bytes: int) -> Iterator[Check]:
    """Folders and the room in them, memory, cores, encoding, and what the environment says of Ray."""
    yield _cache()
    yield _temporary(least_disk_bytes)
    yield _room("disk", Path.cwd(), least_disk_bytes)
    if Path("/dev/shm").is_dir():
        yield _room("shared memory", Path("/dev/shm"), least_shm_bytes)
    yield from _memory()
    yield Check(name="cores", status="ok", detail=f"{len(os.sched_getaffinity(0))} for this process")
    yield _encoding()
    yield from _ray()


def _cache() -> Check:
    """Where kernels and libraries keep what they compile."""
    remedy = f"set XDG_CACHE_HOME, or HOME, to a folder that can be written, or {VARIABLE} to one of its own"
    try:
        folder = cache_folder()
    except RuntimeError:
        return Check(name="cache folder", status="broken", detail=f"there is no home folder: {remedy}")
    fault = _write_fault(folder)
    detail = f"{folder}: {fault}: {remedy}" if fault else str(folder)
    return Check(name="cache folder", status="broken" if fault else "ok", detail=detail)


def _temporary(least_bytes: int) -> Check:
    remedy = "set TMPDIR to a folder that can be written"
    try:
        folder = Path(tempfile.gettempdir())
    except OSError as error:
        return Check(name="temporary folder", status="broken", detail=f"{error.strerror}: {remedy}")
    fault = _write_fault(folder)
    if fault:
        return Check(name="temporary folder", status="broken", detail=f"{folder}: {fault}: {remedy}")
    return _room("temporary folder", folder, least_bytes)


def _write_fault(folder: Path) -> str:
    """Why no file can be made in `folder`, which is made where it is not there; "" when one can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _room(name: str, folder: Path, least_bytes: int) -> Check:
    free = shutil.disk_usage(folder).free
    text = f"{format_quantity(free, unit='bytes')} free at {folder}"
    if free >= least_bytes:
        return Check(name=name, status="ok", detail=text)
    wanted = format_quantity(least_bytes, unit="bytes")
    return Check(name=name, status="broken", detail=f"{text}: a search wants {wanted}: make room")


def _memory() -> Iterator[Check]:
    """Linux tells what is available; elsewhere nothing is said."""
    try:
        lines = dict(line.split(":", 1) for line in _MEMORY.read_text().splitlines() if ":" in line)
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return
    text = f"{format_quantity(free, unit='bytes')} available"
    if free >= LEAST_MEMORY_BYTES:
        yield Check(name="memory", status="ok", detail=text)
    else:
        wanted = format_quantity(LEAST_MEMORY_BYTES, unit="bytes")
        yield Check(name="memory", status="note", detail=f"{text}: Ray and one trial take about {wanted}")


def _encoding() -> Check:
    encoding = (getattr(sys.stdout, "encoding", None) or "none").lower()
    if encoding.startswith("utf"):
        return Check(name="encoding", status="ok", detail=encoding)
    detail = f"{encoding}: tables and charts are drawn in ASCII; PYTHONUTF8=1 or a UTF-8 locale gives them lines"
    return Check(name="encoding", status="note", detail=detail)


def _ray() -> Iterator[Check]:
    """``RAY_ADDRESS``, at which a search would look for a cluster, and the token that it is asked with."""
    address = os.environ.get("RAY_ADDRESS")
    if address is not None:
        fault = address_fault(address) if address.strip() else ""
        yield Check(
            name="RAY_ADDRESS",
            status="broken" if fault else "ok",
            detail=f"{fault}, or unset it" if fault else address.strip() or "empty: a Ray of its own is started",
        )
    if os.environ.get("RAY_AUTH_MODE"):
        fault = token_fault(os.environ) or token_exposed(os.environ)
        yield Check(name="Ray's token", status="broken" if fault else "ok", detail=fault or "can be read")
