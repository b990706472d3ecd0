"""What the field published that `full` stands for."""

from __future__ import annotations

from collections.abc import Mapping

from archsearch.mixer import System

SYSTEMS: Mapping[str, System] = {
    "full": System(
        rule="softmax over all tokens so far; positions by none, partial or full rotary embedding",
        source="arXiv 1706.03762",
    ),
    "qwen3-next-full": System(
        rule="softmax with a quarter rotated and normed q and k, each channel gated by the token",
        source="arXiv 2505.06708",
    ),
    "forgetting": System(
        rule="softmax whose logits fall by the forget gates of the tokens after a key", source="arXiv 2503.02130"
    ),
    "sigmoid": System(rule="a sigmoid of each logit less log n, without a sum over keys", source="arXiv 2409.04431"),
    "stick-breaking": System(
        rule="from the latest key on each breaks its share off what is left of a stick", source="arXiv 2410.17980"
    ),
    "path": System(
        rule="softmax of q . H .. H k, a reflection H = I - b w w^T of each token after the key",
        source="arXiv 2505.16381",
    ),
    "path-fox": System(rule="PaTH whose logits also fall by forget gates", source="arXiv 2505.16381"),
    "deltaformer": System(
        rule="softmax over u = v - what softmax by k reads of earlier u: the delta rule in attention",
        source="arXiv 2505.19488",
    ),
}
