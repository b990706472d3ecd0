"""PaTH attention against the product of its reflections, token by token, and what it is without them."""

from __future__ import annotations

import itertools

import pytest
import torch
from archsearch_plugins.full import FullPlugin, path
from archsearch_plugins.full.ops import full_attention
from archsearch_plugins.full.path import Decays, Moved, path_attention
from archsearch_plugins.full.path_cost import BLOCK
from archsearch_plugins.full.weights import running, softmax_weights, weighted_attention
from torch import Tensor
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from archsearch.mixer import LayerInfo, ModelShape
from archsearch.ops.laid_out import LaidOut

Inputs = dict[str, Tensor]
SHAPE = ModelShape(d_model=24, n_heads=4, n_kv_heads=2, head_dim=8, dtype="float32")


def _inputs(tokens: int, dtype: torch.dtype = torch.float64) -> Inputs:
    torch.manual_seed(tokens)
    drawn = {name: torch.randn(2, tokens, h, 8, dtype=dtype) for name, h in (("q", 4), ("k", 2), ("v", 2), ("w", 2))}
    drawn["w"] = torch.nn.functional.normalize(drawn["w"], dim=-1)
    drawn["beta"] = 2 * torch.rand(2, tokens, 2, dtype=dtype)
    drawn["forget"] = torch.nn.functional.logsigmoid(torch.randn(2, tokens, 4, dtype=dtype))
    return {name: x.requires_grad_() for name, x in drawn.items()}


def _token_by_token(x: Inputs, forget: bool = False) -> Tensor:
    """PaTH, arXiv 2505.16381: q_i . (H_i .. H_(j+1) k_j), H_t = I - beta_t w_t w_t^T; each token turns every key."""
    rows, keys = [], x["k"][:, :0]
    for t in range(x["q"].shape[1]):
        w, beta = x["w"][:, t, None], x["beta"][:, t, None, :, None]
        keys = torch.cat((keys - beta * (keys * w).sum(-1, keepdim=True) * w, x["k"][:, t, None]), dim=1)
        scores = (x["q"][:, t, None] * keys.repeat_interleave(2, 2)).sum(-1) * 8**-0.5
        if forget:
            after = x["forget"][:, 1 : t + 1].flip(1).cumsum(1).flip(1)
            scores = scores + torch.cat((after, torch.zeros_like(scores[:, :1])), dim=1)
        values = x["v"][:, : t + 1].repeat_interleave(2, 2)
        rows.append((scores.softmax(1)[..., None] * values).sum(1))
    return torch.stack(rows, 1)


def _op(x: Inputs, forget: bool = False, impl: str = "auto") -> tuple[Tensor, Tensor]:
    sums = running(x["forget"])
    decays = Decays(new=sums, past=sums[:, :0]) if forget else None
    out, keys = path_attention(x["q"], x, None, decays=decays, impl=impl)
    assert keys is not None
    alone, none = path_attention(x["q"], x, None, decays=decays, keep=False, impl=impl)
    assert none is None
    assert_close(alone, out)
    return out, keys


@pytest.mark.parametrize("forget", [False, True], ids=["path", "path-fox"])
@pytest.mark.parametrize(
    ("tokens", "size", "impl"),
    [(1, 64, "auto"), (9, 64, "auto"), (23, 3, "auto"), (21, 7, "auto"), (9, 1, "reference")],
)
def test_op_equals_token_by_token(
    tokens: int, size: int, impl: str, forget: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path, "BLOCK", size)
    x = _inputs(tokens)
    expected, (actual, _) = _token_by_token(x, forget), _op(x, forget, impl)
    assert_close(actual, expected)
    trained = [x[name] for name in ("q", "k", "v", "w", "beta", *["forget"] * forget)] if tokens > 1 else [x["v"]]
    loss = torch.randn_like(expected)
    for found, wanted in zip(
        torch.autograd.grad((actual * loss).sum(), trained),
        torch.autograd.grad((expected * loss).sum(), trained),
        strict=True,
    ):
        assert_close(found, wanted)


def test_keys_go_along_from_piece_to_piece() -> None:
    x = {name: one.detach() for name, one in _inputs(40).items()}
    whole, keys = _op(x)
    lengths, outputs = [0, 17, 18, 40], []
    past = Moved(k=x["k"][:, :0], v=x["v"][:, :0], lengths=torch.zeros(2, dtype=torch.int64))
    for start, stop in itertools.pairwise(lengths):
        piece = {name: one[:, start:stop] for name, one in x.items()}
        out, moved = path_attention(piece["q"], piece, past)
        outputs.append(out)
        assert moved is not None
        past = Moved(k=moved, v=x["v"][:, :stop], lengths=torch.full((2,), stop))
    assert_close(torch.cat(outputs, 1), whole)
    assert_close(past.k, keys)


