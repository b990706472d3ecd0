"""What the kernel that writes means of blocks is asked, of every table that has it."""

from __future__ import annotations

from dataclasses import replace

import torch

from archsearch.kernels import Table
from archsearch.ops.block_cache import write_mean, write_means
from archsearch.proving.check import Attempt
from archsearch.proving.compare import Verdict, worst
from archsearch.proving.inputs import cached, qkv
from archsearch.proving.judging import near


def written_means(attempt: Attempt, table: Table) -> Verdict:
    """The mean of a block is written when its last token comes, and nothing else is."""
    lengths = (7, 8, 64, 90)
    found = []
    for dtype in dict.fromkeys((attempt.dtype, torch.float32)):  # of a cache as wide as the parameters
        drawn = cached(qkv(90, attempt.dim, key_heads=2, batch=4), lengths)
        inputs = replace(attempt, dtype=dtype).held(drawn, ["k"])
        blank = torch.full((4, 12, 2, attempt.dim), -1.0, device=attempt.device, dtype=dtype)
        got = write_mean(blank.clone(), inputs["k"], inputs["lengths"], block_size=8, table=table, impl="triton")
        right = write_means(blank.double(), inputs["k"].double(), inputs["lengths"] - 1, 1, 8)
        found.append(near("a mean", got, right, 1e-2))
    return worst(found)
