"""The key of a measurement: equal only where the same code, on the same kind of device, gives the same figures."""

from __future__ import annotations

import pytest

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.kernels.forms import Use
from archsearch.recipe import Recipe
from archsearch.registry import Registry, load_registry
from archsearch.source import core_digest
from archsearch.tasks import resolve_task
from archsearch.testing.toy import ToyPlugin
from archsearch.training.key import form_of, key_of_run, measurement_key, parts_versions

RECIPE = Recipe.read({"steps": 2, "device": "cpu"})


def key_with(registry: Registry, *, device: str = "cpu", form: str = "auto", mixer: str = "toy") -> str:
    """The key of a small run."""
    arch, task = ArchSpec.parse(mixer, registry, ModelSpec()), resolve_task("mqar", registry)
    return measurement_key(arch, task, RECIPE, 0, registry, device=device, form=form)


def with_toy(source: str | None = None) -> Registry:
    """A registry whose toy mixer has that digest."""
    registry = load_registry(environ={"ARCHSEARCH_LOAD_PLUGINS": "full,tasks"})
    registry.add(ToyPlugin(), source=source)
    return registry


def test_the_key_holds_source_device_and_form() -> None:
    base = key_with(with_toy())
    assert key_with(with_toy()) == base
    others = {
        key_with(with_toy("0" * 16)),
        key_with(with_toy("unknown-1")),
        key_with(with_toy(), device="cuda"),
        key_with(with_toy(), form="reference"),
    }
    assert len(others | {base}) == 5


def test_a_mixer_that_is_not_used_changes_no_key() -> None:
    assert key_with(with_toy(), mixer="full") == key_with(with_toy("0" * 16), mixer="full")


def test_versions_hold_the_digests_of_all_parts() -> None:
    registry = with_toy("0" * 16)
    task = resolve_task("mqar", registry)
    found = parts_versions(ArchSpec.parse("toy full toy", registry), task, registry)
    assert found == {
        "mixer:full": "archsearch 0.1.0 r1",
        "mixer:toy": "(unpackaged) 0 r1",
        "task:mqar": "archsearch 0.1.0 r1",
        "source:mixer:full": registry.source_of("full"),
        "source:mixer:toy": "0" * 16,
        "source:task:mqar": registry.task_source_of("mqar"),
        "source:core": core_digest(),
    }


def test_the_form_is_the_variable_or_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARCHSEARCH_IMPL", raising=False)
    assert form_of("cpu") == "auto"
    monkeypatch.setenv("ARCHSEARCH_IMPL", "reference")
    assert form_of("cpu") == form_of("cuda") == "reference"


def test_on_cuda_the_form_knows_which_kernels_are_proven() -> None:
    rows: list[Use] = [("package", "op", ("sm_90", number, 0), "bfloat16", "") for number in range(2)]
    forms = [form_of("cuda", rows[:count]) for count in range(3)]
    assert len(set(forms)) == 3
    assert all(form.startswith("auto ") for form in forms)
    assert form_of("cuda", reversed(rows)) == forms[2]
    assert form_of("cpu") == "auto"


def test_the_key_of_a_run_is_that_of_the_device_it_comes_to(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = with_toy()
    arch, task = ArchSpec.parse("toy", registry, ModelSpec()), resolve_task("mqar", registry)
    assert key_of_run(arch, task, RECIPE, 0, registry) == key_with(registry)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("archsearch.training.key.proven_here", lambda packages, device: frozenset())
    auto = RECIPE.model_copy(update={"device": "auto"})
    assert key_of_run(arch, task, auto, 0, registry) == key_with(registry, device="cuda", form=form_of("cuda"))
