"""The equations of six more mixers, token by token in float64, of one sequence `[T, D]` and a layer's own weights."""

from __future__ import annotations

import torch
from field_references import turned, weights_of
from torch import Tensor

from archsearch.model import Mixer


def normed(x: Tensor) -> Tensor:
    """RMSNorm without a weight."""
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def softmax_of(q: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    """One query `[Hq, D]` over keys and values `[Hkv, D]`, the heads end to end."""
    groups, out = len(q) // len(keys[0]), []
    for head, query in enumerate(q):
        scores = torch.stack([query @ key[head // groups] / len(query) ** 0.5 for key in keys]).softmax(0)
        out.append(sum(scores[s] * values[s][head // groups] for s in range(len(keys))))
    return torch.cat(out)


def heads(mixer: Mixer, x: Tensor, positions: list[int]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Queries, keys and values of each token by one projection, the first two turned."""
    shape = mixer.shape
    every = (x @ weights_of(mixer)["qkv.weight"].T).unflatten(-1, (-1, shape.head_dim))
    q, k, v = every.split([shape.n_heads, shape.n_kv_heads, shape.n_kv_heads], 1)
    turn = [[turned(row[t], p, turned_dim=shape.head_dim) for t, p in enumerate(positions)] for row in (q, k)]
    return turn[0], turn[1], list(v)


def prefix(mixer: Mixer, x: Tensor, positions: list[int]) -> Tensor:
    """Softmax over the prefix and the tokens so far."""
    w, (q, k, v) = weights_of(mixer), heads(mixer, x, positions)
    before = list(w["prefix_k"]), list(w["prefix_v"])
    mixed = [softmax_of(q[t], before[0] + k[: t + 1], before[1] + v[: t + 1]) for t in range(len(x))]
    return torch.stack(mixed) @ w["out.weight"].T


def pad4(mixer: Mixer, x: Tensor, positions: list[int]) -> Tensor:
    """Softmax over the means of the blocks of four before a token's own, and the tokens of that up to it."""
    w, (q, k, v), mixed = weights_of(mixer), heads(mixer, x, positions), []
    for t in range(len(x)):
        first = t // 4 * 4
        seen = [
            [torch.stack(rows[s : s + 4]).mean(0) for s in range(0, first, 4)] + rows[first : t + 1] for rows in (k, v)
        ]
        mixed.append(softmax_of(q[t], *seen))
    return torch.stack(mixed) @ w["out.weight"].T


def mom(mixer: Mixer, x: Tensor, positions: list[int]) -> Tensor:
    """Memories one token at a time; the shared one is the last."""
    w, options, shape = weights_of(mixer), mixer.options, mixer.shape
    states, mixed = torch.zeros(len(w["kv"]), shape.n_heads, shape.head_dim, shape.head_dim, dtype=torch.float64), []
    for token in x:
        weights = torch.zeros(len(w["kv"]), dtype=torch.float64)
        if options.memories > 1:
            scores = (w["router.weight"] @ token).softmax(0)
            best = scores.argsort(descending=True)[: options.top_k]
            weights[best] = scores[best] / scores[best].sum()
        else:
            weights[0] = 1
        if options.shared:
            weights[-1] = 1
        for memory in weights.nonzero().flatten():
            k, v = (token @ w["kv"][memory]).view(2, shape.n_heads, shape.head_dim)
            states[memory] += torch.stack([torch.outer(k[h], v[h]) for h in range(shape.n_heads)])
        q = (w["q.weight"] @ token).view(shape.n_heads, shape.head_dim)
        met = sum(weights[memory] * states[memory] for memory in range(len(states)))
        read = torch.stack([q[h] @ met[h] for h in range(shape.n_heads)])
        mixed.append((normed(read) * w["norm"]).flatten())
    return torch.stack(mixed) @ w["out.weight"].T


def shift(
    mixer: Mixer, x: Tensor, positions: list[int], first: list[Tensor] | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Token shift, then softmax; `first`: the values of the first such layer. Its own values come with the output."""
    w, shape, rows = weights_of(mixer), mixer.shape, ([], [], [])
    for t, token in enumerate(x):
        before = x[t - 1] if t else torch.zeros_like(token)
        for index, name in enumerate("qkv"):
            blended = token + w["blend"][index] * (before - token)
            row = (w[f"{name}.weight"] @ blended).view(-1, shape.head_dim)
            rows[index].append(row if name == "v" else turned(row, positions[t], turned_dim=shape.head_dim))
    q, k, v = rows
    if first is not None:
        v = [w["residual"][0] * own + w["residual"][1] * other for own, other in zip(v, first, strict=True)]
    mixed = torch.stack([softmax_of(q[t], k[: t + 1], v[: t + 1]) for t in range(len(x))])
    return mixed @ w["out.weight"].T, v


def yoco(producer: Mixer, queries: Mixer, written: Tensor, x: Tensor, positions: list[int]) -> Tensor:
    """The queries of one layer on `x` over the keys and values of another on `written`, both `[T, D]`."""
    of, by, dim = weights_of(producer), weights_of(queries), producer.shape.head_dim
    q, k = (
        [
            turned((token @ weight.T).view(-1, dim), p, turned_dim=dim)
            for token, p in zip(tokens, positions, strict=True)
        ]
        for tokens, weight in ((x, by["q.weight"]), (written, of["k.weight"]))
    )
    v = [(token @ of["v.weight"].T).view(-1, dim) for token in written]
    mixed = torch.stack([softmax_of(q[t], k[: t + 1], v[: t + 1]) for t in range(len(x))])
    return mixed @ by["out.weight"].T
