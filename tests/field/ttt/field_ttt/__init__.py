"""TTT-Linear: a state that is a linear model, trained on the tokens that it reads (arXiv 2407.04620, section 2).

A head keeps weights W `[D + 1, D]`, a bias among them. With q, k, v of D channels, k' = [k, 1] and q' = [q, 1]:
f(k; W) = k + norm(k' W), where norm is LayerNorm with a trained scale and shift (section 2.7); the loss of token t is
|f(k_t; W) - v_t|^2 / 2, its gradient in the weights k'_t^T g_t, and its rate e_t = lr sigmoid(w x_t) / D.
All gradients of a mini-batch of b tokens are taken at its first weights W_0 (section 2.4), so
W_t = W_0 - sum_{s <= t} e_s k'_s^T g_s and z_t = f(q_t; W_t), which the dual form (section 2.5) gives without W_t:
q'_t W_t = q'_t W_0 - sum_{s <= t} (q'_t k'_s) e_s g_s. The first weights of all are trained (section 2.7).

Left out of the authors' code: rotary embedding, the convolutions and the gate of the Mamba backbone, the norm over
heads, and the factor 1 / (t + 1) on the rates in a mini-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from archsearch import Flops, LayerInfo, MixerOptions, MixerPlugin, ModelShape, StateTensor, Traffic, Tunable, hookimpl
from archsearch.mixer import Phase

if TYPE_CHECKING:
    from .layer import TestTimeTraining


class TttOptions(MixerOptions):
    """``mini_batch``: tokens whose gradients are taken at the same weights. ``rate``: the greatest inner rate."""

    mini_batch: Annotated[int, Field(ge=1, le=2**12), Tunable(16, 32)] = 16
    rate: Annotated[float, Field(gt=0, le=100), Tunable(0.5, 1.0)] = 1.0


class TttPlugin(MixerPlugin[TttOptions]):
    """Weights at the start of the running mini-batch, and the sum of its gradients so far."""

    name = "field-ttt"
    api_version = 2
    family = "linear"
    summary = "a linear model for each head, trained on the tokens as they are read (TTT-Linear)"
    options = TttOptions
    conformance: ClassVar[Mapping[str, Any]] = {
        "cases": {"batch-8": {"mini_batch": 8}, "batch-1": {"mini_batch": 1}, "batch-40": {"mini_batch": 40}},
        "traffic_slack": 1 / 8,  # the mean is told, of which one token in a mini-batch writes more
    }

    def params(self, options: TttOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return _projected(shape) + _kept(shape) + 2 * shape.n_heads * shape.head_dim

    def flops(self, options: TttOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        heads, width, kept = shape.n_heads, shape.head_dim, _kept(shape)
        matmul, elementwise = 2.0 * _projected(shape) + 6.0 * kept, 30.0 * heads * width
        if phase == "decode":  # the weights less their gradient, and the gradient of one more token
            return Flops(matmul=matmul, elementwise=elementwise + 2.0 * kept, exp=heads)
        seen = (min(context, options.mini_batch) + 1) / 2  # tokens of its mini-batch that one sees
        within = Flops(matmul=2.0 * heads * seen * (2 * width + 1), elementwise=heads * seen)
        return (Flops(matmul=matmul, elementwise=elementwise, exp=heads) + within) * context

    def traffic(self, options: TttOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        one = 4.0 * _kept(shape)  # the gradient is written by every token, the weights by the last of a mini-batch
        closes = context >= options.mini_batch
        return Traffic(
            read_bytes=2 * one,
            written_bytes=one + (one / options.mini_batch if closes else 0.0),
            peak_written_bytes=2 * one if closes else one,
        )

    def state(self, options: TttOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        row = (shape.n_heads, shape.head_dim + 1, shape.head_dim)
        weights, gradient = (
            StateTensor(name=name, row_shape=row, dtype="float32", role="recurrent", base=1)
            for name in ("weights", "gradient")
        )
        return weights, gradient

    def build(self, options: TttOptions, shape: ModelShape, layer: LayerInfo) -> TestTimeTraining:
        from .layer import TestTimeTraining

        return TestTimeTraining(self, options, shape, layer)


def _projected(shape: ModelShape) -> int:
    """Weights of the projections to q, k, v and rates, and back."""
    return shape.d_model * shape.n_heads * (4 * shape.head_dim + 1)


def _kept(shape: ModelShape) -> int:
    """Numbers of the inner models of all heads."""
    return shape.n_heads * shape.head_dim * (shape.head_dim + 1)


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "field-ttt"."""
    register(TttPlugin())
