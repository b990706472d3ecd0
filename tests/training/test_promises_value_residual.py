"""The weights of a value residual are the backbone's: a layer that has them is held to its own parameters."""

from __future__ import annotations

import pytest

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.errors import PluginError
from archsearch.model import HybridLM
from archsearch.registry import Registry
from archsearch.training.promises import check_promises, own_parameters


def test_its_weights_are_no_parameters_of_a_mixer(installed: Registry) -> None:
    sizes = {"d_model": 16, "n_heads": 2, "vocab_size": 9, "channel_mixer": "none", "value_residual": "learned"}
    pattern = "full parallel(a=full, b=kda) kda"
    model = HybridLM(ArchSpec.parse(pattern, installed, ModelSpec.read(sizes)), installed)
    check_promises(model, 12, installed)
    mixers = [block.mixer for block in model.blocks]
    extra = [sum(1 for _ in mixer.parameters()) - sum(1 for _ in own_parameters(mixer)) for mixer in mixers]  # type: ignore[union-attr, operator, arg-type]
    assert extra == [0, 2, 1]
    model.blocks[0].mixer.out = None  # type: ignore[union-attr, assignment]
    with pytest.raises(PluginError, match=r"params\(\) gave"):
        check_promises(model, 12, installed)
