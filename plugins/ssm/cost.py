"""Parameters, operations and states of a state space mixer: arithmetic only.

Products of a fixed recurrence are those of its chunks of 64 tokens (fewer in a shorter sequence): pairs of a token with
itself or an earlier one; the first chunk reads no state, and in training the last one writes none. Making its kernel
from the parameters is counted for every sequence, though a batch shares it. The scan of a selective one is elementwise,
and goes through a sequence twice.
"""

from __future__ import annotations

from archsearch.mixer import Dtype, Flops, ModelShape, Phase, StateTensor

from .options import SsmOptions

CHUNK = 64
_SILU = Flops(elementwise=3, exp=1)
_SOFTPLUS = Flops(elementwise=1, exp=2)
_GELU = Flops(elementwise=4, exp=1)


def projected(options: SsmOptions, shape: ModelShape) -> int:
    """Weights of the projections that a token goes through."""
    inner, d_model = options.inner(shape), shape.d_model
    if options.rule == "fixed":
        return 2 * d_model * d_model
    return inner * (3 * d_model + 2 * options.rank(shape) + 2 * options.state_dim)


def params(options: SsmOptions, shape: ModelShape) -> int:
    """Trained parameters of the layer."""
    inner, cells = options.inner(shape), options.inner(shape) * options.state_dim
    if options.rule == "fixed":  # rates (half as many complex ones, of two numbers), reads; steps and skips; biases
        return projected(options, shape) + 2 * cells + 2 * inner + 2 * shape.d_model
    convolved = (options.conv + 1) * inner if options.conv else 0
    return projected(options, shape) + convolved + cells + 2 * inner  # biases of the steps, and skips


def state(options: SsmOptions, shape: ModelShape) -> tuple[StateTensor, ...]:
    """The recurrent state, float32 at least, and the convolution's last inputs in the model's dtype."""
    dtype: Dtype = "float64" if shape.dtype == "float64" else "float32"
    inner = options.inner(shape)
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
    if options.rule == "fixed":
        around += (_GELU + _SILU + Flops(elementwise=4)) * inner
        if phase == "decode":
            return around + _kernel(options, 1) * inner + Flops(matmul=2 * cells, elementwise=3 * cells)
        return around * float(context) + _chunks(options, context, last=phase == "prefill") * inner
    bias = float(bool(options.conv))
    around += (_SILU * 2.0 + _SOFTPLUS + Flops(elementwise=2.0 * options.conv + bias + 6)) * inner
    passes = 1 if phase == "decode" else 2
    token = around + Flops(matmul=2 * cells, elementwise=(2 + 2 * passes) * cells, exp=cells)
    return token * (1.0 if phase == "decode" else float(context))


def _kernel(options: SsmOptions, length: int) -> Flops:
    """Powers of one channel's decays, and what is made of them for so many tokens."""
    kinds = 1.5 if options.complex else 1.0  # exp, sine and cosine for a pair
    return Flops(elementwise=6.0 * options.state_dim * length, exp=kinds * options.state_dim * length)


def _chunks(options: SsmOptions, context: int, *, last: bool) -> Flops:
    """A sequence of one channel in chunks; `last`: with the state after it."""
    first, final = min(CHUNK, context), (context - 1) % CHUNK + 1
    reading, writing = context - first, context if last else context - final
    full, rest = divmod(context, CHUNK)
    pairs = full * CHUNK * (CHUNK + 1) / 2 + rest * (rest + 1) / 2
    products = Flops(matmul=2.0 * pairs + 2.0 * options.state_dim * (reading + writing))
    carried = Flops(elementwise=(4.0 if options.complex else 2.0) * options.state_dim * writing / CHUNK)
    return products + carried + _kernel(options, first)
