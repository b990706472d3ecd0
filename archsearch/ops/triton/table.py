"""Configurations of the fused kernels around a mixer's op: convolution, norms, gates."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from archsearch.kernels import Config, Key, Table

ARCHS = ("sm_90", "sm_80")


def _tile(rows: int, columns: int, warps: int = 4) -> Config:
    return Config(tiles={"R": rows, "C": columns}, num_warps=warps, num_stages=1)


def _rows(sizes: tuple[int, ...], row: Callable[[int], Mapping[str, Config]]) -> dict[Key, Mapping[str, Config]]:
    return {(arch, size, 0): row(size) for arch in ARCHS for size in sizes}


def _conv(taps: int) -> Mapping[str, Config]:
    return {"forward": _tile(32, 64), "backward": _tile(32, 64, warps=8), "step": _tile(taps, 256)}


def _norm(dim: int) -> Mapping[str, Config]:
    tile = _tile(max(8, 4096 // dim), dim)
    return {"forward": tile, "backward": tile}


def _others(size: int, *forwards: Config) -> dict[Key, tuple[Mapping[str, Config], ...]]:
    return {(arch, size, 0): tuple({"forward": forward} for forward in forwards) for arch in ARCHS}


def _other_convs(*more: Mapping[str, Config]) -> tuple[Mapping[str, Config], ...]:
    return {"forward": _tile(64, 64)}, *more, {"backward": _tile(64, 32, warps=8)}


CONV = Table(
    op="short_conv",
    package=__package__,
    rows=_rows((4, 16), _conv),
    candidates={
        (arch, taps, 0): _other_convs(*more)
        for arch in ARCHS
        for taps, more in ((4, ({"forward": _tile(32, 128)},)), (16, ()))
    },
)
"""Keyed by the width of the convolution in place of a head dim; tiles of tokens and channels."""

_FEW_TAPS = 4


def recalls_outputs(taps: int) -> bool:
    """Whether the backward of a convolution's row takes what precedes the activation from memory, made once by the
    forward kernel, and does not make it anew for each tap: only the square of few taps is less than a pass over memory.
    """
    return taps > _FEW_TAPS


UNIT = Table(
    op="unit_length",
    package=__package__,
    rows=_rows((16, 32, 64, 128, 256), _norm),
    candidates=_others(128, _tile(16, 128), _tile(64, 128, warps=8)),
)
"""Keyed by the length of the vectors."""

GATED = Table(
    op="gated_norm",
    package=__package__,
    rows=_rows((16, 32, 64, 128, 256), _norm),
    candidates=_others(128, _tile(16, 128), _tile(64, 128, warps=8)),
)
"""Keyed by the value dim."""

GATES = Table(
    op="gates",
    package=__package__,
    rows=_rows((1,), lambda _: {"forward": _tile(32, 64), "backward": _tile(32, 64)}),
    candidates=_others(1, _tile(16, 64), _tile(32, 128)),
)
"""Elementwise: one row whatever the head dim."""
