"""Machines: the card that a device is, its driver, and the versions that compile for it."""

from __future__ import annotations

import subprocess
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from archsearch.evidence.proofs import Machine, card_label
from archsearch.kernels.device import arch_of, obstacle

if TYPE_CHECKING:
    import torch

STAND_IN = "Triton's interpreter"
"""The name of the card that the interpreter plays."""

NONE = "none"
"""What is not there."""


def machine_of(device: torch.device) -> Machine | None:
    """The card that a device is, or that the interpreter plays for it, with what compiles for it; None where nothing
    runs kernels."""
    if obstacle(device) is not None:
        return None
    return _machine(str(device))


def machines_here() -> list[Machine]:
    """Of all cards that are here, or of what the interpreter plays."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    places = [torch.device("cuda", index) for index in range(count)] or [torch.device("cpu")]
    return [machine for machine in map(machine_of, places) if machine is not None]


@cache
def _machine(place: str) -> Machine:
    import torch

    device = torch.device(place)
    triton, ptxas = compiler_versions()
    return Machine(
        card=torch.cuda.get_device_name(device) if device.type == "cuda" else STAND_IN,
        arch=arch_of(device),
        driver=driver_of(device),
        torch=str(torch.__version__),
        triton=triton,
        ptxas=ptxas,
    )


def driver_of(device: torch.device) -> str:
    """The version of the card's driver."""
    if device.type != "cuda":
        return NONE
    return told_by("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines()[0]


class Card(NamedTuple):
    """A card as its driver tells of it, with its architecture, as in "sm_90"."""

    name: str
    driver: str
    arch: str

    @property
    def label(self) -> str:
        """For people, and as it stands beside a proof."""
        return card_label(self.name, self.driver)


def cards_here() -> list[Card]:
    """The cards of this machine, each kind once; asks the driver, and loads no torch."""
    told = told_by("nvidia-smi", "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader")
    lines = [[part.strip() for part in line.split(",")] for line in told.splitlines()]
    found = [Card(line[0], line[1], f"sm_{line[2].replace('.', '')}") for line in lines if len(line) == 3]
    return list(dict.fromkeys(found))


def told_by(*command: str) -> str:
    """What a command prints, "none" where it cannot run or prints nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return NONE
    return done.stdout.strip() or NONE if done.returncode == 0 else NONE


def compiler_versions() -> tuple[str, str]:
    """Of Triton and of the ptxas that comes with it."""
    import triton

    return triton.__version__, str(triton.knobs.nvidia.ptxas.version)
