"""Environment: the card, the versions and the commit that a figure belongs to."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from pathlib import Path

import torch

from archsearch.bench.results.schema import Environment
from archsearch.kernels.device import arch_of
from archsearch.kernels.machine import NONE, compiler_versions, driver_of, told_by
from archsearch.version import __version__


def environment(device: torch.device) -> Environment:
    """Of this process and a device; what is not there is "none"."""
    triton, ptxas = _compilers()
    return Environment(
        card=card_of(device),
        arch=arch_of(device) if device.type == "cuda" else platform.machine(),
        driver=driver_of(device),
        torch=torch.__version__,
        triton=triton,
        ptxas=ptxas,
        python=platform.python_version(),
        archsearch=__version__,
        commit=commit_of(Path(__file__).parent),
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
    )


def card_of(device: torch.device) -> str:
    """The name of the card, or of the processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"


def commit_of(folder: Path) -> str | None:
    """The commit that `folder` is checked out at, with "+changes" where files differ; None outside of a repository."""
    commit = told_by("git", "-C", str(folder), "rev-parse", "--short=12", "HEAD")
    if commit == NONE:
        return None
    changed = told_by("git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no")
    return commit if changed == NONE else f"{commit}+changes"


def _compilers() -> tuple[str, str]:
    try:
        return compiler_versions()
    except ImportError:
        return NONE, NONE
