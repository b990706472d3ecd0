"""The value residual: whose values a layer mixes in, what it costs, what is refused, and what it leaves as it was."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.costs import CostModel
from archsearch.errors import PluginError, SpecError
from archsearch.figures import Figures
from archsearch.layer import LayerInfo
from archsearch.registry import Registry
from archsearch.testing.toy import ToyPlugin
from archsearch.value_residual import taken, without_effect

SIZES = {"d_model": 32, "n_heads": 4, "n_kv_heads": 2, "channel_mixer": "none", "vocab_size": 16}

WHOSE = {
    "full full full": (None, 0, 0),
    "full sliding(window=4) moba(block_size=4, top_k=2) nsa(block_size=4, top_k=2)": (None, 0, 0, 0),
    # linear layers have as many heads of values as of queries, and a width of their own
    "full kda full kda": (None, None, 0, 1),
    "full full(n_kv_heads=4) kda": (None, None, 1),
    "kda linear(value_dim=4) kda": (None, None, 0),
    "full mla full": (None, None, 0),
    "mamba1 full mamba1 full": (None, None, 0, 1),
    "s4d mamba3 s4d mamba3 mamba1": (None, None, None, 1, None),
    "ttt-linear titans kda full": (None, 0, 0, None),
    "mamba1 mamba3 mom csa conv": (None,) * 5,
    "shared-kv shared full": (None, None, 0),
    "linear(update=delta, decay=head, steps=2) linear(value_dim=8)": (None, None),
    "full": (None,),
}


def arch(pattern: str, registry: Registry, kind: str = "learned", **sizes: Any) -> ArchSpec:
    return ArchSpec.parse(pattern, registry, ModelSpec.read({**SIZES, "value_residual": kind, **sizes}))


@pytest.mark.parametrize("pattern", WHOSE)
def test_a_layer_takes_the_values_of_the_first_of_the_same_heads_and_width(pattern: str, installed: Registry) -> None:
    found = taken(arch(pattern, installed), installed)
    sources = {index: source for (index, part), ((source, _), _) in found.items() if not part}
    assert tuple(sources.get(index) for index in range(len(WHOSE[pattern]))) == WHOSE[pattern]
    assert taken(arch(pattern, installed, "none"), installed) == {}


def test_the_mixers_of_a_layer_take_part_each_by_itself(installed: Registry) -> None:
    """Values of the same layer are not earlier ones."""
    both = "parallel(a=full, b=parallel(a=kda, b=full))"
    found = taken(arch(f"full {both} {both} kda", installed), installed)
    assert {place: source for place, (source, _) in found.items()} == {
        (1, "0."): (0, ""),
        (1, "1.1."): (0, ""),
        (2, "0."): (0, ""),
        (2, "1.0."): (1, "1.0."),
        (2, "1.1."): (0, ""),
        (3, ""): (1, "1.0."),
    }
    plain, mixed = (
        CostModel(installed).cost(arch(f"{both} {both}", installed, kind), 8) for kind in ("none", "learned")
    )
    assert mixed.params - plain.params == 3 * 2


def test_a_value_residual_without_effect_is_told_with_the_remedy(installed: Registry) -> None:
    assert without_effect(arch("full kda", installed), installed) == (
        'value_residual = "learned" changes nothing: no layer has values of the heads and width of an earlier one: '
        'write "none", or repeat a mixer with values'
    )
    assert without_effect(arch("full kda full", installed), installed) is None
    assert without_effect(arch("full kda", installed, "none"), installed) is None


@pytest.mark.parametrize(("kind", "params", "elementwise"), [("learned", 2, 3), ("identity", 0, 2)])
def test_each_layer_that_mixes_costs_its_weights_and_operations_and_no_state(
    kind: str, params: int, elementwise: int, installed: Registry
) -> None:
    plain, mixed = (
        CostModel(installed).cost(arch("full kda full kda kda", installed, one), 100) for one in ("none", kind)
    )
    values = 2 * 8 + 4 * 8 + 4 * 8  # of layers 2, 3 and 4
    assert mixed.params - plain.params == 3 * params
    assert mixed.decode_flops - plain.decode_flops == elementwise * values
    assert mixed.decode.elementwise - plain.decode.elementwise == elementwise * values
    assert mixed.prefill_flops - plain.prefill_flops == 100 * elementwise * values
    assert mixed.train_flops - plain.train_flops == 300 * elementwise * values
    assert (mixed.state_bytes, mixed.decode_read_bytes) == (plain.state_bytes, plain.decode_read_bytes)


def test_costs_are_kept_by_the_layers_before(installed: Registry) -> None:
    model = CostModel(installed)
    first, second = (model.cost(arch(pattern, installed), 64).layers[1] for pattern in ("full full", "kda full"))
    assert (first.params - second.params, first.decode_flops == second.decode_flops) == (2, False)


def test_without_one_nothing_that_is_stored_changes(installed: Registry) -> None:
    plain, off = (ModelSpec.read(values) for values in (SIZES, {**SIZES, "value_residual": "none"}))
    assert plain.model_dump(mode="json") == off.model_dump(mode="json")
    assert (
        "value_residual"
        not in plain.model_dump() | plain.trained() | arch("full", installed, "none").to_json()["model"]
    )
    assert arch("full full", installed, "none").digest == "efceda08636b9b35"
    assert arch("full full", installed).digest != arch("full full", installed, "identity").digest


def test_an_architecture_with_one_reads_back(installed: Registry) -> None:
    found = arch("full full", installed)
    back = ArchSpec.from_json(found.to_json(), installed)
    assert (back, back.digest, back.model.value_residual) == (found, found.digest, "learned")


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match=r"model\.value_residual = 'half': .*'none', 'identity' or 'learned'"):
        ModelSpec.read({**SIZES, "value_residual": "half"})


class _Valued(ToyPlugin):
    """A toy mixer that says of its values what the test wants."""

    name: ClassVar[str] = "valued"
    said: Any = None

    def values(self, options: Any, shape: Any) -> Any:
        return self.said


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ((0, 8), "its heads = 0: must be a whole number of at least 1"),
        ((2, 8.5), "their width = 8.5: must be a whole number of at least 1"),
        ((2,), r"gave \(2,\): must be None, or the number of heads and their width"),
        (8, "gave 8: must be None, or the number of heads and their width"),
    ],
)
def test_what_a_plugin_says_of_its_values_is_checked(said: Any, wrong: str) -> None:
    plugin = _Valued()
    plugin.said = said
    figures = Figures(plugin, plugin.parse_options({}), ModelSpec().shape, LayerInfo())
    with pytest.raises(PluginError, match=rf'mixer "valued", layer 0: values\(\) .*{wrong}'):
        figures.values()
