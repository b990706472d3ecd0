"""Compilation ahead of time, without a card: Triton to a cubin, and what the cubin takes."""

from __future__ import annotations

import ast
import hashlib
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from archsearch.errors import KernelUnavailableError, SpecError
from archsearch.evidence.compiled import SHARED_LIMIT, Compiled
from archsearch.kernels.build import Build
from archsearch.kernels.device import interpreting
from archsearch.kernels.machine import compiler_versions

_PRODUCT = re.compile(r"\btt\.dot\b(?!_)")
_SCALAR = re.compile(r"\btt\.dot\b(?!_).*parent = #blocked")
_FULL = re.compile(r"\btt\.dot\b(?!_)(?!.*\binputPrecision\b).*: tensor<(?:\d+x)+f32\b")
"""In full precision, which is what Triton takes where it writes no other."""
_TURNED = re.compile(r"\btt\.trans\b.*: tensor<[^>]*bf16, #mma")
_USAGE = re.compile(r"REG:(\d+) STACK:(\d+)")


def compile_build(build: Build, arch: str, cache: Path | None = None) -> Compiled:
    """Compiles one kernel for an architecture; with a `cache` folder, once for each digest.

    Raises `KernelUnavailableError` where Triton cannot compile, `SpecError` for an architecture it is not asked for.
    """
    digest = digest_of(build, arch)
    kept = None if cache is None else cache / f"{digest}-{'-'.join(compiler_versions())}.json"
    if kept is not None and kept.is_file():
        found = Compiled.model_validate_json(kept.read_bytes()).model_copy(update={"kernel": build.label})
        if not found.scalar:  # else it may be of before products in float32 were told apart
            return found
    compiled = report_on(build, arch, translate(build, arch))
    if kept is not None:
        keep(kept, compiled.model_dump_json().encode())
    return compiled


def keep(path: Path, data: bytes) -> None:
    """Writes a file of the cache whole, whoever else writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_bytes(data)
    partial.replace(path)


def digest_of(build: Build, arch: str) -> str:
    """Digest of all that the machine code depends on but the compilers: source, types, constants, configuration."""
    _require_compiler(arch)
    _check_arguments(build)
    config = build.config
    types, constants = sorted(build.signature.items()), sorted(build.constexprs.items())
    parts = f"{sources_of(build.fn)} {types} {constants} {arch} {config.num_warps} {config.num_stages}"
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def sources_of(fn: Any) -> list[tuple[str, str]]:
    """The code of a device function, of those that it calls, and the constants that they read; not Triton's own.

    Unlike Triton's key it changes neither with Triton, nor with the folder or the line that a function stands at, nor
    with comments and line breaks.
    """
    import triton.language as tl

    found: dict[tuple[str, str], None] = {}
    waiting, seen = [fn], {fn}
    while waiting:
        each = waiting.pop()
        module = each.__module__.rpartition(".")[2]
        found[f"{module}.{each.__name__}", ast.unparse(ast.parse(each.src))] = None
        for word in each.fn.__code__.co_names:
            used = each.fn.__globals__.get(word)
            if hasattr(used, "src") and not used.__module__.startswith("triton.") and used not in seen:
                seen.add(used)
                waiting.append(used)
            elif isinstance(used, tl.constexpr):
                found[f"{module}.{word}", repr(used.value)] = None
    return sorted(found)


def _require_compiler(arch: str) -> None:
    if arch not in SHARED_LIMIT:
        raise SpecError(f"--arch {arch}: kernels are configured for {', '.join(SHARED_LIMIT)}")
    if interpreting():
        raise KernelUnavailableError("TRITON_INTERPRET is set, and an interpreted kernel cannot be compiled: unset it")


def _check_arguments(build: Build) -> None:
    odd = sorted({*build.signature, *build.constexprs} ^ set(build.fn.arg_names))
    if odd:
        raise KernelUnavailableError(f"{build.label}: its build and the kernel disagree on the arguments {odd}")


def translate(build: Build, arch: str) -> Any:
    """The kernel as Triton compiles it: its text on every level in ``asm``, and its cubin."""
    import triton
    from triton.backends.compiler import GPUTarget

    options = {"num_warps": build.config.num_warps, "num_stages": build.config.num_stages}
    target = GPUTarget("cuda", int(arch.removeprefix("sm_")), 32)
    return triton.compile(_source(build), target=target, options=options)


def report_on(build: Build, arch: str, kernel: Any) -> Compiled:
    """What a translated kernel takes, and what did not become what it should."""
    config = build.config
    registers, spill = _usage(kernel.asm["cubin"])
    source, lines = kernel.asm["ttir"].splitlines(), kernel.asm["ttgir"].splitlines()
    products, exact = _matching(_PRODUCT, source), _matching(_FULL, source) if build.exact else 0
    scalar = [line for line in lines if _SCALAR.search(line)]
    return Compiled(
        kernel=build.label,
        arch=arch,
        tiles=dict(config.tiles),
        num_warps=config.num_warps,
        num_stages=config.num_stages,
        registers=registers,
        spill_bytes=spill,
        shared_bytes=kernel.metadata.shared,
        products=products,
        scalar=len(scalar) - (_matching(_FULL, scalar) if build.exact else 0),
        turned=_matching(_TURNED, lines),
        digest=digest_of(build, arch),
        exact=exact,
        rounded=products - exact if build.exact else 0,
    )


def _matching(wanted: re.Pattern[str], lines: list[str]) -> int:
    return sum(wanted.search(line) is not None for line in lines)


def _source(build: Build) -> Any:
    from triton.compiler import ASTSource

    names = list(build.fn.arg_names)
    given = {**build.signature, **dict.fromkeys(build.constexprs, "constexpr")}
    aligned = {
        (names.index(name),): [["tt.divisibility", 16]] for name, kind in build.signature.items() if kind[0] == "*"
    }
    return ASTSource(build.fn, {name: given[name] for name in names}, dict(build.constexprs), aligned)


def _usage(cubin: bytes) -> tuple[int, int]:
    """Registers a thread, and bytes of stack a thread, which is where spilt registers go."""
    import triton

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        tool = str(triton.knobs.nvidia.cuobjdump.path)
        done = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    found = _USAGE.search(done.stdout)
    if found is None:
        raise KernelUnavailableError(f"cuobjdump reported no resource usage: {done.stdout.strip() or done.stderr}")
    return int(found[1]), int(found[2])
