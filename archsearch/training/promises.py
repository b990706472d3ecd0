"""Promises: what a plugin says of a layer's weights and state, held against the layer itself, once a training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from archsearch.errors import PluginError
from archsearch.figures import Figures
from archsearch.layer import Resolver
from archsearch.model import HybridLM, Mixer
from archsearch.model.lm import Block
from archsearch.training.fit import Fit

_CLOSE = 1e-3
"""How far logits of one model may lie apart, where a card adds up in another order."""


def check_promises(model: HybridLM, seq_len: int, resolver: Resolver) -> None:
    """Raises `PluginError` where the parameters of a layer, or the bytes of a state for `seq_len` tokens, are not
    those that budgets and fronts take from its plugin."""
    for index, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        layer, shape = model.arch.layers[index], replace(model.arch.model.shape, dtype="float32")
        plugin = resolver.resolve(layer.mixer).plugin
        figures = Figures(plugin, layer.options, shape, model.arch.layer_info(index, resolver))
        params = sum(weights.numel() for weights in own_parameters(block.mixer))
        _compare(block, "params()", figures.params(), params, "the layer has that many parameters")
        held = block.init_state(1, seq_len, dtype=torch.float32).mixer.nbytes
        said = sum(tensor.nbytes(seq_len) for tensor in figures.state())
        _compare(block, f"state() for {seq_len} tokens, in bytes,", said, held, "init_state allocates that many")


def own_parameters(mixer: Mixer) -> Iterator[nn.Parameter]:
    """Those of a token mixer without the backbone's: the weights of its value residual, and of its parts'."""
    parts = [part.value_residual for part in mixer.modules() if isinstance(part, Mixer)]
    backbones = {weights for residual in parts if residual is not None for weights in residual.parameters()}
    return (weights for weights in mixer.parameters() if weights not in backbones)


def _compare(block: Block, figure: str, said: int, found: int, what: str) -> None:
    if said != found:
        raise PluginError(f"{block.place}: {figure} gave {said}, wanted {found}: {what}")


@torch.no_grad()
def check_restored(trained: Fit, fresh: Fit) -> None:
    """Gives `fresh` the weights of `trained`, and raises `PluginError` where they do not compute the same: something
    that was learnt is in no parameter or buffer, so that test would judge another model than validation did."""
    fresh.load_weights(trained.weights())
    was, now = (fit.judge.sample(fit.model, progress=trained.progress) for fit in (trained, fresh))
    if not torch.allclose(was, now, rtol=_CLOSE, atol=_CLOSE, equal_nan=True):
        apart = (was - now).abs().max().item()
        raise PluginError(
            f"{trained.mixers}: the same weights in a new model give other logits, {apart:.3g} apart: keep all that a "
            "layer learns or draws in parameters and buffers"
        )
