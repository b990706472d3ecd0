"""Parameters, operations and states of a linear mixer: arithmetic only.

Matrix products are those of the chunkwise form with chunks of 64 tokens (fewer in a shorter sequence). Inside a
chunk only pairs of a token with itself or an earlier one are counted, and of the triangular inverse only its
C^3 / 3; the first chunk of a sequence reads no state, and in training the last one writes none. Additions,
multiplications, divisions and roots are elementwise; exponentials and logarithms are counted as exponentials. Each of
several steps is a token of the chunks, of which the last one alone has a query.
"""

from __future__ import annotations

from archsearch.amounts import SIGMOID, SILU
from archsearch.attention_cost import rotary_dim
from archsearch.mixer import Dtype, Flops, LayerInfo, ModelShape, Phase, StateTensor, Traffic

from .additive.features import core_features, more_flops, more_params, more_state
from .additive.levels_cost import more_chunk_flops, rows_of, step_flops
from .additive.levels_cost import traffic as levels_traffic
from .additive.memories_cost import count as memories
from .additive.memories_cost import memory_flops, memory_params, met, of_all, sequences
from .decays import rwkv_rank
from .options import LinearOptions

CHUNK = 64
_ACTIVATION = {
    "none": Flops(),
    "relu": Flops(elementwise=1),
    "elu1": Flops(elementwise=2, exp=1),
    "sigmoid": SIGMOID,
    "silu": SILU,
}

_NORMED = {"none": 0, "layer": 5, "group": 7}
"""Elementwise operations a number: a mean taken out, a division by the root of the variance, a weight and a bias."""


def channels(options: LinearOptions, shape: ModelShape) -> int:
    """Features of q, k and v together, which the short convolution runs over."""
    heads, key_dim, value_dim = options.dims(shape)
    keys = options.query_heads(shape) * key_dim
    written = (0 if options.key == "forget" else keys) + heads * value_dim
    return keys + options.steps * written


def projected(options: LinearOptions, shape: ModelShape) -> tuple[int, int, int, int, int]:
    """Features that one token is projected to: q, k and v; output gate; decay; what the delta rule is made of, beta or
    gates of its removal; what the core needs."""
    dims, gate = options.dims(shape), options.gate_features(shape)
    removal = options.steps * options.rule.features(dims) if options.update == "delta" else 0
    return channels(options, shape), gate, options.form.features(dims), removal, core_features(options, shape)


def roles(options: LinearOptions, shape: ModelShape) -> int:
    """Projections that may read tokens apart: q, k, v, and each of the others."""
    return (2 if options.key == "forget" else 3) + sum(size > 0 for size in projected(options, shape)[1:])


def params(options: LinearOptions, shape: ModelShape) -> int:
    """Trained parameters of the layer."""
    heads, key_dim, value_dim = dims = options.dims(shape)
    values = heads * value_dim
    count = shape.d_model * (sum(projected(options, shape)) + values)
    count += options.conv * channels(options, shape)
    count += options.form.params(dims)
    count += (options.gate_features(shape) + (not options.inner_gate)) * values if options.low_rank_gate else 0
    count += heads if options.skip else 0
    count += {"layer": 0, "group": 2 * values}.get(options.output_norm, options.norm_width(shape))
    count += channels(options, shape) if options.conv_bias else 0
    if options.update == "delta":
        count += options.rule.params(dims) + options.rule.rank(dims) * heads * key_dim
    count += roles(options, shape) * shape.d_model if options.static_shift else 0
    count += heads * key_dim if options.output_bonus else 0
    count += heads * key_dim * value_dim if options.initial_state == "learned" else 0
    return count + more_params(options, shape, roles(options, shape)) + memory_params(options, shape)


def values_rank(options: LinearOptions, shape: ModelShape, layer: LayerInfo) -> int:
    """Width of the map to the gate by which the first values are mixed in; 0 where a layer mixes in none."""
    mixes = options.first_values and layer.index > 0
    return rwkv_rank(options.dims(shape), 1.7) if mixes else 0


def values_params(options: LinearOptions, shape: ModelShape, layer: LayerInfo) -> int:
    """Trained parameters of that gate."""
    heads, _, value_dim = options.dims(shape)
    rank, values = values_rank(options, shape, layer), heads * value_dim
    return rank * (shape.d_model + values) + values if rank else 0


