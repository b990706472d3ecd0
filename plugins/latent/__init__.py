"""Multi-head latent attention: every token sees all before it, through one small latent a token."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from archsearch import hookimpl
from archsearch.attention_cost import rotation_refusal
from archsearch.hookspecs import RegisterKernels, RegisterOps
from archsearch.mixer import Flops, LayerInfo, MixerPlugin, ModelShape, Phase, StateTensor, Traffic

from .cost import latent_flops, latent_params, latent_state, latent_traffic
from .options import LatentOptions
from .systems import SYSTEMS

if TYPE_CHECKING:
    from archsearch.bench.op import BenchOp
    from archsearch.kernels import Build
    from archsearch.proving import Check

    from .layer import LatentAttention


class LatentPlugin(MixerPlugin[LatentOptions]):
    """MLA (DeepSeek-V2, arXiv 2405.04434, section 2.1): keys and values of all heads from one cached latent."""

    name = "latent"
    api_version = 2
    family = "full"
    summary = "softmax attention over all tokens so far, keys and values made from one latent a token (MLA)"
    options = LatentOptions
    systems = SYSTEMS
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mla": {"shared_dim": 16, "rope": 1.0},
        "mla-nope": {"shared_dim": 16, "rope": 0.0},
    }
    conformance: ClassVar[Mapping[str, Any]] = {
        "cases": {
            "rank-6": {"kv_rank": 6, "shared_dim": 4, "rope": 1.0},
            "low-rank-queries": {"kv_rank": 24, "shared_dim": 6, "rope": 0.7, "q_rank": 12},
        }
    }

    def check(self, options: LatentOptions, shape: ModelShape, layer: LayerInfo) -> str | None:
        return rotation_refusal(options.rope, "shared_dim", options.shared_dim)

    def params(self, options: LatentOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return latent_params(options, shape)

    def flops(
        self, options: LatentOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int
    ) -> Flops:
        return latent_flops(options, shape, phase=phase, context=context)

    def traffic(self, options: LatentOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return latent_traffic(options, shape, context=context)

    def state(self, options: LatentOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return latent_state(options, shape)

    def build(self, options: LatentOptions, shape: ModelShape, layer: LayerInfo) -> LatentAttention:
        from .layer import LatentAttention

        return LatentAttention(self, options, shape, layer)


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "latent"."""
    register(LatentPlugin())


@hookimpl
def register_ops(register: RegisterOps) -> None:
    """The op that is measured."""

    def ops() -> Iterable[BenchOp]:
        from .bench import bench_ops

        return bench_ops()

    register("latent", ops)


@hookimpl
def register_kernels(register: RegisterKernels) -> None:
    """The kernels that are compiled ahead of time, and what proves them."""

    def kernels(arch: str) -> Iterable[Build]:
        from .triton.builds import builds

        return builds(arch)

    def checks() -> Iterable[Check]:
        from .triton.checks import checks

        return checks()

    register("latent", kernels, checks=checks)
