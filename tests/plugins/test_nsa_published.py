"""Native sparse attention as its paper has it: the equations in plain loops, and what it is where options are even."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from archsearch_plugins.nsa import NsaPlugin
from archsearch_plugins.nsa.ops import nsa_attention
from archsearch_plugins.nsa.published import importance
from archsearch_plugins.nsa.sizes import NsaSizes
from archsearch_plugins.nsa.step import NsaCache, nsa_attention_step
from torch import Tensor
from torch.testing import assert_close

from archsearch.errors import OptionsError
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context
from archsearch.ops import block_sparse
from archsearch.ops.laid_out import LaidOut
from archsearch.testing.case import using_impl

PLUGIN, LAYER = NsaPlugin(), LayerInfo()
WIDTH, HEADS, GROUPS, DIM, TOKENS = 24, 4, 2, 6, 41
SHAPE = ModelShape(d_model=WIDTH, n_heads=HEADS, n_kv_heads=GROUPS, head_dim=DIM, dtype="float64")
SIZES: dict[str, Any] = {"block_size": 8, "top_k": 4, "window": 5}
OVERLAPPING: dict[str, Any] = {**SIZES, "length": 4, "stride": 2, "local": 2}
CASES: dict[str, dict[str, Any]] = {
    "branches-apart": {**SIZES, "branch_kv": True},
    "network": {**SIZES, "compress": "mlp"},
    "overlapping": OVERLAPPING,
    "longer-than-blocks": {**SIZES, "block_size": 4, "top_k": 5, "length": 8, "stride": 4},
    "two-local-blocks": {**SIZES, "local": 2, "top_k": 3},
    "published": {**OVERLAPPING, "branch_kv": True, "compress": "mlp"},
}


def layer_of(values: dict[str, Any]) -> Any:
    """In float64, with weights that are all drawn."""
    torch.manual_seed(0)
    layer = PLUGIN.build(PLUGIN.parse_options(values), SHAPE, LAYER).double().eval()
    for weights in layer.parameters():
        torch.nn.init.normal_(weights, std=0.4)
    return layer


def network_of(network: Any, block: Tensor) -> Tensor:
    """Of a block `[length, D]` the compressed row (equation 7); the mean without a network."""
    if network is None:
        return block.mean(0)
    inner = network.inner.weight @ (block + network.place).flatten()
    made: Tensor = network.outer.weight @ (inner * torch.sigmoid(inner))
    return made


def by_the_equations(layer: Any, x: Tensor) -> Tensor:
    """One token and key head at a time, x `[T, d_model]`: arXiv 2502.11089, equations 5 to 12."""
    options, share = layer.options, HEADS // GROUPS
    size, length, stride = options.block_size, layer.sizes.of, layer.sizes.every
    q, *kv = (found[0] for found in layer.project(x[None], torch.arange(len(x))[None]))
    q, gates = q.split([DIM, 3], dim=-1)
    branches = [one.unflatten(1, (-1, GROUPS)) for one in kv]  # keys and values `[T, 1 or 3, G, D]`
    out = torch.zeros_like(q)
    for t in range(len(x)):
        for group in range(GROUPS):
            mine = slice(group * share, (group + 1) * share)

            def rows(branch: int, seen: list[int], group: int = group) -> tuple[Tensor, ...]:
                return tuple(one[seen, min(branch, one.shape[1] - 1), group] for one in branches)

            def attended(keys: Tensor, values: Tensor, t: int = t, mine: slice = mine) -> tuple[Tensor, Tensor]:
                weights = torch.softmax(q[t, mine] @ keys.T * DIM**-0.5, -1)
                return weights @ values, weights.sum(0)

            starts = [i * stride for i in range(len(x)) if i * stride + length <= t + 1]
            summed, found = [0.0] * len(starts), torch.zeros_like(q[t, mine])
            if starts:
                whole = [rows(0, list(range(start, start + length))) for start in starts]
                keys = torch.stack([network_of(layer.key_network, key) for key, _ in whole])
                values = torch.stack([network_of(layer.value_network, value) for _, value in whole])
                found, weights = attended(keys, values)
                summed = weights.tolist()
            own = t // size
            of_block = [0.0] * own
            for block in range(own):  # equation 9: every stride of the block, and all that hold it
                for part in range(size // stride):
                    for back in range(length // stride):
                        at = block * size // stride + part - back
                        of_block[block] += summed[at] if 0 <= at < len(summed) else 0.0
            chosen = {*range(max(0, own - options.local + 1), own + 1), *([0] if options.top_k > 1 else [])}
            for block in sorted(range(own), key=lambda block: -of_block[block]):
                if len(chosen) < options.top_k:
                    chosen.add(block)
            selected, _ = attended(*rows(1, [s for s in range(t + 1) if s // size in chosen]))
            local, _ = attended(*rows(2, list(range(max(0, t + 1 - options.window), t + 1))))
            out[t, mine] = sum(gates[t, mine, i, None] * one for i, one in enumerate((found, selected, local)))  # type: ignore[assignment]
    made: Tensor = layer.out(out.flatten(1))
    return made


@pytest.fixture(params=["reference", "masked", "tiled"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The implementation; "tiled" is the form that many keys take, here on few."""
    if request.param == "tiled":
        monkeypatch.setattr(block_sparse, "MASKED_UP_TO", 0)
    return "reference" if request.param == "reference" else "chunkwise"


