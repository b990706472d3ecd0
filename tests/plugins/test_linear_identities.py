"""Linear mixers are the attention that their papers write them as, and one another where equations say so."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from archsearch_plugins.linear import LinearPlugin
from archsearch_plugins.linear.layer import LinearMixer
from archsearch_plugins.linear.ops import linear_attention
from archsearch_plugins.linear.tokens import Tokens
from linear_cases import Inputs, assert_near, make_inputs, results
from torch import Tensor
from torch.testing import assert_close

from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context

PLUGIN = LinearPlugin()
SHAPE = ModelShape(d_model=24, n_heads=3, n_kv_heads=3, head_dim=8, dtype="float32")
LAYER = LayerInfo(index=1, depth=4)
T = 80
"""More than a chunk."""


def build(preset: str, **more: Any) -> LinearMixer:
    torch.manual_seed(0)
    return PLUGIN.build(PLUGIN.parse_options({**PLUGIN.presets[preset], **more}), SHAPE, LAYER).double()


def drawn() -> Tensor:
    return torch.randn(2, T, 24, generator=torch.Generator().manual_seed(1)).double()


def retnet(gate: Any, made: Tensor) -> Tensor:
    """arXiv 2307.08621, equation 8."""
    return (1 - 2.0 ** (-5 - torch.arange(3).double())).expand(2, T, 3)


def lightning(gate: Any, made: Tensor) -> Tensor:
    """arXiv 2501.08313, section 2.2, of the second layer of four."""
    slopes = 2.0 ** (-8 * torch.arange(1, 4).double() / 3)
    return (-slopes * (1 - 1 / 3 + 1e-5)).exp().expand(2, T, 3)


def mamba2(gate: Any, made: Tensor) -> Tensor:
    """arXiv 2405.21060, section 7: a = exp(-A dt)."""
    return (-gate.A_log.exp() * F.softplus(made + gate.dt_bias)).exp()


def gla(gate: Any, made: Tensor) -> Tensor:
    """arXiv 2312.06635, section 4.4."""
    return gate.up(made).sigmoid().pow(1 / 16).unflatten(-1, (3, 8))


PAPERS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "retnet": retnet,
    "lightning": lightning,
    "mamba2": mamba2,
    "gla": gla,
}
"""What is left of a state at each token `[B, T, H]`, or a channel of it `[B, T, H, K]`, from the gate's features."""


def masked_attention(q: Tensor, k: Tensor, v: Tensor, kept: Tensor, scale: float) -> Tensor:
    """((Q K^T) * D) V, D_nm the product of what is kept after m and up to n, channel by channel."""
    kept = kept if kept.dim() == 4 else kept[..., None].expand_as(k)
    pairs = torch.stack([_kept_until(kept, n) for n in range(T)], 1)  # [B, n, m, H, K]
    return scale * torch.einsum("bnhk,bmhk,bnmhk,bmhv->bnhv", q, k, pairs, v)


def _kept_until(kept: Tensor, n: int) -> Tensor:
    """D_n of every m, 0 for the later ones."""
    alive = torch.cat((kept[:, 1 : n + 1], torch.ones_like(kept[:, :1])), 1)
    products = alive.flip(1).cumprod(1).flip(1)
    return F.pad(products, (0, 0, 0, 0, 0, T - 1 - n))


@pytest.mark.parametrize("preset", PAPERS)
def test_the_chunkwise_layer_is_attention_under_the_decay_of_its_paper(preset: str) -> None:
    mixer, x = build(preset), drawn()
    inputs = mixer._inputs(x, None, Context(), None)
    made = F.linear(x, mixer.proj.weight).split(mixer.sizes, -1)[2]
    written = inputs.v
    if preset == "mamba2":
        assert mixer.decay is not None
        written = written * F.softplus(made + mixer.decay.dt_bias)[..., None]  # type: ignore[operator]
    kept = PAPERS[preset](mixer.decay, made)
    scale = 1.0 if preset == "mamba2" else 8**-0.5
    given = [z.detach().requires_grad_() for z in (inputs.tokens.q, inputs.tokens.k, written, kept)]
    o = masked_attention(*given, scale)
    chunkwise, _ = linear_attention(Tokens(*given[:3], log_decay=given[3].log()), scale=scale, impl="chunkwise")
    assert_close(chunkwise, o, rtol=1e-9, atol=1e-9)
    slopes = [torch.autograd.grad(y.sin().sum(), given, retain_graph=True) for y in (chunkwise, o)]
    assert_close(*slopes, rtol=1e-8, atol=1e-8)
    found, wanted = mixer(x, ctx=Context())[0], mixer._output(o, inputs)
    assert_close(found, wanted, rtol=0, atol=1e-5)  # the gates of a layer are float32
    assert not torch.allclose(mixer._output(o.roll(1, 1), inputs), wanted, atol=1e-3)


