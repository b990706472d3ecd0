"""Attention to the nearest keys along a Z-order curve: keys of few channels are sorted, and the neighbours of a query
are seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from archsearch import hookimpl
from archsearch.mixer import Flops, LayerInfo, MixerPlugin, ModelShape, Phase, StateTensor, Traffic

from .cost import dense_up_to, zorder_flops, zorder_params, zorder_state, zorder_traffic
from .options import ZOrderOptions
from .systems import SYSTEMS

if TYPE_CHECKING:
    from .layer import ZOrderAttention


class ZOrderPlugin(MixerPlugin[ZOrderOptions]):
    """ZETA (arXiv 2501.14577): top-k attention by a space-filling curve, with a Cauchy kernel for weights."""

    name = "zorder"
    api_version = 2
    family = "sparse"
    summary = "attention by distance to the keys that lie nearest along a Z-order curve (ZETA)"
    options = ZOrderOptions
    systems = SYSTEMS
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"zeta": {"top_k": 32, "chunk": 8, "own": False}}
    conformance: ClassVar[Mapping[str, Any]] = {
        "cases": {
            "few": {"top_k": 5, "chunk": 4, "key_dim": 2},
            "tokens": {"top_k": 6, "chunk": 1, "own": False, "key_dim": 1, "bits": 12},
        },
        "traffic_slack": 2.0,  # a key that is moved along the curve need not change what is seen
        "drops_beyond": False,  # the mean is of all
    }

    def params(self, options: ZOrderOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return zorder_params(options, shape)

    def flops(
        self, options: ZOrderOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int
    ) -> Flops:
        return zorder_flops(options, shape, phase=phase, context=context)

    def traffic(self, options: ZOrderOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return zorder_traffic(options, shape, context=context)

    def state(self, options: ZOrderOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return zorder_state(options, shape)

    def values(self, options: ZOrderOptions, shape: ModelShape) -> tuple[int, int]:
        return shape.n_kv_heads, shape.head_dim

    def build(self, options: ZOrderOptions, shape: ModelShape, layer: LayerInfo) -> ZOrderAttention:
        from .layer import ZOrderAttention

        return ZOrderAttention(self, options, shape, layer)

    def dense_up_to(self, options: ZOrderOptions, layer: LayerInfo) -> int:
        return dense_up_to(options)


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "zorder"."""
    register(ZOrderPlugin())
