"""InfLLM as published: what is counted of a key, one choice of all heads, one distance of what is far; by loops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from archsearch_plugins.indexed import IndexedPlugin, ops
from archsearch_plugins.indexed.choice import Choice
from archsearch_plugins.indexed.cost import indexed_flops
from archsearch_plugins.indexed.far import Apart, far_attention
from torch import Tensor
from torch.testing import assert_close

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.composition import refusal
from archsearch.errors import KernelUnavailableError, OptionsError
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context
from archsearch.ops import block_sparse
from archsearch.ops.rotary import Rotary
from archsearch.registry import Registry
from archsearch.testing.products import products

PLUGIN, LAYER = IndexedPlugin(), LayerInfo()
SHAPE = ModelShape(d_model=32, n_heads=4, n_kv_heads=2, head_dim=8, dtype="float32")
PUBLISHED = {
    **PLUGIN.presets["infllm"],
    **{"block_size": 4, "local": 2, "top_k": 2, "counted": 8, "choose": "together", "far": 12},
}
FORMS = {
    "published": PUBLISHED,
    "counted": {**PUBLISHED, "choose": "apart", "far": 0},
    "together": {**PUBLISHED, "counted": 0, "far": 0},
    "far": {**PUBLISHED, "counted": 0, "choose": "apart"},
    "far-means": {
        **{"block_size": 4, "top_k": 2, "scorer": "attention", "own": "block", "summary": "mean", "learn": "none"},
        **{"local": 1, "rope": 0.5, "far": 40},
    },
}


def layer_of(values: dict[str, Any], shape: ModelShape = SHAPE) -> Any:
    torch.manual_seed(0)
    return PLUGIN.build(PLUGIN.parse_options(values), shape, LAYER).eval()


def turned(options: Any, x: Tensor, place: int) -> Tensor:
    """x `[H, D]` turned by one position."""
    rotary = Rotary(x.shape[-1], fraction=options.rope)
    return rotary(torch.tensor([[place]]), x[None, None])[0, 0]


def by_the_paper(layer: Any, x: Tensor) -> Tensor:
    """One token and head at a time, in float64, in the words of the paper."""
    options, tokens = layer.options, x.shape[1]
    size, local = options.block_size, options.local
    heads = layer.qkv(x[0]).double().unflatten(-1, (-1, 8))
    q, k, v = heads.split([4, 2, 2], dim=1)
    k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
    near_q = torch.stack([turned(options, q[t], t) for t in range(tokens)])
    near_k = torch.stack([turned(options, k[t], t) for t in range(tokens)])
    far_q = torch.stack([turned(options, q[t], options.far) for t in range(tokens)]) if options.far else near_q
    far_k = k if options.far else near_k
    asked = near_q.unflatten(1, (2, 2)).sum(2).repeat_interleave(2, 1)
    kept = []
    for block in range(tokens // size):
        own = range(block * size, (block + 1) * size)
        scores = torch.full((size, 4), -torch.inf, dtype=torch.float64)
        for place, s in enumerate(own):
            after = range(s + 1, s + 1 + options.counted) if options.counted else range(own.stop, own.stop + size)
            if after.stop <= tokens:
                scores[place] = (asked[after].mean(0) * near_k[s]).sum(-1)
        kept.append((own, scores))
    out = torch.zeros(tokens, 4, 8, dtype=torch.float64)
    for t in range(tokens):
        edge = max(0, t // size - local)
        among = list(range(options.first, edge))
        fit = torch.zeros(len(among), 4, dtype=torch.float64)
        for row, block in enumerate(among):
            own, scores = kept[block]
            for h in range(4):
                each = far_k[own.start : own.stop, h] @ far_q[t, h]
                if options.summary == "mean":
                    fit[row, h] = each.mean()
                else:
                    fit[row, h] = each[scores[:, h].topk(options.representatives).indices].sum()
        if options.choose == "together" and len(among):
            fit = fit.sum(1, keepdim=True).expand(-1, 4)
        for h in range(4):
            best = [among[at] for at in fit[:, h].topk(min(options.top_k, len(among))).indices.tolist()]
            far = [
                s
                for block in (*range(min(options.first, edge)), *best)
                for s in range(block * size, (block + 1) * size)
            ]
            near = list(range(edge * size, t + 1))
            logits = torch.cat((far_k[far, h] @ far_q[t, h], near_k[near, h] @ near_q[t, h])) / 8**0.5
            out[t, h] = logits.softmax(0) @ v[[*far, *near], h]
    return layer.out(out.flatten(1).float())[None]


@pytest.mark.parametrize("many", [False, True], ids=["few-keys", "many-keys"])
@pytest.mark.parametrize("values", FORMS.values(), ids=FORMS.keys())
def test_it_is_what_the_paper_says(values: dict[str, Any], many: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if many:
        monkeypatch.setattr(block_sparse, "MASKED_UP_TO", 0)
        monkeypatch.setattr(ops, "PIECE_TOKENS", 7)
        monkeypatch.setattr("archsearch_plugins.indexed.far.PIECE_TOKENS", 7)
    layer, x = layer_of(values), torch.randn(1, 53, 32)
    with torch.no_grad():
        wanted = by_the_paper(layer, x)
        assert_close(layer(x, ctx=Context())[0], wanted, rtol=1e-4, atol=1e-5)
        state, found = layer.init_state(1, 53), []
        first, state = layer(x[:, :22], state=state, ctx=Context(want_state=True))
        for token in range(22, 53):
            y, state = layer.step(x[:, token], state=state, ctx=Context())
            found.append(y)
    assert_close(torch.cat((first, torch.stack(found, 1)), 1), wanted, rtol=1e-4, atol=1e-5)


def test_one_distance_is_full_attention_up_to_the_window() -> None:
    """And beyond it, with all chosen and no rotation in the way, nothing but the distance is another."""
    far, plain = layer_of({**PUBLISHED, "top_k": 64}), layer_of({**PUBLISHED, "top_k": 64, "far": 0})
    x = torch.randn(2, 40, 32)
    with torch.no_grad():
        ours, theirs = far(x, ctx=Context())[0], plain(x, ctx=Context())[0]
    assert_close(ours[:, :12], theirs[:, :12], rtol=1e-5, atol=1e-6)
    assert (ours[:, 12:] - theirs[:, 12:]).abs().amax((0, 2)).min() > 1e-4


@pytest.mark.parametrize("values", FORMS.values(), ids=FORMS.keys())
def test_matmul_flops_are_those_of_explicit_products(values: dict[str, Any]) -> None:
    options, tokens = PLUGIN.parse_options(values), 200
    layer, x = PLUGIN.build(options, SHAPE, LAYER), torch.randn(1, tokens, 32)
    state = layer.init_state(1, tokens)
    with torch.no_grad():
        _, state = layer(x[:, :-1], state=state, ctx=Context(want_state=True))
        counted = products(lambda: layer.step(x[:, -1], state=state, ctx=Context()))
    assert PLUGIN.flops(options, SHAPE, LAYER, phase="decode", context=tokens).matmul == pytest.approx(
        counted, rel=0.05
    )
    whole = indexed_flops(options, SHAPE, phase="prefill", context=tokens).matmul
    each = [indexed_flops(options, SHAPE, phase="decode", context=t + 1).matmul for t in range(tokens)]
    assert whole == pytest.approx(sum(each))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"counted": 3}, "multiple of block_size"),
        ({"counted": 12}, "up to 8"),
        ({"far": 12, "rope": 0.0}, "rope above 0"),
        ({"own": "tail", "summary": "none", "block_size": 1, "counted": 0, "representatives": 2}, 'own="block"'),
        ({"summary": "minmax", "counted": 0, "far": 0}, 'choose="apart"'),
        ({"summary": "mean", "far": 0}, 'summary="representative"'),
        ({"scorer": "group", "summary": "none", "counted": 0, "learn": "distilled"}, 'scorer="attention"'),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionsError, match=words):
        PLUGIN.parse_options({**PUBLISHED, **values})


def test_its_choice_is_not_handed_on(installed: Registry) -> None:
    layers = tuple(map(installed.layer, ("infllm(far=16)", "indexshare")))
    assert "far=0" in (
        refusal(ArchSpec(model=ModelSpec(d_model=32, n_heads=4, head_dim=8), layers=layers), installed) or ""
    )


def test_a_kernel_that_is_named_is_refused() -> None:
    q, k, positions = torch.randn(1, 9, 2, 8), torch.randn(1, 9, 1, 8), torch.arange(9)[None]
    rule = PLUGIN.parse_options(PUBLISHED).rule
    heads = Apart(q_near=q, q_far=q, k=k, near=k, v=k, positions=positions)
    with pytest.raises(KernelUnavailableError, match="no such form"):
        far_attention(heads, Choice(rule=rule, scores=None, choosers=1), impl="triton")
