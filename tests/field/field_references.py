"""The equations of six papers, token by token in float64, of one sequence `[T, D]` and a layer's own weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from archsearch.model import Mixer

Weights = dict[str, Tensor]


def weights_of(mixer: Mixer) -> Weights:
    """The parameters by name, in float64."""
    return {name: weight.detach().double() for name, weight in mixer.named_parameters()}


def turned(x: Tensor, position: int, *, turned_dim: int, base: float = 10000.0) -> Tensor:
    """The first `turned_dim` channels of `[..., D]` in pairs, each turned by its angle (RoFormer, equation 34)."""
    out = x.clone()
    for pair in range(turned_dim // 2):
        angle = torch.tensor(position * base ** (-2 * pair / turned_dim), dtype=torch.float64)
        a, b = x[..., 2 * pair], x[..., 2 * pair + 1]
        out[..., 2 * pair] = a * angle.cos() - b * angle.sin()
        out[..., 2 * pair + 1] = a * angle.sin() + b * angle.cos()
    return out


def mla(mixer: Mixer, x: Tensor, positions: list[int]) -> Tensor:
    """DeepSeek-V2, equations 9 to 19."""
    w, width, rope = weights_of(mixer), mixer.shape.head_dim, mixer.options.rope_dim
    rank, heads = mixer.options.kv_rank, mixer.shape.n_heads
    keys, values, outputs = [], [], []
    for t, position in enumerate(positions):
        down = w["fold.weight"] @ x[t]
        latent = down[:rank] / (down[:rank].square().mean() + 1e-6).sqrt() * w["norm.weight"]
        shared = turned(down[rank:], position, turned_dim=rope)
        keys.append([torch.cat((w["unfold"][0, h] @ latent, shared)) for h in range(heads)])
        values.append([w["unfold"][1, h] @ latent for h in range(heads)])
        query = (w["query.weight"] @ x[t]).view(heads, width + rope)
        mixed = []
        for h in range(heads):
            q = torch.cat((query[h, :width], turned(query[h, width:], position, turned_dim=rope)))
            scores = torch.stack([q @ keys[s][h] / (width + rope) ** 0.5 for s in range(t + 1)]).softmax(0)
            mixed.append(sum(scores[s] * values[s][h] for s in range(t + 1)))
        outputs.append(w["out.weight"] @ torch.cat(mixed))
    return torch.stack(outputs)


def mamba1(mixer: Mixer, x: Tensor, positions: list[int]) -> Tensor:
    """Mamba, algorithm 2, with the zero-order hold of A and the Euler step of B that its code takes."""
    w, n = weights_of(mixer), mixer.options.state_dim
    inner, taps, rank = len(w["skip"]), w["conv.weight"], w["dt.weight"].shape[1]
    seen: list[Tensor] = []
    held, outputs = torch.zeros(inner, n, dtype=torch.float64), []
    for t in range(len(x)):
        both = w["read.weight"] @ x[t]
        seen.append(both[:inner])
        mixed = sum(taps[i] * seen[t - i] for i in range(min(len(taps), t + 1))) + w["conv_bias"]
        u = torch.nn.functional.silu(mixed)
        low, write, read = torch.split(w["select.weight"] @ u, [rank, n, n])
        dt = torch.log1p(torch.exp(w["dt.weight"] @ low + w["dt.bias"]))
        for channel in range(inner):
            decay = torch.exp(-dt[channel] * w["log_rate"][channel].exp())
            held[channel] = decay * held[channel] + dt[channel] * u[channel] * write
        y = held @ read + w["skip"] * u
        outputs.append(w["out.weight"] @ (y * torch.nn.functional.silu(both[inner:])))
    return torch.stack(outputs)


def ttt(mixer: Mixer, x: Tensor, positions: list[int]) -> Tensor:
    """TTT-Linear: a step of gradient descent a token, its gradient by autograd, at the mini-batch's first weights."""
    w, heads, d = weights_of(mixer), mixer.shape.n_heads, mixer.shape.head_dim
    projected = x @ w["proj.weight"].T
    outputs = torch.zeros(len(x), heads * d, dtype=torch.float64)
    for h in range(heads):
        q, k, v = (projected[:, (part * heads + h) * d :][:, :d] for part in range(3))
        rates = projected[:, 3 * heads * d + h].sigmoid() * mixer.options.rate / d

        def model(token: Tensor, weights: Tensor, h: int = h) -> Tensor:
            z = token @ weights[:d] + weights[d]
            normed = (z - z.mean()) / (z.var(unbiased=False) + 1e-6).sqrt()
            return token + w["norm"][h] * normed + w["shift"][h]

        now = w["first"][h]
        for t in range(len(x)):
            if t % mixer.options.mini_batch == 0:
                start = now.clone().requires_grad_()
            loss = (model(k[t], start) - v[t]).square().sum() / 2
            now = now - rates[t] * torch.autograd.grad(loss, start)[0]
            outputs[t, h * d : (h + 1) * d] = model(q[t], now)
    return outputs @ w["out.weight"].T


