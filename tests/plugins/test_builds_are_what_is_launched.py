"""What is compiled ahead of time is what is launched: types, alignment and flags of every kernel, but for sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from kernel_calls import CONTINUED, SEQUENCES, STEPS, Sizes, run_sequence
from kernel_variants import Variant, variants

from archsearch.bench.builds import all_builds
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context
from archsearch.registry import Registry

LINEAR = ("linear", "removal")
"""How the names of calls of linear attention start."""

SIZES = {
    "HEADS",
    "GROUP",
    "KV_HEADS",
    "SLOTS",
    "SLOTS_UP",
    "SHARE",
    "EACH",
    "CHOOSERS",
    "LEADS",
    "LANES",
    "D",
    "DV",
    "WIDTH",
    "BLOCK_D",
    "BEST",
    "BEST_UP",
    "TOP",
    "K",
    "V",
    "BLOCK_K",
}
TILES = {"C", "BK", "BV", "LEVELS", "BLOCK_V", "M", "N", "PARTS"}
"""Of a row of the table."""

Code = tuple[str, frozenset[tuple[str, str]], frozenset[tuple[str, Any]]]


def code(kernel: str, types: Mapping[str, str], constants: Mapping[str, Any]) -> Code:
    flags = {name: value for name, value in constants.items() if name not in SIZES | TILES}
    return kernel, frozenset(types.items()), frozenset(flags.items())


def code_of(variant: Variant) -> Code:
    types = {name: kind for name, kind, _ in variant.arguments if kind != "constexpr"}
    return code(variant.kernel, types, {name: value for name, kind, value in variant.arguments if kind == "constexpr"})


def launched(ops: Iterable[str], sizes: Sizes) -> set[Variant]:
    with variants() as found:
        for op in ops:
            heads = sizes.heads if op.startswith(LINEAR) else 1
            run_sequence(op, replace(sizes, kv_heads=heads))
    return set(found)


@pytest.fixture(scope="module")
def built(installed: Registry) -> set[Code]:
    return {code(build.fn.__name__, build.signature, build.constexprs) for build in all_builds(installed, "sm_90")}


def missing(found: set[Variant], built: set[Code]) -> list[Variant]:
    unaligned = [v for v in found if any(kind[0] == "*" and known != "D" for _, kind, known in v.arguments)]
    return unaligned + [variant for variant in found if code_of(variant) not in built]


@pytest.mark.parametrize("packed", [False, True], ids=["apart", "packed"])
@pytest.mark.parametrize("tokens", [1, 16384], ids="T{}".format)
def test_sequences(tokens: int, packed: bool, built: set[Code]) -> None:
    """Linear attention packed, in segments or with grouped heads is built for some rules and decays alone."""
    plain = tokens == 1 and not packed
    ops = [op for op in SEQUENCES if plain or not op.startswith(LINEAR)]
    sizes = Sizes(tokens=tokens, packed=packed, dtype=torch.bfloat16)
    assert not missing(launched(ops, sizes), built)


@pytest.mark.parametrize("tokens", [16, 16384], ids="T{}".format)
def test_after_cached_tokens(tokens: int, built: set[Code]) -> None:
    assert not missing(launched(CONTINUED, Sizes(tokens=tokens, continued=True, dtype=torch.bfloat16)), built)


@pytest.mark.parametrize("tokens", [16, 16384], ids="S{}".format)
def test_steps(tokens: int, built: set[Code]) -> None:
    with variants() as found, torch.no_grad():
        for op in STEPS:
            STEPS[op](Sizes(tokens=tokens, batch=2, kv_heads=1, dtype=torch.bfloat16))
    assert found
    assert not missing(set(found), built)


@pytest.mark.parametrize("tokens", [1, 16384], ids="T{}".format)
def test_what_multiplies_in_float32(tokens: int, built: set[Code]) -> None:
    """But for the fused pass, which no row of a head dim above 16 has in float32."""
    ops = [op for op in SEQUENCES if tokens == 1 or not op.startswith(LINEAR)]
    found = launched(ops, Sizes(tokens=tokens, dtype=torch.float32))
    if tokens > 1:
        found |= launched(CONTINUED, Sizes(tokens=tokens, continued=True, dtype=torch.float32))
        found |= launched(ops, Sizes(tokens=tokens, packed=True, dtype=torch.float32))
    wide = apart(found)
    assert wide
    assert not missing(wide, built)


def apart(found: set[Variant]) -> set[Variant]:
    """What multiplies in float32, without the fused pass."""
    return {v for v in found if multiplies_float32(v) and v.kernel not in ("fused", "head_scores")}


QUICKSTART = ("full", "sliding", "linear", "moba", "nsa", "kda", "gated-deltanet", "mamba2")


def with_kernels(registry: Registry) -> list[str]:
    """Mixers and presets that have kernels."""
    owners = [mixer.name for mixer in registry.mixers() if registry.measured(mixer.name).has_kernels]
    return sorted({name for owner in owners for name in (owner, *registry.presets_of(owner))})


def trained(name: str, registry: Registry, heads: int, *, autocast: bool = True) -> set[Variant]:
    """What a training step of one layer launches, under bfloat16 autocast or in float32; rows of gates of 4 heads are
    odd."""
    shape = ModelShape(d_model=16 * heads, n_heads=heads, n_kv_heads=heads, head_dim=16, dtype="float32")
    resolved = registry.resolve(name)
    options = resolved.plugin.parse_options(resolved.preset, registry)
    layer = resolved.plugin.build(options, shape, LayerInfo(index=1, depth=4))
    x = torch.randn(2, 48, shape.d_model, requires_grad=True)
    with variants() as found, torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        layer(x, ctx=Context())[0].sum().backward()
    return set(found)


def multiplies_float32(variant: Variant) -> bool:
    """Whether its products are made in full precision, by no matrix instruction."""
    return ("PRECISION", "constexpr", "ieee") in variant.arguments


def absent(found: set[Variant], built: set[Code]) -> list[Variant]:
    """What is not compiled ahead."""
    return [v for v in found if code_of(v) not in built]


@pytest.fixture
def by_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARCHSEARCH_IMPL", "triton")


@pytest.mark.usefixtures("by_kernels")
@pytest.mark.parametrize("heads", [8, 4])
def test_training_steps_of_the_quickstart_s_mixers(heads: int, built: set[Code], installed: Registry) -> None:
    for name in QUICKSTART:
        found = trained(name, installed, heads)
        assert found, name
        assert absent(found, built) == [], name


@pytest.mark.usefixtures("by_kernels")
@pytest.mark.parametrize("name", ["mlstm", "performer"])
def test_training_steps_in_float32(name: str, built: set[Code], installed: Registry) -> None:
    found = trained(name, installed, 8)
    assert any(map(multiplies_float32, found))
    assert absent(found, built) == []


@pytest.mark.usefixtures("by_kernels")
@pytest.mark.parametrize("name", ["linear", "kda", "gated-deltanet", "deltanet", "comba", "gated-deltanet-2", "rwkv7"])
def test_training_steps_without_autocast(name: str, built: set[Code], installed: Registry) -> None:
    found = apart(trained(name, installed, 8, autocast=False))
    assert {"d_states", "d_inputs"} <= {variant.kernel for variant in found}
    assert absent(found, built) == []


@pytest.mark.slow
@pytest.mark.usefixtures("by_kernels")
@pytest.mark.parametrize("heads", [8, 4])
def test_training_steps_of_every_preset_that_has_kernels(heads: int, built: set[Code], installed: Registry) -> None:
    names, wide = with_kernels(installed), set()
    assert {*QUICKSTART} < {*names}
    for name in names:
        found = trained(name, installed, heads)
        assert absent(found, built) == [], name
        wide |= {name} if any(map(multiplies_float32, found)) else set()
    assert wide == {"mlstm", "performer"}
