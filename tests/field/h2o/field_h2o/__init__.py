"""Heavy-hitter oracle (H2O, arXiv 2306.14048, section 4, algorithm 1): the cache forgets what was attended to least.

Each key head keeps `recent` last tokens and `heavy` others. A token attends to what is kept and to itself; the weight
that it gives to each is added to that one's score, over the query heads of the group. Then the token that leaves the
recent ones takes the place of the heavy one of the lowest score, if its own is higher, else it is dropped for ever.

A prompt is attended to densely, as by the authors' code, and so is a training sequence; of a prompt the scores of all
its queries decide what is kept. Keys keep the rotation of their first position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from archsearch import Flops, LayerInfo, MixerOptions, MixerPlugin, ModelShape, StateTensor, Traffic, Tunable, hookimpl
from archsearch.attention_cost import (
    kv_cache,
    kv_traffic,
    projection_flops,
    projection_params,
    softmax_flops,
    visible_pairs,
)
from archsearch.mixer import Phase

if TYPE_CHECKING:
    from .layer import EvictingAttention


class H2oOptions(MixerOptions):
    """``heavy``: tokens kept for their scores. ``recent``: last tokens kept. ``rope``: the rotated part of a head."""

    heavy: Annotated[int, Field(ge=1, le=2**24), Tunable(32, 64)] = 64
    recent: Annotated[int, Field(ge=1, le=2**24), Tunable(32, 64)] = 64
    rope: Annotated[float, Field(ge=0, le=1), Tunable(0.0, 1.0)] = 1.0

    @property
    def kept(self) -> int:
        """Rows of the cache."""
        return self.heavy + self.recent


class H2oPlugin(MixerPlugin[H2oOptions]):
    """Full attention in training, a cache of bounded size in decoding."""

    name = "field-h2o"
    api_version = 2
    family = "sparse"
    summary = "softmax attention whose cache keeps the last tokens and those that were attended to most (H2O)"
    options = H2oOptions
    conformance: ClassVar[Mapping[str, Any]] = {
        "cases": {
            "8-and-4": {"heavy": 8, "recent": 4},
            "1-and-1": {"heavy": 1, "recent": 1, "rope": 0.0},
            "3-and-30": {"heavy": 3, "recent": 30},
        },
        "traffic_slack": 0.9,  # a token that becomes heavy is moved, one that is dropped is not
        "drops_beyond": False,  # the forward pass drops nothing
    }
    broken_laws: ClassVar = {
        "step": "decoding evicts tokens that the forward pass still attends to",
        "split": "a prompt is cut to the kept tokens before the next one is read",
    }

    def params(self, options: H2oOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return projection_params(shape)

    def flops(self, options: H2oOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        token = projection_flops(shape, rope=options.rope)
        if phase == "decode":
            rows = min(context, options.kept + 1)
            return token + softmax_flops(rows, shape) + Flops(elementwise=rows * (shape.n_heads + shape.n_kv_heads))
        return token * context + softmax_flops(visible_pairs(context), shape)

    def traffic(self, options: H2oOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        score_bytes = 4.0 * shape.n_kv_heads
        read, scored = min(context, options.kept + 1), min(context, options.kept)
        kv = kv_traffic(read, shape)
        moves = 2.0 if context > options.kept else 1.0  # whether a token becomes heavy depends on the data: at most
        return Traffic(
            read_bytes=kv.read_bytes + read * score_bytes,
            written_bytes=moves * kv.written_bytes + scored * score_bytes,
        )

    def state(self, options: H2oOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        row, cap = (shape.n_kv_heads,), options.kept
        score = StateTensor(name="score", row_shape=row, dtype="float32", role="summary", stride=1, cap=cap)
        return (*kv_cache(shape, cap=cap), score)

    def build(self, options: H2oOptions, shape: ModelShape, layer: LayerInfo) -> EvictingAttention:
        from .layer import EvictingAttention

        return EvictingAttention(self, options, shape, layer)

    def dense_up_to(self, options: H2oOptions, layer: LayerInfo) -> int:
        return options.kept + 1  # the last of them attends to all that is kept, and to itself


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "field-h2o"."""
    register(H2oPlugin())
