"""Attention whose weights are no plain softmax of products: forgetting, sigmoid, stick-breaking; a strip at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from archsearch.ops.impl import choose_impl
from archsearch.ops.laid_out import LaidOut
from archsearch.ops.softmax import masked_attention, scale_of

OP = "weighted_attention"
WHY = "strips of queries over the keys before them, in PyTorch"
STRIP_TOKENS = 128
"""Queries of a strip at most: scores of keys after it are left out, and sums of forget gates are near their own."""
STRIP_ELEMENTS = 2**20
"""Scores of a strip at most, so that they stay in the cache, unless one query has more."""
HELD_ELEMENTS = 2**25
"""Scores up to which those of all strips are held for the backward pass; beyond, each strip is made again."""

FAINT = -80.0
"""Logarithm of a weight that is taken for 0: on a CPU products with numbers just above those that float32 has not take
many times as long."""

Weigh = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Weights of scores `[B, G, R, t, S]`, the keys that are seen `[B, 1, 1, t, S]`, the queries' order `[B, t]`."""


def weighted_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    order: Tensor,
    weigh: Weigh,
    *,
    log_forget: Tensor | None = None,
    impl: str = "auto",
) -> Tensor:
    """Sums of values by `weigh` of the scores q . k D^-0.5, `[B, T, Hq, D]`.

    q `[B, T, Hq, D]` of the tokens at ``order`` `[B, T]`, of query t at most S - T + t; k, v `[B, S, Hkv, D]` hold all
    tokens up to there, in the dtype of q. ``log_forget`` `[B, S, Hq]`: to the score of a key those of the tokens after
    it are added (FoX, arXiv 2503.02130), for softmax alone. ``impl`` "reference" takes all queries at once,
    "chunkwise" strips of them. Raises `OptionsError`, `KernelUnavailableError`.
    """
    chosen = choose_impl(OP, impl, why=WHY)
    if not q.numel():
        return LaidOut(q, k, v).no_outputs()
    past = None if log_forget is None else running(log_forget)
    batch, tokens, heads = q.shape[:3]
    if chosen == "reference" or tokens == 1:
        return _strip(q, k, v, order, past, weigh)
    form: Callable[..., Tensor] = _strip if past is None else _merged_strip
    elements, before = batch * heads * k.shape[1], k.shape[1] - tokens
    step = max(1, min(STRIP_TOKENS, STRIP_ELEMENTS // elements))
    strips = []
    for start in range(0, tokens, step):
        part, keys = slice(start, min(start + step, tokens)), before + min(start + step, tokens)
        cut = None if past is None else past[:, :keys]
        inputs = q[:, part], k[:, :keys], v[:, :keys], order[:, part], cut, weigh
        again = elements * tokens > HELD_ELEMENTS
        strips.append(checkpoint(form, *inputs, use_reentrant=False) if again else form(*inputs))
    return strips[0] if len(strips) == 1 else torch.cat(strips, dim=1)


def running(log_forget: Tensor) -> Tensor:
    """Sums `[B, S, H]` in float64 of the logarithms `[B, S, H]` up to each token; the first one's, which nothing is
    before, is not read. Of two sums far on float32 would keep little of their difference."""
    return F.pad(log_forget[:, 1:], (0, 0, 1, 0)).double().cumsum(1)


def forgotten(past: Tensor, order: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What is added for queries `[B, H, t, 1]` and taken away for keys `[B, H, 1, S]`, of `running` sums `[B, S, H]`.

    Both are counted from the first query, so that float32 keeps what is near, and no sum holds what comes later.
    """
    of_queries = past.gather(1, order[..., None].expand(-1, -1, past.shape[2]))
    queries, keys = ((x - of_queries[:, :1]).to(dtype).transpose(1, 2) for x in (of_queries, past))
    return queries[..., None], keys[..., None, :]


def softmax_weights(scores: Tensor, seen: Tensor, order: Tensor) -> Tensor:
    """Softmax over the keys that are seen."""
    return scores.masked_fill(~seen, -torch.inf).softmax(-1)


def sigmoid_weights(scores: Tensor, seen: Tensor, order: Tensor, *, length: int = 0) -> Tensor:
    """sigmoid(score - log n), n the ``length``, for 0 the number of seen keys (arXiv 2409.04431)."""
    count = torch.full_like(order, length) if length else order + 1
    return (scores - count.to(scores.dtype).log()[:, None, None, :, None]).sigmoid().masked_fill(~seen, 0.0)


def stick_weights(scores: Tensor, seen: Tensor, order: Tensor) -> Tensor:
    """b_j times the product of 1 - b_l over the keys l after j, b = sigmoid(score), the token itself left out
    (stick-breaking attention, arXiv 2410.17980), as exp(score_j - sum of softplus(score_l), l >= j)."""
    earlier = seen & (torch.arange(scores.shape[-1], device=scores.device) < order[:, None, None, :, None])
    scores = scores.masked_fill(~earlier, -torch.inf)
    left = F.softplus(scores).flip(-1).cumsum(-1).flip(-1)
    logs = scores - left
    return logs.masked_fill(logs < FAINT, -torch.inf).exp()


def weighing(name: str, length: int = 0) -> Weigh:
    """The function of a weighting's name."""
    table: dict[str, Weigh] = {
        "forgetting": softmax_weights,
        "sigmoid": partial(sigmoid_weights, length=length),
        "stick-breaking": stick_weights,
    }
    return table[name]


def _strip(q: Tensor, k: Tensor, v: Tensor, order: Tensor, past: Tensor | None, weigh: Weigh) -> Tensor:
    """`[B, t, Hq, D]` of some queries over the keys up to the last of them."""
    wide, groups = torch.promote_types(q.dtype, torch.float32), k.shape[2]
    rows = (q * scale_of(q, None)).unflatten(2, (groups, -1)).permute(0, 2, 3, 1, 4)
    shared = rows.shape[2:4]
    keys, values = k.transpose(1, 2), v.transpose(1, 2)
    scores = (rows.flatten(2, 3) @ keys.mT).to(wide).unflatten(2, shared)
    if past is not None:
        of_queries, of_keys = (x.unflatten(1, (groups, -1)) for x in forgotten(past, order, wide))
        scores = scores + of_queries - of_keys
    seen = (torch.arange(k.shape[1], device=q.device) <= order[..., None])[:, None, None]
    weights = weigh(scores, seen, order).to(values.dtype)
    out = torch.unflatten(weights.flatten(2, 3) @ values, 2, shared)
    return out.permute(0, 3, 1, 2, 4).flatten(2, 3)


def _merged_strip(q: Tensor, k: Tensor, v: Tensor, order: Tensor, past: Tensor, weigh: Weigh) -> Tensor:
    """`_strip` of forgetting attention by the product that makes its scores: sums of gates are two more channels of
    queries and keys, in float32 at least, and the scores are never held."""
    del weigh  # softmax is what the product is followed by
    wide, groups = torch.promote_types(q.dtype, torch.float32), k.shape[2]
    of_queries, of_keys = (x.flatten(2).transpose(1, 2) for x in forgotten(past, order, wide))
    shared, repeats = scale_of(q, None), q.shape[2] // groups
    k, v = (x.to(wide).repeat_interleave(repeats, 2) if repeats > 1 else x.to(wide) for x in (k, v))
    queries = torch.cat((q.to(wide) * shared, of_queries[..., None], torch.ones_like(of_queries)[..., None]), dim=3)
    keys = torch.cat((k, torch.ones_like(of_keys)[..., None], -of_keys[..., None]), dim=3)
    whole = q.shape[1] == k.shape[1]  # then the queries are all the tokens there are
    seen = None if whole else torch.arange(k.shape[1], device=q.device) <= order[..., None]
    return masked_attention(queries, keys, F.pad(v, (0, 2)), seen, scale=1.0)[..., :-2].to(q.dtype)
