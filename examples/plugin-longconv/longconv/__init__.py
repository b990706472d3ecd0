"""longconv: a convolution as long as the sequence, between two gates (Hyena of order 2, arXiv 2302.10866).

y_t = W_o (b_t * sum_(s <= t) h_(t-s) (a_s * v_s)),   a, b, v = W_a x, W_b x, W_v x
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from archsearch import Flops, LayerInfo, MixerOptions, MixerPlugin, ModelShape, StateTensor, Traffic, Tunable, hookimpl
from archsearch.mixer import Phase, System

if TYPE_CHECKING:
    from longconv.layer import LongConv


class Options(MixerOptions):
    """Options of the mixer `longconv`.

    ``reach``: tokens after which the windows of the channels, from the slowest to the fastest, have fallen to between
    4.6% and 0.00002%; the unit of time of the filter's features.
    ``bands``: frequencies among the features, beside time itself.
    ``hidden``: width of the network that makes the filter; it has three hidden layers.
    ``frequency``: factor of the sines in it; the larger, the faster a filter may change.
    """

    reach: Annotated[int, Field(ge=1, le=2**24), Tunable(64, 256, 1024)] = 256
    bands: Annotated[int, Field(ge=1, le=64)] = 2
    hidden: Annotated[int, Field(ge=1, le=4096), Tunable(16, 64)] = 64
    frequency: Annotated[float, Field(gt=0, le=100), Tunable(1.0, 10.0)] = 1.0

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the features, and of the hidden layers after them."""
        return (1 + 2 * self.bands, self.hidden, self.hidden, self.hidden)


class Plugin(MixerPlugin[Options]):
    """A filter made by a small network of time, applied by FFT to whole sequences and as a sum to a decoded token."""

    name = "longconv"
    api_version = 2
    family = "other"
    summary = "a convolution as long as the sequence, between two gates (Hyena)"
    options = Options
    systems: ClassVar[Mapping[str, System]] = {
        "longconv": System(
            rule="an implicit filter over all tokens so far, between two gates", source="arXiv 2302.10866"
        )
    }
    conformance: ClassVar[Mapping[str, Any]] = {
        "causal_tolerance": 5e-6,  # an FFT rounds by its largest number, which may be a later one
        "cases": {"short": {"reach": 16, "hidden": 16}, "one-band": {"reach": 64, "bands": 1, "hidden": 8}},
    }

    def params(self, options: Options, shape: ModelShape, layer: LayerInfo) -> int:
        biases = sum(options.widths[1:])
        return 4 * shape.d_model**2 + _filter_weights(options, shape) + biases + shape.d_model

    def flops(self, options: Options, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        width = float(shape.d_model)
        token = Flops(matmul=8.0 * width * width, elementwise=2.0 * width)  # projections, gates
        lag = Flops(
            matmul=2.0 * _filter_weights(options, shape),
            elementwise=2.0 * sum(options.widths) + width,
            exp=sum(options.widths) + width,  # sines and cosines among them, the window's decay
        )
        if phase == "decode":
            return token + lag * context + Flops(elementwise=2.0 * width * context)
        transform = 2.5 * 2 * context * math.log2(2 * context)  # of 2T real numbers, padded so that it is no circle
        product = 6.0 * (context + 1)  # of complex numbers
        return (token + lag) * context + Flops(elementwise=width * (3 * transform + product))

    def traffic(self, options: Options, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        row = float(shape.d_model * shape.dtype_bytes)
        return Traffic(read_bytes=row * context, written_bytes=row)

    def state(self, options: Options, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return (StateTensor(name="inputs", row_shape=(shape.d_model,), dtype=shape.dtype, role="conv", stride=1),)

    def build(self, options: Options, shape: ModelShape, layer: LayerInfo) -> LongConv:
        from longconv.layer import LongConv

        return LongConv(self, options, shape, layer)


def _filter_weights(options: Options, shape: ModelShape) -> int:
    return sum(before * after for before, after in pairwise((*options.widths, shape.d_model)))


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "longconv"."""
    register(Plugin())