def values_flops(options: LinearOptions, shape: ModelShape, layer: LayerInfo) -> Flops:
    """Operations of that gate, and of the mixing, for one token."""
    heads, _, value_dim = options.dims(shape)
    rank, values = values_rank(options, shape, layer), heads * value_dim
    mixing = (SIGMOID + Flops(elementwise=4)) * float(values if rank else 0)
    return mixing + Flops(matmul=2.0 * rank * (shape.d_model + values))


def state(options: LinearOptions, shape: ModelShape) -> tuple[StateTensor, ...]:
    """The recurrent state, float32 at least, and the convolution's last inputs in the model's dtype."""
    heads, key_dim, value_dim = options.state_dims(shape)
    dtype: Dtype = "float64" if shape.dtype == "float64" else "float32"
    recurrent = StateTensor(
        name="recurrent", row_shape=(heads, key_dim, value_dim), dtype=dtype, role="recurrent", base=1
    )
    if options.levels:
        recurrent = rows_of(recurrent)
    more, recurrent = more_state(options, shape), of_all(recurrent, options)
    if options.conv < 2:
        return recurrent, *more
    tail = StateTensor(
        name="conv", row_shape=(channels(options, shape),), dtype=shape.dtype, role="conv", base=options.conv - 1
    )
    return recurrent, of_all(tail, options), *more


def flops(options: LinearOptions, shape: ModelShape, *, phase: Phase, context: int) -> Flops:
    """Operations of the forward pass over `context` tokens, or of one decoded token."""
    written = _prepared(options, shape) + _gates(options, shape)
    token = _around(options, shape) + written + more_flops(options, shape, roles(options, shape))
    token += memory_flops(options, shape, written)
    heads, last = float(shape.n_heads), phase == "prefill"
    if phase == "decode":
        step = step_flops(options, shape, context) if options.levels else _step(options, shape)
        return token + step * heads * float(met(options) * options.steps)
    done = Flops()
    for count, length in sequences(options, context):
        done += _chunks(options, shape, length, last=last) * float(count)
    if options.levels:
        done += more_chunk_flops(options, shape, context, chunk=CHUNK, last=last)
    return token * float(context) + done * heads


def traffic(options: LinearOptions, shape: ModelShape, *, context: int) -> Traffic:
    """What one decoded token reads and writes: all that is kept, but of a hierarchy the rows that are held,
    and of memories those that it meets."""
    first, *rest = state(options, shape)
    share = met(options) / memories(options)
    moved = share * sum(tensor.nbytes(context) for tensor in rest)
    same = Traffic(read_bytes=moved, written_bytes=moved)
    if options.levels:
        return same + levels_traffic(options, first, context)
    whole = share * first.nbytes(context)
    return same + Traffic(read_bytes=whole, written_bytes=whole)


def _around(options: LinearOptions, shape: ModelShape) -> Flops:
    """One token's projections, and what follows the recurrence."""
    heads, key_dim, value_dim = dims = options.dims(shape)
    values = float(heads * value_dim)
    low_rank = (options.gate_features(shape) if options.low_rank_gate else 0) + options.form.rank(
        dims
    ) * key_dim / value_dim
    low_rank += options.rule.rank(dims) * key_dim / value_dim if options.update == "delta" else 0
    done = Flops(matmul=2.0 * shape.d_model * (sum(projected(options, shape)) + values) + 2.0 * low_rank * values)
    if options.static_shift:
        done += Flops(elementwise=2.0 * roles(options, shape) * shape.d_model)
    if options.output_bonus:
        done += Flops(elementwise=3 * heads * key_dim + 2 * values)
    if options.skip:
        done += Flops(elementwise=2 * values)
    done += Flops(elementwise=_NORMED.get(options.output_norm, 4) * values)
    if options.output_gate != "none":
        activated = options.gate_features(shape) if options.inner_gate else values
        done += _ACTIVATION[options.output_gate] * float(activated)
        done += Flops(elementwise=(1.0 + (options.low_rank_gate and not options.inner_gate)) * values)
    return done


def _prepared(options: LinearOptions, shape: ModelShape) -> Flops:
    """One token's convolution of q, k and v, their activations and norms, and the rotation of q and k."""
    values = float(options.steps * shape.n_heads * options.dims(shape).value_dim)
    keys = channels(options, shape) - values
    done = Flops(elementwise=(2.0 * options.conv + options.conv_bias) * (keys + values))
    done += _ACTIVATION[options.activation] * keys + _ACTIVATION[options.value_activation] * values
    key_dim = options.dims(shape).key_dim
    turned = keys / key_dim * rotary_dim(options.rope, key_dim)  # as in softmax attention
    return done + Flops(elementwise=3 * keys * (options.norm == "l2") + 3 * turned)


