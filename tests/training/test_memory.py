"""A training that needs more memory than there is, is refused in a sentence before anything is built."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_samples import RECIPE, Echo, Tasks, arch_of, registry_of

from archsearch.arch import ModelSpec
from archsearch.errors import SpecError
from archsearch.model import HybridLM
from archsearch.tasks import resolve_task
from archsearch.training import Evaluation, Recipe, memory, needs

REGISTRY = registry_of(Tasks(Echo))
RECIPE_READ = Recipe.read(RECIPE)


def test_a_model_that_no_machine_holds_is_refused() -> None:
    model = ModelSpec.read({"d_model": 10**6, "n_heads": 2, "channel_mixer": "none"})
    task = resolve_task("mqar:easy", REGISTRY)
    said = (
        r"^100 layers of d_model = 1000000 on mqar:easy with recipe.batch_size = 8 need at least \S+ PiB of memory, "
        r"and this machine has \S+ [GT]iB: make the model, the batch or the task smaller$"
    )
    with pytest.raises(SpecError, match=said):
        Evaluation(arch_of("full*100", REGISTRY, model), task, RECIPE_READ, 0, registry=REGISTRY)


@pytest.mark.parametrize(
    ("task", "recipe"),
    [
        ("mqar:easy(seq_len=16777216)", {}),
        ("mqar:easy(noise_tokens=268435456)", {}),
        ("copying:easy(seq_len=1048576)", {"batch_size": 2**20}),
    ],
    ids=["long", "wide", "many"],
)
def test_a_task_or_a_batch_that_no_machine_holds_is_refused(task: str, recipe: dict[str, int]) -> None:
    arch, found = arch_of("full", REGISTRY), resolve_task(task, REGISTRY)
    with pytest.raises(SpecError, match=r"need at least .* of memory, and this machine has"):
        Evaluation(arch, found, Recipe.read({**RECIPE, **recipe}), 0, registry=REGISTRY)


def test_the_bytes_are_those_of_the_weights_the_batch_and_the_sets() -> None:
    arch, task = arch_of("full full", REGISTRY), resolve_task("echo", REGISTRY)
    params = sum(weights.numel() for weights in HybridLM(arch, REGISTRY, vocab_size=16).parameters())
    positions, sets = 8 * 12, (24 + 24) * 12 * 16
    kept = 4 * positions * 16 * 2
    assert needs(arch, task, RECIPE_READ, REGISTRY) == 16 * params + 4 * 8 * 16 + kept + 16 * positions + sets
    assert needs(arch, task, RECIPE_READ, REGISTRY, scored=48) - needs(arch, task, RECIPE_READ, REGISTRY) == 4 * 40 * 16


def test_the_logits_of_the_first_batch_count(monkeypatch: pytest.MonkeyPatch) -> None:
    arch, task = arch_of("full", REGISTRY), resolve_task("echo", REGISTRY)
    lower = needs(arch, task, RECIPE_READ, REGISTRY)
    monkeypatch.setattr(memory, "machine_bytes", lambda: lower)
    with pytest.raises(SpecError, match="need at least"):
        Evaluation(arch, task, RECIPE_READ, 0, registry=REGISTRY)
    monkeypatch.setattr(memory, "machine_bytes", lambda: needs(arch, task, RECIPE_READ, REGISTRY, scored=8 * 6))
    Evaluation(arch, task, RECIPE_READ, 0, registry=REGISTRY)


@pytest.mark.parametrize(
    ("line", "files", "expected"),
    [
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": "4096"}, [4096]),
        ("0::/a/b", {"a/b/memory.max": "1024", "a/memory.max": "4096"}, [1024, 4096]),
        ("4:memory:/x", {"memory/x/memory.limit_in_bytes": "2048"}, [2048]),
        ("3:cpuset:/x", {"memory/x/memory.limit_in_bytes": "2048"}, []),
        ("nonsense", {}, []),
    ],
    ids=["parent", "both", "first-version", "another-controller", "unreadable"],
)
def test_limits_of_control_groups_are_found(
    line: str, files: dict[str, str], expected: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    real = Path.read_text
    monkeypatch.setattr(memory, "_GROUPS", tmp_path)
    monkeypatch.setattr(
        Path, "read_text", lambda self, **options: line if str(self) == "/proc/self/cgroup" else real(self, **options)
    )
    assert list(memory._group_limits()) == expected


def test_the_machine_has_some_memory() -> None:
    assert 2**28 < memory.machine_bytes() < 2**50
    memory.check_memory(
        arch_of("full", REGISTRY), resolve_task("echo", REGISTRY), RECIPE_READ, REGISTRY, torch.device("cpu")
    )
