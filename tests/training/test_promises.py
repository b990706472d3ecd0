"""What a layer is held to in every training: the figures of its plugin, weights of its own, torch as it found it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from training_samples import RECIPE, Echo, Tasks, arch_of, plugin_of, registry_of

from archsearch.errors import ForeignCodeError, PluginError
from archsearch.measurement import Measurement
from archsearch.tasks import resolve_task
from archsearch.testing.toy import ToyPlugin
from archsearch.testing.toy_layer import RunningMean
from archsearch.training import Recipe, evaluate


def measured(plugin: ToyPlugin) -> Measurement:
    """A training of a layer of full attention and one of the plugin's."""
    registry = registry_of(plugin, Tasks(Echo))
    task = resolve_task("echo", registry)
    return evaluate(arch_of("full toy", registry), task, Recipe.read(RECIPE), 0, registry=registry)


def adding(make: Callable[[Any], Any]) -> type[RunningMean]:
    """A layer that multiplies its output by `make(shape)`, kept as ``extra``."""

    class Layer(RunningMean):
        def __init__(self, plugin: Any, options: Any, shape: Any, info: Any) -> None:
            super().__init__(plugin, options, shape, info)
            self.extra = make(shape)

    return Layer


class LearnsAside(RunningMean):
    """Learns the mean of its inputs, and keeps it where no copy of the weights looks."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.keep(torch.zeros(self.shape.d_model))

    def keep(self, seen: torch.Tensor) -> None:
        self.seen = seen

    def forward(self, x: Any, *, state: Any = None, ctx: Any) -> Any:
        if self.training:
            self.seen = self.seen + x.detach().mean((0, 1)) + 1.0
        y, state = super().forward(x, state=state, ctx=ctx)
        return y + self.seen, state


class LearnsInABuffer(LearnsAside):
    """The same, in a buffer."""

    def keep(self, seen: torch.Tensor) -> None:
        self.register_buffer("seen", seen)


class Late(RunningMean):
    """Makes a weight when it is called, which no optimiser knows."""

    def forward(self, x: Any, *, state: Any = None, ctx: Any) -> Any:
        if not hasattr(self, "late"):
            self.late = nn.Parameter(torch.ones(x.shape[-1]))
        return super().forward(x * self.late, state=state, ctx=ctx)


class CannotTrain(RunningMean):
    def train(self, mode: bool = True) -> Any:
        raise ZeroDivisionError("no mode")


class NoGradients(RunningMean):
    def forward(self, x: Any, *, state: Any = None, ctx: Any) -> Any:
        torch.set_grad_enabled(False)
        return super().forward(x, state=state, ctx=ctx)


class Doubled(RunningMean):
    def __init__(self, *arguments: Any) -> None:
        torch.set_default_dtype(torch.float64)
        super().__init__(*arguments)


def complex_ones(shape: Any) -> nn.Parameter:
    return nn.Parameter(torch.ones(shape.d_model, dtype=torch.complex64))


TOY = 'mixer "toy", layer 1: '
FAULTS: dict[str, tuple[ToyPlugin, str]] = {
    "params": (plugin_of(RunningMean, more_params=-1), TOY + "params() gave 511, wanted 512"),
    "learns-aside": (plugin_of(LearnsAside), 'mixer "full", mixer "toy": the same weights in a new model give other'),
    "late": (plugin_of(Late), 'mixer "full", mixer "toy": load_state_dict raised RuntimeError'),
    "train": (plugin_of(CannotTrain), 'mixer "full", mixer "toy": train raised ZeroDivisionError: no mode'),
    "gradients": (plugin_of(NoGradients), TOY + "forward changed torch's gradients' mode from True to False"),
    "dtype": (plugin_of(Doubled), TOY + "build changed torch's default dtype from torch.float32 to torch.float64"),
    "lazy": (plugin_of(adding(lambda shape: nn.LazyLinear(4))), TOY + "build gave the parameter extra.weight without"),
    "complex": (plugin_of(adding(complex_ones)), TOY + "build gave the parameter extra, a tensor [16] of complex64"),
    "meta": (plugin_of(adding(lambda shape: nn.Linear(4, 4, device="meta")), more_params=20), "to raised NotImpl"),
}


@pytest.mark.parametrize(("plugin", "told"), FAULTS.values(), ids=FAULTS)
def test_a_layer_that_is_not_what_its_plugin_says_is_told(plugin: ToyPlugin, told: str) -> None:
    with pytest.raises(PluginError) as raised:
        measured(plugin)
    assert told in str(raised.value)
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()


def test_a_state_of_other_bytes_is_told() -> None:
    class Hoards(RunningMean):
        def init_state(self, *arguments: Any, **options: Any) -> Any:
            state = super().init_state(*arguments, **options)
            state.tensors["more"] = torch.zeros(len(state.lengths), 7)
            return state

    with pytest.raises(PluginError, match=r"layer 1: state\(\) for 12 tokens, in bytes, gave 64, wanted 92"):
        measured(plugin_of(Hoards))


def test_what_is_learnt_in_a_buffer_is_restored() -> None:
    assert measured(plugin_of(LearnsInABuffer)).status == "complete"


def test_what_torch_cannot_clone_is_kept() -> None:
    class Extra(RunningMean):
        def get_extra_state(self) -> dict[str, int]:
            return {"version": 3}

        def set_extra_state(self, state: Any) -> None:
            assert state == {"version": 3}

    assert measured(plugin_of(Extra)).status == "complete"


def test_weights_of_an_earlier_model_are_refused() -> None:
    class Shares(ToyPlugin):
        made: RunningMean | None = None

        def build(self, options: Any, shape: Any, info: Any) -> RunningMean:
            self.made = self.made or RunningMean(self, options, shape, info)
            return self.made

    with pytest.raises(PluginError, match=r"layer 1: build gave weights that it gave before"):
        measured(Shares())


def test_a_part_of_an_earlier_model_is_refused() -> None:
    shared = nn.Linear(16, 16, bias=False)

    with pytest.raises(PluginError, match=r"layer 1: build gave weights that it gave before"):
        measured(plugin_of(adding(lambda shape: shared), more_params=256))


def test_settings_that_an_import_left_behind_change_nothing() -> None:
    usual = measured(plugin_of(RunningMean))
    torch.set_default_dtype(torch.float64)
    try:
        assert measured(plugin_of(RunningMean)).test == usual.test
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("error", [SystemExit(0), StopIteration()], ids=["exit", "stop"])
def test_a_mixer_that_leaves_the_program_fails(error: BaseException) -> None:
    class Leaves(RunningMean):
        def forward(self, x: Any, *, state: Any = None, ctx: Any) -> Any:
            raise error

    with pytest.raises(ForeignCodeError, match=rf"layer 1: forward raised {type(error).__name__}"):
        measured(plugin_of(Leaves))


def test_an_error_whose_text_cannot_be_made_is_told() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise ValueError("mute")

    class Mute(RunningMean):
        def forward(self, x: Any, *, state: Any = None, ctx: Any) -> Any:
            raise MuteError

    with pytest.raises(ForeignCodeError, match=r"raised MuteError: no message \(its text raised ValueError\)"):
        measured(plugin_of(Mute))
