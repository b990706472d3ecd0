"""Sliding-window attention: every token sees the last few, and the first few."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from archsearch import hookimpl
from archsearch.attention_cost import heads_refusal, kv_cache, kv_heads_of, kv_traffic
from archsearch.hookspecs import RegisterKernels, RegisterOps
from archsearch.mixer import Flops, LayerInfo, MixerPlugin, ModelShape, Phase, StateTensor, Traffic

from .cost import attention_flops, attention_params
from .options import SlidingOptions
from .systems import SYSTEMS

if TYPE_CHECKING:
    from archsearch.bench.op import BenchOp
    from archsearch.kernels import Build
    from archsearch.proving import Check

    from .layer import SlidingAttention


class SlidingPlugin(MixerPlugin[SlidingOptions]):
    """Softmax attention over a window of the last tokens and the sinks at the start."""

    name = "sliding"
    api_version = 2
    family = "sliding"
    summary = "softmax attention over the last tokens of a window, and the first of the sequence"
    options = SlidingOptions
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"sliding-sink": {"sink_logit": True}}
    systems = SYSTEMS
    conformance: ClassVar[Mapping[str, Any]] = {
        "cases": {
            "window-8": {"window": 8},
            "window-1": {"window": 1},
            "sinks-3": {"window": 8, "sinks": 3},
            "more-sinks-than-window": {"window": 3, "sinks": 10},
            "sink-logit-8": {"window": 8, "sinks": 1, "sink_logit": True, "output_gate": True},
            "window-70": {"window": 70, "sinks": 2, "rope": 0.0, "qk_norm": True},
        }
    }

    def check(self, options: SlidingOptions, shape: ModelShape, layer: LayerInfo) -> str | None:
        return heads_refusal(shape, rope=options.rope, n_kv_heads=options.n_kv_heads)

    def params(self, options: SlidingOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return attention_params(options, shape)

    def flops(
        self, options: SlidingOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int
    ) -> Flops:
        return attention_flops(options, shape, phase=phase, context=context)

    def traffic(self, options: SlidingOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return kv_traffic(min(context, options.window + options.sinks), shape, n_kv_heads=options.n_kv_heads)

    def state(self, options: SlidingOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return kv_cache(shape, n_kv_heads=options.n_kv_heads, cap=options.window + options.sinks)

    def values(self, options: SlidingOptions, shape: ModelShape) -> tuple[int, int]:
        return kv_heads_of(options.n_kv_heads, shape), shape.head_dim

    def hands_out(self, options: SlidingOptions, shape: ModelShape) -> int:
        return shape.n_heads * shape.head_dim

    def build(self, options: SlidingOptions, shape: ModelShape, layer: LayerInfo) -> SlidingAttention:
        from .layer import SlidingAttention

        return SlidingAttention(self, options, shape, layer)

    def dense_up_to(self, options: SlidingOptions, layer: LayerInfo) -> int:
        return options.window + options.sinks


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "sliding"."""
    register(SlidingPlugin())


@hookimpl
def register_ops(register: RegisterOps) -> None:
    """The ops that are measured."""

    def ops() -> Iterable[BenchOp]:
        from .bench import bench_ops

        return bench_ops()

    register("sliding", ops, names=("window",))


@hookimpl
def register_kernels(register: RegisterKernels) -> None:
    """The kernels that are compiled ahead of time, and what proves them."""

    def kernels(arch: str) -> Iterable[Build]:
        from .triton.builds import builds

        return builds(arch)

    def checks() -> Iterable[Check]:
        from .triton.checks import checks

        return checks()

    register("sliding", kernels, checks=checks)
