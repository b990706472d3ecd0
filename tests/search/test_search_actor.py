"""What travels to a worker: plain data, no database, and plugins that are not packaged."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from dataclasses import astuple
from typing import Any, ClassVar

import pytest
from search_fakes import fake_registry

from archsearch.errors import ClusterError, PluginError, SpecError
from archsearch.evaluator import Evaluator, Metric
from archsearch.layer import LayerInfo
from archsearch.registry import Registry, load_registry
from archsearch.search.actor import (
    Assignment,
    TrialActor,
    check_parts,
    difference_of_unused,
    pack_plugins,
    worker_registry,
)
from archsearch.search.failures import describe
from archsearch.tasks import resolve_task
from archsearch.testing.toy import ToyPlugin

ASSIGNMENT = Assignment(
    trial=3,
    arch={},
    tasks={},
    recipe={},
    runs=[("mqar", 0)],
    parts=[("mixer:a", "1", "0")],
    installed=[("a/b", "1")],
    plugins="",
    impl="auto",
    checkpoints="/x",
)


def assignment(
    runs: list[tuple[str, int]], tmp_path: Any, pattern: str = "sliding(window=8)", **recipe: Any
) -> Assignment:
    registry = load_registry()
    task = resolve_task("mqar:easy", registry)
    from archsearch.arch import ArchSpec, ModelSpec

    model = ModelSpec(d_model=16, n_heads=1, channel_mixer="none", vocab_size=task.vocab_size)
    return Assignment(
        trial=1,
        arch=ArchSpec.parse(pattern, registry, model).to_json(),
        tasks={"mqar": task.to_json()},
        recipe={"steps": 2, "eval_every": 2, **recipe},
        runs=runs,
        parts=[astuple(part) for part in registry.parts(["sliding"], ["mqar"])],
        installed=registry.fingerprint(),
        plugins=pack_plugins(registry),
        impl="auto",
        checkpoints=str(tmp_path),
    )


def results(actor: TrialActor) -> list[dict[str, Any]]:
    """What it reports, after where it is."""
    assert actor.step()["place"]["device"] == "cpu"
    found = [actor.step()]
    while not found[-1]["done"]:
        found.append(actor.step())
    return found


def test_an_assignment_travels_as_one_string() -> None:
    assert Assignment.from_config(ASSIGNMENT.to_config()) == dataclasses.replace(
        ASSIGNMENT, runs=[["mqar", 0]], parts=[["mixer:a", "1", "0"]], installed=[["a/b", "1"]]
    )
    assert all(isinstance(value, str) for value in ASSIGNMENT.to_config().values())


def test_nothing_of_an_assignment_can_name_the_database() -> None:
    assert not [field.name for field in dataclasses.fields(Assignment) if "url" in field.name or "stor" in field.name]


def test_an_actor_trains_one_trial_after_another(tmp_path: Any) -> None:
    actor = object.__new__(TrialActor)
    actor.setup(assignment([("mqar", 0), ("mqar", 1)], tmp_path).to_config())
    found = [json.loads(result["measurement"]) for result in results(actor) if "measurement" in result]
    assert [(measured["task"], measured["seed"], measured["status"]) for measured in found] == [
        ("mqar:easy", 0, "complete"),
        ("mqar:easy", 1, "complete"),
    ]
    assert actor.reset_config(assignment([("mqar", 0)], tmp_path).to_config())
    again = json.loads(results(actor)[-1]["measurement"])
    assert again["test"] == found[0]["test"]
    assert again["key"] == found[0]["key"]


class Weights(Evaluator):
    name = "weights"
    metrics: ClassVar[Mapping[str, Metric]] = {"count": Metric(direction="minimize")}

    def evaluate(self, arch: Any, model: Any, task: Any, trained: Any) -> Mapping[str, float]:
        return {"count": float(sum(weight.numel() for weight in model.parameters()))}


def test_an_evaluator_that_no_distribution_installs_is_asked_on_the_worker(tmp_path: Any) -> None:
    registry = load_registry([Weights()])
    parts = registry.parts(["sliding"], ["mqar"], ["weights"])
    made = dataclasses.replace(
        assignment([("mqar", 0)], tmp_path),
        parts=[astuple(part) for part in parts],
        installed=registry.fingerprint(),
        plugins=pack_plugins(registry),
        evaluators={"mqar": ["weights"]},
    )
    actor = object.__new__(TrialActor)
    actor.setup(made.to_config())
    found = json.loads(results(actor)[-1]["measurement"])
    assert found["validation"]["count"] == found["test"]["count"] > 0
    (here,) = (part for part in parts if part.name == "evaluator:weights")
    assert found["versions"]["source:evaluator:weights"] == here.digest
    absent = object.__new__(TrialActor)
    absent.setup(dataclasses.replace(made, plugins=pack_plugins(load_registry())).to_config())
    absent.step()
    with pytest.raises(ClusterError, match=r'evaluator:weights.*unknown evaluator "weights"'):
        absent.step()


def test_a_teacher_of_one_trial_is_found_by_the_next_on_another_worker(tmp_path: Any) -> None:
    taught = {"pattern": "dsa(top_k=4, index_heads=1, index_dim=4)", "teacher": "full(rope=0.5)"}
    steps, found = [], []
    for trial in (1, 2):
        actor = object.__new__(TrialActor)
        made = assignment([("mqar", 0)], tmp_path, **taught)
        actor.setup(dataclasses.replace(made, trial=trial).to_config())
        told = results(actor)
        steps.append(told[-1]["total_steps"])
        found.append(json.loads(told[-1]["measurement"]))
    assert steps == [4, 2]
    assert found[0]["test"] == found[1]["test"]
    assert [file.name[:8] for file in tmp_path.iterdir()] == ["teacher-"]


def test_looks_are_told_as_they_come_and_count_over_all_rates(tmp_path: Any) -> None:
    actor = object.__new__(TrialActor)
    actor.setup(assignment([("mqar", 0)], tmp_path, steps=4, learning_rates=[0.01, 0.02]).to_config())
    told = results(actor)
    looks = [result["looks"] for result in told if "looks" in result]
    assert [len(found) for found in looks] == sorted({len(found) for found in looks})
    assert [step for step, _ in looks[-1]] == [2, 4, 6, 8]
    measured = json.loads(told[-1]["measurement"])
    first, second = (entry["validation"]["accuracy"] for entry in measured["sweep"])
    assert looks[-1][1][1] == first
    assert looks[-1][3][1] == max(first, second)
    assert {result["trial"] for result in told} == {1}


def test_a_trial_that_was_stopped_leaves_no_checkpoint_and_its_actor_goes_on(tmp_path: Any) -> None:
    actor = object.__new__(TrialActor)
    stopped = assignment([("mqar", 0)], tmp_path, steps=100_000, checkpoint_seconds=0.001)
    actor.setup(stopped.to_config())
    actor.step()
    while not list(tmp_path.iterdir()):
        assert not actor.step()["done"]
    assert actor.reset_config(dataclasses.replace(assignment([("mqar", 1)], tmp_path), trial=2).to_config())
    assert not list(tmp_path.iterdir())
    assert results(actor)[-1]["trial"] == 2


def test_a_diverged_run_ends_its_trial(tmp_path: Any) -> None:
    actor = object.__new__(TrialActor)
    runs = [("mqar", 0), ("mqar", 1)]
    actor.setup(assignment(runs, tmp_path, learning_rates=[1e30], clip=1e30, steps=60).to_config())
    found = [json.loads(result["measurement"]) for result in results(actor) if "measurement" in result]
    assert [measured["status"] for measured in found] == ["diverged"]
    assert "at step" in found[0]["reason"]


def test_a_worker_with_other_plugins_is_refused_with_both_lists() -> None:
    registry = load_registry()
    parts = [astuple(part) for part in registry.parts(["full", "sliding"], ["mqar"])]
    check_parts(registry, parts)
    for index, (name, version, digest) in enumerate(parts):
        for other in ((name, version, "0" * 16), (name, "lab 9 r1", digest)):
            expected = [*parts[:index], other, *parts[index + 1 :]]
            shown = f"driver has {' '.join(other)}; worker has {name} {version} {digest}"
            with pytest.raises(ClusterError, match=re.escape(shown)):
                check_parts(registry, expected)


def test_a_worker_that_lacks_a_plugin_is_refused() -> None:
    registry = load_registry()
    for name in ("mixer:nobody", "task:nothing"):
        with pytest.raises(ClusterError, match=f"worker has {name} none of it .*unknown"):
            check_parts(registry, [(name, "lab 1 r1", "0" * 16)])


def test_plugins_that_are_not_used_may_differ_and_are_noted() -> None:
    registry = load_registry()
    assert difference_of_unused(registry, registry.fingerprint()) == ""
    others = [(name, "9" if "nsa" in name else version) for name, version in registry.fingerprint()]
    note = difference_of_unused(registry, [*others, ("lab/mine", "1")])
    assert "archsearch/nsa 9 here" in note
    assert "lab/mine 1 here, (none) there" in note
    assert "full" not in note


def test_what_is_raised_in_the_beginning_is_raised_by_a_step(tmp_path: Any) -> None:
    """From `setup` it would arrive as a worker that died."""
    actor = object.__new__(TrialActor)
    made = assignment([("mqar", 0)], tmp_path)
    actor.setup(dataclasses.replace(made, parts=[("mixer:sliding", "lab 9", "0")]).to_config())
    assert actor.step()["place"]["pid"] == os.getpid()
    with pytest.raises(ClusterError, match="differ from the driver's"):
        actor.step()
    assert actor.reset_config(made.to_config())
    assert results(actor)[-1]["done"]


def test_a_worker_runs_the_form_that_the_driver_names(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHSEARCH_IMPL", "chunkwise")
    actor = object.__new__(TrialActor)
    actor.setup(dataclasses.replace(assignment([("mqar", 0)], tmp_path), impl="reference").to_config())
    actor.step()
    actor.step()
    assert os.environ["ARCHSEARCH_IMPL"] == "reference"


def test_unpackaged_plugins_travel_under_their_names() -> None:
    registry = load_registry()
    for sent in fake_registry().sendable():
        if sent.name != "recurrent":  # whose presets are another plugin's too
            registry.add(sent.plugin, name=sent.name)
    arrived = worker_registry(pack_plugins(registry))
    assert arrived.fingerprint() == registry.fingerprint()
    assert arrived.parts(["dense", "window"], ["bits"]) == registry.parts(["dense", "window"], ["bits"])
    assert arrived.mixer("window").dense_up_to(arrived.mixer("window").parse_options({"window": 64}), LayerInfo()) == 64


def test_a_plugin_that_cannot_be_pickled_is_named() -> None:
    registry = Registry()
    plugin = fake_registry().mixer("dense")
    plugin.held = (number for number in range(3))
    registry.add(plugin)
    with pytest.raises(PluginError, match="dense cannot be sent to a worker"):
        pack_plugins(registry)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SpecError('recipe.device = "cuda": no'), 'recipe.device = "cuda": no'),
        (ValueError("first\n\n  last"), "ValueError: last"),
        (None, "without a message"),
    ],
    ids=["ours", "foreign", "unknown"],
)
def test_a_failure_is_one_line(error: BaseException | None, text: str) -> None:
    assert text in describe(error)
    assert "\n" not in describe(error)


def test_a_plugin_that_refuses_to_be_pickled_is_named() -> None:
    class Unwilling(ToyPlugin):
        def __reduce__(self) -> Any:
            raise RuntimeError("not me")

    registry = load_registry([Unwilling()])
    with pytest.raises(PluginError, match=r"the plugins toy cannot be sent to a worker \(RuntimeError: not me\)"):
        pack_plugins(registry)
