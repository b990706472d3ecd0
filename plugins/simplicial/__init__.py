"""2-simplicial attention: a token attends to pairs of tokens, each in a window of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from archsearch import hookimpl
from archsearch.attention_cost import rotation_refusal
from archsearch.mixer import Flops, LayerInfo, MixerPlugin, ModelShape, Phase, StateTensor, Traffic

from .cost import simplicial_flops, simplicial_params, simplicial_state, simplicial_traffic
from .options import SimplicialOptions
from .systems import SYSTEMS

if TYPE_CHECKING:
    from .layer import SimplicialAttention


class SimplicialPlugin(MixerPlugin[SimplicialOptions]):
    """Fast and Simplex (arXiv 2507.02754): softmax over pairs of keys in two windows, by trilinear scores."""

    name = "simplicial"
    api_version = 2
    family = "sliding"
    summary = "softmax attention to pairs of tokens, each of a window, by three-way products"
    options = SimplicialOptions
    systems = SYSTEMS
    conformance: ClassVar[Mapping[str, Any]] = {
        "cases": {
            "8-by-3": {"window": 8, "second_window": 3},
            "second-wider": {"window": 2, "second_window": 5, "qk_norm": True},
            "one-second": {"window": 20, "second_window": 1},
            "determinant": {"window": 8, "second_window": 3, "score": "determinant", "rope": 1.0},
        }
    }

    def check(self, options: SimplicialOptions, shape: ModelShape, layer: LayerInfo) -> str | None:
        if options.score == "determinant" and shape.head_dim < 3:
            return f"score = determinant of head_dim = {shape.head_dim}: set 3 or more, or score = product"
        return rotation_refusal(options.rope, "the channels that may be turned", 2 * (shape.head_dim // 3))

    def params(self, options: SimplicialOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return simplicial_params(options, shape)

    def flops(
        self, options: SimplicialOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int
    ) -> Flops:
        return simplicial_flops(options, shape, phase=phase, context=context)

    def traffic(self, options: SimplicialOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return simplicial_traffic(options, shape, context=context)

    def state(self, options: SimplicialOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return simplicial_state(options, shape)

    def build(self, options: SimplicialOptions, shape: ModelShape, layer: LayerInfo) -> SimplicialAttention:
        from .layer import SimplicialAttention

        return SimplicialAttention(self, options, shape, layer)

    def dense_up_to(self, options: SimplicialOptions, layer: LayerInfo) -> int:
        return max(options.window, options.second_window)


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "simplicial"."""
    register(SimplicialPlugin())
