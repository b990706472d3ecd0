"""Models: the torch half of the mixer contract, blocks, channel mixers and the language model."""

from archsearch.model.context import Context
from archsearch.model.lm import HybridLM
from archsearch.model.mixer import Mixer, MixerState

__all__ = ["Context", "HybridLM", "Mixer", "MixerState"]
