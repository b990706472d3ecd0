"""DeepSeek sparse attention (DeepSeek-V3.2, arXiv 2512.02556, section 2.1, equations 1 to 4).

The indexer gives I_ts = sum_j w_tj relu(qI_tj kI_s) over its few heads j, which share one key a token. Token t attends
to the `top_k` tokens s <= t of the largest I_ts, earlier ones first where they tie. No gradient of the output reaches
the indexer: it learns by KL(p_t || softmax I_t), from an input that is detached, where p is what the teacher's layer of
that index attends to or, without one, the dense probabilities of the layer's own queries and keys, the mean over heads.

Simplified: the core is grouped attention, not MLA; the divergence is over all visible tokens throughout (as in the
paper's warm-up), while the output is sparse from the start; the indexer runs in fp32.
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
    from .layer import IndexedAttention


class DsaOptions(MixerOptions):
    """``top_k``: tokens that one attends to. ``index_heads``, ``index_dim``: heads of the indexer and their channels.
    ``rope``: the rotated fraction of a head, of the indexer's too."""

    top_k: Annotated[int, Field(ge=1, le=2**24), Tunable(64, 128, 256)] = 128
    index_heads: Annotated[int, Field(ge=1, le=2**10), Tunable(2, 4)] = 4
    index_dim: Annotated[int, Field(ge=1, le=2**12), Tunable(16, 32)] = 32
    rope: Annotated[float, Field(ge=0, le=1), Tunable(0.0, 0.5, 1.0)] = 0.5

    @property
    def index_channels(self) -> tuple[int, int, int]:
        """Channels of the indexer's queries, of its key, and its weights."""
        return self.index_heads * self.index_dim, self.index_dim, self.index_heads


class DsaPlugin(MixerPlugin[DsaOptions]):
    """The cache holds an index key beside the key and value of each token; short of top_k tokens it is not read."""

    name = "field-dsa"
    api_version = 2
    family = "sparse"
    summary = "softmax attention over the tokens that a light indexer chooses, which learns what attention finds (DSA)"
    options = DsaOptions
    conformance: ClassVar[Mapping[str, Any]] = {
        "cases": {
            "top-8": {"top_k": 8, "index_heads": 2, "index_dim": 6},
            "top-1": {"top_k": 1, "index_heads": 1, "index_dim": 8, "rope": 0.0},
            "top-30": {"top_k": 30, "index_heads": 3, "index_dim": 4, "rope": 1.0},
        },
        "traffic_slack": 0.15,  # a key that is read is not seen to be where the choice stays
    }

    def params(self, options: DsaOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return projection_params(shape) + shape.d_model * sum(options.index_channels) + 2 * options.index_dim

    def flops(self, options: DsaOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        index = Flops(
            matmul=2.0 * shape.d_model * sum(options.index_channels),
            elementwise=6.0 * options.index_dim + 3.0 * options.rope * (options.index_heads + 1) * options.index_dim,
        )
        token, asked = projection_flops(shape, rope=options.rope) + index, context > options.top_k
        if phase == "decode":
            pairs, chosen = float(context), float(min(context, options.top_k))
        else:
            pairs, chosen, token = visible_pairs(context), visible_pairs(context, options.top_k), token * context
        found = token + softmax_flops(chosen, shape)
        if phase == "train":  # the divergence, and the dense probabilities that are its target
            target = Flops(matmul=2.0 * shape.head_dim, elementwise=5.0, exp=1.0) * (pairs * shape.n_heads)
            found += target + Flops(elementwise=6.0 * pairs, exp=pairs)
        return found + _ranking(options, pairs) if asked or phase == "train" else found

    def traffic(self, options: DsaOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        key_bytes = float(options.index_dim * shape.dtype_bytes)
        asked = Traffic(read_bytes=key_bytes * context if context > options.top_k else 0.0, written_bytes=key_bytes)
        return kv_traffic(min(context, options.top_k), shape) + asked

    def state(self, options: DsaOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        row = (options.index_dim,)
        return (*kv_cache(shape), StateTensor(name="index", row_shape=row, dtype=shape.dtype, role="index", stride=1))

    def build(self, options: DsaOptions, shape: ModelShape, layer: LayerInfo) -> IndexedAttention:
        from .layer import IndexedAttention

        return IndexedAttention(self, options, shape, layer)

    def dense_up_to(self, options: DsaOptions, layer: LayerInfo) -> int:
        return options.top_k


def _ranking(options: DsaOptions, pairs: float) -> Flops:
    """The indexer's scores."""
    heads = pairs * options.index_heads
    return Flops(matmul=2.0 * heads * (options.index_dim + 1), elementwise=heads + pairs)


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "field-dsa"."""
    register(DsaPlugin())
