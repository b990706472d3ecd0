"""Implementations of an op: which one runs is chosen here, said once, and never changed in silence."""

from __future__ import annotations

import logging
import os
from functools import cache

import torch
from torch import Tensor

from archsearch.errors import KernelUnavailableError, OptionsError, nearest
from archsearch.kernels import Table, arch_of, obstacle
from archsearch.kernels.config import tables

IMPLS = ("reference", "chunkwise", "triton")
"""Explicit products, readable and exact; the fast form in PyTorch; a Triton kernel."""

VARIABLE = "ARCHSEARCH_IMPL"
"""Environment variable that overrides "auto"."""

KERNEL_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
"""Of the operands that the kernels of softmax attention take."""

_log = logging.getLogger("archsearch.impl")


def choose_impl(
    op: str,
    impl: str,
    *,
    why: str = "the fast form in PyTorch",
    table: Table | None = None,
    device: torch.device | None = None,
    head_dim: int = 0,
    chunk: int = 0,
    wanted: bool = True,
) -> str:
    """The implementation of `op` that a call with ``impl=impl`` runs: the one named, or for "auto" the Triton kernel
    where the row of `table` that serves `head_dim` and `chunk` on a CUDA `device` was verified there, else the
    PyTorch form, which is `why`. An op without a `table` has no Triton kernel; one that is not `wanted` runs only where
    it is named, in the call or by ``ARCHSEARCH_IMPL``.

    ``ARCHSEARCH_IMPL`` stands in for "auto"; "triton" there leaves an op without any Triton kernel at its PyTorch
    form. What "auto" came to, and why, is logged once for each op and device. Inside `torch.compile` the choice is
    made when the graph is traced. Raises `OptionsError` for a name that is no implementation,
    `KernelUnavailableError` for one that cannot run here.
    """
    has_kernel = table is not None and device is not None
    place = str(device) if device is not None else ""
    chosen: str = _choose(op, impl, why, has_kernel, wanted, place, head_dim, chunk)
    return chosen


def choose_attention(table: Table, q: Tensor, v: Tensor, impl: str, *, why: str, wanted: bool = True) -> str:
    """`choose_impl` for softmax attention of q `[..., D]` and v `[..., Dv]` by the op and the kernels of `table`."""
    return choose_impl(
        table.op,
        impl,
        why=why,
        table=table if q.dtype in KERNEL_DTYPES else None,
        device=q.device,
        head_dim=max(q.shape[-1], v.shape[-1]),
        wanted=wanted,
    )


def _choose(op: str, impl: str, why: str, has_kernel: bool, wanted: bool, place: str, head_dim: int, chunk: int) -> str:
    source = f'{op}(impl="{impl}")'
    override = os.environ.get(VARIABLE) or "auto"
    if impl != "auto":
        chosen = impl
    elif override == "triton" and not has_kernel:
        chosen = _say(op, place, "chunkwise", f"{VARIABLE}=triton, and it has no Triton kernel: {why}")
    elif override != "auto":
        source = f"{op}: {VARIABLE}={override}"
        chosen = _say(op, place, override, f"{VARIABLE} is set")
    else:
        considered = place.startswith("cuda") and has_kernel and wanted
        refusal = _unverified(op, place, head_dim, chunk) if considered else ""
        if refusal is None:
            return _say(op, place, "triton", "its configuration was verified on this architecture")
        return _say(op, place, "chunkwise", f"{why} ({refusal})" if refusal else why)
    if chosen not in IMPLS:
        raise OptionsError(f"{source}: unknown implementation{nearest(chosen, IMPLS)}; use {_offered(has_kernel)}")
    if chosen == "triton":
        _require(source, op, has_kernel, place, head_dim, chunk)
    return chosen


# What torch.compiler.assume_constant_result sets, but that imports torch._dynamo, seconds in every process.
_choose._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _unverified(op: str, place: str, head_dim: int, chunk: int) -> str | None:
    """Why "auto" does not take the Triton kernel on a CUDA device, None where it does."""
    device, table = torch.device(place), tables[op]
    hindrance = obstacle(device)
    if hindrance:
        return hindrance
    try:
        key = table.key(arch_of(device), head_dim, chunk)
    except KernelUnavailableError as error:
        return str(error)
    if table.proof(key) is None:
        return f"the Triton kernel of {key[0]}, head dim {key[1]}, chunk {key[2]} is not verified with this Triton"
    return None


def _require(source: str, op: str, has_kernel: bool, place: str, head_dim: int, chunk: int) -> None:
    """Raises `KernelUnavailableError` unless the Triton kernel can run."""
    if not has_kernel:
        raise KernelUnavailableError(f"{source} cannot run here: {op} has no such form; use {_offered(has_kernel)}")
    device = torch.device(place)
    hindrance = obstacle(device)
    if hindrance:
        raise KernelUnavailableError(f'{source} cannot run here: {hindrance}; use "auto" or "chunkwise"')
    tables[op].key(arch_of(device), head_dim, chunk)


def _offered(has_kernel: bool) -> str:
    return ", ".join(f'"{name}"' for name in ("auto", *(IMPLS if has_kernel else IMPLS[:-1])))


def _say(op: str, place: str, chosen: str, why: str) -> str:
    _say_once(op, place if place.startswith("cuda") else "", chosen, why)
    return chosen


@cache
def _say_once(op: str, place: str, chosen: str, why: str) -> None:
    _log.info("%s runs %s%s: %s", op, chosen, f" on {place}" if place else "", why)
