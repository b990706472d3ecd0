"""Costs of a layer that takes its choice, or its latents, from an earlier one: what it does not make is not counted."""

from __future__ import annotations

from archsearch.attention_cost import rotary_dim
from archsearch.mixer import Flops, ModelShape, Phase, StateTensor, Traffic

from .attended import (
    attended_params,
    attended_softmax,
    attended_state,
    attended_token,
    attended_traffic,
    frequencies,
)
from .cost import (
    asked_scales,
    asked_token,
    asked_weights,
    chosen_pairs,
    index_params,
    index_state,
    index_token,
    index_traffic,
    learning_flops,
    ranked,
    read_keys,
    score_flops,
    scored_blocks,
    seen_keys,
)
from .options import IndexedOptions
from .sharing import SharedIndexOptions


def shared_params(options: SharedIndexOptions, base: IndexedOptions, shape: ModelShape) -> int:
    """Without what makes latents and their norm where they are taken; of an index whose keys are taken, the queries and
    weights alone."""
    found = attended_params(base, shape)
    if options.latents == "shared":
        found -= _to_latents(base, shape) + base.kv_rank + frequencies(base, shape)
    if options.indexes:
        found += index_params(base, shape)
    elif options.choice == "own":
        norm = 0 if base.scorer == "relu" else base.index_dim
        found += asked_weights(base, shape) + asked_scales(base, shape) + norm
    return found


def shared_flops(
    options: SharedIndexOptions, base: IndexedOptions, shape: ModelShape, *, phase: Phase, context: int
) -> Flops:
    """Projections, the softmax over what is chosen and, of a choice of its own, scores and the divergence; these in
    training too where it teaches another layer's index."""
    token = attended_token(base, shape)
    if options.latents == "shared":
        made = 4.0 * base.kv_rank + 3.0 * rotary_dim(base.shared_rope, base.shared_dim)
        token += Flops(matmul=2.0 * _to_latents(base, shape), elementwise=made) * -1.0
    own = options.choice == "own"
    if own:
        token += (index_token if options.indexes else asked_token)(base, shape)
    if phase == "decode":
        found = token + attended_softmax(base, shape, phase, seen_keys(base, context))
        return found + score_flops(base, shape) * ranked(base, context) if own else found
    found = token * context + attended_softmax(base, shape, phase, chosen_pairs(base, context))
    if not own and not (options.teach and phase == "train"):
        return found
    found += score_flops(base, shape) * scored_blocks(base, phase, context)
    return found + learning_flops(base, shape, phase, context)


def shared_state(options: SharedIndexOptions, base: IndexedOptions, shape: ModelShape) -> tuple[StateTensor, ...]:
    """Its own keys and values or latents, and index keys."""
    rows = attended_state(base, shape) if options.latents == "own" else ()
    return (*rows, *index_state(base, shape)) if options.indexes else rows


def shared_traffic(options: SharedIndexOptions, base: IndexedOptions, shape: ModelShape, *, context: int) -> Traffic:
    """The rows that a decoded token sees, whose ever they are; of its own the new one is written; and the index keys
    that it asks."""
    seen = attended_traffic(base, shape, read_keys(base, shape, context))
    written = seen.written_bytes if options.latents == "own" else 0.0
    rows = Traffic(read_bytes=seen.read_bytes, written_bytes=written)
    if options.indexes:
        return rows + index_traffic(base, shape, context=context)
    keys = ranked(base, context) * (base.block_size if base.summary == "none" else 1)
    asked = float(keys * base.index_dim * shape.dtype_bytes) if options.choice == "own" else 0.0
    return rows + Traffic(read_bytes=asked)


def _to_latents(base: IndexedOptions, shape: ModelShape) -> int:
    return shape.d_model * (base.kv_rank + base.shared_dim)