def attention(
    mixer: Mixer, x: Tensor, positions: list[int], seen: Callable[[int], list[int]], sink: Tensor | None = None
) -> Tensor:
    """Grouped attention in which token t sees the tokens `seen(t)`; `sink` are logits that take weight."""
    w, (q, k, v) = weights_of(mixer), projected_heads(mixer, x, positions)
    group, outputs = q.shape[1] // k.shape[1], []
    for t in range(len(x)):
        mixed = []
        for h in range(q.shape[1]):
            scores = torch.stack([q[t, h] @ k[s, h // group] for s in seen(t)]) / q.shape[2] ** 0.5
            below = scores.exp().sum() + (0 if sink is None else sink[h].exp())
            mixed.append(sum(scores[i].exp() / below * v[s, h // group] for i, s in enumerate(seen(t))))
        outputs.append(w["out.weight"] @ torch.cat(mixed))
    return torch.stack(outputs)


def projected_heads(mixer: Mixer, x: Tensor, positions: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v `[T, H, D]` of the mixers whose projections are those of the house."""
    shape, rope = mixer.shape, 2 * int(mixer.options.rope * mixer.shape.head_dim / 2)
    heads = (x @ weights_of(mixer)["qkv.weight"].T).view(len(x), -1, shape.head_dim)
    q, k, v = torch.split(heads, [shape.n_heads, shape.n_kv_heads, shape.n_kv_heads], dim=1)
    q, k = (torch.stack([turned(z[t], p, turned_dim=rope) for t, p in enumerate(positions)]) for z in (q, k))
    return q, k, v


def sink(mixer: Mixer, x: Tensor, positions: list[int]) -> Tensor:
    """A window, and one more logit in the sum below."""
    window = mixer.options.window
    logits = weights_of(mixer)["sink"]
    return attention(mixer, x, positions, lambda t: list(range(max(0, t - window + 1), t + 1)), logits)


def dsa(mixer: Mixer, x: Tensor, positions: list[int]) -> Tensor:
    """DeepSeek-V3.2, equations 1 and 2."""
    w, options = weights_of(mixer), mixer.options
    heads, d = options.index_heads, options.index_dim
    rope, keys, chosen = 2 * int(options.rope * d / 2), [], []
    for t, position in enumerate(positions):
        both = w["index.weight"] @ x[t]
        key = both[heads * d : heads * d + d]
        key = (key - key.mean()) / (key.var(unbiased=False) + 1e-5).sqrt()
        key = key * w["index_norm.weight"] + w["index_norm.bias"]
        keys.append(turned(key, position, turned_dim=rope))
        asks = turned(both[: heads * d].view(heads, d), position, turned_dim=rope)
        share = both[heads * d + d :] / (heads * d) ** 0.5
        scores = [float(sum(share[j] * (asks[j] @ keys[s]).relu() for j in range(heads))) for s in range(t + 1)]
        chosen.append(sorted(range(t + 1), key=lambda s, scores=scores: -scores[s])[: options.top_k])
    return attention(mixer, x, positions, lambda t: chosen[t])


def h2o(mixer: Mixer, x: Tensor, positions: list[int], prompt: int) -> Tensor:
    """H2O, algorithm 1, after a dense prompt: the kept tokens as a set, of which the lowest old one is put out."""
    w, (q, k, v) = weights_of(mixer), projected_heads(mixer, x, positions)
    options, group, mixed = mixer.options, q.shape[1] // k.shape[1], torch.zeros_like(q)
    for head in range(k.shape[1]):
        scores: dict[int, float] = {}
        for t in range(len(x)):
            scores[t] = 0.0
            kept = sorted(scores)
            for h in range(head * group, (head + 1) * group):
                weights = torch.stack([q[t, h] @ k[s, head] for s in kept]).div(q.shape[2] ** 0.5).softmax(0)
                mixed[t, h] = sum(weight * v[s, head] for weight, s in zip(weights, kept, strict=True))
                for weight, s in zip(weights, kept, strict=True):
                    scores[s] += float(weight)
            while t >= prompt - 1 and len(scores) > options.kept:
                del scores[min((s for s in scores if s <= t - options.recent), key=lambda s: scores[s])]
    return mixed.flatten(1) @ w["out.weight"].T
