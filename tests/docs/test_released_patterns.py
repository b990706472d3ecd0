"""Every pattern of docs/released.md is read, is what its row says, is costed and built."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.costs import CostModel
from archsearch.model import HybridLM
from archsearch.notation import parse_layers
from archsearch.registry import load_registry

PAGE = (Path(__file__).parents[2] / "docs" / "released.md").read_text()
REGISTRY = load_registry()
COSTS = CostModel(REGISTRY)
TINY = ModelSpec(d_model=16, n_heads=2, n_kv_heads=1, head_dim=8, channel_mixer="swiglu", ffn_dim=16, vocab_size=11)
ROWS = {
    model: (pattern, int(layers), known, source)
    for model, pattern, layers, known, source in re.findall(
        r"^\| ([^|]+) \| `([^`]+)` \| (\d+) \| (\w+) \| ([^|]+) \|$", PAGE, re.MULTILINE
    )
}
RATIOS = {
    "Jamba v0.1": {"ssm": 28, "full": 4},
    "Nemotron-H 4B": {"linear": 24, "full": 4},
    "MiniMax-Text-01": {"linear": 70, "full": 10},
    "Qwen3-Next": {"linear": 36, "full": 12},
    "Trinity Mini": {"sliding": 24, "full": 8},
    "LFM2 350M to 1.2B": {"conv": 10, "full": 6},
    "Samba": {"ssm": 2, "sliding": 2},
    "Falcon-H1 0.5B": {"parallel": 36},
    "Granite-4.0-H": {"linear": 36, "full": 4},
    "Olmo Hybrid": {"linear": 24, "full": 8},
    "Kimi Linear 48B": {"linear": 20, "latent": 7},
    "Lara-4-Mini": {"linear": 14, "sliding": 13, "full": 7},
    "Qwen4-Exp": {"linear": 30, "indexed": 10},
    "GLM-5.3-Flash": {"linear": 34, "indexed": 11},
    "Ling-3.0-Flash": {"linear": 35, "latent": 7},
    "Mistral-Large-4": {"indexed": 72},
    "DeepSeek-V4": {"compressed": 43},
}
"""Layers of each mixer, as their makers tell."""


def test_every_row_of_the_page_is_read() -> None:
    assert set(ROWS) == set(RATIOS)
    assert PAGE.count("\n| ") == len(ROWS) + 1, "a row that this test cannot read"
    assert {known for _, _, known, _ in ROWS.values()} == {"whole", "unit"}


@pytest.mark.parametrize("model", ROWS)
def test_a_released_pattern_is_costed_and_built(model: str) -> None:
    pattern, layers, _, _ = ROWS[model]
    arch = ArchSpec(model=TINY, layers=parse_layers(pattern, REGISTRY))
    assert Counter(layer.mixer for layer in arch.layers) == RATIOS[model]
    assert len(arch.layers) == layers
    built = HybridLM(arch, REGISTRY, vocab_size=11)
    costed = COSTS.cost(arch, 4096)
    assert sum(weights.numel() for weights in built.parameters()) == costed.params
    assert costed.state_bytes > 0


def test_nemotron_h_is_its_published_string() -> None:
    """M is Mamba-2, * attention, - an MLP, which stands behind the mixer before it."""
    published = "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"
    layers = parse_layers(ROWS["Nemotron-H 4B"][0], REGISTRY)
    told = "".join(("*" if one.mixer == "full" else "M") + ("" if one.ffn_dim == 0 else "-") for one in layers)
    assert told == published
    assert len(published) == 52
