"""What travels to a worker: plain data, no database, and plugins that are not packaged."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import ray
from search_fakes import fake_registry

from archsearch.errors import ClusterError, PluginError, SpecError
from archsearch.registry import Registry, load_registry
from archsearch.search.actor import Assignment, TrialActor, check_fingerprint, pack_plugins, worker_registry
from archsearch.search.workers import describe
from archsearch.tasks import resolve_task

ASSIGNMENT = Assignment(
    trial=3, arch={}, tasks={}, recipe={}, runs=[("mqar", 0)], fingerprint=[("a/b", "1")], plugins="", checkpoints="/x"
)


def assignment(runs: list[tuple[str, int]], tmp_path: Any, **recipe: Any) -> Assignment:
    registry = load_registry()
    task = resolve_task("mqar:easy", registry)
    from archsearch.arch import ArchSpec, ModelSpec

    model = ModelSpec(d_model=16, n_heads=1, channel_mixer="none", vocab_size=task.vocab_size)
    return Assignment(
        trial=1, arch=ArchSpec.parse("sliding(window=8)", registry, model).to_json(), tasks={"mqar": task.to_json()},
        recipe={"steps": 2, "eval_every": 2, **recipe}, runs=runs, fingerprint=registry.fingerprint(),
        plugins=pack_plugins(registry), checkpoints=str(tmp_path),
    )  # fmt: skip


def results(actor: TrialActor) -> list[dict[str, Any]]:
    found = [actor.step()]
    while not found[-1]["done"]:
        found.append(actor.step())
    return found


def test_an_assignment_travels_as_one_string() -> None:
    assert Assignment.from_config(ASSIGNMENT.to_config()) == dataclasses.replace(
        ASSIGNMENT, runs=[["mqar", 0]], fingerprint=[["a/b", "1"]]
    )
    assert all(isinstance(value, str) for value in ASSIGNMENT.to_config().values())


def test_nothing_of_an_assignment_can_name_the_database() -> None:
    assert not [field.name for field in dataclasses.fields(Assignment) if "url" in field.name or "stor" in field.name]


def test_an_actor_trains_one_trial_after_another(tmp_path: Any) -> None:
    actor = object.__new__(TrialActor)
    actor.setup(assignment([("mqar", 0), ("mqar", 1)], tmp_path).to_config())
    found = [json.loads(result["measurement"]) for result in results(actor) if "measurement" in result]
    assert [(measured["task"], measured["seed"], measured["status"]) for measured in found] == [
        ("mqar:easy", 0, "complete"), ("mqar:easy", 1, "complete"),
    ]  # fmt: skip
    assert actor.reset_config(assignment([("mqar", 0)], tmp_path).to_config())
    again = json.loads(results(actor)[-1]["measurement"])
    assert again["test"] == found[0]["test"]
    assert again["key"] == found[0]["key"]


def test_a_diverged_run_ends_its_trial(tmp_path: Any) -> None:
    actor = object.__new__(TrialActor)
    runs = [("mqar", 0), ("mqar", 1)]
    actor.setup(assignment(runs, tmp_path, learning_rates=[1e30], clip=1e30, steps=60).to_config())
    found = [json.loads(result["measurement"]) for result in results(actor) if "measurement" in result]
    assert [measured["status"] for measured in found] == ["diverged"]
    assert "at step" in found[0]["reason"]


def test_a_worker_with_other_plugins_is_refused_with_both_lists() -> None:
    with pytest.raises(ClusterError, match=r"driver has mine/x 9; worker has|driver has mine/x 9, worker has"):
        check_fingerprint(load_registry(), [("mine/x", "9")])


def test_unpackaged_plugins_travel_under_their_names() -> None:
    registry = load_registry()
    for plugin, name in zip(fake_registry().unpackaged(), ("dense", "window", "recurrent", "fake-tasks"), strict=True):
        registry.add(plugin, name=name)
    arrived = worker_registry(pack_plugins(registry))
    assert arrived.fingerprint() == registry.fingerprint()
    assert arrived.mixer("window").dense_up_to(arrived.mixer("window").parse_options({"window": 64})) == 64


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
        (ray.exceptions.ActorDiedError(), "the worker died"),
        (SpecError('recipe.device = "cuda": no'), 'recipe.device = "cuda": no'),
        (ValueError("first\n\n  last"), "ValueError: last"),
        (None, "without a message"),
    ],
    ids=["killed", "ours", "foreign", "unknown"],
)
def test_a_failure_is_one_line(error: BaseException | None, text: str) -> None:
    assert text in describe(error)
    assert "\n" not in describe(error)
