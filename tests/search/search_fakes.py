"""Fakes of the search's tests: three small mixers, two tasks, and specs over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import model_validator

from archsearch.arch import ArchSpec
from archsearch.hookspecs import hookimpl
from archsearch.measurement import Measurement
from archsearch.mixer import (
    Flops,
    LayerInfo,
    MixerOptions,
    MixerPlugin,
    ModelShape,
    Phase,
    StateTensor,
    Traffic,
    Tunable,
)
from archsearch.registry import Registry
from archsearch.search.matching.matched import Matched, Matching
from archsearch.search.problem import Problem
from archsearch.tasks import Batch, Task, TaskOptions
from archsearch.training import form_of, measurement_key


class DenseOptions(MixerOptions):
    rope: Annotated[float, Tunable(0.0, 1.0)] = 1.0


class WindowOptions(MixerOptions):
    window: Annotated[int, Tunable(4, 8, 64)] = 8
    sinks: int = 0


class StateOptions(MixerOptions):
    update: Annotated[Literal["hebbian", "delta"], Tunable("hebbian", "delta")] = "hebbian"
    norm: Annotated[Literal["none", "l2", "rms"], Tunable("none", "l2", "rms")] = "none"

    @model_validator(mode="after")
    def _check(self) -> StateOptions:
        if self.update == "delta" and self.norm == "none":
            raise ValueError("update=delta needs normalised keys: set norm")
        return self


class _Mixer(MixerPlugin[Any]):
    """Cheap arithmetic that every fake shares."""

    summary = "a fake"
    api_version = 2

    def params(self, options: Any, shape: ModelShape, layer: LayerInfo) -> int:
        return 4 * shape.d_model**2

    def flops(self, options: Any, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        rows = sum(tensor.rows(context) for tensor in self.state(options, shape, layer))
        return Flops(matmul=2.0 * shape.d_model * rows)

    def traffic(self, options: Any, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return Traffic(read_bytes=float(sum(tensor.nbytes(context) for tensor in self.state(options, shape, layer))))

    def build(self, options: Any, shape: ModelShape, layer: LayerInfo) -> Any:
        raise NotImplementedError


class Dense(_Mixer):
    name, family, options = "dense", "full", DenseOptions

    def state(self, options: Any, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return (StateTensor(name="kv", row_shape=(2, shape.d_model), dtype=shape.dtype, role="kv", stride=1),)


class Window(_Mixer):
    name, family, options = "window", "sliding", WindowOptions

    def state(self, options: Any, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        rows = options.window + options.sinks
        return (StateTensor(name="kv", row_shape=(2, shape.d_model), dtype=shape.dtype, role="kv", stride=1, cap=rows),)

    def dense_up_to(self, options: Any, layer: Any) -> int:
        return int(options.window + options.sinks)


class Recurrent(_Mixer):
    name, family, options = "recurrent", "linear", StateOptions
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "deltanet": {"update": "delta", "norm": "l2"},
        "retention": {"update": "hebbian"},
    }

    def state(self, options: Any, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return (StateTensor(name="s", row_shape=(shape.d_model, 16), dtype="float32", role="recurrent", base=1),)


class RecallOptions(TaskOptions):
    length: int = 32


class Recall(Task):
    name = "recall-task"
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {"easy": {}, "long": {"length": 128}}
    default_setting = "easy"
    options_type = RecallOptions

    @property
    def vocab_size(self) -> int:
        return 64

    @property
    def seq_len(self) -> int:
        return int(self.options.length)  # type: ignore[attr-defined]

    @property
    def chance(self) -> float:
        return 1 / 64

    def draw(self, rng: np.random.Generator, count: int, *, split: Any, label: str) -> Batch:
        raise NotImplementedError


class Bits(Recall):
    name, metric, direction, recall = "bits", "bits_per_byte", "minimize", False
    evaluation_labels = ("", "2x")


class _Tasks:
    @hookimpl
    def register_tasks(self, register: Any) -> None:
        register(Recall)
        register(Bits)


def fake_registry() -> Registry:
    """The fakes, and nothing that is installed."""
    registry = Registry()
    for mixer in (Dense(), Window(), Recurrent()):
        registry.add(mixer)
    registry.add(_Tasks(), name="fake-tasks")
    return registry


def fake_spec(**tables: Any) -> dict[str, Any]:
    """A small valid spec; `tables` replace whole tables, or a table's keys when given as dicts."""
    spec: dict[str, Any] = {
        "name": "fakes",
        "model": {"d_model": 16, "n_layers": 3, "n_heads": 2, "channel_mixer": "none"},
        "space": {"mixers": ["dense", "window", "recurrent"], "window": {"window": [8]}},
        "tasks": [{"name": "recall-task"}],
        "recipe": {"steps": 4},
        "objectives": {"maximize": ["recall"], "minimize": ["state_bytes"], "context": 1024},
        "search": {"trials": 6, "sampler": "nsga2"},
    }
    for key, value in tables.items():
        spec[key] = {**spec[key], **value} if isinstance(value, dict) and key in spec and key != "space" else value
    return spec


SCORES = {"dense": 0.3, "window": 0.1, "recurrent": 0.2}


def fake_measurement(
    problem: Problem,
    registry: Registry,
    arch: ArchSpec,
    task: str,
    seed: int,
    *,
    diverged: bool = False,
    luck: float = 0.0,
    scores: Mapping[str, float] = SCORES,
) -> dict[str, Any]:
    """What a worker would hand in: recall is the mean score of the layers, plus `luck`."""
    trained = problem.tasks[task]
    score = sum(scores[layer.mixer] for layer in arch.layers) / len(arch.layers) + luck
    found = {} if diverged else {trained.metric: score}
    return Measurement(
        key=measurement_key(arch, trained, problem.spec.recipe, seed, registry, device="cpu", form=form_of("cpu")),
        digest=arch.digest,
        pattern=arch.pattern(registry),
        arch=arch.to_json(),
        task=trained.label,
        task_options=trained.to_json(),
        metric=trained.metric,
        direction=trained.direction,
        recall=trained.recall,
        chance=trained.chance,
        recipe=problem.spec.recipe.model_dump(mode="json"),
        seed=seed,
        status="diverged" if diverged else "complete",
        reason="the loss is not finite at step 3" if diverged else None,
        validation=found,
        test=found,
    ).to_json()


def apart(found: Matching, row: Matched) -> float:
    """How much more than the baseline's a matched figure is, as a share of that."""
    return row.after / found.target - 1.0
