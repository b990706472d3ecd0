"""The plugin of layers that take what an earlier layer under an index chose, or keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from archsearch.mixer import Flops, LayerInfo, MixerPlugin, ModelShape, Phase, StateTensor, Traffic

from .cost import dense_up_to
from .options import IndexedOptions
from .shared_cost import shared_flops, shared_params, shared_state, shared_traffic
from .sharing import TAKER, SharedIndexOptions, base_of, misplaced
from .systems import TAKER_SYSTEMS

if TYPE_CHECKING:
    from .layer import Indexed


class SharedIndexPlugin(MixerPlugin[SharedIndexOptions]):
    """IndexCache, as GLM-5.2 has it, and the sharing of DeepSeek-V4.1: a choice, or latents, count once for several
    layers."""

    name = TAKER
    api_version = 2
    family = "sparse"
    summary = "attention over what an earlier layer's index chose, and perhaps its latents (IndexCache, GLM-5.2)"
    options = SharedIndexOptions
    systems = TAKER_SYSTEMS
    reads_pattern = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "indexshare": {},
        "indexshare-latents": {"latents": "shared"},
        "reindex": {"choice": "own", "latents": "shared"},
    }
    conformance: ClassVar[Mapping[str, Any]] = {
        "pattern": f"dsa-mla(top_k=8, kv_rank=12, shared_dim=4, index_heads=2, index_dim=6) {TAKER} {TAKER}",
    }

    def check(self, options: SharedIndexOptions, shape: ModelShape, layer: LayerInfo) -> str | None:
        return misplaced(options, layer)

    def params(self, options: SharedIndexOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return shared_params(options, _base(layer), shape)

    def flops(
        self, options: SharedIndexOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int
    ) -> Flops:
        return shared_flops(options, _base(layer), shape, phase=phase, context=context)

    def traffic(self, options: SharedIndexOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return shared_traffic(options, _base(layer), shape, context=context)

    def state(self, options: SharedIndexOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return shared_state(options, _base(layer), shape)

    def build(self, options: SharedIndexOptions, shape: ModelShape, layer: LayerInfo) -> Indexed:
        from .taking import TakesOfHeads, TakesOfLatents

        return (TakesOfLatents if _base(layer).kv_rank else TakesOfHeads)(self, options, shape, layer)

    def dense_up_to(self, options: SharedIndexOptions, layer: LayerInfo) -> int:
        return dense_up_to(_base(layer))


def _base(layer: LayerInfo) -> IndexedOptions:
    """Options of the nearest `indexed` before the layer, the default ones where there is none: `check` refuses that."""
    return base_of(layer) or IndexedOptions()
