"""Figures of a plugin are checked where they enter: a negative state would top every front."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest

from archsearch import Flops, StateTensor, Traffic
from archsearch.arch import ArchSpec, ModelSpec
from archsearch.costs import Budget, CostModel, CostTerm, Violation
from archsearch.errors import ForeignCodeError, PluginError, SpecError
from archsearch.exercise import unexercised_layers
from archsearch.figures import Figures
from archsearch.layer import LayerInfo
from archsearch.registry import Registry
from archsearch.testing.toy import ToyPlugin


class _Says(ToyPlugin):
    """A toy mixer that says of its costs what the test wants."""

    def __init__(self, **said: Any) -> None:
        self.said = said

    def _give(self, name: str, otherwise: Any) -> Any:
        found = self.said.get(name, otherwise)
        if isinstance(found, Exception):
            raise found
        return found

    def params(self, *of: Any) -> Any:
        return self._give("params", 3)

    def flops(self, *of: Any, phase: Any, context: int) -> Any:
        return self._give(f"flops_{phase}", self._give("flops", Flops(matmul=1.0)))

    def traffic(self, *of: Any, context: int) -> Any:
        return self._give("traffic", Traffic(read_bytes=1.0))

    def state(self, *of: Any) -> Any:
        return self._give("state", (row(),))

    def dense_up_to(self, options: Any, layer: Any) -> Any:
        return self._give("dense_up_to", 0)


def row(**changed: Any) -> StateTensor:
    """A sound tensor, with what is changed."""
    sound: Mapping[str, Any] = {"name": "s", "row_shape": (2,), "dtype": "float32", "role": "recurrent", "base": 1}
    return StateTensor(**{**sound, **changed})


def model_of(**said: Any) -> tuple[CostModel, ArchSpec, Registry]:
    """The costs of two layers of the mixer that says so."""
    registry = Registry()
    registry.add(_Says(**said))
    return CostModel(registry), ArchSpec.parse("toy toy", registry, ModelSpec()), registry


BAD = [
    ({"params": -1}, "params() gave -1: must be a whole number, not negative"),
    ({"params": True}, "params() gave True"),
    ({"params": 2.0}, "params() gave 2.0"),
    ({"params": None}, "params() gave None"),
    ({"params": "3"}, "params() gave '3'"),
    ({"params": np.True_}, "params() gave np.True_"),
    (
        {"flops_decode": Flops(matmul=math.nan)},
        'flops(phase="decode", context=4096) gave matmul = nan: must be finite and not negative',
    ),
    ({"flops_train": Flops(exp=math.inf)}, 'flops(phase="train", context=4096) gave exp = inf'),
    ({"flops_prefill": Flops(elementwise=-1.0)}, 'flops(phase="prefill", context=4096) gave elementwise = -1.0'),
    ({"flops": Flops(matmul=None)}, "gave matmul = None"),  # type: ignore[arg-type]
    ({"flops": Flops(matmul=True)}, "gave matmul = True"),
    ({"flops": 5.0}, "gave its answer = 5.0: must be of the type Flops"),
    ({"flops": Flops(matmul=10**400)}, "gave matmul = 1000"),
    ({"traffic": Traffic(read_bytes=math.nan)}, "traffic(context=4096) gave read_bytes = nan"),
    ({"traffic": Traffic(written_bytes=-2)}, "traffic(context=4096) gave written_bytes = -2"),
    ({"traffic": None}, "traffic(context=4096) gave its answer = None"),
    ({"state": [row()]}, "state() gave the state = ["),
    ({"state": ("x",)}, "state() gave its answer = 'x': must be of the type StateTensor"),
    ({"state": (row(row_shape=(-4,)),)}, "state() gave row_shape of s = -4"),
    ({"state": (row(row_shape=(1.5,)),)}, "row_shape of s = 1.5"),
    ({"state": (row(row_shape=[2]),)}, "row_shape of s = [2]: must be a tuple"),
    ({"state": (row(base=-1),)}, "base of s = -1"),
    ({"state": (row(stride=0),)}, "stride of s = 0: must be a whole number of at least 1"),
    ({"state": (row(stride=1, cap=-1),)}, "cap of s = -1"),
    ({"state": (row(dtype="float31"),)}, "dtype of s = 'float31'"),
    ({"state": (row(role="cache"),)}, "role of s = 'cache'"),
    ({"state": (row(name=""),)}, "a tensor's name = ''"),
    ({"state": (row(), row())}, "a name = 's': must be one tensor's alone"),
]


@pytest.mark.parametrize(("said", "told"), BAD, ids=[told[:60] for _, told in BAD])
def test_a_figure_that_is_none_is_named(said: dict[str, Any], told: str) -> None:
    costs, arch, _ = model_of(**said)
    with pytest.raises(PluginError) as raised:
        costs.cost(arch, 4096)
    assert str(raised.value).startswith('mixer "toy", layer 0: ')
    assert told in str(raised.value)


@pytest.mark.parametrize("said", [0, -4, 2.0, True, "8"])
def test_what_a_layer_hands_out_is_none_or_a_number_of_channels(said: Any) -> None:
    class Hands(ToyPlugin):
        def hands_out(self, options: Any, shape: Any) -> Any:
            return said

    plugin = Hands()
    figures = Figures(plugin, plugin.parse_options({}), ModelSpec().shape, LayerInfo())
    with pytest.raises(PluginError, match=r'mixer "toy", layer 0: hands_out\(\) gave .* a whole number of at least 1'):
        figures.hands_out()


def test_the_layer_is_named() -> None:
    registry = Registry()
    registry.add(ToyPlugin())

    class Other(_Says):
        name = "other"
        presets: ClassVar = {}

    registry.add(Other(params=-7))
    with pytest.raises(PluginError, match=r'mixer "other", layer 2: params\(\) gave -7'):
        CostModel(registry).cost(ArchSpec.parse("toy toy other", registry), 8)


@pytest.mark.parametrize("call", ["params", "flops", "traffic", "state"])
def test_what_a_figure_raises_is_named(call: str) -> None:
    costs, arch, _ = model_of(**{call: ZeroDivisionError("by zero")})
    with pytest.raises(ForeignCodeError, match=rf"layer 0: {call}\(.*\) raised ZeroDivisionError: by zero"):
        costs.cost(arch, 16)


def test_numbers_of_numpy_are_taken_exactly() -> None:
    costs, arch, _ = model_of(
        params=np.int64(5),
        flops=Flops(matmul=np.float32(1.5), exp=np.int32(2)),  # type: ignore[arg-type]
        state=(row(row_shape=(np.int64(3),), base=np.int8(2)),),
    )
    cost = costs.cost(arch, 16)
    assert cost.layers[0].mixer_params == 5
    assert type(cost.layers[0].mixer_params) is int
    assert cost.layers[0].state_bytes == 24
    assert type(cost.layers[0].prefill_flops.matmul) is float


@pytest.mark.parametrize("dense", [-1, 1.5, None, "8", True])
def test_the_length_of_full_sight_is_checked(dense: object) -> None:
    _, arch, registry = model_of(dense_up_to=dense)
    with pytest.raises(PluginError, match=r"dense_up_to\(\) gave"):
        unexercised_layers(arch, "mqar", 64, registry)


BEYOND_FLOATS: list[tuple[dict[str, int], int]] = [
    ({"d_model": 10**200, "ffn_dim": 10**200}, 64),
    ({"ffn_dim": 10**308}, 64),
    ({}, 10**400),
]


@pytest.mark.parametrize(("model", "context"), BEYOND_FLOATS)
def test_sizes_beyond_floats_are_told(model: dict[str, int], context: int) -> None:
    registry = Registry()
    registry.add(_Says())
    arch = ArchSpec.parse("toy", registry, ModelSpec(head_dim=32).model_copy(update=model))  # past its bounds
    with pytest.raises(SpecError, match="larger than a float holds: use smaller sizes"):
        CostModel(registry).cost(arch, context)


def test_a_state_beyond_floats_is_told() -> None:
    costs, arch, _ = model_of(state=(row(row_shape=(10**200, 10**200)),))
    with pytest.raises(SpecError, match="larger than a float holds"):
        costs.cost(arch, 4)


class _Nan:
    def measure(self, name: str) -> float:
        return math.nan


def test_a_cost_that_is_no_number_passes_no_budget() -> None:
    budget = Budget.parse({"decode_flops": 1e20}, context=8)
    (found,) = budget.violations(lambda context: _Nan())  # type: ignore[arg-type, return-value]
    assert found.excess == math.inf
    assert str(found) == "decode_flops@8 is not a number"
    term = CostTerm.parse("decode_flops", context=8)
    assert Violation(term=term, limit=2.0, value=3.0).excess == 0.5
