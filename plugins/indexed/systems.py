"""What the field published that `indexed` stands for."""

from __future__ import annotations

from collections.abc import Mapping

from archsearch.mixer import System

SYSTEMS: Mapping[str, System] = {
    "dsa": System(
        rule="softmax over the k tokens that small rectified heads score best, taught by attention",
        source="arXiv 2512.02556",
    ),
    "dsa-mla": System(rule="the same over the latents of MLA", source="arXiv 2512.02556"),
    "glm5-next": System(
        rule="softmax over the latents of the pools whose gated index key answers rectified heads best, and the tail",
        source="GLM-5.3-Flash's released code",
    ),
    "qsa": System(
        rule="softmax over the blocks whose pooled index key answers rectified heads best, and the tail",
        source="Qwen4-Exp's released code",
    ),
    "m3": System(
        rule="softmax over the blocks that hold the best key by an index head for each key head",
        source="MiniMax-M3's released code",
    ),
    "topk": System(rule="softmax over the k greatest of each query's own scores", source="arXiv 2106.06899"),
    "quest": System(
        rule="softmax over the blocks whose greatest possible score, by the range of their keys, is best",
        source="arXiv 2406.10774",
    ),
    "infllm": System(
        rule="softmax over a window, first blocks, and the past blocks whose most asked keys answer best",
        source="arXiv 2402.04617",
    ),
}

TAKER_SYSTEMS: Mapping[str, System] = {
    "indexshare": System(
        rule="softmax over its own latents of the tokens that an earlier layer's index chose (GLM-5.2)",
        source="arXiv 2603.12201",
    ),
    "indexshare-latents": System(
        rule="softmax over an earlier layer's latents of the tokens that its index chose",
        source="DeepSeek-V4.1's released code, mode Reuse",
    ),
    "reindex": System(
        rule="softmax over an earlier layer's latents of the tokens whose index keys, its too, answer own heads best",
        source="DeepSeek-V4.1's released code, mode Reindex",
    ),
}