def test_without_reflections_it_is_softmax_attention_and_with_gates_forgetting_attention() -> None:
    x = _inputs(30)
    x = {**x, "beta": torch.zeros_like(x["beta"])}
    assert_close(_op(x)[0], full_attention(LaidOut(x["q"], x["k"], x["v"])))
    order = torch.arange(30).expand(2, -1)
    forgetting = weighted_attention(x["q"], x["k"], x["v"], order, softmax_weights, log_forget=x["forget"])
    assert_close(_op(x, forget=True)[0], forgetting)


def test_a_reflection_of_strength_two_undoes_itself() -> None:
    """PaTH, arXiv 2505.16381: with beta = 2 H is a Householder reflection, which keeps lengths; between a key
    and a query two equal ones are none, so that parity is told by one direction."""
    x = {name: one.detach() for name, one in _inputs(8).items()}
    unit = torch.zeros(2, 8, 2, 8, dtype=torch.float64)
    unit[..., 0] = 1.0
    _, keys = _op({**x, "w": unit, "beta": torch.full((2, 8, 2), 2.0, dtype=torch.float64)})
    signs = torch.tensor([(-1.0) ** (7 - token) for token in range(8)], dtype=torch.float64)
    assert_close(keys[..., 0], x["k"][..., 0] * signs[:, None])
    assert_close(keys[..., 1:], x["k"][..., 1:])


def test_float32_agrees_with_float64() -> None:
    x = {name: one.detach() for name, one in _inputs(300).items()}
    found, _ = _op({name: one.float() for name, one in x.items()}, forget=True)
    assert_close(found.double(), _op(x, forget=True)[0], rtol=1e-5, atol=1e-5)


def test_costs_count_the_blocks_of_the_op() -> None:
    assert path.BLOCK == BLOCK


@pytest.mark.parametrize("tokens", [20, 150])
def test_matrix_products_are_those_of_the_blocks_row_by_row(tokens: int) -> None:
    """Of squares below a diagonal, and of products and inverses of triangles, no zero is multiplied."""
    plugin, layer = FullPlugin(), LayerInfo()
    options = plugin.parse_options({"weighting": "path"})
    built = plugin.build(options, SHAPE, layer)
    weights = sum(module.weight.numel() for module in built.modules() if isinstance(module, torch.nn.Linear))
    with FlopCounterMode(display=False) as counter:
        for start in range(0, tokens, BLOCK):
            _block_by_rows(min(BLOCK, tokens - start), start)
    counted = counter.get_total_flops() + 2 * weights * tokens
    assert plugin.flops(options, SHAPE, layer, phase="prefill", context=tokens).matmul == pytest.approx(
        counted, rel=0.05
    )


def _block_by_rows(size: int, before: int) -> None:
    """What a block of so many tokens multiplies after others, by `[heads, .., D]`; results are not kept."""
    groups, width, of_group = SHAPE.n_kv_heads, SHAPE.head_dim, SHAPE.n_heads // SHAPE.n_kv_heads
    k, w = torch.randn(2, groups, size, width)
    q, earlier = torch.randn(groups, of_group * size, width), torch.randn(groups, before, width)
    triangle, moves = torch.randn(2, groups, size, size)
    met = torch.randn(groups, of_group, size)
    for i in range(size):
        upto, queries = slice(0, i + 1), q[:, i::size]
        _ = w[:, i : i + 1] @ w[:, :i].mT
        _ = w[:, i : i + 1] @ k[:, :i].mT
        for j in range(i):  # the inverse, and what it is multiplied by, are triangles
            _ = triangle[:, i : i + 1, j:i] @ triangle[:, j:i, j : j + 1]
            _ = triangle[:, i : i + 1, j:i] @ moves[:, j:i, j : j + 1]
            _ = met[:, :, j:i] @ moves[:, j:i, j : j + 1]
        _ = triangle[:, i : i + 1, upto] @ w[:, upto]
        _ = moves[:, :i, i : i + 1].mT @ w[:, :i]
        for _ in ("met", "scores", "moved back", "values"):
            _ = queries @ w[:, upto].mT
        for _ in ("scores", "values"):
            _ = queries @ earlier.mT
    _ = earlier @ w.mT @ w if 2 * size <= width else earlier @ (w.mT @ w)
