"""Attention over compressed entries: every block of tokens becomes one, beside a window of tokens as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from archsearch import hookimpl
from archsearch.attention_cost import heads_refusal, rotation_refusal
from archsearch.mixer import Flops, LayerInfo, MixerPlugin, ModelShape, Phase, StateTensor, Traffic

from .cost import compressed_flops, compressed_params, compressed_state, compressed_traffic, dense_up_to
from .options import CompressedOptions
from .systems import SYSTEMS

if TYPE_CHECKING:
    from .layer import CompressedAttention


class CompressedPlugin(MixerPlugin[CompressedOptions]):
    """HCA and CSA of DeepSeek-V4: gated sums of blocks, all of them or those that an index chooses."""

    name = "compressed"
    api_version = 2
    family = "sparse"
    summary = "softmax attention over one entry for each block of tokens, and a window beside them (HCA, CSA)"
    options = CompressedOptions
    systems = SYSTEMS
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "hca": {"block_size": 32, "window": 32},
        "csa": {"block_size": 4, "overlap": True, "top_k": 16, "window": 32},
    }
    conformance: ClassVar[Mapping[str, Any]] = {
        "cases": {
            "csa-4": {"block_size": 4, "overlap": True, "top_k": 4, "window": 8, "index_heads": 2, "index_dim": 6},
            "tokens": {
                **{"block_size": 1, "top_k": 8, "index_heads": 2, "index_dim": 4},
                **{"window": 0, "sink": False, "norm": False, "rope": 1.0},
            },
            "overlapping-tokens": {"block_size": 1, "overlap": True, "window": 3, "rope": 0.0},
            "no-window": {"block_size": 8, "window": 0, "q_rank": 12},
            "deepseek-v4": {
                **{"block_size": 4, "overlap": True, "top_k": 4, "window": 8, "index_heads": 2, "index_dim": 6},
                **{"q_rank": 12, "out_groups": 2, "out_rank": 5, "rope_factor": 16.0, "rope_trained": 64},
            },
            "short-window": {"block_size": 8, "window": 3, "top_k": 2, "sink": False},
        },
        "drops_beyond": False,  # an entry is of the block before too
    }

    def check(self, options: CompressedOptions, shape: ModelShape, layer: LayerInfo) -> str | None:
        index = rotation_refusal(options.rope, "index_dim", options.index_dim) if options.top_k else None
        if options.out_groups and shape.n_heads % options.out_groups:
            return f"out_groups = {options.out_groups} does not divide n_heads = {shape.n_heads}: choose a divisor"
        return heads_refusal(shape, rope=options.rope) or index

    def params(self, options: CompressedOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return compressed_params(options, shape)

    def flops(
        self, options: CompressedOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int
    ) -> Flops:
        return compressed_flops(options, shape, phase=phase, context=context)

    def traffic(self, options: CompressedOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return compressed_traffic(options, shape, context=context)

    def state(self, options: CompressedOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return compressed_state(options, shape)

    def build(self, options: CompressedOptions, shape: ModelShape, layer: LayerInfo) -> CompressedAttention:
        from .layer import CompressedAttention

        return CompressedAttention(self, options, shape, layer)

    def dense_up_to(self, options: CompressedOptions, layer: LayerInfo) -> int:
        return dense_up_to(options)


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "compressed"."""
    register(CompressedPlugin())
