"""Candidates of a row by the model: a bound for each of its configurations, at the sizes that tuning measures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from archsearch.bench.bounds.launch import Known, LaunchBound
from archsearch.bench.bounds.op import OpBound, bound_op
from archsearch.bench.op import FULL, BenchOp
from archsearch.bench.tune import SIZES, sizes_of
from archsearch.evidence.modelled import OWN, Modelled, Taken
from archsearch.kernels import Config, Key, Table
from archsearch.kernels.machine import compiler_versions
from archsearch.kernels.machine_code.cards import Card


def model_row(
    ops: Sequence[BenchOp],
    table: Table,
    key: Key,
    card: Card,
    cache: Path | None,
    *,
    kernels: str,
    most: int = SIZES,
) -> list[Modelled]:
    """The bounds of the table's own configurations of a row and of each candidate, at the first `most` sizes that
    tuning measures them at; none where no op measures the row. `kernels` is the digest of the table's.

    Launches that are the same in two of them are followed once.
    """
    sizes = sizes_of(ops, table, key, FULL, most)
    if not sizes or not table.numbers(key):
        return []
    known: Known = {}
    found: dict[int | None, list[OpBound]] = {}
    for number in (None, *table.numbers(key)):
        with table.using(key, number):
            found[number] = [bound_op(*size, card, cache, known) for size in sizes]
    differing = _differing(found.values())
    return [_modelled(table, key, number, bounds, differing, kernels) for number, bounds in found.items()]


def _differing(found: Iterable[Sequence[OpBound]]) -> set[str]:
    """Digests of the kernels that not all configurations launch."""
    launched = [{launch.digest for bound in bounds for launch in bound.launches} for bounds in found]
    return launched[0].union(*launched) - launched[0].intersection(*launched)


def _modelled(
    table: Table,
    key: Key,
    number: int | None,
    bounds: Sequence[OpBound],
    differing: set[str],
    kernels: str,
) -> Modelled:
    arch, head_dim, chunk = key
    triton, ptxas = compiler_versions()
    launches = [launch for bound in bounds for launch in bound.launches]
    return Modelled(
        op=table.op,
        arch=arch,
        head_dim=head_dim,
        chunk=chunk,
        candidate=OWN if number is None else number,
        config=table.digest(key, number),
        changes=_changes(table, key, number),
        sizes=tuple(f"{bound.op} {bound.phase} {bound.shape_text}" for bound in bounds),
        seconds=tuple(float(f"{bound.seconds:.4g}") for bound in bounds),
        taken=tuple(_taken(launch) for launch in _longest(launches) if launch.digest in differing),
        uncertain=any(launch.uncertain for launch in launches),
        kernels=kernels,
        triton=triton,
        ptxas=ptxas,
    )


def _changes(table: Table, key: Key, number: int | None) -> str:
    """What a candidate changes, in words."""
    configs = {} if number is None else table.candidates[key][number]
    return "; ".join(f"{name}: {_told(config)}" for name, config in configs.items())


def _told(config: Config) -> str:
    tiles = " ".join(f"{name}={size}" for name, size in config.tiles.items())
    return f"{tiles} {config.num_warps} warps {config.num_stages} stages".strip()


def _longest(launches: Sequence[LaunchBound]) -> list[LaunchBound]:
    """Of each kernel the longest launch, longest first."""
    longest: dict[str, LaunchBound] = {}
    for launch in sorted(launches, key=lambda launch: -launch.seconds):
        longest.setdefault(launch.digest, launch)
    return list(longest.values())


def _taken(launch: LaunchBound) -> Taken:
    return Taken(
        kernel=launch.kernel,
        registers=launch.registers,
        shared_bytes=launch.shared_bytes,
        resident=launch.resident,
        held_by=launch.held_by,
        limit=launch.limit,
        ms=float(f"{launch.seconds * 1e3:.4g}"),
    )
