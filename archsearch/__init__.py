"""archsearch: which mix of full, sliding, linear and sparse attention, layer by layer, is best at each cost?"""

from __future__ import annotations

from archsearch.api import cost, evaluate, open_store, run
from archsearch.arch import ArchSpec, ModelSpec
from archsearch.errors import ArchsearchError
from archsearch.hookspecs import hookimpl
from archsearch.layer import LayerSpec
from archsearch.mixer import (
    Flops,
    LayerInfo,
    MixerOptions,
    MixerPlugin,
    ModelShape,
    StateTensor,
    Traffic,
    Tunable,
)
from archsearch.registry import load_registry
from archsearch.version import __version__ as __version__

__all__ = [
    "ArchSpec",
    "ArchsearchError",
    "Flops",
    "LayerInfo",
    "LayerSpec",
    "MixerOptions",
    "MixerPlugin",
    "ModelShape",
    "ModelSpec",
    "StateTensor",
    "Traffic",
    "Tunable",
    "cost",
    "evaluate",
    "hookimpl",
    "load_registry",
    "open_store",
    "run",
]
