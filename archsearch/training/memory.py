"""Memory: the bytes that a training needs at the least, against what the machine or the card has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

from archsearch.arch import ArchSpec
from archsearch.costs import CostModel
from archsearch.errors import SpecError
from archsearch.mixer import Resolver
from archsearch.recipe import Recipe
from archsearch.tasks import Task
from archsearch.units import format_quantity

_STATE_BYTES = 16
"""Of a parameter in float32: itself, its gradient, and the two moments of AdamW."""

_TOKEN_BYTES = 16
"""Of a position of a batch: a token and a target in int64."""

_GROUPS = Path("/sys/fs/cgroup")


def needs(arch: ArchSpec, task: Task, recipe: Recipe, resolver: Resolver, *, scored: int | None = None) -> int:
    """Bytes below which the training cannot run: the model with its optimiser, one batch, the evaluation sets.

    `scored` positions of a batch have logits; without it one of each sequence.
    """
    return _training_bytes(arch, task, recipe, resolver, scored) + _evaluation_bytes(task)


def check_memory(
    arch: ArchSpec, task: Task, recipe: Recipe, resolver: Resolver, device: torch.device, *, scored: int | None = None
) -> None:
    """Raises `SpecError` with both figures where `needs` exceeds the memory of the machine, or of the card."""
    here = machine_bytes()
    if device.type == "cuda":
        there = torch.cuda.get_device_properties(device).total_memory
        _compare(arch, task, recipe, _training_bytes(arch, task, recipe, resolver, scored), there, "the card")
        _compare(arch, task, recipe, _evaluation_bytes(task), here, "this machine")
    else:
        _compare(arch, task, recipe, needs(arch, task, recipe, resolver, scored=scored), here, "this machine")


def machine_bytes() -> int:
    """Memory of this machine, or what the control groups of this process leave of it."""
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_group_limits()])


def _compare(arch: ArchSpec, task: Task, recipe: Recipe, needed: int, there: int, whose: str) -> None:
    if needed > there:
        raise SpecError(
            f"{len(arch.layers)} layers of d_model = {arch.model.d_model} on {task.label} with recipe.batch_size = "
            f"{recipe.batch_size} need at least {format_quantity(needed, unit='bytes')} of memory, and {whose} has "
            f"{format_quantity(there, unit='bytes')}: make the model, the batch or the task smaller"
        )


def _training_bytes(arch: ArchSpec, task: Task, recipe: Recipe, resolver: Resolver, scored: int | None) -> int:
    model = arch.model.model_copy(update={"vocab_size": task.vocab_size})
    params = CostModel(resolver).cost(ArchSpec(model=model, layers=arch.layers), task.seq_len).params
    positions = recipe.batch_size * task.seq_len
    logits = (recipe.rows if scored is None else -(-scored // recipe.accumulate)) * task.vocab_size
    kept = recipe.rows * task.seq_len * model.d_model * len(arch.layers)  # one output of each layer, for the backward
    return params * _STATE_BYTES + 4 * (logits + kept) + positions * _TOKEN_BYTES


def _evaluation_bytes(task: Task) -> int:
    """The main sets of validation and test, which stay in memory."""
    return sum(task.evaluation_rows.values()) * task.seq_len * _TOKEN_BYTES


def _group_limits() -> Iterator[int]:
    """Limits of the control groups (both versions) that this process is in, and of those above them."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            root, name = (_GROUPS, "memory.max") if not controllers else (_GROUPS / "memory", "memory.limit_in_bytes")
            own = root / group.lstrip("/")
            for folder in (own, *own.parents):
                if folder.is_relative_to(root):
                    yield from _number_in(folder / name)


def _number_in(path: Path) -> Iterator[int]:
    with suppress(OSError, ValueError):  # no such file, or "max"
        yield int(path.read_text())
