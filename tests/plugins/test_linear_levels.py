"""Log-linear attention: a hierarchy of states against its paper's definition, token by token in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from archsearch_plugins.linear import LinearPlugin
from archsearch_plugins.linear.additive.hierarchy import hierarchy
from archsearch_plugins.linear.additive.levels import LevelsCore
from archsearch_plugins.linear.core import Call, Core
from archsearch_plugins.linear.tokens import CanonicalTokens, Tokens, canonical
from torch import Tensor
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context

PLUGIN = LinearPlugin()
B, H, K, V, LEVELS = 2, 2, 8, 6, 7
Drawn = dict[str, Tensor]


def drawn(length: int, *, delta: bool, channel: bool = False) -> Drawn:
    """Inputs of a hierarchy with keys of length 1: float32 values in float64."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw)

    gates = (B, length, H, K) if channel else (B, length, H)
    inputs = {
        "q": normal(B, length, H, K),
        "k": F.normalize(normal(B, length, H, K), dim=-1),
        "v": normal(B, length, H, V),
        "log_decay": F.logsigmoid(normal(*gates) + 3),
        "weights": F.softplus(normal(B, length, H, LEVELS)),
    }
    inputs |= {"beta": normal(B, length, H).sigmoid()} if delta else {}
    return {name: x.double() for name, x in inputs.items()}


def tokens_of(inputs: Drawn) -> CanonicalTokens:
    q, k, v, log_decay = (inputs[name] for name in ("q", "k", "v", "log_decay"))
    tokens = Tokens(q, k, v, log_decay=log_decay, beta=inputs.get("beta"))
    return canonical(tokens, "head" if log_decay.dim() == 3 else "channel")


def told(inputs: Drawn) -> Tensor:
    """What is left of each token's write, all apart, summed by the weights of their levels, and read."""
    outputs, states = [], torch.zeros(B, H, 0, K, V).double()
    for t in range(inputs["q"].shape[1]):
        q, k, v = (inputs[name][:, t] for name in ("q", "k", "v"))
        states = inputs["log_decay"][:, t].exp().view(B, H, 1, -1, 1) * states
        own = k[..., None] * v[..., None, :]
        if "beta" in inputs:
            beta = inputs["beta"][:, t, :, None, None]
            own = beta * own
            states = states - (beta * k[..., None])[:, :, None] * (k[:, :, None, None] @ states)
        states = torch.cat((states, own[:, :, None]), 2)
        levels = [min((t ^ j).bit_length(), LEVELS - 1) for j in range(t + 1)]
        weighed = (inputs["weights"][:, t, :, levels, None, None] * states).sum(2)
        outputs.append((q[..., None, :] @ weighed)[..., 0, :])
    return torch.stack(outputs, 1)


@pytest.mark.parametrize("kind", ["hebbian-head", "delta-head", "hebbian-channel", "delta-channel"])
def test_the_hierarchy_weighs_states_of_a_fenwick_tree(kind: str) -> None:
    """Log-linear attention, arXiv 2506.04761, section 3: outputs and gradients, within 1e-5 (RMS ratio)."""
    inputs = drawn(150, delta="delta" in kind, channel="channel" in kind)
    weight = torch.randn(B, 150, H, V, generator=torch.Generator().manual_seed(1)).double()
    results = []
    for dtype in (torch.float32, torch.float64):
        given = {name: x.to(dtype).requires_grad_() for name, x in inputs.items()}
        o = told(given) if dtype == torch.float64 else hierarchy(tokens_of(given), given["weights"], {}, 0, 1.0)[0]
        o.backward(weight.to(dtype))
        results.append({"o": o.detach(), **{name: x.grad for name, x in given.items()}})
    found, wanted = results
    for name, right in wanted.items():
        assert right is not None
        difference = (found[name].double() - right).square().mean().sqrt()  # type: ignore[union-attr]
        assert float(difference / right.square().mean().sqrt()) < 1e-5, name


@pytest.mark.parametrize("pieces", [[64, 64, 22], [3, 5, 142], [1, 1, 1, 130, 17], [63, 2, 85], [100, 30, 20]], ids=str)
@pytest.mark.parametrize("delta", [False, True], ids=["hebbian", "delta"])
def test_pieces_go_on_where_rows_ended(delta: bool, pieces: list[int]) -> None:
    inputs = drawn(150, delta=delta)
    tokens, weights = tokens_of(inputs), inputs["weights"]
    wanted, rows = hierarchy(tokens, weights, {}, 0, 1.0)
    outputs, seen, piece = [], 0, {}
    for count in pieces:
        run = slice(seen, seen + count)
        o, piece = hierarchy(tokens.map(lambda x, run=run: x[:, run]), weights[:, run], piece, seen, 1.0)  # type: ignore[misc]
        outputs.append(o)
        seen += count
        assert set(piece) == {bit for bit in range(8) if seen >> bit & 1}
    assert_close(torch.cat(outputs, 1), wanted)
    assert all(torch.allclose(piece[bit], rows[bit]) for bit in rows)


