"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1.2 and 2.1.3, equations 9 to 19).

A token keeps a latent c = norm(W_c x) of `kv_rank` numbers and one rotated key r = RoPE(W_r x) for all heads. Of them
head h has the key [K_h c, r] and the value V_h c; its query is [q_h, RoPE(p_h)], and the scores are scaled by the root
of both widths. Training multiplies K_h and V_h out; decoding absorbs them, q_h (K_h c) = (q_h K_h) c, and so reads
latents and rotated keys alone. Left out is the low rank of the queries (equation 12), which the cache does not see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from archsearch import Flops, LayerInfo, MixerOptions, MixerPlugin, ModelShape, StateTensor, Traffic, Tunable, hookimpl
from archsearch.attention_cost import visible_pairs
from archsearch.mixer import Phase

if TYPE_CHECKING:
    from .layer import LatentAttention


class MlaOptions(MixerOptions):
    """``kv_rank``: numbers of a latent. ``rope_dim``: channels of the rotated key that heads share, an even number."""

    kv_rank: Annotated[int, Field(ge=1, le=2**16), Tunable(64, 128, 256)] = 128
    rope_dim: Annotated[int, Field(ge=2, le=2**12, multiple_of=2), Tunable(16, 32)] = 32
    rope_base: float = Field(default=10000.0, gt=1, le=1e12)


class MlaPlugin(MixerPlugin[MlaOptions]):
    """Heads of `head_dim` channels without and `rope_dim` with a position, all from one latent a token."""

    name = "field-mla"
    api_version = 2
    family = "full"
    summary = "softmax attention over all tokens so far, of keys and values that one latent holds (MLA)"
    options = MlaOptions
    conformance: ClassVar[Mapping[str, Any]] = {
        "cases": {"rank-6": {"kv_rank": 6, "rope_dim": 4}, "rank-24": {"kv_rank": 24, "rope_dim": 2}},
    }

    def params(self, options: MlaOptions, shape: ModelShape, layer: LayerInfo) -> int:
        queries = shape.d_model * shape.n_heads * (shape.head_dim + options.rope_dim)
        folded = shape.d_model * (options.kv_rank + options.rope_dim) + options.kv_rank
        return queries + folded + shape.n_heads * shape.head_dim * (2 * options.kv_rank + shape.d_model)

    def flops(self, options: MlaOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        rank, rope, heads, width = options.kv_rank, options.rope_dim, shape.n_heads, shape.head_dim
        token = Flops(
            matmul=2.0 * (self.params(options, shape, layer) - rank),  # absorbing costs what multiplying out does
            elementwise=4.0 * rank + 3.0 * (heads + 1) * rope,
        )
        if phase == "decode":
            return token + _scores(context * heads, 2 * rank + rope)
        return token * context + _scores(visible_pairs(context) * heads, 2 * width + rope)

    def traffic(self, options: MlaOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        row_bytes = (options.kv_rank + options.rope_dim) * shape.dtype_bytes
        return Traffic(read_bytes=context * row_bytes, written_bytes=row_bytes)

    def state(self, options: MlaOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return (
            StateTensor(name="latent", row_shape=(options.kv_rank,), dtype=shape.dtype, role="kv", stride=1),
            StateTensor(name="rotated", row_shape=(options.rope_dim,), dtype=shape.dtype, role="kv", stride=1),
        )

    def build(self, options: MlaOptions, shape: ModelShape, layer: LayerInfo) -> LatentAttention:
        from .layer import LatentAttention

        return LatentAttention(self, options, shape, layer)


def _scores(scores: float, channels: int) -> Flops:
    """Softmax over so many scores, with `channels` of products each for score and value."""
    return Flops(matmul=2.0 * scores * channels, elementwise=4.0 * scores, exp=scores)


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "field-mla"."""
    register(MlaPlugin())
