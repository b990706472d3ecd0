"""Code: what a kernel was compiled to, kept once for each digest: resources, loops of the cubin, and the PTX."""

from __future__ import annotations

import gzip
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from archsearch.evidence.compiled import Compiled
from archsearch.kernels.build import Build
from archsearch.kernels.compiler import digest_of, keep, report_on, translate
from archsearch.kernels.machine import compiler_versions
from archsearch.kernels.machine_code.ptx import Program, parse
from archsearch.kernels.machine_code.sass import Body, bodies, disassemble

FORMAT: Literal[1] = 1
"""Of the kept files; those of another are made anew."""


class Code(BaseModel):
    """One kernel on one architecture: its compile report, its loops, and its text."""

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    format: Literal[1] = FORMAT
    compiled: Compiled
    bodies: tuple[Body, ...]
    ptx: str

    @cached_property
    def program(self) -> Program:
        """The instructions by block."""
        return parse(self.ptx)


def code_of(build: Build, arch: str, cache: Path | None = None) -> Code:
    """Compiles one kernel, and reads its cubin; with a `cache` folder, once for each digest and compiler.

    Raises as `compile_build`.
    """
    digest = digest_of(build, arch)
    kept = None if cache is None else cache / f"{digest}-{'-'.join(compiler_versions())}.code{FORMAT}.gz"
    if kept is not None and kept.is_file():
        try:
            held = Code.model_validate_json(gzip.decompress(kept.read_bytes()))
        except (ValidationError, OSError, EOFError):
            held = None
        if held is not None:
            return held.model_copy(update={"compiled": held.compiled.model_copy(update={"kernel": build.label})})
    kernel = translate(build, arch)
    compiled = report_on(build, arch, kernel)
    found = tuple(bodies(disassemble(kernel.asm["cubin"]), build.config.num_warps))
    code = Code(compiled=compiled, bodies=found, ptx=kernel.asm["ptx"])
    if kept is not None:
        keep(kept, gzip.compress(code.model_dump_json().encode(), 6))
    return code
