"""RecordedTeacher: a trained model, run on the tokens of a batch, as the teacher of another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from archsearch.model.context import Context
from archsearch.model.lm import Block, HybridLM


@runtime_checkable
class Attends(Protocol):
    """A mixer that can say what it attends to, so that others may learn it."""

    def attention_weights(self, x: Tensor, *, ctx: Context) -> Tensor:
        """`x` `[B, T, D]` to `[B, T, T]`, as `Teacher.attention` has them."""
        ...


class RecordedTeacher:
    """A `Teacher` of one batch: what `model` computes on `tokens` `[B, T]` (with ``ctx.cu_seqlens``, packed).

    Attention is computed when it is asked for, `[B, T, T]` a layer that says it (`Attends`). ``dense``: which stage
    is on, see `Teacher.dense`.
    """

    def __init__(self, model: HybridLM, tokens: Tensor, *, ctx: Context | None = None, dense: bool = False) -> None:
        self._model = model
        self.dense = dense
        self._inputs: dict[int, tuple[Tensor, Context]] = {}
        self._outputs: dict[int, Tensor] = {}
        training = model.training
        with torch.no_grad(), self._recording(model):
            model.eval()(tokens, ctx=ctx)
        model.train(training)

    def attention(self, layer: int) -> Tensor | None:
        """See `Teacher.attention`."""
        if layer not in self._inputs:
            return None
        block = self._model.blocks[layer]
        assert isinstance(block, Block)
        x, ctx = self._inputs[layer]
        if not isinstance(block.mixer, Attends):
            return None
        with torch.no_grad():
            return block.mixer.attention_weights(x, ctx=ctx)

    def output(self, layer: int) -> Tensor | None:
        """See `Teacher.output`."""
        return self._outputs.get(layer)

    @contextmanager
    def _recording(self, model: HybridLM) -> Iterator[None]:
        hooks = [
            block.mixer.register_forward_hook(self._hook(index), with_kwargs=True)
            for index, block in enumerate(model.blocks)
            if isinstance(block, Block)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _hook(self, index: int) -> Any:
        def record(mixer: nn.Module, inputs: tuple[Tensor, ...], keywords: dict[str, Any], result: Any) -> None:
            self._inputs[index] = inputs[0], keywords["ctx"]
            self._outputs[index] = result[0]

        return record
