"""Two token mixers side by side on the same input (Hymba, arXiv 2411.13676, section 2, there attention and a state
space model):

    y = (b_1 * norm(A(x)) + b_2 * norm(B(x))) / 2

A and B are any two mixers, each with projections of its own; b_1, b_2 `[D]` are trained scales, and the norms are
RMSNorm, so that neither branch drowns the other. Hymba shares the output projection; here each branch has its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from archsearch import MixerOptions, MixerPlugin, ModelShape, Tunable, hookimpl
from archsearch.composite import CompositePlugin
from archsearch.mixer import Flops, Layer, LayerInfo, Phase

if TYPE_CHECKING:
    from .layer import ParallelMixer


class ParallelOptions(MixerOptions):
    """``a`` and ``b``: the two mixers."""

    a: Annotated[Layer, Tunable("kda", "gated-deltanet")] = "kda"  # type: ignore[assignment]
    b: Annotated[Layer, Tunable("sliding", "full")] = "sliding"  # type: ignore[assignment]


class ParallelPlugin(CompositePlugin[ParallelOptions]):
    """Two mixers, each normed, averaged with learned scales."""

    name = "field-parallel"
    api_version = 2
    family = "hybrid"
    summary = "two mixers side by side, each normed, averaged with learned scales"
    options = ParallelOptions

    def own_params(self, options: ParallelOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return 2 * shape.d_model

    def own_flops(
        self, options: ParallelOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int
    ) -> Flops:
        token = Flops(elementwise=10.0 * shape.d_model)
        return token if phase == "decode" else token * context

    def build(self, options: ParallelOptions, shape: ModelShape, layer: LayerInfo) -> ParallelMixer:
        from .layer import ParallelMixer

        return ParallelMixer(self, options, shape, layer)


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "field-parallel"."""
    register(ParallelPlugin())
