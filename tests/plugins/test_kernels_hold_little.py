"""Softmax attention by kernels holds no tensor of all pairs of tokens, nor of tokens and blocks."""

from __future__ import annotations

import pytest
import torch
from kernel_calls import SEQUENCES, Sizes
from kernel_variants import variants
from torch.profiler import ProfilerActivity, profile

TOKENS, BLOCK = 4096, 4


def largest_bytes(op: str) -> int:
    """The most that any operation of a forward and a backward allocates."""
    sizes = Sizes(tokens=TOKENS, heads=1, kv_heads=1)
    with variants(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        (out,) = SEQUENCES[op](sizes)
        out.backward(torch.zeros_like(out))
    return max(event.self_cpu_memory_usage for event in profiled.events())


@pytest.mark.parametrize("op", ["full", "sliding", "moba", "nsa", "indexed"])
def test_memory_of_one_call(op: str) -> None:
    rows_bytes = TOKENS * 16 * 4
    assert rows_bytes <= largest_bytes(op) < TOKENS * (TOKENS // BLOCK)
