"""Mixture of memories (MoM, arXiv 2502.13685, section 3): linear attention whose state is M memories, of which each
token writes and reads a few.

    p_t = softmax(W_g x_t); the top k of p_t, divided by their sum, are g_t, all others 0
    S^m_t = S^m_{t-1} + [g^m_t > 0] (W^m_k x_t) (W^m_v x_t)^T
    o_t = norm((sum_m g^m_t S^m_t + S^shared_t)^T W_q x_t)

Every memory has keys and values of its own; the shared one, where there is one, is written by every token. The router
learns from a balance loss too (arXiv 2101.03961, section 2.2). With one memory and no shared one this is linear
attention (arXiv 2006.16236).

Memory m sees the subsequence of tokens that chose it, and those alone read it: training runs linear attention by chunks
over all subsequences at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from archsearch import MixerOptions, MixerPlugin, ModelShape, StateTensor, Tunable, hookimpl
from archsearch.mixer import Dtype, Flops, LayerInfo, Phase, Traffic

if TYPE_CHECKING:
    from .layer import MixtureOfMemories

CHUNK = 16


class MomOptions(MixerOptions):
    """``memories`` that are routed to, ``top_k`` of them by each token; ``shared``: one more that all tokens write."""

    memories: Annotated[int, Field(ge=1, le=256), Tunable(2, 4)] = 4
    top_k: Annotated[int, Field(ge=1, le=256), Tunable(1, 2)] = 2
    shared: Annotated[bool, Tunable(True, False)] = True

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.top_k > self.memories:
            raise ValueError(f"top_k = {self.top_k} exceeds memories = {self.memories}: a token cannot choose so many")
        return self


class MomPlugin(MixerPlugin[MomOptions]):
    """Linear attention over routed memories."""

    name = "field-mom"
    api_version = 2
    family = "linear"
    summary = "linear attention whose tokens are routed to a few of several memories"
    options = MomOptions

    def params(self, options: MomOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return _params(options, shape, options.memories + options.shared)

    def active_params(self, options: MomOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return _params(options, shape, options.top_k + options.shared)

    def flops(self, options: MomOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        width, cells = shape.n_heads * shape.head_dim, float(shape.n_heads * shape.head_dim**2)
        routes, met = _routed(options) * options.memories, options.top_k + options.shared
        token = Flops(
            matmul=2.0 * shape.d_model * (routes + 2 * width + met * 2 * width) + met * 4 * cells,
            elementwise=met * (cells + 2.0 * width) + 4.0 * width + 3.0 * routes,
            exp=float(routes),
        )
        if phase == "decode":
            return token
        chosen = context * options.top_k / options.memories
        pairs = options.top_k * _pairs(chosen) + options.shared * _pairs(context)
        return (token + Flops(matmul=4.0 * pairs * width)) * context

    def traffic(self, options: MomOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        (memories,) = self.state(options, shape, layer)
        met = float((options.top_k + options.shared) * memories.row_bytes)
        return Traffic(read_bytes=met, written_bytes=met)

    def state(self, options: MomOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        dtype: Dtype = "float64" if shape.dtype == "float64" else "float32"
        row, count = (shape.n_heads, shape.head_dim, shape.head_dim), options.memories + options.shared
        return (StateTensor(name="memories", row_shape=row, dtype=dtype, role="recurrent", base=count),)

    def build(self, options: MomOptions, shape: ModelShape, layer: LayerInfo) -> MixtureOfMemories:
        from .layer import MixtureOfMemories

        return MixtureOfMemories(self, options, shape, layer)


def _routed(options: MomOptions) -> bool:
    return options.memories > 1


def _params(options: MomOptions, shape: ModelShape, memories: int) -> int:
    """Router, query, output, norm, and the keys and values of so many memories."""
    width = shape.n_heads * shape.head_dim
    router = _routed(options) * shape.d_model * options.memories
    return router + 2 * shape.d_model * width * (1 + memories) + shape.head_dim


def _pairs(length: float) -> float:
    """Pairs of a token and one no later in its chunk, by token, in a subsequence of that length."""
    return (min(CHUNK, max(1.0, length)) + 1) / 2


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "field-mom"."""
    register(MomPlugin())
