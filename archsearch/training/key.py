"""Versions of what made a measurement, and the key under which equal measurements are found again."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from archsearch.arch import ArchSpec, digest_of
from archsearch.composition import mixers_of
from archsearch.kernels.forms import Forms, Use, proven_here
from archsearch.kernels.forms import digest_of as digest_of_uses
from archsearch.ops.impl import VARIABLE
from archsearch.recipe import Recipe
from archsearch.registry import Registry
from archsearch.tasks import Task
from archsearch.training.forms import packages_of
from archsearch.training.teacher_arch import teacher_arch


def parts_versions(arch: ArchSpec, task: Task, registry: Registry, evaluators: Sequence[str] = ()) -> dict[str, str]:
    """Versions that decide a result, and the digests of the sources that computed it.

    ``mixer:NAME`` of each mixer of the architecture, ``task:NAME``, ``data:NAME`` and ``evaluator:NAME`` as a person
    tells them, and ``source:mixer:NAME``, ``source:task:NAME``, ``source:evaluator:NAME`` and ``source:core`` as
    digests.
    """
    parts = registry.parts(mixers_of(arch.layers, registry), [task.name], evaluators)
    versions = {part.name: part.version for part in parts if part.name != "core"}
    versions |= {f"source:{part.name}": part.digest for part in parts}
    if task.data_digest is not None:
        versions[f"data:{task.name}"] = task.data_digest
    return versions


def runtime_versions(device: torch.device) -> dict[str, str]:
    """Versions of what ran it: recorded beside a result, not part of its key."""
    from archsearch.version import __version__

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "archsearch": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "device": f"{device.type} {name}",
    }


def device_name() -> str:
    """The card that this process trains on, "cpu" where it sees none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def form_of(device: str, proven: Iterable[Use] = ()) -> str:
    """The form in which ops run on a kind of device: ``ARCHSEARCH_IMPL``, else "auto".

    On "cuda" "auto" has a digest of the rows of kernels that are `proven`, since those run there and others do not.
    """
    form = os.environ.get(VARIABLE) or "auto"
    proven = list(proven)
    return form if form != "auto" or not (proven or device == "cuda") else f"auto {digest_of_uses(proven)}"


def measurement_key(
    arch: ArchSpec,
    task: Task,
    recipe: Recipe,
    seed: int,
    registry: Registry,
    *,
    device: str,
    form: str,
    evaluators: Sequence[str] = (),
) -> str:
    """Equal for measurements that must come out equal: digest, task, recipe, seed, versions and sources of parts and
    data, the kind of `device` ("cpu", "cuda") and the `form` of ops there (`form_of`).

    With a teacher that is a model, the key of its training is in it; with evaluators, their versions and sources, so
    that no result is taken that lacks their numbers.

    A source that cannot be told ("unknown-...") makes a key that no other process has.
    """
    content: dict[str, Any] = {
        "arch": arch.digest,
        "task": task.to_json(),
        "recipe": recipe.trained(),
        "seed": seed,
        "versions": parts_versions(arch, task, registry, evaluators),
        "device": device,
        "form": form,
    }
    taught_by = teacher_arch(arch, recipe, registry)
    if taught_by is not None:
        plain = recipe.untaught
        content["teacher"] = measurement_key(taught_by, task, plain, seed, registry, device=device, form=form)
    return digest_of(content)


def device_kind(wanted: str) -> str:
    """What a recipe's device ("auto", "cpu", "cuda") comes to in this process: "cpu" or "cuda"."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def key_of_run(
    arch: ArchSpec,
    task: Task,
    recipe: Recipe,
    seed: int,
    registry: Registry,
    forms: Forms | None = None,
    evaluators: Sequence[str] = (),
) -> str:
    """`measurement_key` on the device that the recipe comes to in this process, with the `forms` of the trial, or those
    that are proven now."""
    device = device_kind(recipe.device)
    proven = proven_here(packages_of(arch, registry), torch.device(device)) if forms is None else forms.proven
    form = form_of(device, proven)
    return measurement_key(arch, task, recipe, seed, registry, device=device, form=form, evaluators=evaluators)
