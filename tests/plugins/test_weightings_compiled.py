"""Blocks of full attention's weightings, of the sink logit and of 2-simplicial attention compile to one graph."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.model import Context
from archsearch.model.lm import HybridLM
from archsearch.registry import load_registry

pytestmark = [
    pytest.mark.arena,
    pytest.mark.filterwarnings("ignore:.*autograd.function.Function.*should not be instantiated:DeprecationWarning"),
]
"""The warning is the compiler's own, of every function with a backward of its own."""

PACKED = ["forgetting", "sigmoid", "stick-breaking", "path", "path-fox", "deltaformer", "simplicial"]
WHOLE = [*PACKED, "qwen3-next-full", "sliding-sink", "longformer", "bigbird"]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Nothing compiled is left over from another test."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("preset", "bounds"),
    [*((preset, None) for preset in WHOLE), *((preset, [0, 3, 3, 20]) for preset in PACKED)],
    ids=[*(f"{preset}-whole" for preset in WHOLE), *(f"{preset}-packed" for preset in PACKED)],
)
def test_training_is_one_graph(preset: str, bounds: list[int] | None) -> None:
    torch.manual_seed(0)
    registry = load_registry()
    spec = ModelSpec(d_model=32, n_heads=2, vocab_size=8, short_conv=4)
    block = HybridLM(ArchSpec.parse(preset, registry, spec), registry).blocks[0]
    x = torch.randn(1, 20, 32).requires_grad_()

    def trained(run: object) -> tuple[Tensor, ...]:
        y, _ = run(x, ctx=Context(cu_seqlens=None if bounds is None else torch.tensor(bounds)))  # type: ignore[operator]
        return y, *torch.autograd.grad(y.square().sum(), [x, *block.parameters()])

    counter = CompileCounterWithBackend("aot_eager")
    found = trained(torch.compile(block, fullgraph=True, backend=counter))
    assert counter.frame_count == 1
    for one, other in zip(found, trained(block), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