@torch.no_grad()
@pytest.mark.parametrize("values", CASES.values(), ids=CASES.keys())
def test_the_layer_follows_the_equations(values: dict[str, Any], form: str) -> None:
    layer, x = layer_of(values), torch.randn(2, TOKENS, WIDTH, dtype=torch.float64)
    with using_impl(form):
        found, _ = layer(x, ctx=Context())
    wanted = torch.stack([by_the_equations(layer, one) for one in x])
    assert_close(found, wanted, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_branches_of_equal_weights_are_one_set_of_keys_and_values() -> None:
    apart, plain = layer_of({**SIZES, "branch_kv": True}), layer_of(SIZES)
    held = plain.state_dict()
    kv = held["qkv.weight"][HEADS * DIM :].unflatten(0, (2, -1))
    apart.load_state_dict({**held, "more.weight": kv[:, None].expand(-1, 2, -1, -1).flatten(0, 2)})
    x = torch.randn(2, TOKENS, WIDTH, dtype=torch.float64)
    assert_close(apart(x, ctx=Context())[0], plain(x, ctx=Context())[0], rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_a_network_that_averages_gives_means() -> None:
    """silu is half of its input where that is small."""
    learned, plain, small = layer_of({**SIZES, "compress": "mlp"}), layer_of(SIZES), 1e-6
    learned.load_state_dict(plain.state_dict(), strict=False)
    for network in (learned.key_network, learned.value_network):
        one = torch.eye(DIM, dtype=torch.float64)
        network.place.zero_()
        network.inner.weight.copy_(one.repeat(1, 8) * small / 8)
        network.outer.weight.copy_(one * 2 / small)
    x = torch.randn(2, TOKENS, WIDTH, dtype=torch.float64)
    assert_close(learned(x, ctx=Context())[0], plain(x, ctx=Context())[0], rtol=1e-5, atol=1e-5)


def test_blocks_that_are_chosen_as_they_are_compressed_are_as_important_as_their_weights() -> None:
    weights = torch.rand(2, HEADS, 5, 7)
    found = importance(weights, GROUPS, 9, NsaSizes(block_size=4, top_k=3, window=1))
    assert_close(found[..., :7], weights.unflatten(1, (GROUPS, -1)).sum(2))
    assert not found[..., 7:].any()


def test_a_branch_of_its_own_keeps_no_more_than_it_needs() -> None:
    options = PLUGIN.parse_options({**CASES["published"], "window": 16})
    rows = {tensor.name: tensor.rows(1000) for tensor in PLUGIN.state(options, SHAPE, LAYER)}
    assert rows == {
        **{"k": 1000, "v": 1000, "k_block": 500, "v_block": 500},
        **{"k_near": 16, "v_near": 16, "k_raw": 3, "v_raw": 3},
    }


def test_what_is_compressed_of_one_token_reads_no_row_that_is_kept_for_it() -> None:
    options = PLUGIN.parse_options({"block_size": 1, "top_k": 3, "window": 2, "branch_kv": True})
    row = 2 * GROUPS * DIM * SHAPE.dtype_bytes
    assert PLUGIN.traffic(options, SHAPE, LAYER, context=30).read_bytes == (30 + 3 + 2) * row


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"length": 48}, "block_size=64 is no multiple of length=48, which is the stride too: give a stride"),
        ({"stride": 3}, "block_size=64 is no multiple of stride=3: give a stride that divides length and block_size"),
        ({"length": 32, "stride": 24}, "length=32 is no multiple of stride=24"),
        ({"local": 2, "top_k": 2}, "leaves none for block 0: use a larger top_k"),
        ({"length": 64}, "leave it out"),
        ({"stride": 64}, "use a smaller one"),
    ],
)
def test_sizes_that_make_no_sense_together_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionsError, match=words):
        PLUGIN.parse_options(values)


def test_the_op_of_the_kernels_takes_blocks_that_are_chosen_as_they_are_compressed() -> None:
    q, sizes = torch.randn(1, 9, 2, 8), NsaSizes(block_size=4, top_k=3, window=2, local=2)
    with pytest.raises(OptionsError, match="the layer has other"):
        nsa_attention(LaidOut(q, q, q), gates=q[..., :3], sizes=sizes)
    cache = NsaCache(k=q, v=q, k_means=q[:, :2], v_means=q[:, :2], lengths=torch.tensor([9]))
    with pytest.raises(OptionsError, match="the layer has other"):
        nsa_attention_step(q[:, 0], cache, gates=q[:, 0, :, :3], sizes=sizes)
