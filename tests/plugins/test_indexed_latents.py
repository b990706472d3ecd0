"""Latents under an index: the rule by loops, their identity, pools of index keys, costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from archsearch_plugins.indexed import IndexedPlugin, ops
from archsearch_plugins.indexed.scorers import Tokens
from torch import Tensor
from torch.testing import assert_close

from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context
from archsearch.ops import block_sparse
from archsearch.testing.case import Case
from archsearch.testing.laws import LAWS, Law, tried
from archsearch.testing.products import products

PLUGIN, LAYER = IndexedPlugin(), LayerInfo()
SHAPE = ModelShape(d_model=32, n_heads=4, n_kv_heads=2, head_dim=8, dtype="float32")
LATENTS = {name: values for name, values in PLUGIN.presets.items() if "kv_rank" in values}
SMALL = {
    "dsa-mla": {**LATENTS["dsa-mla"], "top_k": 3, "kv_rank": 12, "shared_dim": 4},
    "glm5-next": {**LATENTS["glm5-next"], "top_k": 2, "kv_rank": 10},
}


def layer_of(values: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    layer = PLUGIN.build(PLUGIN.parse_options(values), SHAPE, LAYER).eval()
    for weights in layer.parameters():
        if weights.dim() == 1:
            torch.nn.init.normal_(weights, 1.0, 0.3)
    if hasattr(layer.scorer, "bias"):
        torch.nn.init.normal_(layer.scorer.bias)
    return layer


def pools_of(layer: Any, x: Tensor) -> Tensor:
    """What is scored of x `[T, D]`: index keys, or of each complete block one, channel by channel."""
    index, size = layer.scorer, layer.options.block_size
    keys = index.key_norm(index.key(x))
    if size == 1:
        return index.rotary(torch.arange(len(x))[None], keys[None, :, None])[0, :, 0]
    found = torch.zeros(len(x) // size, keys.shape[1], dtype=x.dtype)
    for block, channel in torch.cartesian_prod(*map(torch.arange, found.shape)).tolist():
        rows = slice(block * size, (block + 1) * size)
        weights = torch.softmax(index.gate(x)[rows, channel] + index.bias[:, channel], 0)
        found[block, channel] = weights @ keys[rows, channel]
    return found


def by_the_rule(layer: Any, x: Tensor) -> Tensor:
    """One token and head at a time, x `[T, D]`, its keys and values multiplied out of chosen latents."""
    options, index, width = layer.options, layer.scorer, 8
    size, rank, order = options.block_size, options.kv_rank, torch.arange(len(x))[None]
    q, rows = (
        found[0] for found in (layer.made(x[None], x[None], order)[0], layer.made(x[None], x[None], order)[1]["latent"])
    )
    up = layer.kv_up.weight.view(4, 2, width, rank)
    small = index.rotary(order, index.query(x).view(1, len(x), index.heads, -1))[0]
    pools, outputs = pools_of(layer, x), []
    for t in range(len(x)):
        complete = [block for block in range(len(pools)) if (block + 1) * size <= t + 1]
        scores = [float((index.weights(x[t]) * (small[t] @ pools[block]).relu()).sum()) for block in complete]
        best = sorted(complete, key=lambda block, of=scores: -of[block])[: options.top_k]
        seen = [s for s in range(t + 1) if s // size in best or s // size >= len(complete)]
        heads = []
        for h in range(4):
            keys = torch.cat((rows[seen, :rank] @ up[h, 0].T, rows[seen, rank:]), -1)
            weights = torch.softmax(keys @ q[t, h] / keys.shape[1] ** 0.5, 0)
            heads.append(weights @ (rows[seen, :rank] @ up[h, 1].T))
        outputs.append(layer.out(torch.cat(heads)))
    return torch.stack(outputs)


@pytest.mark.parametrize("many", [False, True], ids=["few", "many"])
@pytest.mark.parametrize("values", SMALL.values(), ids=SMALL.keys())
def test_latents_are_chosen_by_the_rule(values: dict[str, Any], many: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if many:
        monkeypatch.setattr(block_sparse, "MASKED_UP_TO", 0)
        monkeypatch.setattr(ops, "KEYS_A_ROW", 0)
    layer = layer_of(values).double()
    x = torch.randn(1, 19, 32, dtype=torch.float64)
    with torch.no_grad():
        wanted = by_the_rule(layer, x[0])[None]
        assert_close(layer(x, ctx=Context())[0], wanted, rtol=1e-9, atol=1e-9)
        y, state = layer(x[:, :15], state=layer.init_state(1, 19), ctx=Context(want_state=True))
        steps = [y]
        for t in range(15, 19):
            y, state = layer.step(x[:, t], state=state, ctx=Context(want_state=True))
            steps.append(y[:, None])
        assert_close(torch.cat(steps, 1), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("preset", LATENTS)
def test_with_everything_chosen_it_is_multi_head_latent_attention(preset: str, installed: Any) -> None:
    """DeepSeek-V3.2, arXiv 2512.02556, section 2.1: DSA is MLA under an index."""
    ours, latent = layer_of({**LATENTS[preset], "top_k": 64}), installed.mixer("latent")
    values = {"kv_rank": 64, "shared_dim": ours.options.shared_dim, "rope": ours.options.shared_rope}
    if not values["shared_dim"]:
        values["rope"] = 0.0
    theirs = latent.build(latent.parse_options(values), SHAPE, LAYER)
    names = {"q_up.weight": "q.weight"}
    theirs.load_state_dict({name: ours.state_dict()[names.get(name, name)] for name in theirs.state_dict()})
    x = torch.randn(2, 50, 32)
    with torch.no_grad():
        wanted = theirs(x, ctx=Context())[0]
        assert_close(ours(x, ctx=Context())[0], wanted, rtol=1e-5, atol=1e-6)
        _, state = ours(x[:, :48], state=ours.init_state(2, 50), ctx=Context(want_state=True))
        assert_close(ours.step(x[:, 48], state=state, ctx=Context())[0], wanted[:, 48], rtol=1e-5, atol=1e-5)


def test_pools_go_on_from_a_token_to_the_next() -> None:
    layer = layer_of(SMALL["glm5-next"])
    x, order = torch.randn(2, 11, 32), torch.arange(11).expand(2, -1)
    kept = layer.init_state(2, 11).tensors
    with torch.no_grad():
        for t in range(11):
            lengths = torch.full((2,), t)
            place = order[:, t : t + 1]
            one = x[:, t : t + 1]
            new = Tokens(one, x, x, low=one, positions=place, order=place, lengths=lengths, fresh=False)
            kept |= layer.scorer.remember(new, kept)
        for row in range(2):
            assert_close(kept["index"][row, :2], pools_of(layer, x[row]))


def test_the_state_holds_latents_and_pools_alone() -> None:
    options = PLUGIN.parse_options({**LATENTS["glm5-next"], "kv_rank": 512})
    rows = {row.name: row.nbytes(1000) // 4 for row in PLUGIN.state(options, SHAPE, LAYER)}
    assert rows == {"latent": 512_000, "index": 250 * 16, "raw": 3 * 2 * 16}


@pytest.mark.parametrize("values", LATENTS.values(), ids=LATENTS.keys())
def test_matmul_flops_are_those_of_the_products(values: dict[str, Any]) -> None:
    options, tokens = PLUGIN.parse_options(values), 201  # the last completes no pool
    layer, x = layer_of(values), torch.randn(1, tokens, 32)
    with torch.no_grad():
        _, state = layer(x[:, :-1], state=layer.init_state(1, tokens), ctx=Context(want_state=True))
        counted = products(lambda: layer.step(x[:, -1], state=state, ctx=Context()))
    said = PLUGIN.flops(options, SHAPE, LAYER, phase="decode", context=tokens).matmul
    assert said == pytest.approx(counted, rel=0.01)


QUICK = (
    "forward_equals_split_prefill_then_steps",
    "ragged_lengths_decode_as_each_alone",
    "packed_sequences_are_apart",
    "gradients_are_finite_and_reach_every_parameter",
    "params_equal_what_is_built",
)
"""Laws of the default run; all are tried with every preset by `make test-arena`."""


@pytest.mark.parametrize("law", [law for law in LAWS if law.name in QUICK], ids=lambda law: law.name)
def test_chosen_latents_keep_the_laws(law: Law) -> None:
    outcome = tried(law, Case.of(PLUGIN, SMALL["glm5-next"], tokens=45))
    assert outcome.status in ("passed", "skipped"), outcome.text


def test_without_a_key_beside_latents_the_index_alone_learns_its_frequencies() -> None:
    values = {**SMALL["dsa-mla"], "shared_dim": 0, "rope_learned": True}
    assert [name for name, _ in layer_of(values).named_parameters() if "alpha" in name] == ["scorer.rotary.alpha"]
    law = next(law for law in LAWS if law.name == "gradients_are_finite_and_reach_every_parameter")
    outcome = tried(law, Case.of(PLUGIN, values, tokens=45))
    assert outcome.status == "passed", outcome.text
