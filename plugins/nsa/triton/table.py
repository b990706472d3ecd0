"""Configurations of the kernels of native sparse attention."""

from __future__ import annotations

from archsearch.kernels import Config, Table
from archsearch.kernels.config import Key
from archsearch.ops.triton.exact import for_float32


def _row(arch: str, head_dim: int) -> dict[str, Config]:
    wide = head_dim > 64
    if arch == "sm_90":
        forward, grad_query = Config.of(8 if wide else 4, 3, M=128, N=64), Config.of(8, 2, M=128, N=64)
        grad_keys = Config.of(8 if wide else 4, 2, M=64, N=64)
    else:
        forward = grad_keys = Config.of(8, 2, M=64, N=64) if wide else Config.of(4, 2, M=64, N=32)
        grad_query = Config.of(4, 2, M=64, N=32)
    tight = arch == "sm_90" and head_dim == 64  # with Triton 3.6 as many queries a turn as elsewhere spill
    grad_rows = Config.of(4, 2, M=32, N=64) if tight else grad_keys
    select = Config.of(4, 3 if arch == "sm_90" else 2, N=64)
    return {
        "means": Config.of(4, 2, N=64),
        "means_forward": forward,
        "choose": Config.of(4, 2, M=64, N=64),
        "selection_forward": select,
        "window_forward": forward,
        "inner": Config.of(4, 1, M=64),
        "means_grad_query": grad_query,
        "selection_grad_query": Config.of(4, 2, N=64),
        "window_grad_query": grad_query,
        "means_grad_keys": grad_keys,
        "own_grad_keys": grad_rows,
        "past_grad_keys": grad_keys,
        "window_grad_keys": grad_rows,
        "means_step": Config.of(4, 2, N=64),
        "choose_step": Config.of(4, 2, N=64),
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
        {"selection_forward": Config.of(4, 2, N=64)},
        {"window_forward": Config.of(8, 2, M=128, N=64)},
    ),
    ("sm_80", 128, 0): (
        {"selection_forward": Config.of(4, 3, N=64)},
        {"window_forward": Config.of(4, 2, M=64, N=32)},
    ),
}
"""Other stages over the chosen blocks; fewer stages, or fewer warps, over the window."""

PRODUCTS = (
    "means_forward",
    "choose",
    "selection_forward",
    "window_forward",
    "means_grad_query",
    "selection_grad_query",
    "window_grad_query",
    "means_grad_keys",
    "own_grad_keys",
    "past_grad_keys",
    "window_grad_keys",
    "means_step",
    "attend_step",
)
"""Kernels that multiply tiles."""

TABLE = Table(
    op="nsa_attention",
    package=__package__,
    rows=ROWS,
    candidates=CANDIDATES,
    exact=for_float32(ROWS, PRODUCTS),
)

SPLITS = (1, 16)
"""Shares of the means that a decode step works on side by side: of few means, and of more than `FEW`."""

FEW = 64
