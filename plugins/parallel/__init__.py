"""Mixers side by side in one layer, on the same input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from archsearch import hookimpl
from archsearch.amounts import SIGMOID
from archsearch.composite import CompositePlugin
from archsearch.errors import OptionsError
from archsearch.mixer import Flops, LayerInfo, MixerPlugin, ModelShape, Phase

from .heads import joined_width, shared_out
from .options import ParallelOptions
from .systems import SYSTEMS

if TYPE_CHECKING:
    from .layer import ParallelMixer


class ParallelPlugin(CompositePlugin[ParallelOptions]):
    """Any mixers, whose costs and states are the sums of theirs."""

    name = "parallel"
    api_version = 2
    family = "hybrid"
    summary = "mixers side by side on the same input, averaged, summed or gated"
    options = ParallelOptions
    systems = SYSTEMS
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "hymba": {"a": "sliding", "b": "mamba2", "join": "mean"},
        "falcon-h1": {"a": "full(rope=1.0)", "b": "mamba2", "join": "sum"},
        "titans-mag": {"a": "sliding", "b": "titans", "join": "gate"},
        "resona": {"a": "gated-deltanet", "b": "moba", "join": "mean"},
    }
    conformance: ClassVar[Mapping[str, Any]] = {
        "cases": {
            "default": {"a": "sliding(window=8)"},
            "gate": {"a": "sliding(window=8)", "b": "retnet", "join": "gate"},
            "scaled": {
                **{"a": "full", "b": "retnet", "join": "sum"},
                **{"a_in": 0.5, "b_in": 1.25, "a_out": 0.75, "b_out": 0.25},
            },
            "one-projection": {"a": "sliding(window=8)", "b": "mamba2", "project": "shared"},
            "heads-apart": {"a": "full", "b": "retnet", "join": "sum", "share": 0.5},
            "three": {"a": "full", "b": "retnet", "more": ["conv"]},
        }
    }

    def check(self, options: ParallelOptions, shape: ModelShape, layer: LayerInfo) -> str | None:
        try:
            for index in range(len(self.parts(options))):
                self.part_shape(options, shape, index)
            self.width(options, shape, layer)
        except OptionsError as error:
            return str(error)
        return None

    def part_shape(self, options: ParallelOptions, shape: ModelShape, index: int) -> ModelShape:
        return shared_out(options.share, shape, index, len(self.parts(options)))

    def width(self, options: ParallelOptions, shape: ModelShape, layer: LayerInfo) -> int:
        """Channels of what is joined; raises `OptionsError` where parts that share a projection do not fit together."""
        if options.project == "each":
            return shape.d_model
        names = [part.mixer for part in self.parts(options)]
        return joined_width(names, self.handed_out(options, shape, layer))

    def own_params(self, options: ParallelOptions, shape: ModelShape, layer: LayerInfo) -> int:
        """The norms, and of a shared projection what it has less than those of the parts."""
        count, width = len(self.parts(options)), self.width(options, shape, layer)
        normed = 0 if options.join == "sum" else count * width
        return normed - (count - 1) * width * shape.d_model * (options.project == "shared")

    def own_flops(
        self, options: ParallelOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int
    ) -> Flops:
        width, count = float(self.width(options, shape, layer)), len(self.parts(options))
        joined = Flops(elementwise=(count - 1) * width)
        if options.project == "shared":
            joined = joined + Flops(matmul=-2.0 * (count - 1) * width * shape.d_model)
        if options.join != "sum":
            joined = joined + Flops(elementwise=4.0 * count * width)  # a norm is 4 an element
        if options.join == "mean":
            joined = joined + Flops(elementwise=width)
        before, after = (sum(x != 1 for x in scales) for scales in (options.input_scales, options.output_scales))
        joined = joined + Flops(elementwise=before * float(shape.d_model) + after * width)
        if options.join == "gate":
            joined = joined + SIGMOID * ((count - 1) * width)
        return joined if phase == "decode" else joined * float(context)

    def build(self, options: ParallelOptions, shape: ModelShape, layer: LayerInfo) -> ParallelMixer:
        from .layer import ParallelMixer

        return ParallelMixer(self, options, shape, layer, width=self.width(options, shape, layer))


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "parallel"."""
    register(ParallelPlugin())
