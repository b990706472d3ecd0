"""Configurations of the kernels of attention over what an index chooses, and of the choice.

``TABLE`` goes by the head dim of attention: "forward" and "grad_query" take N listed keys a turn, "grad_keys" M query
heads over N keys of a block, or over few, "merge" M parts. ``CHOICE`` goes by the channels of what scores: "scores"
makes M x N products, "best" reads N scores a turn.
"""

from __future__ import annotations

from archsearch.kernels import Config, Table
from archsearch.kernels.config import Key
from archsearch.ops.triton.exact import for_float32

SMALL = 16
"""Keys of a block up to which the gradients of keys take a tile of few, and query heads that a tile has at least."""

STRIP = 512
"""Queries whose scores are held at a time."""

STRIP_ELEMENTS = 2**25
"""Scores that are held at a time, but for those of `LEAST_STRIP` queries."""

LEAST_STRIP = 64


def _row(arch: str, head_dim: int) -> dict[str, Config]:
    hopper = arch == "sm_90"
    if hopper:
        grad_keys = Config.of(8, 2, M=64, N=64)
    else:
        grad_keys = Config.of(8, 2, M=64, N=32) if head_dim > 32 else Config.of(4, 2, M=32, N=32)
    return {
        "forward": Config.of(4, 3 if hopper else 2, N=64),
        "merge": Config.of(4, 1, M=16),
        "inner": Config.of(4, 1, M=64),
        "grad_query": Config.of(4, 2, N=64),
        "grad_keys": grad_keys,
        "grad_few": Config.of(8 if hopper or head_dim < 128 else 4, 2, M=64, N=SMALL),
    }


def _others(arch: str) -> tuple[dict[str, Config], ...]:
    """For a head dim of 128: turns of half as many keys, so that an SM holds more programs, and more warps, on sm_90
    over longer turns; then smaller tiles for either gradient."""
    if arch == "sm_90":
        return (
            {"forward": Config.of(8, 2, N=128)},
            {"forward": Config.of(4, 3, N=32)},
            {"grad_query": Config.of(4, 2, N=32)},
            {"grad_keys": Config.of(8, 2, M=32, N=64)},
        )
    return (
        {"forward": Config.of(4, 3, N=32)},
        {"forward": Config.of(8, 2, N=64)},
        {"grad_query": Config.of(4, 2, N=32)},
        {"grad_keys": Config.of(4, 2, M=32, N=32)},
    )


_CHOICE = {"scores": Config.of(8, 2, M=64, N=64), "best": Config.of(4, 1, N=1024)}
_OTHER_CHOICES = {
    "sm_90": (
        {"scores": Config.of(4, 2, M=64, N=64)},
        {"scores": Config.of(8, 2, M=128, N=64)},
    ),
    "sm_80": (
        {"scores": Config.of(4, 2, M=64, N=32)},
        {"scores": Config.of(4, 2, M=32, N=64)},
    ),
}
"""For 128 channels: fewer warps, and more queries a tile, or smaller tiles where registers are short."""


_WIDTHS = {"sm_90": (16, 32, 64, 128), "sm_80": (32, 64, 128)}
ROWS: dict[Key, dict[str, Config]] = {
    (arch, head_dim, 0): _row(arch, head_dim) for arch, widths in _WIDTHS.items() for head_dim in widths
}
TABLE = Table(
    op="indexed_attention",
    package=__package__,
    rows=ROWS,
    candidates={(arch, 128, 0): _others(arch) for arch in _WIDTHS},
    exact=for_float32(ROWS, ("forward", "grad_query", "grad_keys", "grad_few")),
)
CHOICE_ROWS: dict[Key, dict[str, Config]] = {
    (arch, width, 0): _CHOICE for arch, widths in _WIDTHS.items() for width in (*widths, 256)
}
CHOICE = Table(
    op="indexed_choice",
    package=__package__,
    rows=CHOICE_ROWS,
    exact=for_float32(CHOICE_ROWS, ("scores",)),
    candidates={(arch, 128, 0): _OTHER_CHOICES[arch] for arch in _WIDTHS},
)
