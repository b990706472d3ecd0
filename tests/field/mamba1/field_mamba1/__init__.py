"""Mamba-1's selective scan (arXiv 2312.00752, section 3.2 and algorithm 2; the block of section 3.4).

[u, z] = W_in x; u = silu(conv(u) + b); [r, B, C] = W_x u; dt = softplus(W_dt r + b_dt), one for each channel;
h_t = exp(dt_t A) h_{t-1} + dt_t u_t B_t, a row of N numbers for each channel, A = -exp(A_log);
y_t = h_t C_t + D u_t, and the layer gives W_out (y silu(z)).

The scan runs by doubling inside of chunks. Left out is nothing of the recurrence; the convolution starts near the
identity, as the house's does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from archsearch import Flops, LayerInfo, MixerOptions, MixerPlugin, ModelShape, StateTensor, Traffic, Tunable, hookimpl
from archsearch.mixer import Phase

if TYPE_CHECKING:
    from .layer import SelectiveScan


class Mamba1Options(MixerOptions):
    """``expand``: inner channels a channel of the model. ``state_dim``: numbers kept for each. ``dt_rank``: 0 for a
    16th of the model's channels. ``conv``: tokens that the short convolution sees."""

    expand: Annotated[int, Field(ge=1, le=64), Tunable(1, 2)] = 2
    state_dim: Annotated[int, Field(ge=1, le=2**12), Tunable(8, 16)] = 16
    dt_rank: int = Field(default=0, ge=0, le=2**16)
    conv: int = Field(default=4, ge=2, le=64)

    def sizes(self, shape: ModelShape) -> tuple[int, int]:
        """Inner channels, and the rank of dt."""
        return self.expand * shape.d_model, self.dt_rank or -(-shape.d_model // 16)


class Mamba1Plugin(MixerPlugin[Mamba1Options]):
    """A state of N numbers for each inner channel, with a decay and a write that depend on the token."""

    name = "field-mamba1"
    api_version = 2
    family = "linear"
    summary = "a recurrence for each channel, with steps, inputs and outputs that depend on the token (Mamba-1)"
    options = Mamba1Options
    conformance: ClassVar[Mapping[str, Any]] = {
        "cases": {"state-4": {"state_dim": 4}, "wide": {"expand": 3, "state_dim": 2, "dt_rank": 5, "conv": 2}},
    }

    def params(self, options: Mamba1Options, shape: ModelShape, layer: LayerInfo) -> int:
        inner, _ = options.sizes(shape)
        return _projected(options, shape) + inner * (options.conv + options.state_dim + 3)

    def flops(
        self, options: Mamba1Options, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int
    ) -> Flops:
        inner, _ = options.sizes(shape)
        kept = inner * options.state_dim
        token = Flops(
            matmul=2.0 * _projected(options, shape) + 2.0 * kept,
            elementwise=5.0 * kept + inner * (2.0 * options.conv + 10.0),
            exp=kept + 3.0 * inner,
        )
        return token * (1 if phase == "decode" else context)

    def traffic(self, options: Mamba1Options, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        state_bytes = sum(tensor.nbytes(context) for tensor in self.state(options, shape, layer))
        return Traffic(read_bytes=state_bytes, written_bytes=state_bytes)

    def state(self, options: Mamba1Options, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        inner, _ = options.sizes(shape)
        row = (inner, options.state_dim)
        return (
            StateTensor(name="conv", row_shape=(inner,), dtype=shape.dtype, role="conv", base=options.conv - 1),
            StateTensor(name="recurrent", row_shape=row, dtype="float32", role="recurrent", base=1),
        )

    def build(self, options: Mamba1Options, shape: ModelShape, layer: LayerInfo) -> SelectiveScan:
        from .layer import SelectiveScan

        return SelectiveScan(self, options, shape, layer)


def _projected(options: Mamba1Options, shape: ModelShape) -> int:
    """Weights of the four projections."""
    inner, rank = options.sizes(shape)
    return inner * (3 * shape.d_model + 2 * rank + 2 * options.state_dim)


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "field-mamba1"."""
    register(Mamba1Plugin())
