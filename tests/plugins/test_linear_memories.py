"""Mixture of memories: tokens among states, against each memory's tokens on their own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from archsearch_plugins.linear import LinearPlugin
from archsearch_plugins.linear.additive.memories import MemoriesMixer
from archsearch_plugins.linear.additive.routes import MemoryRows, Router, Routes
from archsearch_plugins.linear.core import Call
from archsearch_plugins.linear.layer import LinearMixer
from torch import Tensor
from torch.testing import assert_close

from archsearch.errors import OptionsError
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context, Mixer

PLUGIN = LinearPlugin()
SHAPE = ModelShape(d_model=24, n_heads=3, n_kv_heads=3, head_dim=8, dtype="float32")
BASES = ["gated-deltanet", "mamba2", "retnet", "kda"]
ONE = {"memories": 1, "memories_used": 1}


def build(base: str, **more: Any) -> Mixer:
    torch.manual_seed(0)
    options = PLUGIN.parse_options({**PLUGIN.presets[base], **more})
    return PLUGIN.build(options, SHAPE, LayerInfo(index=0, depth=2))


def of_one_memory(mixer: MemoriesMixer, memory: int, base: str) -> LinearMixer:
    """The layer of one state that a memory is."""
    one = build(base)
    assert isinstance(one, LinearMixer)
    queries = mixer.query
    proj, (kv, *_) = mixer.proj.weight, mixer.parts
    written = mixer.written[memory]
    joined = torch.cat((proj[:queries], written[:kv], proj[queries:], written[kv:]))
    shared = {name: x for name, x in mixer.state_dict().items() if not name.startswith(("written", "router"))}
    one.load_state_dict(shared | {"proj.weight": joined})
    return one


@pytest.mark.parametrize("base", BASES)
def test_one_memory_without_the_shared_one_is_its_base(base: str) -> None:
    """MoM, arXiv 2502.13685, section 3: with one memory, which every token chooses, nothing is routed."""
    mixer = build(base, **ONE)
    assert isinstance(mixer, MemoriesMixer)
    one, x = of_one_memory(mixer, 0, base), torch.randn(2, 90, 24)
    assert_close(mixer(x, ctx=Context())[0], one(x, ctx=Context())[0], rtol=1e-4, atol=1e-5)
    assert PLUGIN.params(mixer.options, SHAPE, mixer.layer) == PLUGIN.params(one.options, SHAPE, one.layer)
    for context in (1, 50, 200):
        found, wanted = (
            PLUGIN.flops(each.options, SHAPE, each.layer, phase="prefill", context=context).matmul  # type: ignore[arg-type]
            for each in (mixer, one)
        )
        assert found == wanted


def read_apart(mixer: MemoriesMixer, x: Tensor, base: str) -> Tensor:
    """What tokens `[T, D]` read `[T, H, V]`: of each memory by the base over the tokens that chose it alone."""
    routes = mixer._all(mixer.router(x, Context()))
    read = torch.zeros(len(x), mixer.heads, mixer.value_dim, dtype=x.dtype)
    for memory in range(mixer.memories):
        token, slot = (routes.memory == memory).nonzero(as_tuple=True)
        one = of_one_memory(mixer, memory, base).to(x.dtype)
        inputs = one._inputs(x[None, token], None, Context(), None)
        o = one.core(inputs.tokens, Call())[0][0]
        read = read.index_add(0, token, o * routes.weight[token, slot][:, None, None].to(x.dtype))
    return read


@pytest.mark.parametrize("base", BASES)
def test_each_memory_is_the_base_over_the_tokens_that_chose_it(base: str) -> None:
    """arXiv 2502.13685, section 3: o_t = (sum over memories of w_t^m S_t^m) q_t, the shared one with weight 1."""
    mixer = build(base, memories=3, memories_used=2, shared_memory=True).double()
    assert isinstance(mixer, MemoriesMixer)
    x = torch.randn(2, 70, 24).double()
    y, _ = mixer(x, ctx=Context())
    for row, found in zip(x, y, strict=True):
        gate = mixer._projected(row).gate
        assert_close(found, mixer._written_out(read_apart(mixer, row, base), gate, row[None])[0])


def test_routes_are_the_largest_shares_and_add_up_to_1() -> None:
    torch.manual_seed(0)
    router, x = Router(8, 5, 2), torch.randn(30, 8)
    routes, context = router(x, Context()), Context()
    assert router.scores is not None
    share = router.scores(x).softmax(-1)
    assert_close(routes.weight.sum(-1), torch.ones(30))
    wanted = share.sort(-1, descending=True).values[:, :2]
    assert_close(routes.weight, wanted / wanted.sum(-1, keepdim=True))
    router(x, context)
    load = torch.zeros(5).index_add(0, routes.memory.flatten(), torch.ones(60)) / 60
    assert_close(context.losses["memory_balance"], 0.01 * 5 * (load * share.mean(0)).sum())
    alone = Router(8, 5, 1)(x, Context())
    assert ((alone.weight > 0.2) & (alone.weight < 1)).all()
    assert not Router(8, 5, 2).eval()(x, quiet := Context()).weight.isnan().any()
    assert not quiet.losses


def test_rows_hold_the_tokens_of_a_memory_in_their_order() -> None:
    memory = torch.tensor([[0, 1], [1, 2], [2, 0], [0, 2]])
    routes = Routes(memory=memory, weight=torch.ones(4, 2))
    rows = MemoryRows.of(routes, torch.tensor([0, 0, 0, 1]), 2, 3, 3)
    x = torch.arange(1.0, 5.0)[:, None]
    assert rows.gather(x)[..., 0].tolist() == [[1, 3], [1, 2], [2, 3], [4, 0], [0, 0], [4, 0]]
    assert rows.filled.tolist() == [[True, True]] * 3 + [[True, False], [False, False], [True, False]]
    assert_close(rows.scatter(rows.gather(x)[:, :, None])[:, 0], 2 * x)


def test_a_step_touches_the_memories_that_it_meets() -> None:
    mixer, x = build("gated-deltanet", memories=6, memories_used=2, shared_memory=True), torch.randn(3, 12, 24)
    assert isinstance(mixer, MemoriesMixer)
    with torch.no_grad():
        _, state = mixer(x, state=mixer.init_state(3, 13), ctx=Context())
        before = state.clone()
        _, after = mixer.step(x[:, 0], state=state, ctx=Context())
    changed = (after.tensors["recurrent"] != before.tensors["recurrent"]).flatten(2).any(-1)
    assert changed.sum(1).tolist() == [3, 3, 3]
    assert changed[:, -1].all()
    options, layer = mixer.options, LayerInfo()
    traffic = PLUGIN.traffic(options, SHAPE, layer, context=9)
    assert traffic.read_bytes == pytest.approx(3 / 7 * sum(t.nbytes(9) for t in PLUGIN.state(options, SHAPE, layer)))
    idle = PLUGIN.params(options, SHAPE, layer) - PLUGIN.active_params(options, SHAPE, layer)
    assert idle == 4 * mixer.written[0].numel()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"memories": 4}, "set memories_used from 1 to memories"),
        ({"memories": 2, "memories_used": 3}, "memories_used = 3, memories = 2"),
        ({"shared_memory": True}, "set memories and memories_used"),
        ({**ONE, "levels": 3}, "leave levels at the default"),
        ({**ONE, "bonus": True, "skip": True}, "leave bonus, skip at the default"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_memories_that_cannot_be_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        PLUGIN.parse_options(values)
