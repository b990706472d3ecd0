"""A worker proves what its trial meets before that begins, a row a step; the interpreter plays the card."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import astuple, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.errors import SpecError
from archsearch.evidence.kept import kept
from archsearch.kernels import device as devices
from archsearch.kernels import forms
from archsearch.kernels.prove import FIRST_USE, Prover
from archsearch.recipe import Recipe
from archsearch.registry import Registry
from archsearch.search import actor as actor_module
from archsearch.search import kernels_ahead
from archsearch.search.actor import PROVING, Assignment, TrialActor
from archsearch.search.own_proofs import MARGIN, OwnProofs
from archsearch.training.group import ALONE

PASSED = {"cases": 1, "error": 0.0, "fault": ""}
WINDOW = "window_attention sm_90 D=16 float32"


@pytest.fixture(autouse=True)
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What passes for a card, whose rows all pass."""
    monkeypatch.setenv("ARCHSEARCH_CACHE", str(tmp_path))
    monkeypatch.delenv("ARCHSEARCH_IMPL", raising=False)
    monkeypatch.setattr(devices, "takes_kernels", lambda device: True)
    monkeypatch.setattr(forms, "_late", {})
    answers(monkeypatch, PASSED)
    forms.forget()
    yield
    forms.forget()


def answers(monkeypatch: pytest.MonkeyPatch, told: dict[str, Any]) -> None:
    monkeypatch.setattr(forms, "prover", Prover(command=("-c", f"print({json.dumps(told)!r})")))


def arch_of(registry: Registry, pattern: str = "sliding(window=4)") -> ArchSpec:
    model = ModelSpec.read({"d_model": 16, "n_heads": 1, "head_dim": 16, "channel_mixer": "none", "vocab_size": 8})
    return ArchSpec.parse(pattern, registry, model)


def recipe(**more: Any) -> Recipe:
    return Recipe.read({"steps": 1, "batch_size": 2, "device": "cpu", "learning_rates": [0.01], **more})


def assignment(registry: Registry, folder: Path) -> Assignment:
    return Assignment(
        trial=1,
        arch=arch_of(registry).to_json(),
        tasks={},
        recipe=recipe().model_dump(mode="json"),
        runs=[("mqar", 0)],
        parts=[astuple(part) for part in registry.parts(["sliding"], [])],
        installed=[],
        plugins="",
        impl="auto",
        checkpoints=str(folder),
    )


def test_each_row_is_proven_in_a_step_of_its_own(registry: Registry) -> None:
    proofs = OwnProofs(arch_of(registry, "sliding(window=4)"), recipe(), registry, ALONE)
    allowed = [proofs.prove()]
    assert kept() == ()
    while allowed[-1]:
        allowed.append(proofs.prove())
    assert set(allowed[:-1]) == {3 * FIRST_USE.seconds + MARGIN}
    labels = [f"{proof.op} sm_90 D={proof.head_dim} {proof.dtype}" for proof in kept()]
    assert WINDOW in labels
    assert len(kept()) == len(allowed) - 1
    assert OwnProofs(arch_of(registry), recipe(), registry, ALONE).prove() == 0.0


@pytest.mark.parametrize("told", [{"untried": "no memory"}, {"cases": 1, "error": 0.5, "fault": "off"}])
def test_a_row_that_cannot_be_proven_is_tried_once(
    told: dict[str, Any], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, told)
    proofs = OwnProofs(arch_of(registry), recipe(), registry, ALONE)
    count = 0
    while proofs.prove():
        count += 1
        assert count < 9
    assert count > 0


def test_nothing_is_proven_where_no_kernel_may_run(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHSEARCH_PROVE", "listed")
    assert OwnProofs(arch_of(registry), recipe(), registry, ALONE).prove() == 0.0
    monkeypatch.delenv("ARCHSEARCH_PROVE")
    monkeypatch.setattr(devices, "takes_kernels", lambda device: False)
    assert OwnProofs(arch_of(registry), recipe(), registry, ALONE).prove() == 0.0


def test_a_process_of_a_group_waits_for_the_rows_of_another(registry: Registry) -> None:
    others = iter([2, 1, 0])
    group: Any = SimpleNamespace(least=lambda value: min(value, -next(others)))
    proven = OwnProofs(arch_of(registry), recipe(), registry, ALONE)
    while proven.prove():
        pass
    proofs = OwnProofs(arch_of(registry), recipe(), registry, group)
    assert [proofs.prove() > 0 for _ in range(3)] == [True, True, False]


def test_an_actor_says_so_before_each_and_proves_none_within_the_trial(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    proofs_before: list[int] = []

    def begins(self: TrialActor, name: str, seed: int) -> Any:
        assert forms._listed, "a proof would count as the trial's time"
        proofs_before.append(len(kept()))
        raise SpecError("the trial has begun")

    monkeypatch.setattr(TrialActor, "_evaluate", begins)
    monkeypatch.setattr(actor_module, "worker_registry", lambda plugins: registry)
    actor = object.__new__(TrialActor)
    actor.setup(assignment(registry, tmp_path).to_config())
    results = [actor.step()]
    with suppress(SpecError):
        while True:
            results.append(actor.step())
    assert "place" in results[0]
    assert len(results) > 1
    assert all(result == {PROVING: 3 * FIRST_USE.seconds + MARGIN, "done": False} for result in results[1:])
    assert proofs_before == [len(results) - 1]


def test_a_worker_that_is_asked_ahead_proves_and_names_what_it_takes(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of architectures that cannot be built it says nothing: their trials do."""
    monkeypatch.setattr(kernels_ahead, "worker_registry", lambda plugins: registry)
    sound = arch_of(registry).to_json()
    broken = {**sound, "layers": [{**sound["layers"][0], "mixer": "nobody"}]}
    found = kernels_ahead.settled_rows([broken, sound], recipe().model_dump(mode="json"), "")
    assert found == sorted(found)
    proven = {(proof.package, proof.op, proof.key, proof.dtype, proof.config) for proof in kept()}
    assert set(found) == proven
    assert ("archsearch_plugins.sliding.triton", "window_attention", ("sm_90", 16, 0), "float32", "") in proven
    assert kernels_ahead.settled_rows([broken], recipe().model_dump(mode="json"), "") == []
    monkeypatch.setenv("ARCHSEARCH_PROVE", "first-use")  # put back afterwards
    assert kernels_ahead.settled_rows([sound], recipe().model_dump(mode="json"), "", "never") == []


def test_a_trial_proves_as_its_driver_says_and_else_as_its_own_machine(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(actor_module, "worker_registry", lambda plugins: registry)
    for own, drivers, counts in (("never", "", "never"), ("first-use", "listed", "listed")):
        monkeypatch.setenv("ARCHSEARCH_PROVE", own)
        actor = object.__new__(TrialActor)
        actor.setup(replace(assignment(registry, tmp_path), prove=drivers).to_config())
        actor._begin(actor._waiting or {})
        assert forms.policy() == counts
