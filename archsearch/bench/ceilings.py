"""The ceilings of a device, measured: a large copy and a large matrix product."""

from __future__ import annotations

import torch

from archsearch.bench.results.schema import Rates
from archsearch.bench.timing import Stopwatch, measure

_SECONDS = 1.0


def measure_ceilings(device: torch.device, stopwatch: Stopwatch) -> Rates:
    """A copy of 1 GiB and a product of 8192 cubed in bfloat16, on a CPU of 16 MiB and of 512 cubed in float32."""
    on_card = device.type == "cuda"
    numbers, side = (2**30, 8192) if on_card else (2**24, 512)
    dtype = torch.bfloat16 if on_card else torch.float32
    source = torch.randn(numbers // 4, device=device).view(torch.uint8)[:numbers]
    target = torch.empty_like(source)
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    taken = measure(
        {"copy": lambda: target.copy_(source), "matmul": lambda: left @ right}, stopwatch=stopwatch, seconds=_SECONDS
    )
    return Rates(
        copy_bytes_per_second=2 * source.numel() / taken["copy"].median,
        matmul_flops_per_second=2 * side**3 / taken["matmul"].median,
    )
