"""Native sparse attention: every token sees the means of all blocks, the few blocks that fit it best, and a window."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from archsearch import hookimpl
from archsearch.attention_cost import heads_refusal
from archsearch.hookspecs import RegisterKernels, RegisterOps
from archsearch.mixer import Flops, LayerInfo, MixerPlugin, ModelShape, Phase, StateTensor, Traffic

from .cost import nsa_flops, nsa_params, nsa_state, nsa_traffic
from .options import NsaOptions
from .systems import SYSTEMS

if TYPE_CHECKING:
    from archsearch.bench.op import BenchOp
    from archsearch.kernels import Build
    from archsearch.proving import Check

    from .layer import NsaAttention


class NsaPlugin(MixerPlugin[NsaOptions]):
    """NSA (arXiv 2502.11089) on one set of keys and values: compression, selection and a window, gated and summed."""

    name = "nsa"
    api_version = 2
    family = "sparse"
    summary = "softmax attention over block means, the best blocks and a window, gated by the token (NSA)"
    options = NsaOptions
    systems = SYSTEMS
    conformance: ClassVar[Mapping[str, Any]] = {
        "cases": {
            "block-8-top-3": {"block_size": 8, "top_k": 3, "window": 12},
            "block-16-top-2": {"block_size": 16, "top_k": 2, "window": 5, "rope": 0.25},
            "branches-apart": {"block_size": 8, "top_k": 3, "window": 12, "branch_kv": True},
            "networks": {"block_size": 8, "top_k": 3, "window": 12, "compress": "mlp"},
            "overlapping": {"block_size": 8, "top_k": 4, "window": 5, "length": 4, "stride": 2, "local": 2},
            "published": {
                "block_size": 8,
                "top_k": 4,
                "window": 5,
                "branch_kv": True,
                "compress": "mlp",
                "length": 4,
                "stride": 2,
                "local": 2,
            },
            "own-block-alone": {"block_size": 8, "top_k": 1, "window": 8},
        },
        "traffic_slack": 0.05,  # a chosen block may overlap the window
        "drops_beyond": False,  # the means of the compression branch see every token
    }

    def check(self, options: NsaOptions, shape: ModelShape, layer: LayerInfo) -> str | None:
        return heads_refusal(shape, rope=options.rope)

    def params(self, options: NsaOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return nsa_params(options, shape)

    def flops(self, options: NsaOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        return nsa_flops(options, shape, phase=phase, context=context)

    def traffic(self, options: NsaOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return nsa_traffic(options, shape, context=context)

    def state(self, options: NsaOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return nsa_state(options, shape)

    def values(self, options: NsaOptions, shape: ModelShape) -> tuple[int, int]:
        return shape.n_kv_heads * (3 if options.branch_kv else 1), shape.head_dim

    def build(self, options: NsaOptions, shape: ModelShape, layer: LayerInfo) -> NsaAttention:
        if not options.plain:
            from .published_layer import PublishedNsa

            return PublishedNsa(self, options, shape, layer)
        from .layer import NsaAttention

        return NsaAttention(self, options, shape, layer)

    def dense_up_to(self, options: NsaOptions, layer: LayerInfo) -> int:
        # the output is never that of full attention, but up to here the selection sees every token
        return options.top_k * options.block_size


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "nsa"."""
    register(NsaPlugin())


@hookimpl
def register_ops(register: RegisterOps) -> None:
    """The ops that are measured."""

    def ops() -> Iterable[BenchOp]:
        from .bench import bench_ops

        return bench_ops()

    register("nsa", ops)


@hookimpl
def register_kernels(register: RegisterKernels) -> None:
    """The kernels that are compiled ahead of time, and what proves them."""

    def kernels(arch: str) -> Iterable[Build]:
        from .triton.builds import builds

        return builds(arch)

    def checks() -> Iterable[Check]:
        from .triton.checks import checks

        return checks()

    register("nsa", kernels, checks=checks)
