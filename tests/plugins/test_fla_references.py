"""The op of linear attention against the naive forms of `fla-core`, rule by rule: outputs and last states."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from archsearch_plugins.linear.additive.bonus import BonusCore
from archsearch_plugins.linear.additive.hierarchy import hierarchy
from archsearch_plugins.linear.checks import check_sequence
from archsearch_plugins.linear.core import Call
from archsearch_plugins.linear.ops import linear_attention
from archsearch_plugins.linear.substeps import interleaved
from archsearch_plugins.linear.tokens import Removal, Tokens, canonical
from torch import Tensor
from torch.testing import assert_close

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

B, T, H, K, V = 2, 70, 3, 8, 10
Made = tuple[Tensor, Tensor | None]


def naive(module: str, name: str) -> Callable[..., Any]:
    """A naive form, of `fla.ops`."""
    pytest.importorskip("fla", reason="the naive forms are those of fla-core 0.6: make test-peers")
    form: Callable[..., Any] = getattr(import_module(f"fla.ops.{module}"), name)
    return form


def drawn(*last: int, seed: int, tokens: int = T) -> Tensor:
    return torch.randn(B, tokens, H, *last, generator=torch.Generator().manual_seed(seed))


q, k, v = drawn(K, seed=0), F.normalize(drawn(K, seed=1), dim=-1), drawn(V, seed=2)
by_head, by_channel = F.logsigmoid(drawn(seed=3)), F.logsigmoid(drawn(K, seed=4))
beta, erase, write = drawn(seed=5).sigmoid(), drawn(K, seed=6).sigmoid(), drawn(V, seed=7).sigmoid()
before = torch.randn(B, H, K, V, generator=torch.Generator().manual_seed(8))
STARTED = {"initial_state": before.clone(), "output_final_state": True}


def ours(tokens: Tokens) -> Made:
    return linear_attention(tokens, scale=K**-0.5, initial_state=before, want_state=True)


def head_major(*given: Tensor) -> list[Tensor]:
    return [x.transpose(1, 2) for x in given]


def linear() -> tuple[Made, Made]:
    theirs = naive("simple_gla.naive", "naive_recurrent_simple_gla")(q, k, v, torch.zeros_like(by_head), **STARTED)
    return ours(Tokens(q, k, v)), theirs


def retention() -> tuple[Made, Made]:
    rates = (1 - 2.0 ** (-5 - torch.arange(H, dtype=torch.float32))).log()
    theirs = naive("retention.naive", "naive_retention")(*head_major(q, k, v)).transpose(1, 2)
    return (linear_attention(Tokens(q, k, v, log_decay=rates), scale=K**-0.5)[0], None), (theirs, None)


def gated_by_head() -> tuple[Made, Made]:
    theirs = naive("simple_gla.naive", "naive_recurrent_simple_gla")(q, k, v, by_head, **STARTED)
    return ours(Tokens(q, k, v, log_decay=by_head)), theirs


def gla() -> tuple[Made, Made]:
    theirs = naive("gla.naive", "naive_recurrent_gla")(q, k, v, by_channel, **STARTED)
    return ours(Tokens(q, k, v, log_decay=by_channel)), theirs


def hgrn2() -> tuple[Made, Made]:
    """A key is what the forget gate leaves, in the recurrence of GLA."""
    forgotten = -torch.expm1(by_channel)
    theirs = naive("gla.naive", "naive_recurrent_gla")(q, forgotten, v, by_channel, **STARTED)
    return ours(Tokens(q, forgotten, v, log_decay=by_channel)), theirs


def rwkv6() -> tuple[Made, Made]:
    weight = torch.randn(H, K, generator=torch.Generator().manual_seed(9))
    theirs = naive("rwkv6.recurrent_naive", "naive_recurrent_rwkv6")(
        *head_major(q, k, v, by_channel), weight, K**-0.5, **STARTED
    )
    core = BonusCore(K**-0.5, H, K)
    core.bonus.data.copy_(weight)
    with torch.no_grad():
        o, after = core(Tokens(q, k, v, log_decay=by_channel), Call(state={"recurrent": before[:, None]}))
    return (o, after["recurrent"][:, 0]), (theirs[0].transpose(1, 2), theirs[1])


def delta() -> tuple[Made, Made]:
    theirs = naive("delta_rule.naive", "delta_rule_recurrence")(*head_major(q, k, v, beta), **STARTED)
    return ours(Tokens(q, k, v, beta=beta)), (theirs[0].transpose(1, 2), theirs[1])


def gated_delta() -> tuple[Made, Made]:
    form = naive("gated_delta_rule.naive", "naive_recurrent_gated_delta_rule")
    return ours(Tokens(q, k, v, beta=beta, log_decay=by_head)), form(q, k, v, beta, by_head, **STARTED)


def gated_delta_of_negative_eigenvalues() -> tuple[Made, Made]:
    form = naive("gated_delta_rule.naive", "naive_recurrent_gated_delta_rule")
    return ours(Tokens(q, k, v, beta=2 * beta, log_decay=by_head)), form(q, k, v, 2 * beta, by_head, **STARTED)


def gated_delta_product() -> tuple[Made, Made]:
    keys, values = F.normalize(drawn(K, seed=10, tokens=2 * T), dim=-1), drawn(V, seed=11, tokens=2 * T)
    strengths = 2 * drawn(seed=12, tokens=2 * T).sigmoid()
    form = naive("gated_delta_product.naive", "naive_recurrent_gated_delta_product")
    theirs = form(q, keys, values, by_head, strengths, K**-0.5, num_householder=2, **STARTED)
    k2, v2, b2 = (x.unflatten(1, (T, 2)).flatten(2, 3) for x in (keys, values, strengths))
    tokens = interleaved(Tokens(q, k2, v2, beta=b2, log_decay=by_head), 2)
    o, last = ours(tokens)
    return (o[:, 1::2], last), theirs


def kda() -> tuple[Made, Made]:
    theirs = naive("kda.naive", "naive_recurrent_kda")(q, k, v, by_channel, beta, **STARTED)
    return ours(Tokens(q, k, v, beta=beta, log_decay=by_channel)), theirs


def gated_deltanet_2() -> tuple[Made, Made]:
    theirs = naive("gdn2.naive", "naive_recurrent_gdn2")(q, k, v, by_channel, erase, write, **STARTED)
    removal = Removal(read=erase * k)
    return ours(Tokens(q, k, write * v, log_decay=by_channel, removal=removal)), theirs


def comba() -> tuple[Made, Made]:
    """Of both naive forms the chunkwise one: as the paper and the kernels it reads the state before the decay."""
    share = 0.7 * k
    theirs = naive("comba.naive", "naive_chunk_comba")(q, k, v, share, by_head, beta, **STARTED)
    removal = Removal(read=beta[..., None] * share, early=True)
    return ours(Tokens(q, k, beta[..., None] * v, log_decay=by_head, removal=removal)), theirs


def comba_after_the_decay() -> tuple[Made, Made]:
    """What its recurrent naive form computes is another rule: there the state is read after the decay."""
    share = 0.7 * k
    theirs = naive("comba.naive", "naive_recurrent_comba")(q, k, v, share, beta, by_head, **STARTED)
    removal = Removal(read=beta[..., None] * share)
    return ours(Tokens(q, k, beta[..., None] * v, log_decay=by_head, removal=removal)), theirs


def rwkv7() -> tuple[Made, Made]:
    """Diagonal plus low rank, as RWKV-7's kernels are of it."""
    form = naive("generalized_delta_rule.dplr.naive", "dplr_recurrence")
    theirs = form(*head_major(q, k, v, -k, erase * k, by_channel), **STARTED)
    removal = Removal(read=k, along=erase * k, early=True)
    return ours(Tokens(q, k, v, log_decay=by_channel, removal=removal)), (theirs[0].transpose(1, 2), theirs[1])


