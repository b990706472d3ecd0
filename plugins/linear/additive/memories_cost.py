"""What routed memories add to a layer's costs, and what a token meets of them; arithmetic only."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from archsearch.mixer import Flops, ModelShape, StateTensor

if TYPE_CHECKING:
    from ..options import LinearOptions


def met(options: LinearOptions) -> int:
    """States that one token writes and reads: those that it is routed to, and the shared one."""
    return options.memories_used + options.shared_memory if options.memories else 1


def count(options: LinearOptions) -> int:
    """States in all."""
    return options.memories + options.shared_memory if options.memories else 1


def written_features(options: LinearOptions, shape: ModelShape) -> int:
    """Features that a token is projected to for each memory: keys, values, gates of the decay, beta."""
    heads, key_dim, value_dim = dims = options.dims(shape)
    beta = heads if options.update == "delta" else 0
    return heads * (key_dim + value_dim) + options.form.features(dims) + beta


def memory_params(options: LinearOptions, shape: ModelShape) -> int:
    """Parameters beyond those of one state: projections of every other memory, and the router."""
    router = options.memories if options.memories > 1 else 0
    return shape.d_model * ((count(options) - 1) * written_features(options, shape) + router)


def idle_params(options: LinearOptions, shape: ModelShape) -> int:
    """Parameters that one token does not meet."""
    return shape.d_model * (count(options) - met(options)) * written_features(options, shape)


def memory_flops(options: LinearOptions, shape: ModelShape, written: Flops) -> Flops:
    """Operations of one token beyond those of one state, of which `written` go before the recurrence: routing, what
    each other memory that it meets is written by, and the sum of what it reads."""
    if not options.memories:
        return Flops()
    routes = float(options.memories if options.memories > 1 else 0)
    heads, _, value_dim = options.dims(shape)
    others = met(options) - 1
    projected = Flops(matmul=2.0 * shape.d_model * (others * written_features(options, shape) + routes))
    routed = Flops(elementwise=3 * routes + 2.0 * met(options) * heads * value_dim, exp=routes)
    return projected + routed + written * float(others)


def sequences(options: LinearOptions, context: int) -> list[tuple[int, int]]:
    """Lengths of the sequences that `context` tokens are to the memories, with how many there are of each, where all
    are chosen as often."""
    if not options.memories:
        return [(1, context)]
    routed = -(-context * options.memories_used // options.memories)
    return [(options.memories, routed), *([(1, context)] if options.shared_memory else [])]


def of_all(tensor: StateTensor, options: LinearOptions) -> StateTensor:
    """A tensor of one state for all memories."""
    return replace(tensor, base=tensor.base * count(options))