@pytest.mark.parametrize("delta", [False, True], ids=["hebbian", "delta"])
def test_weights_of_1_are_the_mixer_with_one_state(delta: bool) -> None:
    """Arithmetic of arXiv 2506.04761, section 3: with all weights alike the levels add up to linear attention."""
    inputs = drawn(150, delta=delta)
    q, k, v, log_decay = (inputs[name] for name in ("q", "k", "v", "log_decay"))
    tokens = Tokens(q, k, v, log_decay=log_decay, beta=inputs.get("beta"))
    core = LevelsCore(1.0, H, LEVELS)
    o, _ = core(tokens, Call(more=torch.zeros(B, 150, H * LEVELS).double()))
    assert_close(o, Core(1.0)(tokens, Call())[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("preset", "base"), [("log-linear-mamba2", "mamba2"), ("log-linear-gated-deltanet", "gated-deltanet")]
)
def test_layers_of_weights_of_1_are_their_base(preset: str, base: str) -> None:
    shape = ModelShape(d_model=24, n_heads=3, n_kv_heads=3, head_dim=8, dtype="float32")
    layers = [
        PLUGIN.build(PLUGIN.parse_options(PLUGIN.presets[name]), shape, LayerInfo(index=0, depth=2))
        for name in (preset, base)
    ]
    with torch.no_grad():
        layers[0].proj.weight[-3 * 15 :] = 0
        layers[0].core.bias.fill_(float(torch.tensor(torch.e - 1).log()))  # type: ignore[operator, union-attr]
    weights = {name: x for name, x in layers[0].state_dict().items() if name != "core.bias"}
    layers[1].load_state_dict(weights | {"proj.weight": weights["proj.weight"][: -3 * 15]})
    x = torch.randn(2, 100, 24)
    one, other = (layer(x, ctx=Context())[0] for layer in layers)
    assert_close(one, other, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_level_weights_by_a_factor_are_those_of_the_papers_code() -> None:
    """softplus(L dl) of dl that a token says, L of each head and level, 1 at the start (arXiv 2506.04761's code)."""
    shape = ModelShape(d_model=24, n_heads=H, n_kv_heads=H, head_dim=K, dtype="float32")
    values = {**PLUGIN.presets["log-linear-mamba2"], "levels": LEVELS}
    options = PLUGIN.parse_options({**values, "level_weights": "factor"})
    mixer, x = PLUGIN.build(options, shape, LayerInfo()), torch.randn(B, 150, 24)
    assert (mixer.core.factor == 1).all()
    assert PLUGIN.params(options, shape, LayerInfo()) == sum(weights.numel() for weights in mixer.parameters())
    mixer.core.factor.normal_()
    said = F.linear(x, mixer.proj.weight[-H * LEVELS :]).unflatten(-1, (H, LEVELS))
    assert_close(mixer.core._weights(Call(more=said.flatten(2))), F.softplus(mixer.core.factor * said))
    plain = PLUGIN.build(PLUGIN.parse_options(values), shape, LayerInfo())
    same = {name: weights for name, weights in mixer.state_dict().items() if name != "core.factor"}
    plain.load_state_dict(same, strict=False)
    plain.core.bias.zero_()
    mixer.core.factor.fill_(1.0)
    assert_close(mixer(x, ctx=Context())[0], plain(x, ctx=Context())[0])


@pytest.mark.parametrize("delta", [False, True], ids=["hebbian", "delta"])
@pytest.mark.parametrize("chunks", [2, 7])
def test_products_are_those_that_are_needed(chunks: int, delta: bool) -> None:
    """Within 5% of those that run, less what masks throw away, plus the triangular inverse, which is not counted."""
    size, context = 64, 64 * chunks
    shape = ModelShape(d_model=K * H, n_heads=H, n_kv_heads=H, head_dim=K, dtype="float32")
    q, k, v = (torch.randn(1, context, H, K) for _ in range(3))
    beta = torch.rand(1, context, H) if delta else None
    tokens = Tokens(q, k, v, log_decay=-torch.rand(1, context, H), beta=beta)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        LevelsCore(1.0, H, LEVELS)(tokens, Call(more=torch.zeros(1, context, H * LEVELS)))
    half = (size * size - size) * K  # of a square of products, what is above the diagonal
    masked = 2 * half
    if delta:  # overlaps, values and keys that are made known, and the products of triangles
        masked += 4 * half + 2 * size**3 - 2 * size**3 / 3
    values = {"update": "delta" if delta else "hebbian", "decay": "head", "levels": LEVELS}
    options = PLUGIN.parse_options(values)
    said = PLUGIN.flops(options, shape, LayerInfo(), phase="train", context=context).matmul
    said -= context * 2 * shape.d_model * PLUGIN.build(options, shape, LayerInfo()).proj.out_features
    said -= context * 2 * shape.d_model**2
    assert said == pytest.approx(counter.get_total_flops() - chunks * H * masked, rel=0.05)


def test_rows_grow_as_the_logarithm_of_the_tokens() -> None:
    shape = ModelShape(d_model=24, n_heads=3, n_kv_heads=3, head_dim=8, dtype="float32")
    options = PLUGIN.parse_options(PLUGIN.presets["log-linear-mamba2"])
    state = PLUGIN.state(options, shape, LayerInfo())[0]
    assert [state.rows(count) for count in (0, 1, 2, 3, 4, 1000, 2**20)] == [0, 1, 2, 2, 3, 10, 21]
    traffic = PLUGIN.traffic(options, shape, LayerInfo(), context=1024)
    fixed = 3 * 24 * 3 * 4
    assert traffic.read_bytes == 5.5 * state.row_bytes + fixed
    assert traffic.most_written == 11 * state.row_bytes + fixed
