"""Full attention: every token sees all before it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from archsearch import hookimpl
from archsearch.attention_cost import heads_refusal, kv_heads_of
from archsearch.hookspecs import RegisterKernels, RegisterOps
from archsearch.mixer import Flops, LayerInfo, MixerPlugin, ModelShape, Phase, StateTensor, Traffic

from .cost import attention_flops, attention_params, attention_state, attention_traffic
from .options import FullOptions
from .systems import SYSTEMS

if TYPE_CHECKING:
    from archsearch.bench.op import BenchOp
    from archsearch.kernels import Build
    from archsearch.model.attention import AttentionMixer
    from archsearch.proving import Check


class FullPlugin(MixerPlugin[FullOptions]):
    """Softmax attention over all tokens so far: the reference that every other mixer is measured against."""

    name = "full"
    api_version = 2
    family = "full"
    summary = "softmax attention over all tokens so far"
    options = FullOptions
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "qwen3-next-full": {"rope": 0.25, "qk_norm": True, "output_gate": True},
        "forgetting": {"weighting": "forgetting"},
        "sigmoid": {"weighting": "sigmoid"},
        "stick-breaking": {"weighting": "stick-breaking"},
        "path": {"weighting": "path"},
        "path-fox": {"weighting": "path-forgetting"},
        "deltaformer": {"weighting": "delta"},
    }
    systems = SYSTEMS
    conformance: ClassVar[Mapping[str, Any]] = {
        "cases": {
            "nope": {"rope": 0.0},
            "partial-rope": {"rope": 0.25},
            "normed": {"qk_norm": True},
            "one-key-head": {"n_kv_heads": 1},
            "sigmoid-fixed": {"weighting": "sigmoid", "sigmoid_length": 64, "rope": 1.0},
            "path-plain": {"weighting": "path", "reflection_rank": 0, "reflection_conv": 1, "qk_norm": True},
        }
    }

    def check(self, options: FullOptions, shape: ModelShape, layer: LayerInfo) -> str | None:
        return heads_refusal(shape, rope=options.rope, n_kv_heads=options.n_kv_heads)

    def params(self, options: FullOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return attention_params(options, shape)

    def flops(self, options: FullOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        return attention_flops(options, shape, phase=phase, context=context)

    def traffic(self, options: FullOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return attention_traffic(options, shape, context=context)

    def state(self, options: FullOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return attention_state(options, shape)

    def values(self, options: FullOptions, shape: ModelShape) -> tuple[int, int]:
        return kv_heads_of(options.n_kv_heads, shape), shape.head_dim

    def hands_out(self, options: FullOptions, shape: ModelShape) -> int:
        return shape.n_heads * shape.head_dim

    def build(self, options: FullOptions, shape: ModelShape, layer: LayerInfo) -> AttentionMixer:
        from .layer import layer_of

        return layer_of(options)(self, options, shape, layer)


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "full"."""
    register(FullPlugin())


@hookimpl
def register_ops(register: RegisterOps) -> None:
    """The ops that are measured."""

    def ops() -> Iterable[BenchOp]:
        from .bench import bench_ops

        return bench_ops()

    register("full", ops, names=("packed",))


@hookimpl
def register_kernels(register: RegisterKernels) -> None:
    """The kernels that are compiled ahead of time, and what proves them."""

    def kernels(arch: str) -> Iterable[Build]:
        from .triton.builds import builds

        return builds(arch)

    def checks() -> Iterable[Check]:
        from .triton.checks import checks

        return checks()

    register("full", kernels, checks=checks)
