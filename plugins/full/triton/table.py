"""Configurations of the full attention kernels, by architecture and head dim. Chosen so that nothing spills.

"forward" and "grad_query" take M queries a program and N keys a turn, "grad_keys" N keys a program and M queries a
turn, "inner" M rows a program, "decode" N rows of the cache a turn, "merge" S partial outputs a turn.
"""

from __future__ import annotations

from archsearch.kernels import Config, Table
from archsearch.kernels.config import Key
from archsearch.ops.triton.exact import for_float32


def _row(arch: str, head_dim: int) -> dict[str, Config]:
    forward, grad_query, grad_keys = (_hopper if arch == "sm_90" else _ampere)(head_dim)
    if head_dim == 256:
        decode = Config.of(8, 3, N=32)
    else:
        decode = Config.of(4, 4, N=32) if (arch, head_dim) == ("sm_80", 128) else Config.of(4, 3, N=64)
    return {
        "forward": forward,
        "inner": Config.of(4, 1, M=64),
        "grad_query": grad_query,
        "grad_keys": grad_keys,
        "decode": decode,
        "merge": Config.of(4, 1, S=16),
    }


def _hopper(head_dim: int) -> tuple[Config, Config, Config]:
    """Of the forward pass, of the gradient of queries, and of that of keys and values."""
    if head_dim == 256:
        return Config.of(8, 2, M=128, N=32), Config.of(8, 2, M=64, N=32), Config.of(8, 2, M=32, N=64)
    if head_dim == 128:
        return Config.of(8, 3, M=128, N=64), Config.of(8, 2, M=128, N=64), Config.of(8, 2, M=64, N=64)
    return Config.of(4, 3, M=128, N=64), Config.of(8, 2, M=128, N=64), Config.of(4, 2, M=64, N=64)


def _ampere(head_dim: int) -> tuple[Config, Config, Config]:
    """The same."""
    if head_dim == 256:
        return Config.of(8, 2, M=64, N=32), Config.of(8, 2, M=64, N=32), Config.of(8, 2, M=32, N=32)
    if head_dim == 128:
        return Config.of(8, 2, M=64, N=64), Config.of(8, 2, M=64, N=32), Config.of(8, 2, M=64, N=64)
    return Config.of(4, 2, M=64, N=32), Config.of(4, 2, M=64, N=32), Config.of(4, 2, M=64, N=32)


def _others(arch: str) -> tuple[dict[str, Config], ...]:
    """For head dim 128: fewer stages or shorter turns, and fewer queries, of which an SM holds more."""
    if arch == "sm_90":
        return {"forward": Config.of(8, 2, M=128, N=64)}, {"forward": Config.of(4, 3, M=64, N=64)}
    return {"forward": Config.of(8, 2, M=64, N=32)}, {"forward": Config.of(4, 2, M=64, N=32)}


ROWS: dict[Key, dict[str, Config]] = {
    (arch, head_dim, 0): _row(arch, head_dim)
    for arch, head_dims in (("sm_90", (16, 32, 64, 128, 256)), ("sm_80", (32, 64, 128, 256)))
    for head_dim in head_dims
}
TABLE = Table(
    op="full_attention",
    package=__package__,
    rows=ROWS,
    exact=for_float32(ROWS, ("forward", "grad_query", "grad_keys", "decode")),
    candidates={(arch, 128, 0): _others(arch) for arch in ("sm_90", "sm_80")},
)
