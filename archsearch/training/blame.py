"""Blame: which layer first gives what is not finite, found after the fact by one more forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from archsearch.errors import ArchsearchError
from archsearch.model import Context, HybridLM
from archsearch.model.lm import Block


def first_fault(model: HybridLM, tokens: Tensor, *, progress: float, by_steps: bool) -> str | None:
    """Where `tokens` `[B, T]` first give what is not finite, as "layer 2 (linear) first gives NaN"; None for nowhere.

    Weights come before outputs: a layer whose weights are not finite gives nothing finite. `by_steps` tries decoding,
    where the forward pass shows nothing. A mixer that raises meanwhile is passed over: what only explains must not end
    what is explained.
    """
    try:
        found = faulty_weights(model) or _faulty_output(model, tokens, progress)
        return found or (_faulty_step(model, tokens, progress) if by_steps else None)
    except ArchsearchError:
        return None


def faulty_weights(model: HybridLM) -> str | None:
    """The first part whose weights are not finite, None for none."""
    for name, part in _parts(model):
        for weights in part.parameters():
            if not weights.isfinite().all():
                return f"{name} first has weights of {_kind(weights)}"
    return None


def _parts(model: HybridLM) -> Iterator[tuple[str, nn.Module]]:
    yield "the embedding", model.embedding
    yield from _blocks(model)
    yield "the last norm", model.norm


def _blocks(model: HybridLM) -> Iterator[tuple[str, Block]]:
    for block in model.blocks:
        assert isinstance(block, Block)
        yield f"layer {block.place.layer} ({block.place.mixer})", block


@torch.no_grad()
def _faulty_step(model: HybridLM, tokens: Tensor, progress: float) -> str | None:
    states = model.init_state(*tokens.shape)
    for place, token in enumerate(tokens.T):
        x, ctx = model.embedding(token), Context(want_state=True, progress=progress)
        for index, (name, block) in enumerate(_blocks(model)):
            x, states[index] = block.step(x, state=states[index], ctx=ctx)
            if not x.isfinite().all():
                return f"{name} first gives {_kind(x)}, in the step of token {place}"
    return None


@torch.no_grad()
def _faulty_output(model: HybridLM, tokens: Tensor, progress: float) -> str | None:
    ctx, found = Context(progress=progress), list[str]()

    def look(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            output = output[0] if isinstance(output, tuple) else output
            if not output.isfinite().all():
                found.append(f"{name} first gives {_kind(output)}")
            for loss, value in ctx.losses.items():
                if not value.isfinite().all():
                    found.append(f'{name} first adds {_kind(value)} to the loss "{loss}"')

        return hook

    handles = [part.register_forward_hook(look(name)) for name, part in _parts(model)]
    try:
        model(tokens, ctx=ctx)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def _kind(values: Tensor) -> str:
    return "NaN" if values.isnan().any() else "an infinite number"
