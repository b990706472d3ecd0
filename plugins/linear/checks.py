"""Shapes and dtypes that the linear op accepts, and the errors that say what was expected instead."""

from __future__ import annotations

from torch import Tensor

from archsearch.ops.softmax import ShapeError

from .decays import Decay

OP = "linear_attention"


def check_sequence(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    beta: Tensor | None,
    state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Decay:
    """The kind of the decay. Raises `ShapeError` unless the tensors of `linear_attention` fit together; sizes are read
    from q and v."""
    _check_rank("q", q, "[B, T, H, K]")
    _check_rank("v", v, "[B, T, HV, V]")
    batch, tokens, _, key_dim = q.shape
    heads, value_dim = v.shape[2:]
    _check_tokens(q, k, v, lead=(batch, tokens))
    decay = _check_gates(log_decay, beta, lead=(batch, tokens), heads=heads, key_dim=key_dim)
    count = batch
    if cu_seqlens is not None:
        if cu_seqlens.dim() != 1 or cu_seqlens.numel() < 1 or cu_seqlens.is_floating_point():
            raise _error("cu_seqlens", cu_seqlens, "integers [N + 1]")
        if batch != 1:
            raise _error("q", q, "B = 1, as packed sequences (cu_seqlens) lie in one row")
        count = cu_seqlens.numel() - 1
    _check("initial_state", state, [(count, heads, key_dim, value_dim)])
    return decay


def check_step(q: Tensor, k: Tensor, v: Tensor, state: Tensor, log_decay: Tensor | None, beta: Tensor | None) -> Decay:
    """The kind of the decay. Raises `ShapeError` unless the tensors of `linear_attention_step` fit together."""
    _check_rank("q", q, "[B, H, K]")
    _check_rank("v", v, "[B, HV, V]")
    batch, _, key_dim = q.shape
    heads, value_dim = v.shape[1:]
    _check_tokens(q, k, v, lead=(batch,))
    decay = _check_gates(log_decay, beta, lead=(batch,), heads=heads, key_dim=key_dim)
    _check("state", state, [(batch, heads, key_dim, value_dim)])
    return decay


def _check_tokens(q: Tensor, k: Tensor, v: Tensor, *, lead: tuple[int, ...]) -> None:
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


def _check_gates(
    log_decay: Tensor | None, beta: Tensor | None, *, lead: tuple[int, ...], heads: int, key_dim: int
) -> Decay:
    kinds: dict[Decay, tuple[int, ...]] = {
        "constant": (heads,),
        "head": (*lead, heads),
        "channel": (*lead, heads, key_dim),
    }
    _check("log_decay", log_decay, list(kinds.values()))
    _check("beta", beta, [(*lead, heads)])
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
