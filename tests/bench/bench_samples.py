"""Small ops, a scripted clock and a bench, for the tests of measuring."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from archsearch.bench.kernels import Bench
from archsearch.bench.op import FULL, QUICK, TINY, BenchOp, Draw, Inputs, Outputs, Peer
from archsearch.bench.results.schema import Rates
from archsearch.bench.results.work import Shape, Work

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

SHAPE = Shape(batch=1, tokens=6, heads=4, kv_heads=2, head_dim=8)
CPU = torch.device("cpu")
RATES = Rates(copy_bytes_per_second=1e9, matmul_flops_per_second=1e12)


def benchmark(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A file of benchmarks/ as a module, with those beside it in reach, as when it is run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(f"{name}_driver", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


class ScriptedClock:
    """Calls the function, and says that it took the next of these seconds, the last one for ever."""

    timed = "wall clock"

    def __init__(self, *seconds: float) -> None:
        self.seconds, self.calls = list(seconds), 0

    def __call__(self, function: Callable[[], object]) -> float:
        function()
        self.calls += 1
        return self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]


def scaled(inputs: Inputs, factor: float = 2.0) -> Outputs:
    """Values of each key head, spread over its query heads, times queries."""
    spread = inputs["v"].repeat_interleave(inputs["q"].shape[2] // inputs["v"].shape[2], 2)
    return (factor * inputs["q"] * spread,)


def sample_inputs(shape: Shape, draw: Draw) -> dict[str, Tensor]:
    lead = (shape.batch, shape.tokens)
    return {
        "q": draw.normal(*lead, shape.heads, shape.head_dim),
        "v": draw.normal(*lead, shape.kv_heads, shape.head_dim),
    }


def sample_op(
    run: Callable[[Inputs], Outputs] = scaled,
    *,
    agreeing: float = 1.0,
    peers: Sequence[Peer] = (),
    shapes: Sequence[Shape] = (SHAPE,),
    name: str = "sample",
) -> BenchOp:
    """An op whose reference doubles."""
    return BenchOp(
        name=name,
        grids={TINY: shapes, QUICK: shapes, FULL: shapes},
        inputs=sample_inputs,
        run=lambda inputs, impl: run(inputs),
        reference=scaled,
        trained=("q", "v"),
        head_axes={"q": 2, "v": 2},
        work=lambda shape, element_bytes: Work(flops=1e9, read_bytes=3e6, written_bytes=1e6),
        agreeing=agreeing,
        peers=peers,
    )


def sample_bench(clock: ScriptedClock | None = None, **changes: object) -> Bench:
    """A bench on the CPU with a scripted clock."""
    made = {"device": CPU, "clock": clock or ScriptedClock(0.008), "ceilings": RATES, "row_seconds": 0.1, **changes}
    return Bench(**made)  # type: ignore[arg-type]
