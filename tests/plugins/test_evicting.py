"""H2O: what is kept against a loop over tokens, prompts, costs, the laws that it keeps and breaks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from archsearch_plugins.evicting import EvictingPlugin, ops
from torch import Tensor
from torch.testing import assert_close

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.errors import OptionsError
from archsearch.laws import judged_by_steps
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context
from archsearch.testing import MixerConformance
from archsearch.testing.case import Case
from archsearch.testing.laws import LAWS, Law, tried
from archsearch.testing.products import products

PLUGIN, LAYER = EvictingPlugin(), LayerInfo()
SHAPE = ModelShape(d_model=32, n_heads=4, n_kv_heads=2, head_dim=8, dtype="float32")


def layer_of(**values: Any) -> Any:
    torch.manual_seed(0)
    return PLUGIN.build(PLUGIN.parse_options(values), SHAPE, LAYER).double().eval()


class Oracle:
    """Algorithm 1 of the paper (arXiv 2306.14048) for one key head, its cache as a list of tokens."""

    def __init__(self, heavy: int, recent: int) -> None:
        self.heavy, self.recent = heavy, recent
        self.kept: list[int] = []
        self.scores: dict[int, float] = {}

    def read(self, q: Tensor, k: Tensor, v: Tensor, token: int) -> Tensor:
        """The output `[g, D]` of the query heads `q` `[g, D]` of one token over what is kept and itself."""
        seen = [*self.kept, token]
        weights = torch.softmax(q @ k[seen].T / q.shape[1] ** 0.5, -1)
        for s, weight in zip(seen, weights.sum(0).tolist(), strict=True):
            self.scores[s] = self.scores.get(s, 0.0) + weight
        self.kept = self._left(seen)
        return weights @ v[seen]

    def _left(self, seen: list[int]) -> list[int]:
        recent = sorted(seen)[-self.recent :]
        rest = sorted((s for s in seen if s not in recent), key=lambda s: -self.scores[s])
        return [*rest[: self.heavy], *recent]


@pytest.mark.parametrize(("heavy", "recent"), [(3, 4), (1, 1), (2, 9)])
@torch.no_grad()
def test_steps_keep_what_the_algorithm_keeps(heavy: int, recent: int) -> None:
    layer, x = layer_of(heavy=heavy, recent=recent), torch.randn(1, 30, 32, dtype=torch.float64)
    q, k, v = (one[0] for one in layer.project(x, torch.arange(30)[None]))
    oracles, wanted = [Oracle(heavy, recent) for _ in range(2)], []
    for t in range(30):
        heads = [oracle.read(q[t, 2 * h : 2 * h + 2], k[:, h], v[:, h], t) for h, oracle in enumerate(oracles)]
        wanted.append(layer.out(torch.cat(heads).flatten()))
    state, found = layer.init_state(1, 30), []
    for t in range(30):
        y, state = layer.step(x[:, t], state=state, ctx=Context(want_state=True))
        found.append(y[0])
    assert_close(torch.stack(found), torch.stack(wanted), rtol=1e-5, atol=1e-5)  # scores are summed in float32
    for h, oracle in enumerate(oracles):
        assert sorted(state.tensors["order"][0, :, h].tolist()) == sorted(oracle.kept)


@torch.no_grad()
def test_with_a_key_head_for_each_query_head_every_head_keeps_its_own() -> None:
    """The form of the paper, whose models group no heads."""
    layer, x = layer_of(heavy=3, recent=4, n_kv_heads=4), torch.randn(1, 30, 32, dtype=torch.float64)
    q, k, v = (one[0] for one in layer.project(x, torch.arange(30)[None]))
    assert k.shape[1] == 4
    oracles, wanted = [Oracle(3, 4) for _ in range(4)], []
    for t in range(30):
        heads = [oracle.read(q[t, h : h + 1], k[:, h], v[:, h], t) for h, oracle in enumerate(oracles)]
        wanted.append(layer.out(torch.cat(heads).flatten()))
    state, found = layer.init_state(1, 30), []
    for t in range(30):
        y, state = layer.step(x[:, t], state=state, ctx=Context(want_state=True))
        found.append(y[0])
    assert_close(torch.stack(found), torch.stack(wanted), rtol=1e-5, atol=1e-5)
    kept = [sorted(state.tensors["order"][0, :, h].tolist()) for h in range(4)]
    assert kept == [sorted(oracle.kept) for oracle in oracles]


@pytest.mark.parametrize("piece", [256, 7])
@torch.no_grad()
def test_a_prompt_is_read_densely_and_cut_to_its_heavy_and_last_tokens(
    piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops, "PIECE_TOKENS", piece)
    layer, x = layer_of(heavy=4, recent=5), torch.randn(1, 40, 32, dtype=torch.float64)
    out, state = layer(x, state=layer.init_state(1, 50), ctx=Context(want_state=True))
    assert_close(out, layer(x, ctx=Context())[0])
    q, k, v = layer.project(x, torch.arange(40)[None])
    logits = torch.einsum("bthd,bshd->bhts", q, k.repeat_interleave(2, 2)) / 8**0.5
    hidden = ~torch.ones(40, 40).tril().bool()
    sums = logits.masked_fill(hidden, -torch.inf).softmax(-1).sum(2).view(2, 2, 40).sum(1)
    for h in range(2):
        heavy = sums[h, :35].topk(4).indices.tolist()
        order = [int(token) for token in state.tensors["order"][0, :, h].tolist()]
        assert sorted(order) == sorted([*heavy, *range(35, 40)])
        assert_close(state.tensors["k"][0, :, h], k[0, order, h])
        assert_close(state.tensors["v"][0, :, h], v[0, order, h])
        assert_close(state.tensors["score"][0, :, h], sums[h, order].float())


def test_with_room_for_all_it_is_full_attention(installed: Any) -> None:
    """H2O with a budget that is not used up."""
    layer, full = layer_of(heavy=20, recent=20), installed.mixer("full")
    theirs = full.build(full.parse_options({"rope": 1.0}), SHAPE, LAYER).double()
    theirs.load_state_dict(layer.state_dict())
    x = torch.randn(2, 40, 32, dtype=torch.float64)
    state, steps = layer.init_state(2, 40), []
    with torch.no_grad():
        wanted = theirs(x, ctx=Context())[0]
        for t in range(40):
            y, state = layer.step(x[:, t], state=state, ctx=Context(want_state=True))
            steps.append(y)
    assert_close(torch.stack(steps, 1), wanted, rtol=1e-5, atol=1e-5)


def test_what_it_breaks_has_its_price_and_is_told(installed: Any) -> None:
    """Forward is no measure of what decodes: such architectures are judged by decoding."""
    arch = ArchSpec.parse("h2o full", installed, ModelSpec(d_model=32, n_heads=4, vocab_size=50))
    assert "evicts" in str(judged_by_steps(arch, installed))


def test_the_cache_is_bounded_and_matmul_flops_are_those_of_the_products() -> None:
    options = PLUGIN.parse_options({"heavy": 16, "recent": 16})
    sizes = {row.name: row.nbytes(10**6) for row in PLUGIN.state(options, SHAPE, LAYER)}
    assert sizes == {"k": 32 * 64, "v": 32 * 64, "score": 32 * 8, "order": 32 * 8}
    layer, x = layer_of(heavy=16, recent=16), torch.randn(1, 90, 32, dtype=torch.float64)
    _, state = layer(x[:, :-1], state=layer.init_state(1, 90), ctx=Context(want_state=True))
    counted = products(lambda: layer.step(x[:, -1], state=state, ctx=Context(want_state=True)))
    said = PLUGIN.flops(options, SHAPE, LAYER, phase="decode", context=90).matmul
    assert said == pytest.approx(counted, rel=1e-3)


def test_bad_options_are_refused() -> None:
    with pytest.raises(OptionsError, match=r"evicting\(recent=0\)"):
        PLUGIN.parse_options({"recent": 0})


QUICK = (
    "forward_equals_repeated_step",
    "ragged_lengths_decode_as_each_alone",
    "packed_sequences_are_apart",
    "no_token_sees_the_future",
    "decode_reads_what_traffic_says",
)
"""Laws of the default run; all are tried with every preset by `make test-arena`."""


@pytest.mark.parametrize("law", [law for law in LAWS if law.name in QUICK], ids=lambda law: law.name)
def test_laws_are_kept_or_broken_as_declared(law: Law) -> None:
    outcome = tried(law, Case.of(PLUGIN, {"heavy": 4, "recent": 8}, tokens=45))
    wanted = "declared broken" if law.name == "forward_equals_repeated_step" else "passed"
    assert outcome.status == wanted, outcome.text


@pytest.mark.arena
class TestEvictingConformance(MixerConformance):
    plugin = PLUGIN
    impls = ("chunkwise", "reference")
