"""Samplers that a command is told by name."""

from __future__ import annotations

from collections.abc import Sequence


def sampler_names(given: Sequence[str] | None, usual: Sequence[str] = ()) -> list[str]:
    """Those of ``--sampler``, each once; without any the `usual` ones, or all. Raises `SpecError` for another."""
    from archsearch.errors import SpecError, listing, nearest
    from archsearch.search.truth.study import SAMPLERS

    for name in given or ():
        if name not in SAMPLERS:
            raise SpecError(f'--sampler "{name}" is none{nearest(name, SAMPLERS)}: known are {listing(SAMPLERS)}')
    return list(dict.fromkeys(given or usual or SAMPLERS))
