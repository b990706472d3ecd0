"""Shapes and dtypes that the linear op accepts, and the errors that say what was expected instead."""

from __future__ import annotations

from torch import Tensor

from archsearch.ops.softmax import ShapeError

from .decays import Decay
from .tokens import Tokens

OP = "linear_attention"


def check_sequence(tokens: Tokens, state: Tensor | None, cu_seqlens: Tensor | None) -> Decay:
    """The kind of the decay. Raises `ShapeError` unless the tensors of `linear_attention` fit together; sizes are read
    from q and v."""
    q, v = tokens.q, tokens.v
    _check_rank("q", q, "[B, T, H, K]")
    _check_rank("v", v, "[B, T, HV, V]")
    batch, length, _, key_dim = q.shape
    heads, value_dim = v.shape[2:]
    _check_tokens(tokens, lead=(batch, length))
    decay = _check_gates(tokens, lead=(batch, length))
    count = batch
    if cu_seqlens is not None:
        if cu_seqlens.dim() != 1 or cu_seqlens.numel() < 1 or cu_seqlens.is_floating_point():
            raise _error("cu_seqlens", cu_seqlens, "integers [N + 1]")
        if batch != 1:
            raise _error("q", q, "B = 1, as packed sequences (cu_seqlens) lie in one row")
        count = cu_seqlens.numel() - 1
    _check("initial_state", state, [(count, heads, key_dim, value_dim)])
    return decay


def check_step(tokens: Tokens, state: Tensor) -> Decay:
    """The kind of the decay. Raises `ShapeError` unless the tensors of `linear_attention_step` fit together."""
    _check_rank("q", tokens.q, "[B, H, K]")
    _check_rank("v", tokens.v, "[B, HV, V]")
    batch, _, key_dim = tokens.q.shape
    heads, value_dim = tokens.v.shape[1:]
    _check_tokens(tokens, lead=(batch,))
    decay = _check_gates(tokens, lead=(batch,))
    _check("state", state, [(batch, heads, key_dim, value_dim)])
    return decay


def _check_tokens(tokens: Tokens, *, lead: tuple[int, ...]) -> None:
    q, k, v = tokens.q, tokens.k, tokens.v
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if not tensor.is_floating_point():
            raise _error(name, tensor, "a floating-point dtype")
    heads, value_dim = v.shape[-2:]
    _check("k", k, [tuple(q.shape)])
    _check("v", v, [(*lead, heads, value_dim)])
    if q.shape[-2] < 1 or heads % q.shape[-2]:
        raise _error("v", v, f"a number of heads that is a multiple of the {q.shape[-2]} of q")
    if k.dtype != q.dtype:
        raise _error("k", k, f"the dtype of q, {q.dtype}")


def _check_gates(tokens: Tokens, *, lead: tuple[int, ...]) -> Decay:
    log_decay, heads, key_dim = tokens.log_decay, tokens.v.shape[-2], tokens.q.shape[-1]
    kinds: dict[Decay, tuple[int, ...]] = {
        "constant": (heads,),
        "head": (*lead, heads),
        "channel": (*lead, heads, key_dim),
    }
    _check("log_decay", log_decay, list(kinds.values()))
    _check("beta", tokens.beta, [(*lead, heads)])
    if tokens.removal is not None:
        if tokens.beta is not None:
            raise _error("beta", tokens.beta, "none beside a removal, which says what is taken away")
        _check("removal.read", tokens.removal.read, [(*lead, heads, key_dim)])
        _check("removal.along", tokens.removal.along, [(*lead, heads, key_dim)])
    return "none" if log_decay is None else next(kind for kind, shape in kinds.items() if log_decay.shape == shape)


def _check(name: str, tensor: Tensor | None, shapes: list[tuple[int, ...]]) -> None:
    if tensor is None:
        return
    if not tensor.is_floating_point():
        raise _error(name, tensor, "a floating-point dtype")
    if tuple(tensor.shape) not in shapes:
        raise _error(name, tensor, " or ".join(str(list(shape)) for shape in shapes))


def _check_rank(name: str, tensor: Tensor, expected: str) -> None:
    if tensor.dim() != expected.count(",") + 1:
        raise _error(name, tensor, expected)


def _error(name: str, tensor: Tensor, expected: str) -> ShapeError:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return ShapeError(f"{OP}: {name} is {list(tensor.shape)} {dtype}: expected {expected}")
