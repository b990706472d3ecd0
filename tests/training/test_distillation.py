"""Distillation by a recipe: a teacher is trained once and found again, and a choice learns from it in two stages."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_samples import RECIPE, Echo, Tasks, arch_of

from archsearch.errors import SpecError, UnknownNameError
from archsearch.measurement import Measurement
from archsearch.recipe import Recipe
from archsearch.registry import Registry, load_registry
from archsearch.tasks import resolve_task
from archsearch.training import Evaluation, measurement_key

STEPS = 6
FULL = {"teacher": "full(rope=0.5)", "teacher_warmup": 0.5}
DSA = "dsa(top_k=2, index_heads=2, index_dim=4)"


@pytest.fixture(scope="module")
def known() -> Registry:
    return load_registry([Tasks(Echo)], environ={"ARCHSEARCH_LOAD_PLUGINS": "full,sliding,linear,indexed,tasks"})


def begun(known: Registry, pattern: str, place: Path | None = None, **recipe: Any) -> Evaluation:
    task, given = resolve_task("echo", known), Recipe.read({**RECIPE, "steps": STEPS, **recipe})
    return Evaluation(arch_of(pattern, known), task, given, 0, registry=known, checkpoint=place)


def finished(evaluation: Evaluation) -> Measurement:
    while not evaluation.done:
        evaluation.advance(0)
    return evaluation.measurement()


def weights(evaluation: Evaluation) -> dict[str, Tensor]:
    """Of the model in training, or that would be next."""
    fit = evaluation._fit or evaluation._new_fit()
    return {name: tensor.detach().clone() for name, tensor in fit.model.named_parameters()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


def learnt_of(evaluation: Evaluation, steps: int) -> set[str]:
    """The parameters that the next steps change."""
    before = weights(evaluation)
    for _ in range(steps):
        evaluation.advance(0)
    return changed(before, weights(evaluation))


def same(one: Measurement, other: Measurement) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in ("curve", "validation", "test"))


def teachers(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_a_teacher_is_trained_once_and_found_by_the_next_trial(known: Registry, tmp_path: Path) -> None:
    first = begun(known, f"{DSA} {DSA}", tmp_path / "1.pt", **FULL)
    assert first.progress.total_steps == 2 * STEPS
    found = finished(first)
    assert first.progress.step == 2 * STEPS
    [stored] = teachers(tmp_path)
    assert stored.startswith("teacher-")
    assert found.versions["teacher"].startswith("full(rope=0.5): accuracy 0.")
    again, other = (
        begun(known, pattern, tmp_path / f"{number}.pt", **FULL)
        for number, pattern in ((2, f"{DSA} {DSA}"), (3, f"gated-deltanet {DSA}"))
    )
    assert again.progress.total_steps == other.progress.total_steps == STEPS
    assert same(finished(again), found)
    finished(other)
    assert teachers(tmp_path) == [stored]


def test_without_a_checkpoint_each_evaluation_trains_its_own(known: Registry, tmp_path: Path) -> None:
    alone, stored = (finished(begun(known, DSA, place, **FULL)) for place in (None, tmp_path / "1.pt"))
    assert same(alone, stored)
    assert alone.key == stored.key


def test_a_training_that_is_cut_goes_on_exactly(known: Registry, tmp_path: Path) -> None:
    """In the middle of the teacher's, and of its own after the stored teacher was lost."""
    saved = {**FULL, "checkpoint_seconds": 1e-9}
    whole = finished(begun(known, DSA, **saved))
    for step in (2, STEPS + 2):
        evaluation = begun(known, DSA, tmp_path / "1.pt", **saved)
        while evaluation.progress.step < step:
            evaluation.advance(0)
    for file in tmp_path.glob("teacher-*"):
        file.unlink()
    resumed = begun(known, DSA, tmp_path / "1.pt", **saved)
    assert resumed.progress.step == 0
    while resumed.progress.step < STEPS:
        resumed.advance(0)
    assert resumed.progress.step == STEPS + 2
    assert same(finished(resumed), whole)
    resumed.discard()
    assert len(teachers(tmp_path)) == 1


