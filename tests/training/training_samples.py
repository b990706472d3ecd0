"""Small mixers and tasks that the tests of training share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.hookspecs import hookimpl
from archsearch.mixer import Law
from archsearch.registry import Registry, load_registry
from archsearch.tasks import IGNORE, Batch, Task, TaskOptions
from archsearch.testing.toy import ToyPlugin
from archsearch.testing.toy_layer import RunningMean

RECIPE: dict[str, Any] = {"steps": 6, "batch_size": 8, "eval_every": 3, "learning_rates": [1e-2], "device": "cpu"}
MODEL = ModelSpec(d_model=16, n_heads=2, channel_mixer="none", short_conv=4)


def plugin_of(layer: type[RunningMean], broken: Mapping[Law, str] | None = None, *, more_params: int = 0) -> ToyPlugin:
    """A mixer "toy" that builds `layer`, says that it has `more_params` parameters, and declares the laws `broken`."""

    class Plugin(ToyPlugin):
        broken_laws: ClassVar[Mapping[Law, str]] = broken or {}

        def params(self, options: Any, shape: Any, info: Any) -> int:
            return super().params(options, shape, info) + more_params

        def build(self, options: Any, shape: Any, info: Any) -> RunningMean:
            return layer(self, options, shape, info)

    return Plugin()


def registry_of(*plugins: Any) -> Registry:
    """The built-in mixers and tasks, and these."""
    return load_registry(plugins, environ={"ARCHSEARCH_LOAD_PLUGINS": "full,sliding,linear,tasks"})


def arch_of(pattern: str, registry: Registry, model: ModelSpec = MODEL) -> ArchSpec:
    """A small architecture."""
    return ArchSpec.parse(pattern, registry, model)


class EchoOptions(TaskOptions):
    """``seq_len``: tokens of a sequence."""

    seq_len: int = 12


class Echo(Task):
    """The last half of the tokens is asked: each is its own answer."""

    name: ClassVar[str] = "echo"
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {"easy": {}}
    default_setting: ClassVar[str] = "easy"
    options_type: ClassVar[type[TaskOptions]] = EchoOptions
    evaluation_rows: ClassVar = {"validation": 24, "test": 24}

    options: EchoOptions

    @property
    def vocab_size(self) -> int:
        return 16

    @property
    def seq_len(self) -> int:
        return self.options.seq_len

    @property
    def chance(self) -> float:
        return 1 / 16

    def draw(self, rng: np.random.Generator, count: int, *, split: Any, label: str) -> Batch:
        tokens = rng.integers(16, size=(count, self.seq_len))
        targets = tokens.copy()
        targets[:, : self.seq_len // 2] = IGNORE
        return Batch(tokens, targets)


class Tasks:
    """A plugin of these tasks."""

    def __init__(self, *tasks: type[Task]) -> None:
        self.name, self.tasks = "sample-tasks", tasks

    @hookimpl
    def register_tasks(self, register: Any) -> None:
        for task in self.tasks:
            register(task)
