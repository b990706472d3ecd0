"""Environment: the card, the versions and the commit that a figure belongs to."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import torch

from archsearch.bench.results.schema import Environment
from archsearch.kernels.device import arch_of
from archsearch.version import __version__

NONE = "none"


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


def driver_of(device: torch.device) -> str:
    """The version of the card's driver."""
    if device.type != "cuda":
        return NONE
    return _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines()[0]


def commit_of(folder: Path) -> str | None:
    """The commit that `folder` is checked out at, with "+changes" where files differ; None outside of a repository."""
    commit = _output("git", "-C", str(folder), "rev-parse", "--short=12", "HEAD")
    if commit == NONE:
        return None
    changed = _output("git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no")
    return commit if changed == NONE else f"{commit}+changes"


def _compilers() -> tuple[str, str]:
    try:
        from archsearch.kernels.compiler import compiler_versions

        return compiler_versions()
    except ImportError:
        return NONE, NONE


def _output(*command: str) -> str:
    """What a command prints, "none" where it cannot run or prints nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return NONE
    return done.stdout.strip() or NONE if done.returncode == 0 else NONE
