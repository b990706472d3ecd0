"""Parameters, operations and states of a state space mixer: arithmetic only.

Products of a fixed recurrence are those of its chunks of 64 tokens (fewer in a shorter sequence): pairs of a token with
itself or an earlier one; the first chunk reads no state, and in training the last one writes none. Making its kernel
from the parameters is counted for every sequence, though a batch shares it. The scan of a selective one is elementwise,
and goes through a sequence twice; what a decoded token adds to a state, a product of two vectors, is not.
"""

from __future__ import annotations

from archsearch.amounts import GELU, SILU, SOFTPLUS
from archsearch.mixer import Dtype, Flops, ModelShape, Phase, StateTensor

from .options import SsmOptions

CHUNK = 64


def projected(options: SsmOptions, shape: ModelShape) -> int:
    """Weights of the projections that a token goes through."""
    inner, d_model = options.inner(shape), shape.d_model
    if options.rule == "fixed":
        return 2 * d_model * d_model
    if options.rule == "trapezoidal":
        return d_model * (3 * inner + 2 * options.rank * options.state_dim + 3 * options.heads(shape) + options.angles)
    return inner * (3 * d_model + 2 * options.steps_rank(shape) + 2 * options.state_dim)


def params(options: SsmOptions, shape: ModelShape) -> int:
    """Trained parameters of the layer."""
    inner, cells = options.inner(shape), options.inner(shape) * options.state_dim
    if options.rule == "fixed":  # rates (half as many complex ones, of two numbers), reads; steps and skips; biases
        return projected(options, shape) + 2 * cells + 2 * inner + 2 * shape.d_model
    if options.rule == "trapezoidal":  # biases of keys and queries, norms; biases of steps, and skips; weights of ranks
        heads, ranked = options.heads(shape), 3 * options.rank * inner if options.rank > 1 else 0
        ranked += inner if options.output_norm else 0
        return projected(options, shape) + 2 * (heads * options.rank + 1) * options.state_dim + 2 * heads + ranked
    convolved = (options.conv + 1) * inner if options.conv else 0
    return projected(options, shape) + convolved + cells + 2 * inner  # biases of the steps, and skips


def state(options: SsmOptions, shape: ModelShape) -> tuple[StateTensor, ...]:
    """The recurrent state, float32 at least, and the convolution's last inputs in the model's dtype."""
    dtype: Dtype = "float64" if shape.dtype == "float64" else "float32"
    inner = options.inner(shape)
    if options.rule == "trapezoidal":
        heads, width = options.heads(shape), shape.head_dim
        rows = {
            "recurrent": (heads, options.state_dim, width),
            "key": (heads, options.rank, options.state_dim),
            "value": (heads, width),
            "angle": (heads, options.angles),
        }
        return tuple(
            StateTensor(name=name, row_shape=row, dtype=dtype, role="recurrent", base=1) for name, row in rows.items()
        )
    row = (options.state_dim, inner)
    recurrent = StateTensor(name="recurrent", row_shape=row, dtype=dtype, role="recurrent", base=1)
    if options.conv < 2:
        return (recurrent,)
    tail = StateTensor(name="conv", row_shape=(inner,), dtype=shape.dtype, role="conv", base=options.conv - 1)
    return recurrent, tail


def flops(options: SsmOptions, shape: ModelShape, *, phase: Phase, context: int) -> Flops:
    """Operations of the forward pass over `context` tokens, or of one decoded token."""
    inner, cells = float(options.inner(shape)), float(options.inner(shape) * options.state_dim)
    around = Flops(matmul=2.0 * projected(options, shape))
    if options.rule == "trapezoidal":
        return _heads(options, shape, phase=phase, context=context, around=around)
    if options.rule == "fixed":
        around += (GELU + SILU + Flops(elementwise=4)) * inner
        if phase == "decode":
            return around + _kernel(options, 1) * inner + Flops(matmul=2 * cells, elementwise=3 * cells)
        return around * float(context) + _chunks(options, context, last=phase == "prefill") * inner
    bias = float(bool(options.conv))
    around += (SILU * 2.0 + SOFTPLUS + Flops(elementwise=2.0 * options.conv + bias + 6)) * inner
    if phase == "decode":  # what is written and what is read are products
        return around + Flops(matmul=4 * cells, elementwise=2 * cells, exp=cells)
    return (around + Flops(matmul=2 * cells, elementwise=6 * cells, exp=cells)) * float(context)


def _heads(options: SsmOptions, shape: ModelShape, *, phase: Phase, context: int, around: Flops) -> Flops:
    """Of the trapezoidal rule, whose chunks multiply pairs, read a state but in the first, and write one but, in
    training, in the last."""
    rank, heads = options.rank, float(options.heads(shape))
    inner = float(rank * options.inner(shape))  # channels of all inputs
    cells, keys = inner * options.state_dim, rank * heads * options.state_dim
    normed = 4 if options.output_norm else 0
    token = around + (SILU + Flops(elementwise=normed + (3 if rank == 1 else 7))) * inner
    token += (SOFTPLUS * 2.0 + Flops(elementwise=8, exp=1)) * heads
    token += Flops(elementwise=8 * keys + 8 * rank * options.state_dim, exp=2 * heads * options.angles)
    if phase == "decode":
        return token + Flops(matmul=6 * cells, elementwise=cells / rank + 2 * keys, exp=heads)
    first, final = min(CHUNK, context), (context - 1) % CHUNK + 1
    reading, writing = context - first, context if phase == "prefill" else context - final
    pairs = _pairs(context)
    products = 2.0 * pairs * rank * (keys + inner) + 2.0 * cells * (reading + writing)
    weighting = Flops(matmul=products, elementwise=4 * pairs * heads + 2 * keys * context, exp=pairs * heads)
    if rank > 1:
        weighting += Flops(elementwise=pairs * heads * (rank * rank - 1))
    return token * float(context) + weighting + Flops(elementwise=2 * cells / rank * writing / CHUNK)


def _pairs(context: int) -> float:
    """Pairs of a token and one no later in its chunk."""
    full, rest = divmod(context, CHUNK)
    return full * CHUNK * (CHUNK + 1) / 2 + rest * (rest + 1) / 2


def _kernel(options: SsmOptions, length: int) -> Flops:
    """Powers of one channel's decays, and what is made of them for so many tokens."""
    kinds = 1.5 if options.complex else 1.0  # exp, sine and cosine for a pair
    return Flops(elementwise=6.0 * options.state_dim * length, exp=kinds * options.state_dim * length)


def _chunks(options: SsmOptions, context: int, *, last: bool) -> Flops:
    """A sequence of one channel in chunks; `last`: with the state after it."""
    first, final = min(CHUNK, context), (context - 1) % CHUNK + 1
    reading, writing = context - first, context if last else context - final
    products = Flops(matmul=2.0 * _pairs(context) + 2.0 * options.state_dim * (reading + writing))
    carried = Flops(elementwise=(4.0 if options.complex else 2.0) * options.state_dim * writing / CHUNK)
    return products + carried + _kernel(options, first)
