"""Weightings of full attention, and choices of blocks and tokens, against the naive forms of `fla-core`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from archsearch_plugins.full.delta import delta_values
from archsearch_plugins.full.ops import full_attention
from archsearch_plugins.full.path import Decays, path_attention
from archsearch_plugins.full.weights import running, weighing, weighted_attention
from archsearch_plugins.indexed.choice import Choice
from archsearch_plugins.indexed.ops import indexed_attention
from archsearch_plugins.indexed.options import Rule
from archsearch_plugins.nsa.ops import choose_blocks, mean_weights, nsa_attention
from archsearch_plugins.nsa.sizes import NsaSizes
from archsearch_plugins.sliding.ops import window_attention
from torch import Tensor
from torch.testing import assert_close

from archsearch.ops.block_sparse import block_means
from archsearch.ops.index_scores import relu_scores
from archsearch.ops.laid_out import LaidOut

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

B, T, HQ, H, D = 2, 150, 6, 3, 8
SCALE = D**-0.5
IMPLS = ("auto", "reference")


def naive(module: str, name: str) -> Callable[..., Any]:
    """A naive form, of `fla.ops`, from its own file: some packages of it ask for what `fla-core` leaves out."""
    fla = pytest.importorskip("fla", reason="the naive forms are those of fla-core 0.6: make test-peers")
    path = Path(fla.__file__).parent / "ops" / module / "naive.py"
    loaded = ModuleType(f"naive_{module}")
    SourceFileLoader(loaded.__name__, str(path)).exec_module(loaded)
    form: Callable[..., Any] = getattr(loaded, name)
    return form


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(B, T, *shape, generator=torch.Generator().manual_seed(seed))


q, k, v = drawn(HQ, D, seed=0), drawn(H, D, seed=1), drawn(H, D, seed=2)
closed = F.logsigmoid(drawn(HQ, seed=3))
order = torch.arange(T).expand(B, -1)


@pytest.mark.parametrize("impl", IMPLS)
@torch.no_grad()
def test_softmax_over_all_tokens_and_over_a_window(impl: str) -> None:
    wanted, _ = naive("attn", "naive_parallel_attn")(q, k, v)
    assert_close(full_attention(LaidOut(q, k, v), impl=impl), wanted, rtol=1e-5, atol=1e-5)
    wanted, _ = naive("attn", "naive_parallel_attn")(q, k, v, window_size=20)
    assert_close(window_attention(LaidOut(q, k, v), window=20, sinks=0, impl=impl), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", IMPLS)
@torch.no_grad()
def test_a_window_with_a_sink_logit(impl: str) -> None:
    sink = drawn(HQ, seed=6)[0, 0]
    wanted, _ = naive("attn", "naive_parallel_attn")(q, k, v, window_size=20, sink_bias=sink)
    found = window_attention(LaidOut(q, k, v), window=20, sinks=0, sink_logits=sink, impl=impl)
    assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", IMPLS)
@torch.no_grad()
def test_forgetting(impl: str) -> None:
    wanted = naive("forgetting_attn", "naive_forgetting_attn")(q, k, v, closed)
    found = weighted_attention(q, k, v, order, weighing("forgetting"), log_forget=closed, impl=impl)
    assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", IMPLS)
@torch.no_grad()
def test_stick_breaking(impl: str) -> None:
    wanted, left = naive("stickbreaking_attn", "naive_stickbreaking_attn")(q, k, v)
    found = weighted_attention(q, k, v, order, weighing("stick-breaking"), impl=impl)
    assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    ones = weighted_attention(q, k, torch.ones_like(v), order, weighing("stick-breaking"), impl=impl)
    assert_close(ones[..., 0], 1 - left, rtol=1e-5, atol=1e-5)  # what is not given away is left of the stick


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("forgets", [False, True], ids=["path", "path-fox"])
@torch.no_grad()
def test_path(forgets: bool, impl: str) -> None:
    """What fla computes multiplies the gates by the scale too: it is given them divided by it."""
    w, beta = F.normalize(drawn(H, D, seed=4), dim=-1), 2 * drawn(H, seed=5).sigmoid()
    gates = closed if forgets else torch.zeros_like(closed)
    wanted = naive("path_attn", "naive_path_attn")(q, k, v, w, beta, gates / SCALE, SCALE)
    decays = Decays(new=running(gates), past=gates[:, :0].double()) if forgets else None
    found, _ = path_attention(q, {"k": k, "v": v, "w": w, "beta": beta}, None, decays=decays, keep=False, impl=impl)
    assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("impl", IMPLS)
@torch.no_grad()
def test_deltaformer(impl: str) -> None:
    """There the query asks for what is taken away, here the key: it is given the key for both. Its factor on what is
    taken away is 1 unless given, as here."""
    wanted = naive("deltaformer", "naive_deltaformer_attn")(k, k, v)
    found = full_attention(LaidOut(k, k, delta_values(k, v, order, v[:, :0], impl=impl)))
    assert_close(found, wanted, rtol=1e-5, atol=1e-5)


SIZES = NsaSizes(block_size=8, top_k=5, window=1)


def nsa(gates: tuple[float, float, float], impl: str) -> Tensor:
    given = torch.tensor(gates).expand(B, T, HQ, 3)
    return nsa_attention(LaidOut(q, k, v), gates=given, sizes=SIZES, impl=impl)


@pytest.mark.parametrize("impl", IMPLS)
@torch.no_grad()
def test_nsa_compression_and_selection(impl: str) -> None:
    wanted, _ = naive("nsa", "naive_nsa_compression")(q, block_means(k, 8), block_means(v, 8), 8, SCALE)
    assert_close(nsa((1.0, 0.0, 0.0), impl), wanted, rtol=1e-5, atol=1e-5)
    chosen = choose_blocks(mean_weights(q, block_means(k, 8), order, 8, SCALE), order // 8, H, SIZES.top_k)
    wanted = naive("nsa", "naive_nsa_selection")(q, k, v, chosen.transpose(1, 2), 8, SCALE)
    assert_close(nsa((0.0, 1.0, 0.0), impl), wanted, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_nsa_chooses_what_the_naive_form_chooses_beside_the_block_before_the_own() -> None:
    """Which is always in there, as the own and the first are; here it counts like any other. By the weights of blocks
    before it, with none left for it."""
    means, own = block_means(k, 8), (order // 8)[:, None, :, None]
    theirs = naive("nsa", "naive_nsa_topk")(q, F.pad(means, (0, 0) * 2 + (0, 1)), 6, 8, SCALE).transpose(1, 2)
    weights = mean_weights(q, means, order, 8, SCALE)
    weights = weights.masked_fill(torch.arange(means.shape[1]) >= own - 1, 0.0)
    ours = choose_blocks(weights, order // 8, H, SIZES.top_k)
    worth = F.pad(weights.unflatten(1, (H, -1)).sum(2), (0, 1))
    found = []
    for blocks in (ours, theirs):
        assert (blocks == own).any(-1).all()
        assert (blocks == 0).any(-1).all()
        rest = (blocks > 0) & (blocks < own - 1)
        kept = worth.gather(-1, blocks.clamp(min=0)).masked_fill(~rest, 0.0)
        found.append(kept.sort(-1, descending=True).values[..., :3])
    assert_close(*found, rtol=1e-5, atol=1e-6)
    assert ((ours > 0) & (ours < own - 2)).any()  # some were ranked


@pytest.mark.parametrize("impl", IMPLS)
@torch.no_grad()
def test_dsa(impl: str) -> None:
    """Scores, choice and attention; 16 of up to 150 keys. With so many heads no two keys score the same."""
    queries, keys, weights = drawn(8, 16, seed=7), drawn(16, seed=8), drawn(8, seed=9).exp()
    wanted = naive("dsa", "naive_dsa")(q, k, v, queries, keys, weights, topk=16)
    rule = Rule(block_size=1, top_k=16, tail=True, local=0, first=0)

    def scores(part: slice) -> Tensor:
        return relu_scores(queries[:, part], keys[:, : part.stop], weights[:, part]) * 16**-0.5

    found = indexed_attention(q, k, v, order, Choice(rule=rule, scores=scores, choosers=1), impl=impl)
    assert_close(found, wanted, rtol=1e-5, atol=1e-5)
