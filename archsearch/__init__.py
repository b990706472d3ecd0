"""archsearch: which mix of full, sliding, linear and sparse attention, layer by layer, is best at each cost?"""

from __future__ import annotations

from archsearch.hookspecs import hookimpl
from archsearch.mixer import MixerOptions, MixerPlugin, ModelShape, StateTensor, Tunable

__version__ = "0.1.0"
__all__ = [
    "MixerOptions",
    "MixerPlugin",
    "ModelShape",
    "StateTensor",
    "Tunable",
    "hookimpl",
]
