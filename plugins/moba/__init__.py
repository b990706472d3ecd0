"""Mixture of block attention: every token sees its own block and the few past blocks that fit its query best."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from archsearch import hookimpl
from archsearch.attention_cost import heads_refusal, projection_params
from archsearch.hookspecs import RegisterKernels, RegisterOps
from archsearch.mixer import Flops, LayerInfo, MixerPlugin, ModelShape, Phase, StateTensor, Traffic

from .cost import moba_flops, moba_state, moba_traffic
from .options import MobaOptions
from .systems import SYSTEMS

if TYPE_CHECKING:
    from archsearch.bench.op import BenchOp
    from archsearch.kernels import Build
    from archsearch.proving import Check

    from .layer import MobaAttention


class MobaPlugin(MixerPlugin[MobaOptions]):
    """MoBA (arXiv 2502.13189): each query head attends to its own block and its best past blocks, found by mean key."""

    name = "moba"
    api_version = 2
    family = "sparse"
    summary = "softmax attention over the own block and the best past blocks (MoBA)"
    options = MobaOptions
    systems = SYSTEMS
    conformance: ClassVar[Mapping[str, Any]] = {
        "cases": {
            "block-8-top-3": {"block_size": 8, "top_k": 3},
            "block-16-top-2": {"block_size": 16, "top_k": 2, "rope": 0.25},
            "own-block-alone": {"block_size": 8, "top_k": 1},
            "block-1": {"block_size": 1, "top_k": 5},
        }
    }

    def check(self, options: MobaOptions, shape: ModelShape, layer: LayerInfo) -> str | None:
        return heads_refusal(shape, rope=options.rope)

    def params(self, options: MobaOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return projection_params(shape)

    def flops(self, options: MobaOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        return moba_flops(
            shape, phase=phase, context=context, block_size=options.block_size, top_k=options.top_k, rope=options.rope
        )

    def traffic(self, options: MobaOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return moba_traffic(shape, context=context, block_size=options.block_size, top_k=options.top_k)

    def state(self, options: MobaOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return moba_state(shape, block_size=options.block_size, top_k=options.top_k)

    def values(self, options: MobaOptions, shape: ModelShape) -> tuple[int, int]:
        return shape.n_kv_heads, shape.head_dim

    def build(self, options: MobaOptions, shape: ModelShape, layer: LayerInfo) -> MobaAttention:
        from .layer import MobaAttention

        return MobaAttention(self, options, shape, layer)

    def dense_up_to(self, options: MobaOptions, layer: LayerInfo) -> int:
        return options.top_k * options.block_size


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "moba"."""
    register(MobaPlugin())


@hookimpl
def register_ops(register: RegisterOps) -> None:
    """The ops that are measured."""

    def ops() -> Iterable[BenchOp]:
        from .bench import bench_ops

        return bench_ops()

    register("moba", ops)


@hookimpl
def register_kernels(register: RegisterKernels) -> None:
    """The kernels that are compiled ahead of time, and what proves them."""

    def kernels(arch: str) -> Iterable[Build]:
        from .triton.builds import builds

        return builds(arch)

    def checks() -> Iterable[Check]:
        from .triton.checks import checks

        return checks()

    register("moba", kernels, checks=checks)