def _gates(options: LinearOptions, shape: ModelShape) -> Flops:
    """One token's decay, write scale and beta, beyond their projections."""
    heads, _, value_dim = dims = options.dims(shape)
    done = options.form.flops(dims)
    if options.write == "dt":
        done += Flops(elementwise=float(heads * value_dim))
    if options.update == "delta":
        done += options.rule.flops(dims) * float(options.steps)
    return done


def _step(options: LinearOptions, shape: ModelShape) -> Flops:
    """One step of a token of one head through the recurrence: decay, (for a delta rule) recall, (where it lies apart)
    removal, write, read; a share of the decay and of the read where a token has several steps."""
    _, key_dim, value_dim = options.state_dims(shape)
    cells, share = float(key_dim * value_dim), 1 / options.steps
    delta = options.update == "delta"
    decays = {"none": 0, "constant": 0, "head": 1, "channel": key_dim}[options.decay]
    products = 2 + 2 * share + (2 + 2 * options.rule.apart if delta else 0)
    return Flops(
        matmul=products * cells,
        elementwise=(cells * share if options.decay != "none" else 0.0) + (2 if delta else 0) * value_dim + value_dim,
        exp=decays * share,
    )


def _chunks(options: LinearOptions, shape: ModelShape, context: int, *, last: bool) -> Flops:
    """A sequence of one head through the chunkwise form; `last`: with the state after it."""
    _, key_dim, value_dim = options.state_dims(shape)
    steps = context * options.steps
    first, final = min(CHUNK, steps), (steps - 1) % CHUNK + 1
    first = 0 if options.initial_state == "learned" else first
    pairs, queried = _pairs(steps), _queried(context, options.steps)
    reading, writing = steps - first, steps if last else steps - final
    cells, kinds = key_dim * value_dim, 1
    matmul = 2.0 * queried * (key_dim + value_dim)
    matmul += 2.0 * cells * (context - first // options.steps + writing)
    elementwise = context * key_dim + cells * writing / CHUNK
    if options.update == "delta":
        kinds = 2
        inverse = (steps // CHUNK * CHUNK**3 + (steps % CHUNK) ** 3) / 3
        matmul += 2.0 * (pairs - steps) * key_dim + inverse
        matmul += 2.0 * pairs * value_dim + 2.0 * (pairs - _pairs(first)) * key_dim + 2.0 * cells * reading
        elementwise += steps * (key_dim + value_dim)
        if options.rule.apart:
            kinds = 4
            matmul += 2.0 * (2 * pairs - steps) * (key_dim + value_dim) + 2.0 * cells * writing
    done = Flops(matmul=matmul, elementwise=elementwise)
    if options.decay == "none":
        return done
    ends = (reading * min(kinds, 2) + writing) * key_dim + cells * reading / CHUNK
    return done + Flops(elementwise=ends) + _decays(options, steps, pairs, kinds, key_dim)


def _decays(options: LinearOptions, context: int, pairs: float, kinds: int, key_dim: int) -> Flops:
    """Decays of a sequence of one head, and the weighting of pairs by them in `kinds` products."""
    if options.decay == "channel":
        levels, gates = (min(CHUNK, context) - 1).bit_length(), context * key_dim
        return Flops(elementwise=levels * gates * (kinds + 3) / 2, exp=(levels + 2.0) * gates)
    varies = options.decay == "head"
    return Flops(elementwise=(kinds + varies) * pairs, exp=varies * (pairs + 2.0 * context))


def _queried(context: int, steps: int) -> float:
    """Pairs of the last of so many steps of a token and a step no later in its chunk."""
    if steps == 1:
        return _pairs(context)
    period, rest = divmod(context, CHUNK)  # after so many tokens the same places of chunks come again
    counts = [(step % CHUNK) + 1 for step in range(steps - 1, CHUNK * steps, steps)]
    return float(period * sum(counts) + sum(counts[:rest]))


def _pairs(context: int) -> float:
    """Pairs of a token and one no later in its chunk."""
    full, rest = divmod(context, CHUNK)
    return full * CHUNK * (CHUNK + 1) / 2 + rest * (rest + 1) / 2
