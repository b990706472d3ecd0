"""Configurations of the kernels of mixture of block attention."""

from __future__ import annotations

from archsearch.kernels import Config, Table
from archsearch.kernels.config import Key
from archsearch.ops.triton.exact import for_float32


def _row(arch: str, head_dim: int) -> dict[str, Config]:
    """The own block's kernels take the parts of the past blocks in as well, and so fewer queries or more warps."""
    wide = head_dim > 64
    if arch == "sm_90":
        forward, grad_query = Config.of(8 if wide else 4, 3, M=128, N=64), Config.of(8, 2, M=128, N=64)
        own_forward = Config.of(8, 2, M=128, N=64) if wide else Config.of(4, 3, M=64, N=64)
        own_grad_query = Config.of(8, 2, M=64, N=64) if wide else grad_query
        grad_keys = Config.of(8 if wide else 4, 2, M=64, N=64)
    else:
        forward = own_forward = grad_keys = Config.of(8, 2, M=64, N=64) if wide else Config.of(4, 2, M=64, N=32)
        grad_query = Config.of(4, 2, M=64, N=32)
        own_grad_query = Config.of(8, 2, M=64, N=32) if wide else grad_query
    return {
        "means": Config.of(4, 2, N=64),
        "choose": Config.of(4, 2, M=64, N=64),
        "own_forward": own_forward,
        "past_forward": forward,
        "inner": Config.of(4, 1, M=64),
        "own_grad_query": own_grad_query,
        "past_grad_query": grad_query,
        "own_grad_keys": grad_keys,
        "past_grad_keys": grad_keys,
        "rank_step": Config.of(4, 2, N=64),
        "attend_step": Config.of(4, 1, N=64),
        "merge_step": Config.of(4, 1, M=16),
        "mean_step": Config.of(4, 1, N=64),
    }


ROWS: dict[Key, dict[str, Config]] = {
    (arch, head_dim, 0): _row(arch, head_dim)
    for arch, head_dims in (("sm_90", (16, 32, 64, 128)), ("sm_80", (32, 64, 128)))
    for head_dim in head_dims
}
CANDIDATES: dict[Key, tuple[dict[str, Config], ...]] = {
    ("sm_90", 128, 0): (
        {"past_forward": Config.of(8, 2, M=128, N=64)},
        {"past_forward": Config.of(4, 3, M=64, N=64)},
    ),
    ("sm_80", 128, 0): (
        {"past_forward": Config.of(4, 2, M=64, N=32)},
        {"own_forward": Config.of(8, 2, M=64, N=32)},
    ),
}
"""Fewer stages or shorter turns, and fewer queries or warps, of which an SM holds more."""

PRODUCTS = (
    "choose",
    "own_forward",
    "past_forward",
    "own_grad_query",
    "past_grad_query",
    "own_grad_keys",
    "past_grad_keys",
)
"""Kernels that multiply tiles."""

TABLE = Table(
    op="moba_attention",
    package=__package__,
    rows=ROWS,
    candidates=CANDIDATES,
    exact=for_float32(ROWS, PRODUCTS),
)

SPLITS = (1, 16)
"""Shares of the past blocks that a decode step ranks side by side: of few means, and of more than `FEW`."""

FEW = 64
