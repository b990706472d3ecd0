"""The recurrence of linear attention for one token: a tile of the state is read once and written once."""
# mypy: ignore-errors

import triton
import triton.language as tl

_SIZES = [
    "heads",
    "value_heads",
    "key_dim",
    "value_dim",
    "q_row",
    "k_row",
    "v_row",
    "decay_row",
    "taken_row",
    "along_row",
]


@triton.jit(do_not_specialize=_SIZES)
def step_kernel(
    q,
    k,
    v,
    log_decay,
    taken,
    along,
    state,
    after,
    o,
    scale,
    heads,
    value_heads,
    key_dim,
    value_dim,
    q_row,
    k_row,
    v_row,
    decay_row,
    taken_row,
    along_row,
    DELTA: tl.constexpr,
    READ: tl.constexpr,
    EARLY: tl.constexpr,
    APART: tl.constexpr,
    DECAY: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """One program: all keys and BLOCK_V values of one head of one sequence; `after` may be `state` itself.

    q, k `[B, H, K]`, v, o `[B, HV, V]`, states `[B, HV, K, V]`, dense but for the distance `*_row` from one sequence to
    the next; log_decay `[HV]`, `[B, HV]` or `[B, HV, K]` as DECAY says. `taken` is beta `[B, HV]`, READ: the vectors r
    `[B, HV, K]` that the state is read by, EARLY: before its decay; what they read is taken away along k, APART: along
    `along` `[B, HV, K]`. ALIGNED: V is a multiple of 4.
    """
    if ALIGNED:
        value_dim = value_dim // 4 * 4
    tiles = tl.cdiv(value_dim, BLOCK_V)
    program = tl.program_id(0)
    head = (program // tiles) % value_heads
    row = (program // tiles // value_heads).to(tl.int64)
    keys = tl.arange(0, BLOCK_K)
    values = program % tiles * BLOCK_V + tl.arange(0, BLOCK_V)
    is_key, is_value = keys < key_dim, values < value_dim
    inside = is_key[:, None] & is_value[None, :]
    cells = (row * value_heads + head) * key_dim * value_dim + keys[:, None] * value_dim + values[None, :]
    memory = tl.load(state + cells, mask=inside, other=0.0)

    shared = head // (value_heads // heads) * key_dim + keys
    query = tl.load(q + row * q_row + shared, mask=is_key, other=0.0).to(tl.float32)
    key = tl.load(k + row * k_row + shared, mask=is_key, other=0.0).to(tl.float32)
    written = tl.load(v + row * v_row + head * value_dim + values, mask=is_value, other=0.0).to(tl.float32)
    if READ:
        read = tl.load(taken + row * taken_row + head * key_dim + keys, mask=is_key, other=0.0).to(tl.float32)
    if EARLY:
        recalled = tl.sum(memory * read[:, None], axis=0)
    if DECAY == "constant":
        memory *= tl.exp(tl.load(log_decay + head).to(tl.float32))
    elif DECAY == "head":
        memory *= tl.exp(tl.load(log_decay + row * decay_row + head).to(tl.float32))
    elif DECAY == "channel":
        gates = tl.load(log_decay + row * decay_row + head * key_dim + keys, mask=is_key, other=0.0)
        memory *= tl.exp(gates.to(tl.float32))[:, None]
    if READ:
        if not EARLY:
            recalled = tl.sum(memory * read[:, None], axis=0)
        if APART:
            removed = tl.load(along + row * along_row + head * key_dim + keys, mask=is_key, other=0.0).to(tl.float32)
            memory -= removed[:, None] * recalled[None, :]
        else:
            written = written - recalled
    elif DELTA:
        recalled = tl.sum(memory * key[:, None], axis=0)
        written = tl.load(taken + row * taken_row + head).to(tl.float32) * (written - recalled)
    found = tl.sum(memory * query[:, None], axis=0) + tl.sum(query * key, axis=0) * written
    memory += key[:, None] * written[None, :]
    tl.store(after + cells, memory, mask=inside)
    places = (row * value_heads + head) * value_dim + values
    tl.store(o + places, (scale * found).to(o.dtype.element_ty), mask=is_value)
