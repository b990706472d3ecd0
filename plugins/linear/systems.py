"""What the field published that `linear` stands for."""

from __future__ import annotations

from collections.abc import Mapping

from archsearch.mixer import System

SYSTEMS: Mapping[str, System] = {
    "linear": System(rule="S += k v^T", source="arXiv 2006.16236"),
    "retnet": System(rule="S = a S + k v^T, a constant for each head", source="arXiv 2307.08621"),
    "lightning": System(
        rule="S = a S + k v^T, a constant for each head and layer (MiniMax-01)", source="arXiv 2501.08313"
    ),
    "mamba2": System(rule="S = a S + dt k v^T, a and dt of the token and head", source="arXiv 2405.21060"),
    "gla": System(rule="S = diag(a) S + k v^T, a of the token and channel", source="arXiv 2312.06635"),
    "gated-retention": System(
        rule="S = a S + k v^T, a = sigmoid(x)^(1/16) of the token and head", source="arXiv 2405.05254"
    ),
    "hgrn2": System(
        rule="S = diag(f) S + (1 - f) v^T, f of the token and channel above a trained bound, the higher the deeper",
        source="arXiv 2404.07904",
    ),
    "rwkv6": System(
        rule="S = diag(a) S + k v^T, read before the write, and the own value by a weight; tokens mixed with the last",
        source="arXiv 2404.05892",
    ),
    "mlstm": System(
        rule="S = f S + exp(i) k v^T over max(|n q|, 1), n the same sum of keys", source="arXiv 2405.04517"
    ),
    "performer": System(
        rule="S += f(k) v^T over the sum of f(k), f random features of softmax", source="arXiv 2009.14794"
    ),
    "log-linear-mamba2": System(
        rule="mamba2 with a state for each power of two of the past, weighed by the token", source="arXiv 2506.04761"
    ),
    "deltanet": System(rule="S = (I - b k k^T) S + b k v^T", source="arXiv 2406.06484"),
    "gated-deltanet": System(
        rule="S = a (I - b k k^T) S + b k v^T, a of the token and head", source="arXiv 2412.06464"
    ),
    "log-linear-gated-deltanet": System(
        rule="gated-deltanet with a state for each power of two of the past, weighed by the token",
        source="arXiv 2506.04761",
    ),
    "mom": System(
        rule="gated-deltanet of four states, two of which the token chooses, and one that all share",
        source="arXiv 2502.13685",
    ),
    "kda": System(rule="S = (I - b k k^T) diag(a) S + b k v^T, a of the token and channel", source="arXiv 2510.26692"),
    "kda-bounded": System(
        rule="as kda, log a = -5 sigmoid(x) (Bailing hybrid, GLM5-Next)", source="arXiv 2510.26692 and released models"
    ),
    "olmo-hybrid": System(
        rule="S = a (I - b k k^T) S + b k v^T, b up to 2, whose eigenvalues may be negative",
        source="arXiv 2411.12537",
    ),
    "gated-deltaproduct": System(
        rule="S = a S, then S = (I - b k k^T) S + b k v^T for each of n keys of the token", source="arXiv 2502.10297"
    ),
    "gated-deltanet-2": System(
        rule="S = (I - k (b * k)^T) diag(a) S + k (w * v)^T, b and w gates of the channel", source="arXiv 2605.22791"
    ),
    "comba": System(rule="S = (a - s b k k^T) S + b k v^T, read by q - d k", source="arXiv 2506.02475"),
    "rwkv7": System(
        rule="S = (diag(w) - (a * c) c^T) S + k v^T, c a unit removal key, a a rate of the channel",
        source="arXiv 2503.14456",
    ),
}
