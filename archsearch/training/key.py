"""Versions of what made a measurement, and the key under which equal measurements are found again."""

from __future__ import annotations

import platform
from typing import Any

import torch

from archsearch.arch import ArchSpec, digest_of
from archsearch.recipe import Recipe
from archsearch.registry import Registry
from archsearch.tasks import Task


def parts_versions(arch: ArchSpec, task: Task, registry: Registry) -> dict[str, str]:
    """Versions that decide a result: of each mixer that the architecture uses, of the task, and of its data."""
    versions = {f"mixer:{name}": registry.version_of(name) for name in sorted({layer.mixer for layer in arch.layers})}
    versions[f"task:{task.name}"] = registry.task_version_of(task.name)
    if task.data_digest is not None:
        versions[f"data:{task.name}"] = task.data_digest
    return versions


def runtime_versions(device: torch.device) -> dict[str, str]:
    """Versions of what ran it: recorded beside a result, not part of its key."""
    from archsearch import __version__

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "archsearch": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "device": f"{device.type} {name}",
    }


def measurement_key(arch: ArchSpec, task: Task, recipe: Recipe, seed: int, registry: Registry) -> str:
    """Equal for measurements that must come out equal: digest, task, recipe, seed, versions of parts and data."""
    content: dict[str, Any] = {
        "arch": arch.digest,
        "task": task.to_json(),
        "recipe": recipe.trained(),
        "seed": seed,
        "versions": parts_versions(arch, task, registry),
    }
    return digest_of(content)