levels = drawn(8, seed=13).exp()


def of_levels(tokens: Tokens) -> Tensor:
    given = canonical(tokens, check_sequence(tokens, None, None))
    return hierarchy(given, levels, {}, 0, K**-0.5, want_rows=False)[0]


def log_linear_mamba2() -> tuple[Made, Made]:
    theirs = naive("log_linear_attn.naive", "naive_log_linear_attn")(q, k, v, by_head, levels, K**-0.5)
    return (of_levels(Tokens(q, k, v, log_decay=by_head)), None), (theirs, None)


def log_linear_gated_deltanet() -> tuple[Made, Made]:
    """Of which there is no naive form: what a gated delta rule reads of the value of each token, that of value 1 at
    token s and 0 elsewhere, weighed by the levels of the other."""
    form = naive("gated_delta_rule.naive", "naive_recurrent_gated_delta_rule")
    ones = torch.eye(T)[None, :, None].expand(B, -1, H, -1)
    read = form(q, k, ones, beta, by_head)[0].transpose(1, 2)
    matrix = naive("log_linear_attn.naive", "construct_H_matrix")(torch.zeros(B, H, T), levels.permute(0, 2, 3, 1))
    theirs = torch.einsum("bhts,bshv->bthv", matrix * read, v)
    return (of_levels(Tokens(q, k, v, beta=beta, log_decay=by_head)), None), (theirs, None)


RULES = (
    linear,
    retention,
    gated_by_head,
    gla,
    hgrn2,
    rwkv6,
    delta,
    gated_delta,
    gated_delta_of_negative_eigenvalues,
    gated_delta_product,
    kda,
    gated_deltanet_2,
    comba,
    comba_after_the_decay,
    rwkv7,
    log_linear_mamba2,
    log_linear_gated_deltanet,
)


@pytest.mark.parametrize("rule", RULES)
@torch.no_grad()
def test_op_is_the_naive_form(rule: Callable[[], tuple[Made, Made]]) -> None:
    (o, last), (wanted, after) = rule()
    assert_close(o, wanted, rtol=1e-5, atol=1e-5)
    if last is not None:
        assert_close(last, after, rtol=1e-5, atol=1e-5)
