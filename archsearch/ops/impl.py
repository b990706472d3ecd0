"""Implementations of an op: which one runs is chosen here, said once, and never changed in silence."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import torch
from torch import Tensor

from archsearch.errors import KernelUnavailableError, OptionsError, nearest
from archsearch.kernels import Table, arch_of, forms, obstacle
from archsearch.kernels import device as devices
from archsearch.kernels.config import tables

IMPLS = ("reference", "chunkwise", "triton")
"""Explicit products, readable and exact; the fast form in PyTorch; a Triton kernel."""

VARIABLE = "ARCHSEARCH_IMPL"
"""Environment variable that overrides "auto"."""

KERNEL_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
"""Of the operands that the kernels of softmax attention take."""

_log = logging.getLogger("archsearch.impl")


@dataclass(frozen=True, kw_only=True)
class Served:
    """A call that a Triton kernel may serve: by the row of ``table`` for ``head_dim`` and ``chunk``, on ``device``,
    with operands in ``dtype``."""

    table: Table
    device: torch.device
    dtype: torch.dtype
    head_dim: int
    chunk: int = 0


def choose_impl(
    op: str,
    impl: str,
    *,
    why: str = "the fast form in PyTorch",
    served: Served | None = None,
    wanted: bool = True,
) -> str:
    """The implementation of `op` that a call with ``impl=impl`` runs: the one named, or for "auto" the Triton kernel
    where the row that serves the call on a CUDA device was proven there, else the PyTorch form, which is `why`. An op
    that is not `served` has no Triton kernel; one that is not `wanted` runs only where it is named, in the call or by
    ``ARCHSEARCH_IMPL``.

    ``ARCHSEARCH_IMPL`` stands in for "auto"; "triton" there leaves an op without any Triton kernel at its PyTorch
    form. ``ARCHSEARCH_PROVE`` says whether a row of which nothing is known is proven at its first use. What "auto"
    came to, and why, is logged once for each op and device. Inside `torch.compile` the choice is made when the graph
    is traced. Raises `OptionsError` for a name that is no implementation, `KernelUnavailableError` for one that cannot
    run here.
    """
    call = None if served is None else (str(served.device), served.dtype, served.head_dim, served.chunk)
    chosen: str = _choose(op, impl, why, wanted, call, torch.compiler.is_compiling())
    return chosen


def choose_attention(table: Table, q: Tensor, v: Tensor, impl: str, *, why: str, wanted: bool = True) -> str:
    """`choose_impl` for softmax attention of q `[..., D]` and v `[..., Dv]` by the op and the kernels of `table`.

    What a row is proven in is its dtype, beside caches in that or in float32: "auto" takes it beside no other."""
    kind = q.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else q.dtype
    head_dim = max(q.shape[-1], v.shape[-1])
    served = Served(table=table, device=q.device, dtype=dtype, head_dim=head_dim)
    if impl == "auto" and v.dtype not in (dtype, torch.float32):
        why, wanted = f"q is {_named(dtype)} and v {_named(v.dtype)}, in which no kernel is proven together", False
    return choose_impl(table.op, impl, why=why, served=served if q.dtype in KERNEL_DTYPES else None, wanted=wanted)


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


_Call: TypeAlias = tuple[str, torch.dtype, int, int]
"""Device, dtype, head dim and chunk: constants, as a compiled graph can hold them."""


def _choose(op: str, impl: str, why: str, wanted: bool, call: _Call | None, traced: bool) -> str:
    place, has_kernel = "" if call is None else call[0], call is not None
    source = f'{op}(impl="{impl}")'
    override = os.environ.get(VARIABLE) or "auto"
    if impl != "auto":
        chosen = impl
    elif override == "triton" and not has_kernel:
        chosen = _say(op, place, "chunkwise", f"{VARIABLE}=triton, and it has no Triton kernel: {why}")
    elif override != "auto":
        source = f"{op}: {VARIABLE}={override}"
        chosen = _say(op, place, override, f"{VARIABLE} is set")
    elif call is not None and wanted and devices.takes_kernels(torch.device(place)):
        return _proven(op, why, call, traced)
    else:
        return _say(op, place, "chunkwise", why)
    if chosen not in IMPLS:
        raise OptionsError(f"{source}: unknown implementation{nearest(chosen, IMPLS)}; use {_offered(has_kernel)}")
    if chosen == "triton":
        _require(source, op, call)
    return chosen


# What torch.compiler.assume_constant_result sets, but that imports torch._dynamo, seconds in every process.
_choose._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _proven(op: str, why: str, call: _Call, traced: bool) -> str:
    """The kernel, or the form in PyTorch where its row is not proven."""
    place, dtype, head_dim, chunk = call
    refusal = forms.refusal(tables[op], torch.device(place), head_dim, chunk, _named(dtype), traced=traced)
    if refusal is None:
        return _say(op, place, "triton", f"its configuration was proven on this card in {_named(dtype)}")
    return _say(op, place, "chunkwise", f"{why} ({refusal})")


def _require(source: str, op: str, call: _Call | None) -> None:
    """Raises `KernelUnavailableError` unless the Triton kernel can run."""
    if call is None:
        raise KernelUnavailableError(f"{source} cannot run here: {op} has no such form; use {_offered(False)}")
    place, _, head_dim, chunk = call
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
