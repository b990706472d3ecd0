"""Blame: which layer first gives what is not finite, found after the fact by one more forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from archsearch.model import Context, HybridLM


def first_fault(model: HybridLM, tokens: Tensor, *, progress: float) -> str | None:
    """Where `tokens` `[B, T]` first give what is not finite, as "layer 2 (linear) first gives NaN"; None for nowhere.

    Weights come before outputs: a layer whose weights are not finite gives nothing finite.
    """
    return faulty_weights(model) or _faulty_output(model, tokens, progress)


def faulty_weights(model: HybridLM) -> str | None:
    """The first part whose weights are not finite, None for none."""
    for name, part in _parts(model):
        for weights in part.parameters():
            if not weights.isfinite().all():
                return f"{name} first has weights of {_kind(weights)}"
    return None


def _parts(model: HybridLM) -> Iterator[tuple[str, nn.Module]]:
    yield "the embedding", model.embedding
    for layer, block in zip(model.arch.layers, model.blocks, strict=True):
        yield f"layer {block.place.layer} ({layer.mixer})", block  # type: ignore[union-attr]
    yield "the last norm", model.norm


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