def test_a_file_that_is_no_teacher_is_left_alone(
    known: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = finished(begun(known, DSA, tmp_path / "1.pt", **FULL))
    [stored] = tmp_path.iterdir()
    whole = torch.load(stored, weights_only=True)
    spoilt = tmp_path / "spoilt"
    torch.save({**whole, "model": {}}, spoilt)
    for content in (b"no teacher", spoilt.read_bytes()):
        stored.write_bytes(content)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            evaluation = begun(known, DSA, tmp_path / "2.pt", **FULL)
        assert "is left alone" in caplog.text
        assert not evaluation.progress.step
        assert same(finished(evaluation), found)


def test_in_the_first_stage_only_the_indexer_learns_in_its_teacher_s_place(known: Registry) -> None:
    """DeepSeek-V3.2, arXiv 2512.02556, section 2.1.1: all but the indexer is frozen, then everything is trained."""
    evaluation = begun(known, f"{DSA} {DSA}", **FULL)
    while evaluation.progress.step < STEPS:
        evaluation.advance(0)
    teacher = evaluation._lessons.teaching.model  # type: ignore[union-attr]
    begins = weights(evaluation)
    assert not changed(dict(teacher.named_parameters()), begins)  # type: ignore[union-attr]
    scorers = {name for name in begins if ".scorer." in name}
    assert learnt_of(evaluation, STEPS // 2) == scorers
    assert learnt_of(evaluation, STEPS // 2 - 1) == set(begins)


def test_a_layer_that_the_teacher_has_not_begins_fresh_and_all_learn(known: Registry) -> None:
    evaluation = begun(known, f"gated-deltanet {DSA}", **FULL)
    while evaluation.progress.step < STEPS:
        evaluation.advance(0)
    taught = dict(evaluation._lessons.teaching.model.named_parameters())  # type: ignore[union-attr]
    begins = weights(evaluation)
    fresh = changed({name: tensor for name, tensor in taught.items() if name in begins}, begins)
    assert all(name.startswith("blocks.0.mixer.") for name in fresh)
    assert not changed({"blocks.1.mixer.qkv.weight": taught["blocks.1.mixer.qkv.weight"]}, begins)
    assert learnt_of(evaluation, 1) == set(begins)


def test_a_choice_that_teaches_itself_begins_fresh_and_dense(known: Registry) -> None:
    """In the dense stage the task is learnt as by full attention: the first look is that of a model that drops none."""
    looks = {"eval_every": 1, "stop_at": 0.0}
    dense, sparse = (
        begun(known, f"dsa(top_k={top_k}, index_heads=2, index_dim=4)", **given, **looks)
        for top_k, given in ((64, {}), (2, {"teacher": "self", "teacher_warmup": 0.5}))
    )
    plain = begun(known, DSA, **looks)
    assert not changed(weights(sparse), weights(plain))
    losses = [[point["loss"] for point in finished(one).curve] for one in (dense, sparse, plain)]
    assert losses[1][:3] == pytest.approx(losses[0][:3], abs=1e-5)
    assert losses[1][4:] != pytest.approx(losses[0][4:], abs=1e-5)
    assert losses[2][:3] != pytest.approx(losses[0][:3], abs=1e-5)


def test_where_no_layer_asks_none_is_trained(known: Registry, tmp_path: Path) -> None:
    plain, taught = (
        begun(known, "full sliding(window=4)"),
        begun(known, "full sliding(window=4)", tmp_path / "1.pt", **FULL),
    )
    assert taught.progress.total_steps == STEPS
    assert same(finished(taught), finished(plain))
    assert taught.key != plain.key
    assert not teachers(tmp_path)


def key(known: Registry, **recipe: Any) -> str:
    given = Recipe.read({**RECIPE, **recipe})
    task = resolve_task("echo", known)
    return measurement_key(arch_of(DSA, known), task, given, 0, known, device="cpu", form="auto")


def test_the_key_follows_the_recipe(known: Registry) -> None:
    recipes: list[dict[str, Any]] = [
        {},
        {"teacher": "self"},
        {"teacher": "full"},
        FULL,
        {**FULL, "teacher_warmup": 0.1},
    ]
    assert len({key(known, **recipe) for recipe in recipes}) == len(recipes)
    assert "teacher" not in Recipe.read({}).trained()
    assert Recipe.read(FULL).untaught == Recipe.read({})


def test_the_key_follows_the_source_of_the_teacher(known: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, taught = key(known), key(known, **FULL)
    parts = known.parts
    monkeypatch.setattr(
        known,
        "parts",
        lambda *names: [
            type(part)(name=part.name, version=part.version, digest="0" * 16) if part.name == "mixer:full" else part
            for part in parts(*names)
        ],
    )
    assert key(known) == plain
    assert key(known, **FULL) != taught


REFUSED = {
    "unknown": ({"teacher": "fulll"}, r'recipe.teacher = "fulll" is neither .*did you mean "full"'),
    "two-layers": ({"teacher": "full full"}, r'recipe.teacher = "full full" is neither "self" nor one layer'),
    "says-nothing": ({"teacher": "sliding"}, r'recipe.teacher = "sliding" cannot say what it attends to: use "full"'),
    "warmup-alone": ({"teacher_warmup": 0.5}, r"teacher_warmup: 0.5 without a teacher: give one"),
    "all-warmup": ({**FULL, "teacher_warmup": 1.0}, r"recipe.teacher_warmup = 1.0: Input should be less than 1"),
    "compiled": ({**FULL, "compile": True}, r'teacher: "full\(rope=0.5\)" cannot be asked by compiled layers: leave'),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_teach_is_refused_with_the_remedy(case: str, known: Registry) -> None:
    recipe, words = REFUSED[case]
    with pytest.raises((SpecError, UnknownNameError), match=words):
        begun(known, DSA, **recipe)


def test_a_teacher_that_diverges_is_told(known: Registry) -> None:
    evaluation = begun(known, DSA, learning_rates=[1e30], **FULL)
    with pytest.raises(SpecError, match=r"the teacher of this recipe diverged: .*: give a lower learning rate"):
        finished(evaluation)
