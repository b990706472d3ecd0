"""What a trial may take of the machines."""

from __future__ import annotations

from typing import Self

from pydantic import Field, StrictStr, model_validator

from archsearch.errors import SpecError
from archsearch.numbers import Number, Whole
from archsearch.search.tables.table import Table

MAX_WORKERS = 4096
MAX_UNITS = 4096
MAX_WAIT = 366 * 86_400
MAX_URL = 2_000


class ResourcesTable(Table):
    """What a trial may take of the machines; none of it is part of a measurement's key.

    ``cpu``: CPUs that are kept for each process of a trial; below 1, several trials share one.
    ``gpu``: GPUs of each process of a trial: a whole number, or a share below 1, as 0.25 for four trials on one card;
    left out, 1 where trials are trained on GPUs.
    ``workers``: processes that train one candidate together, each on its part of the batch.
    ``max_seconds``: seconds that a worker may take for a trial, 0 for any number.
    ``max_silence``: seconds that may pass without a step of a trial, 0 for any number; the first step, in which kernels
    are compiled, and the last test count as one.
    ``checkpoints``: a folder or a URL where trials keep their checkpoints, such as "file:///shared/checkpoints" or
    "s3://bucket/checkpoints", so that a trial whose machine was lost goes on elsewhere; left out, a folder in the home
    of each machine. A URL of a store needs its package of fsspec.
    """

    cpu: Number = Field(default=1.0, ge=0.01, le=MAX_UNITS)
    gpu: Number | None = Field(default=None, ge=0.0, le=MAX_UNITS)
    workers: Whole = Field(default=1, ge=1, le=MAX_WORKERS)
    max_seconds: Number = Field(default=0.0, ge=0.0, le=MAX_WAIT)
    max_silence: Number = Field(default=1800.0, ge=0.0, le=MAX_WAIT)
    checkpoints: StrictStr | None = Field(default=None, min_length=1, max_length=MAX_URL)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.gpu is not None and self.gpu > 1 and self.gpu != int(self.gpu):
            raise SpecError(f"resources.gpu = {self.gpu:g}: a share of a GPU is below 1, and more is a whole number")
        check_place(self.checkpoints)
        return self


def check_place(checkpoints: str | None) -> None:
    """Raises `SpecError` for a place of checkpoints that is relative, or has a password, as specs are stored."""
    if checkpoints is None:
        return
    protocol, there, rest = checkpoints.partition("://")
    if there and "@" in rest.partition("/")[0]:
        raise SpecError(
            "resources.checkpoints has a user or a password in it, and specs are stored: leave them to the environment "
            "of the workers"
        )
    if not there and not protocol.startswith(("/", "~")):
        raise SpecError(
            f'resources.checkpoints = "{checkpoints}": give a whole path, as "/shared/checkpoints", or a URL, as '
            '"s3://bucket/checkpoints"'
        )
