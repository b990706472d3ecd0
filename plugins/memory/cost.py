"""Parameters, operations and states of a memory mixer: arithmetic only.

Products are those of the dual form in mini-batches of b tokens: of a pair of tokens in one mini-batch only that of a
token with itself or an earlier one. In training the last mini-batch leaves no weights, and the first finds no momentum.
"""

from __future__ import annotations

from archsearch.amounts import GELU, SIGMOID, SILU
from archsearch.mixer import Dtype, Flops, ModelShape, Phase, StateTensor, Traffic

from .options import MemoryOptions

_GATES = {"silu": SILU, "sigmoid": SIGMOID, "gelu": GELU}


def cells(options: MemoryOptions, shape: ModelShape) -> int:
    """Numbers of one head's network."""
    return sum(rows * columns for rows, columns in options.layers(shape))


def projected(options: MemoryOptions, shape: ModelShape) -> int:
    """Weights of the projections that a token goes through."""
    values = shape.n_heads * shape.head_dim
    gated = 0 if options.output_gate == "none" else values
    given = 3 if options.shared_projection else 4
    return shape.d_model * (given * values + options.gates * shape.n_heads + gated)


def params(options: MemoryOptions, shape: ModelShape) -> int:
    """Trained parameters of the layer."""
    heads, width = shape.n_heads, shape.head_dim
    values = heads * width
    count = projected(options, shape) + options.gates * heads + options.convolved * options.conv * values
    count += 2 * values if options.shared_projection else 0
    count += heads * cells(options, shape)
    count += 2 * values if options.inner_norm else 0
    count += options.mini_batch if options.average else 0
    return count + {"none": 0, "rms": width, "layer": 2 * values}[options.output_norm]


def state(options: MemoryOptions, shape: ModelShape) -> tuple[StateTensor, ...]:
    """Weights now, those at the start of the mini-batch unless it is one token, and momentum, float32 at least."""
    dtype: Dtype = "float64" if shape.dtype == "float64" else "float32"
    names = ["weights", *["start"] * (options.mini_batch > 1), *["momentum"] * options.momentum]
    tensors = [
        StateTensor(
            name=f"{name}{index}",
            row_shape=(shape.n_heads, rows, columns),
            dtype=dtype,
            role="recurrent",
            base=1,
        )
        for name in names
        for index, (rows, columns) in enumerate(options.layers(shape))
    ]
    if options.conv > 1:
        channels = options.convolved * shape.n_heads * shape.head_dim
        tensors.append(
            StateTensor(name="conv", row_shape=(channels,), dtype=shape.dtype, role="conv", base=options.conv - 1)
        )
    return tuple(tensors)


def traffic(options: MemoryOptions, shape: ModelShape, context: int) -> Traffic:
    """All is read; all but the start of the mini-batch is written, and that by its last token."""
    held = {tensor.name: float(tensor.nbytes(context)) for tensor in state(options, shape)}
    start = sum(size for name, size in held.items() if name.startswith("start"))
    read = sum(held.values())
    if not start:
        return Traffic(read_bytes=read, written_bytes=read)
    closes = context >= options.mini_batch
    return Traffic(
        read_bytes=read,
        written_bytes=read - start + (start / options.mini_batch if closes else 0.0),
        peak_read_bytes=read,
        peak_written_bytes=read if closes else read - start,
    )


def flops(options: MemoryOptions, shape: ModelShape, *, phase: Phase, context: int) -> Flops:
    """Operations of the forward pass over `context` tokens, or of one decoded token."""
    around, heads = _around(options, shape), float(shape.n_heads)
    if phase == "decode":
        return around + _step(options, shape) * heads
    return around * float(context) + _mini_batches(options, shape, context, last=phase == "prefill") * heads


def _around(options: MemoryOptions, shape: ModelShape) -> Flops:
    """One token's projections, gates, and what is on q, k, v and the output."""
    heads, values = float(shape.n_heads), float(shape.n_heads * shape.head_dim)
    mixed = options.convolved * 2.0 * options.conv + 2.0 * options.shared_projection
    done = Flops(matmul=2.0 * projected(options, shape), elementwise=mixed * values)
    done += (SIGMOID + Flops(elementwise=2)) * (options.gates * heads)
    done += SILU * (3 * values if options.activation == "silu" else 0.0)
    turned = 6.0 * options.rope if options.rope else 0.0
    done += Flops(elementwise=(6.0 * (options.norm == "l2") + turned) * values)
    if options.output_norm != "none":
        done += Flops(elementwise=(4 if options.output_norm == "rms" else 6) * values)
    if options.output_gate != "none":
        done += (_GATES[options.output_gate] + Flops(elementwise=1)) * values
    return done


def _network(options: MemoryOptions, shape: ModelShape) -> Flops:
    """One token and head: the network on its key, the error back through it, and what is around the matrices."""
    width = float(shape.head_dim)
    done = Flops(matmul=2.0 * cells(options, shape), elementwise=2 * width)
    if options.inner_norm:
        done += Flops(elementwise=24 * width)
    if options.residual:
        done += Flops(elementwise=2 * width)
    if options.clip:
        done += Flops(elementwise=4 + sum(2 * rows + 3 * columns for rows, columns in options.layers(shape)))
    if options.network == "mlp":
        between = options.expand * width
        done += Flops(matmul=2.0 * between * width) + (GELU * 2.0 + Flops(elementwise=10, exp=1)) * between
    return done


def _step(options: MemoryOptions, shape: ModelShape) -> Flops:
    """One decoded token of one head: beyond the network an outer product for each matrix, and the read."""
    every = float(cells(options, shape))
    passes = 2.0 + options.momentum * 2 + options.forget + options.average * 3
    gates = float(options.momentum + options.forget)
    return _network(options, shape) + Flops(matmul=4 * every, elementwise=passes * every, exp=gates)


def _mini_batches(options: MemoryOptions, shape: ModelShape, context: int, *, last: bool) -> Flops:
    """A sequence of one head; `last`: with the weights after it, by mini-batches that may begin anywhere."""
    size, every = options.mini_batch, float(cells(options, shape))
    first, final = min(size, context), (context - 1) % size + 1
    learnt = context if last else context - final
    full, rest = divmod(context, size)
    pairs = full * size * (size + 1) / 2 + rest * (rest + 1) / 2
    sides = sum(rows + columns for rows, columns in options.layers(shape))
    read = context + (context - first if options.momentum else 0) + (context if last and options.average else 0)
    written = learnt * (2 if options.momentum else 1)
    weighting = pairs * (len(options.layers(shape)) + 1)
    done = _network(options, shape) * float(context)
    done += Flops(matmul=2.0 * every * (read + written) + 2.0 * sides * pairs, elementwise=weighting)
    done += Flops(elementwise=every * (1 + options.forget + options.momentum * 3) * learnt / size)
    return done + _gates(options, full, rest, pairs)


def _gates(options: MemoryOptions, full: int, rest: int, pairs: float) -> Flops:
    """The decays of pairs, and their products where there are two kinds."""
    kinds = options.momentum + options.forget
    done = Flops(elementwise=kinds * pairs, exp=kinds * pairs)
    if options.momentum:
        size = options.mini_batch
        triples = sum(count * n * (n + 1) * (n + 2) / 6 for count, n in ((full, size), (1, rest)))
        done += Flops(matmul=2.0 * (triples + pairs))
    return done
