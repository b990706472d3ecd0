"""Implementations of an op: which one runs is chosen here, said once, and never changed in silence."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import cache

from archsearch.errors import KernelUnavailableError, OptionsError, nearest

IMPLS = ("reference", "chunkwise", "triton")
"""Explicit products, readable and exact; the fast form in PyTorch; a Triton kernel."""

VARIABLE = "ARCHSEARCH_IMPL"
"""Environment variable that overrides "auto"."""

_log = logging.getLogger("archsearch.impl")


def choose_impl(
    op: str,
    impl: str,
    *,
    available: Sequence[str] = ("reference", "chunkwise"),
    default: str = "chunkwise",
    why: str = "the fast form in PyTorch",
) -> str:
    """The implementation of `op` that a call with ``impl=impl`` runs: `default` for "auto", else the one named.

    ``ARCHSEARCH_IMPL`` stands in for "auto". What "auto" came to, and why, is logged once for each op. Raises
    `OptionsError` for a name that is no implementation, `KernelUnavailableError` for one that cannot run here.
    """
    source = f'{op}(impl="{impl}")'
    if impl == "auto":
        impl = os.environ.get(VARIABLE) or "auto"
        source = f"{op}: {VARIABLE}={impl}"
        chosen, why = (default, why) if impl == "auto" else (impl, f"{VARIABLE} is set")
        _say_once(op, chosen, why)
        impl = chosen
    if impl in available:
        return impl
    offered = ", ".join(f'"{name}"' for name in ("auto", *available))
    if impl in IMPLS:
        raise KernelUnavailableError(f"{source} cannot run here: {op} has no such form; use {offered}")
    raise OptionsError(f"{source}: unknown implementation{nearest(impl, IMPLS)}; use {offered}")


@cache
def _say_once(op: str, chosen: str, why: str) -> None:
    _log.info("%s runs %s: %s", op, chosen, why)
