"""Every kernel of the core and of the registered plugins, compiled ahead of time by several processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path

from archsearch.evidence.compiled import Compiled, Report
from archsearch.kernels import Build
from archsearch.kernels.build import COMMON
from archsearch.kernels.compiler import compile_build, digest_of
from archsearch.kernels.config import check_arch, tables
from archsearch.kernels.machine import compiler_versions
from archsearch.ops.triton.builds import builds as core_builds
from archsearch.registry import Registry, load_registry


def all_builds(registry: Registry, arch: str) -> list[Build]:
    """Of the core first, then of each plugin in the order of their names; after each those of the candidates of its
    tables, where they differ from the table's own, and those in float32 of rows that have other configurations for it.
    Raises `SpecError` for an architecture that has none."""
    found = []
    for builds in (core_builds, *(registry.measured(mixer.name).builds for mixer in registry.mixers())):
        found += with_candidates(builds, arch)
        found += in_float32(builds, arch)
    if not found:
        check_arch(arch, tables.values())
    return found


def with_candidates(builds: Callable[[str], Iterable[Build]], arch: str) -> list[Build]:
    """What `builds` yields of an architecture, and with each candidate of its tables in use what then differs."""
    own = list(builds(arch))
    known, found = {build.label: build for build in own}, list(own)
    rows = [
        (tables[op], key)
        for op in dict.fromkeys(build.op for build in own)
        if op in tables
        for key in tables[op].candidates
        if key[0] == arch
    ]
    for number in range(max((len(table.candidates[key]) for table, key in rows), default=0)):
        with ExitStack() as used:
            for table, key in rows:
                if number < len(table.candidates[key]):
                    used.enter_context(table.using(key, number))
            for build in builds(arch):
                if _code(build) != _code(known[build.label]):
                    found.append(replace(build, variant=f"{build.variant} candidate {number}".strip()))
    return found


def in_float32(builds: Callable[[str], Iterable[Build]], arch: str) -> list[Build]:
    """What `builds` yields of an architecture as it is launched on float32: of ops of which it yields nothing in
    float32 itself, what multiplies in rows that have configurations for it, of `COMMON` head dims."""
    with ExitStack() as used:
        for table in tables.values():
            used.enter_context(table.exactly())
        listed = list(builds(arch))
    own = {build.op for build in listed if build.exact}
    return [_widened(build) for build in listed if build.op not in own and _multiplies(build, arch)]


def _multiplies(build: Build, arch: str) -> bool:
    exact = tables[build.op].exact if build.op in tables else {}
    return (arch, build.head_dim, build.chunk) in exact and build.head_dim in COMMON and "PRECISION" in build.constexprs


def _widened(build: Build) -> Build:
    signature = {name: "*fp32" if kind == "*bf16" else kind for name, kind in build.signature.items()}
    constants = {**build.constexprs, "PRECISION": "ieee"}
    return replace(build, signature=signature, constexprs=constants, variant=f"{build.variant} float32".strip())


def _code(build: Build) -> tuple[object, ...]:
    """What of a build a configuration changes."""
    return build.config, dict(build.constexprs)


def digests(registry: Registry, archs: Sequence[str]) -> dict[str, str]:
    """The digest of every kernel on these architectures, by label; nothing is compiled."""
    return {f"{build.label} {arch}": digest_of(build, arch) for arch in archs for build in all_builds(registry, arch)}


def compile_all(
    registry: Registry,
    archs: Sequence[str],
    cache_dir: Path | None,
    *,
    only: str,
    jobs: int,
    done: Callable[[int, int, Compiled], None] | None = None,
) -> Report:
    """Compiles the kernels whose label contains `only`, on these architectures.

    `done` is told of each as it is finished: how many are, of how many, and the last one.
    """
    tasks = [
        (arch, index, cache_dir)
        for arch in archs
        for index, build in enumerate(all_builds(registry, arch))
        if only in f"{build.label} {arch}"
    ]
    triton, ptxas = compiler_versions()
    kernels = []
    for compiled in _compiled(tasks, jobs):
        kernels.append(compiled)
        if done is not None:
            done(len(kernels), len(tasks), compiled)
    return Report(triton=triton, ptxas=ptxas, records=tuple(kernels), reasons={})


def _compiled(tasks: list[tuple[str, int, Path | None]], jobs: int) -> Iterator[Compiled]:
    if jobs <= 1 or len(tasks) <= 1:
        yield from map(_compile_one, tasks)
        return
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(_compile_one, task) for task in tasks]
        try:
            for finished in as_completed(waiting):
                yield finished.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _compile_one(task: tuple[str, int, Path | None]) -> Compiled:
    arch, index, cache_dir = task
    return compile_build(_builds_here(arch)[index], arch, cache_dir)


@cache
def _builds_here(arch: str) -> list[Build]:
    """This process's own, since a kernel's function cannot travel."""
    return all_builds(load_registry(), arch)
