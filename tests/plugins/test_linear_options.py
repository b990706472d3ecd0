"""Options and presets of the linear mixer."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from archsearch_plugins.linear import LinearPlugin

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.errors import OptionsError
from archsearch.layer import LayerSpec
from archsearch.registry import Registry

PLUGIN = LinearPlugin()
HEBBIAN = ["linear", "retnet", "lightning", "mamba2", "gla", "gated-retention", "hgrn2", "rwkv6", "mlstm", "performer"]
DELTA = ["kda-bounded", "olmo-hybrid", "gated-deltaproduct", "gated-deltanet-2", "comba", "rwkv7"]
PRESETS = [
    *HEBBIAN,
    "log-linear-mamba2",
    "deltanet",
    "gated-deltanet",
    "log-linear-gated-deltanet",
    "mom",
    "kda",
    *DELTA,
]


def test_presets_are_these() -> None:
    assert list(PLUGIN.presets) == PRESETS


def test_defaults_are_the_preset_linear() -> None:
    assert PLUGIN.parse_options({}) == PLUGIN.parse_options(PLUGIN.presets["linear"])


def test_every_update_and_decay_is_valid_with_the_rest_at_its_default() -> None:
    found = list(PLUGIN.choices({"key_dim": (8,), "value_dim": (0,)}))
    assert len({(options.update, options.decay) for options in found}) == len(found) == 8


@pytest.mark.parametrize("preset", PRESETS)
def test_written_out_options_have_the_digest_of_the_preset(preset: str, registry: Registry) -> None:
    model = ModelSpec()
    named = ArchSpec.parse(preset, registry, model)
    written = LayerSpec.make("linear", registry, **named.layers[0].options.model_dump(mode="json"))
    assert ArchSpec(model=model, layers=(written,)).digest == named.digest
    assert ArchSpec.parse(named.pattern(registry), registry, model) == named
    assert named.pattern(registry) == preset


@pytest.mark.parametrize(
    ("values", "form"),
    [
        ({}, "none"),
        ({"decay": "constant"}, "retnet"),
        ({"decay": "head"}, "mamba2"),
        ({"decay": "channel"}, "gla"),
        ({"decay": "channel", "update": "delta"}, "kda"),
        ({"decay": "channel", "update": "delta", "decay_form": "gla"}, "gla"),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value.values()) or "default",
)
def test_form_of_the_decay_follows_from_the_decay(values: dict[str, Any], form: str) -> None:
    assert PLUGIN.parse_options(values).decay_form == form


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"update": "delta", "norm": "none"}, "set norm = l2"),
        (
            {"decay": "head", "decay_form": "kda"},
            "decay_form = kda is no form of decay = head: choose gated-retention, mamba2",
        ),
        ({"decay": "constant", "write": "dt"}, "write = dt needs decay_form = mamba2"),
        ({"output_gate": "none", "low_rank_gate": True}, "low_rank_gate = true needs an output_gate"),
        ({"output_gate": "none", "output_norm": "gated"}, "output_norm = gated needs an output_gate"),
        ({"conv": 0, "conv_bias": True}, "conv_bias = true needs a convolution"),
        ({"decay": "constant", "draws": "plain"}, 'says nothing of decay_form="retnet": use decay_form=bounded, '),
        ({"level_weights": "factor"}, 'level_weights="factor" says nothing of levels=0: use levels above 0'),
        ({"beta_range": 2}, "beta_range = 2 with update = hebbian, which removes nothing: set update = delta"),
        ({"steps": 2}, "steps = 2 with update = hebbian"),
        ({"removal": "rate"}, "removal = rate with update = hebbian"),
        (
            {"update": "delta", "removal": "feedback", "beta_range": 2},
            "beta_range = 2 with removal = feedback is not stable: choose removal = channel, key",
        ),
        (
            {"update": "delta", "removal": "channel", "steps": 2},
            "steps = 2 with removal = channel: .*set steps = 1",
        ),
        ({"update": "delta", "skip": True, "steps": 3}, "steps = 3 with skip = true: .*only skip = false is known"),
        ({"update": "delta", "steps": 9}, "steps=9"),
        ({"decay": "heads"}, r"decay='heads'.*'head'"),
        ({"key_dim": -1}, "key_dim=-1"),
        ({"decya": "head"}, 'did you mean "decay"'),
    ],
    ids=[
        "unnormalised-delta",
        "wrong-form",
        "write-without-step",
        "rank-without-gate",
        "norm-of-no-gate",
        "bias-of-no-convolution",
        "draws-of-nothing",
        "weights-of-no-levels",
        "hebbian-range",
        "hebbian-steps",
        "hebbian-removal",
        "range-of-feedback",
        "steps-of-channel",
        "steps-and-skip",
        "many-steps",
        "typo",
        "negative",
        "key",
    ],
)
def test_options_that_do_not_fit_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        PLUGIN.parse_options(values)


def test_the_plugin_imports_no_torch() -> None:
    code = "import sys, archsearch_plugins.linear; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
