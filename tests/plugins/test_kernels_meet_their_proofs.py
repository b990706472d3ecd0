"""What models launch is what proofs launch: each kernel with operands, parameters and caches in the same dtypes.

A kernel that reads bfloat16 beside float32 is another program than one that reads bfloat16 alone, and only what was run
in a proof is known to be right. What a first use tries counts, in the smallest row of each table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any, TypeAlias

import pytest
import torch
from kernel_variants import Variant, variants
from torch import Tensor, nn

import archsearch.proving.judging as judging
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context
from archsearch.proving import Attempt
from archsearch.proving.rows import all_checks
from archsearch.registry import Registry

CPU = torch.device("cpu")
Reads: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]
"""A kernel, and the types of the floating numbers that its arguments point to, by their names."""


def reads(found: Iterable[Variant]) -> set[Reads]:
    kinds = ("*bf16", "*fp16", "*fp32", "*fp64")
    return {(one.kernel, tuple((name, kind) for name, kind, _ in one.arguments if kind in kinds)) for one in found}


@pytest.fixture
def zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are listed, and not run: a list of blocks that nobody wrote is no index."""
    monkeypatch.setattr(torch, "empty", torch.zeros)
    monkeypatch.setattr(torch, "empty_like", torch.zeros_like)
    monkeypatch.setattr(Tensor, "new_empty", Tensor.new_zeros)


@pytest.fixture
def unjudged(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference is taken for what the kernels gave."""
    run, kept = judging._run, dict[str, Any]()

    def run_kernels(op: Any, inputs: dict[str, Tensor], *rest: Any) -> Any:
        if not any(x.dtype == torch.float64 for x in inputs.values()):
            kept["found"] = run(op, inputs, *rest)
        return kept["found"]

    monkeypatch.setattr(judging, "_run", run_kernels)


def proven(registry: Registry, dtype: torch.dtype) -> set[Reads]:
    """What a first use in a dtype launches."""
    found = list[Variant]()
    for checks in all_checks(registry).values():
        attempt = Attempt(key=next(iter(checks[0].table.rows)), device=CPU, dtype=dtype)
        for check in checks:
            for case in check.samples:
                with variants() as listed:
                    check.try_case(attempt, case)
                found += listed
    return reads(found)


def with_kernels(registry: Registry) -> Iterator[str]:
    """Mixers and presets that have kernels."""
    for mixer in registry.mixers():
        if registry.measured(mixer.name).has_kernels:
            yield from (mixer.name, *registry.presets_of(mixer.name))


def met(name: str, registry: Registry, dtype: torch.dtype, *, autocast: bool) -> set[Reads]:
    """What a layer launches that is trained, prefilled and decoded with: under autocast, with parameters in float32 and
    caches in that and in `dtype`; or in `dtype` altogether."""
    shape = ModelShape(d_model=64, n_heads=4, n_kv_heads=4, head_dim=16, dtype="float32")
    resolved = registry.resolve(name)
    options = resolved.plugin.parse_options(resolved.preset, registry)
    layer: nn.Module = resolved.plugin.build(options, shape, LayerInfo(index=1, depth=4))
    x = torch.randn(2, 48, shape.d_model)
    if not autocast:
        layer, x = layer.to(dtype), x.to(dtype)
    context = torch.autocast("cpu", dtype=dtype) if autocast else nullcontext()
    with variants() as found, context:
        layer(x.clone().requires_grad_(), ctx=Context())[0].sum().backward()
        with torch.no_grad():
            for held in dict.fromkeys((x.dtype, dtype)):
                state = layer.init_state(2, 60, dtype=held)  # type: ignore[operator]
                _, state = layer(x, state=state, ctx=Context(want_state=True))
                layer.step(x[:, 0], state=state, ctx=Context(want_state=True))  # type: ignore[operator]
    return reads(found)


@pytest.mark.usefixtures("zeros", "unjudged")
@pytest.mark.parametrize(
    ("dtype", "autocast"),
    [
        (torch.bfloat16, True),
        (torch.bfloat16, False),
        pytest.param(torch.float16, True, marks=pytest.mark.slow),
        pytest.param(torch.float32, False, marks=pytest.mark.slow),
    ],
    ids=["bfloat16-autocast", "bfloat16", "float16-autocast", "float32"],
)
def test_layers_launch_nothing_that_no_proof_launches(
    dtype: torch.dtype, autocast: bool, installed: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = proven(installed, dtype) | proven(installed, torch.float32)  # a row in each dtype that is met
    monkeypatch.setenv("ARCHSEARCH_IMPL", "triton")
    names = list(with_kernels(installed))
    assert {"kda", "moba", "nsa", "latent", "indexed", "mlstm", "mom"} < set(names)
    launched = {name: met(name, installed, dtype, autocast=autocast) for name in names}
    assert {name: found - known for name, found in launched.items() if found - known} == {}
    assert set().union(*launched.values()) & (known - proven(installed, torch.float32)) or dtype == torch.float32