@pytest.mark.parametrize("impl", ["chunkwise", "reference"])
def test_kda_whose_channels_forget_alike_is_gated_deltanet(impl: str) -> None:
    """arXiv 2510.26692, section 3: Diag(a) with equal entries is the a of arXiv 2412.06464; gradients too."""
    scalar = make_inputs(T=90, decay="head", rule="delta", low=-3.0)
    decay = scalar["log_decay"]
    assert decay is not None
    by_channel: Inputs = {**scalar, "log_decay": decay[..., None].expand(-1, -1, -1, 16)}
    found = results(by_channel, dtype=torch.float64, impl=impl)
    found["d_log_decay"] = found["d_log_decay"].sum(-1)
    assert_near(found, results(scalar, dtype=torch.float64, impl=impl), 1e-10)


def test_the_layer_kda_whose_channels_forget_alike_is_that_of_gated_deltanet() -> None:
    """With the output gate of `kda`, and its low-rank map giving every channel of a head what the head's gate is."""
    scalar, kda = build("gated-deltanet", output_gate="sigmoid", low_rank_gate=True), build("kda")
    rows = [kda.proj.weight.split(kda.sizes), scalar.proj.weight.split(scalar.sizes)]
    with torch.no_grad():
        for index, (to, given) in enumerate(zip(*rows, strict=True)):
            if index != 2:  # the features of the decay: 8 of rank, of which the first 3 are those of the heads
                to.copy_(given)
        rows[0][2].zero_()
        rows[0][2][:3] = rows[1][2]
        spread = torch.eye(3).double().repeat_interleave(8, 0)
        kda.decay.up.weight.copy_(F.pad(spread, (0, 5)))  # type: ignore[union-attr]
        kda.decay.A_log.copy_(scalar.decay.A_log)  # type: ignore[union-attr]
        kda.decay.dt_bias.copy_(scalar.decay.dt_bias.repeat_interleave(8))  # type: ignore[union-attr]
        for name, given in scalar.named_parameters():
            if not name.startswith(("proj", "decay")):
                kda.get_parameter(name).copy_(given)
    x = drawn()
    assert_close(kda(x, ctx=Context())[0], scalar(x, ctx=Context())[0], rtol=0, atol=1e-6)


def test_kda_bounded_is_kda_where_little_is_forgotten_and_forgets_no_more_than_its_bound() -> None:
    """-5 sigmoid(y - log 5) = -(e^y - e^2y / 5 + ..), -softplus(y) = -(e^y - e^2y / 2 + ..): 0.3 e^y apart."""
    bounded, kda, x = build("kda-bounded"), build("kda"), drawn()
    with torch.no_grad():
        kda.load_state_dict({**bounded.state_dict(), "decay.dt_bias": bounded.decay.bias}, strict=False)  # type: ignore[union-attr]
        kda.decay.A_log.zero_()  # type: ignore[union-attr]

    def log_decays(y: float) -> tuple[Tensor, ...]:
        """Of both, with gates that are y for a token of zeros."""
        with torch.no_grad():
            kda.decay.dt_bias.fill_(y)  # type: ignore[union-attr]
            bounded.decay.bias.fill_(y - math.log(5))  # type: ignore[union-attr]
        made = (mixer._inputs(x, None, Context(), None).tokens.log_decay for mixer in (kda, bounded))
        return tuple(one for one in made if one is not None)

    plain, held = log_decays(-6.0)
    assert_close(held / plain - 1, -0.3 * plain, rtol=0.05, atol=1e-5)
    assert_close(bounded(x, ctx=Context())[0], kda(x, ctx=Context())[0], rtol=0, atol=1e-3)
    plain, held = log_decays(20.0)
    assert (plain < -15).all()
    assert_close(held, torch.full_like(held, -5.0), rtol=1e-3, atol=0)
    assert not torch.allclose(bounded(x, ctx=Context())[0], kda(x, ctx=Context())[0], atol=1e-3)
