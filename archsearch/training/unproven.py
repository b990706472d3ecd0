"""Unproven: the rows of kernels that the models of a trial meet and that are yet to be proven; the look proves none."""

from __future__ import annotations

from contextlib import suppress

import torch

from archsearch.arch import ArchSpec
from archsearch.errors import ArchsearchError
from archsearch.kernels import device as devices
from archsearch.kernels.forms import forget, listing_unproven, policy
from archsearch.kernels.prove import Row
from archsearch.recipe import Recipe
from archsearch.registry import Registry
from archsearch.training.forms import meet_rows
from archsearch.training.key import device_kind
from archsearch.training.teacher_arch import teacher_arch


def unproven_rows(arch: ArchSpec, recipe: Recipe, registry: Registry) -> list[Row]:
    """The rows that `arch`, or a teacher of its, meets on the device of the recipe and that are to be proven at their
    first use, each once; nothing is proven. None of what cannot be built, which its trial says."""
    device = torch.device(device_kind(recipe.device))
    if not devices.takes_kernels(device) or policy() != "first-use":
        return []
    found: dict[str, Row] = {}
    with listing_unproven() as met, suppress(ArchsearchError):
        forget()
        taught_by = teacher_arch(arch, recipe, registry)
        for each in (arch, *([taught_by] if taught_by else [])):
            meet_rows(each, recipe, registry, device, by_steps=True)
    for row in met:
        found.setdefault(row.label, row)
    return list(found.values())
