"""Block calls: how the blocks of a model run in training, compiled or with their activations computed twice."""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from archsearch.model.context import Context
from archsearch.model.lm import Block, BlockCall, HybridLM

_OF_TRACING = (
    r"The \.grad attribute of a Tensor that is not a leaf",
    r".*torch\.autograd\.function\.Function.* should not be instantiated",
)
"""What torch says of what it does itself while it compiles."""


def training_calls(model: HybridLM, *, compiled: bool, checkpointed: bool) -> list[BlockCall] | None:
    """What `HybridLM.training_calls` is to be; None where its blocks run as they are."""
    if not compiled and not checkpointed:
        return None
    calls = [_compiled(block) if compiled else _plain(block) for block in model.blocks]  # type: ignore[arg-type]
    return [_checkpointed(call) for call in calls] if checkpointed else calls


def _plain(block: Block) -> BlockCall:
    def call(x: Tensor, ctx: Context) -> Tensor:
        y: Tensor = block(x, ctx=ctx)[0]
        return y

    return call


def _compiled(block: Block) -> BlockCall:
    def call(x: Tensor, ctx: Context) -> Tensor:
        y: Tensor = block(x, ctx=ctx)[0]
        return y

    # graphs are kept by code object, a few to each: blocks that shared one would end up uncompiled
    call.__code__ = call.__code__.replace()
    fast = torch.compile(call)

    def run(x: Tensor, ctx: Context) -> Tensor:
        with block.place.calling("forward, compiled"), warnings.catch_warnings():
            for told in _OF_TRACING:
                warnings.filterwarnings("ignore", told)
            return fast(x, ctx)

    return run


def _checkpointed(call: BlockCall) -> BlockCall:
    """Keeps the block's input for the backward pass, and computes the rest again there, from the same random numbers.

    Each time the block is shown what was shared before it, and what it shares and adds to the losses is taken from
    the first alone.
    """

    def run(x: Tensor, ctx: Context) -> Tensor:
        shared = dict(ctx.shared)

        def once(x: Tensor) -> tuple[Tensor, Context]:
            own = replace(ctx, shared=dict(shared), losses={})
            return call(x, own), own

        with set_checkpoint_early_stop(False):  # stopping early is an exception, which would look like the mixer's
            y: Tensor
            y, own = checkpoint(once, x, use_reentrant=False)
        ctx.shared.update(own.shared)
        for name, value in own.losses.items():
            ctx.add_loss(name, value)
        return y

    return run
