"""The memory mixers are what their papers say, in every form; costs are those of what is multiplied."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from archsearch_plugins.linear.ops import linear_attention
from archsearch_plugins.linear.tokens import Tokens
from archsearch_plugins.memory import MemoryPlugin
from archsearch_plugins.memory.network import Inner, Weights, gradients, hidden
from archsearch_plugins.memory.ops import Held, Learning, MemoryTokens, learning_memory
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from archsearch.errors import OptionsError
from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context
from archsearch.testing.case import Case
from archsearch.testing.laws import LAWS, tried
from archsearch.testing.laws.law import Law

PLUGIN = MemoryPlugin()
SHAPE = ModelShape(d_model=24, n_heads=2, n_kv_heads=2, head_dim=8, dtype="float32")
LAYER = LayerInfo(index=0, depth=2)
QUICK = {
    "ragged_lengths_decode_as_each_alone",
    "packed_sequences_are_apart",
    "empty_packed_batch",
    "gradients_are_finite_and_reach_every_parameter",
    "params_equal_what_is_built",
    "state_allocates_the_bytes_it_promises",
    "state_is_all_that_decoding_keeps",
}
"""Laws that the default run tries; `test_memory_laws` tries all, of all presets."""
BARE = Inner(scale=None, shift=None, residual=False, bias=False)
"""A network with nothing around its matrices."""

B, T, H, D = 2, 41, 2, 6


@pytest.mark.parametrize("law", [pytest.param(law, id=law.name) for law in LAWS if law.name in QUICK])
def test_titans_keeps_the_quick_laws(law: Law) -> None:
    outcome = tried(law, Case.of(PLUGIN, {**PLUGIN.presets["titans"], "expand": 1}))
    assert outcome.status in ("passed", "skipped"), outcome.text


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tokens(**gates: Tensor) -> MemoryTokens:
    q, k, v = (drawn(B, T, H, D, seed=seed) for seed in range(3))
    return MemoryTokens(q=q, k=F.normalize(k, dim=-1), v=v, **{"rate": drawn(B, T, H, seed=3).sigmoid(), **gates})


def zeros(*sizes: int) -> Held:
    weights = tuple(
        torch.zeros(B, H, rows, columns, dtype=torch.float64) for rows, columns in itertools.pairwise(sizes)
    )
    return Held(start=weights, now=weights)


def test_ttt_linear_of_single_tokens_with_nothing_around_it_is_the_delta_rule() -> None:
    given, learning = tokens(), Learning(inner=BARE, mini_batch=1)
    o, held = learning_memory(given, zeros(D, D), learning, want_state=True)
    delta = Tokens(given.q, given.k, given.v, beta=given.rate)
    wanted, state = linear_attention(delta, scale=1.0, impl="reference")
    torch.testing.assert_close(o, wanted)
    torch.testing.assert_close(held.now[0], state)


def test_titans_of_a_matrix_and_single_tokens_without_momentum_is_a_gated_delta_rule() -> None:
    """Titans takes the gradient before it forgets, the gated delta rule after: a (1 - theta/a k k^T) M + theta k v."""
    given = tokens(log_keep=F.logsigmoid(drawn(B, T, H, seed=4) + 3))
    assert given.log_keep is not None
    o, held = learning_memory(given, zeros(D, D), Learning(inner=BARE, mini_batch=1), want_state=True)
    keep = given.log_keep.exp()
    gated = Tokens(given.q, given.k, given.v * keep[..., None], log_decay=given.log_keep, beta=given.rate / keep)
    wanted, state = linear_attention(gated, scale=1.0, impl="reference")
    torch.testing.assert_close(o, wanted)
    torch.testing.assert_close(held.now[0], state)


def test_titans_that_neither_forgets_nor_has_momentum_is_test_time_training() -> None:
    plain, (never,) = tokens(), [torch.zeros(B, T, H, dtype=torch.float64)]
    titans = tokens(log_keep=never, log_momentum=torch.full_like(never, -torch.inf))
    first = Held(start=(drawn(B, H, D, D, seed=9),), now=(drawn(B, H, D, D, seed=9),))
    learning = Learning(inner=BARE, mini_batch=8)
    wanted, held = learning_memory(plain, first, learning, want_state=True)
    found, after = learning_memory(titans, first, learning, want_state=True)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(after.now[0], held.now[0])


def test_a_network_of_two_matrices_that_stays_as_it_is_gives_its_forward_pass() -> None:
    given = tokens(rate=torch.zeros(B, T, H, dtype=torch.float64))
    weights = (drawn(B, H, D, 9, seed=7), drawn(B, H, 9, D, seed=8))
    o, _ = learning_memory(
        given, Held(start=weights, now=weights), Learning(inner=BARE, mini_batch=8), want_state=False
    )
    wanted = hidden(given.q.transpose(1, 2) @ weights[0]) @ weights[1]
    torch.testing.assert_close(o, wanted.transpose(1, 2))


@pytest.mark.parametrize("normed", [False, True], ids=["bare", "normed-residual-bias"])
@pytest.mark.parametrize("sizes", [(D, D), (D, 10, D)], ids=["linear", "mlp"])
def test_the_written_gradient_is_that_of_autograd(sizes: tuple[int, ...], normed: bool) -> None:
    scale, shift = (drawn(H, 1, D, seed=5) + 1, drawn(H, 1, D, seed=6)) if normed else (None, None)
    inner = Inner(scale=scale, shift=shift, residual=normed, bias=normed)
    weights = tuple(
        drawn(B, H, rows + normed, columns, seed=rows).requires_grad_() for rows, columns in itertools.pairwise(sizes)
    )
    k, v = drawn(B, H, 7, D, seed=1), drawn(B, H, 7, D, seed=2)
    z = k
    for index, matrix in enumerate(weights):
        z = inner.rows(hidden(z) if index else z) @ matrix
    loss = (inner.given(k, z) - v).square().sum() / 2
    wanted = torch.autograd.grad(loss, weights)
    inputs, errors = gradients(k, v, weights, inner)
    for x, error, gradient in zip(inputs, errors, wanted, strict=True):
        torch.testing.assert_close(x.mT @ error, gradient)


@pytest.mark.parametrize("clip", [0.0, 1.5])
def test_what_is_read_is_the_network_with_weights_trained_by_autograd_token_by_token(clip: float) -> None:
    """S_t = n S - r g, M_t = a M + S (Titans, arXiv 2501.00663, equations 9 to 14), g at the mini-batch's first M, or
    with a clip g min(1, clip / |g|), |g| over both matrices."""
    gates = {name: F.logsigmoid(drawn(B, T, H, seed=seed) + 1) for seed, name in ((4, "log_keep"), (5, "log_momentum"))}
    given, size = tokens(**gates), 8
    weights: Weights = (drawn(B, H, D, 9, seed=7) / 3, drawn(B, H, 9, D, seed=8) / 3)
    found, after = learning_memory(
        given, Held(start=weights, now=weights), Learning(inner=BARE, mini_batch=size, clip=clip), want_state=True
    )
    start, now, speed = weights, weights, tuple(torch.zeros_like(matrix) for matrix in weights)
    clipped: list[Tensor] = []
    for t in range(T):
        q, k, v = (x[:, t, :, None] for x in (given.q, given.k, given.v))
        slopes = by_autograd(k, v, start)
        norm = sum(slope.square().sum((-1, -2), keepdim=True) for slope in slopes).sqrt()
        if clip:
            clipped.append((norm > clip).double().mean())
            slopes = tuple(slope * (clip / norm).clamp(max=1) for slope in slopes)
        rate, keep, coast = (
            x[:, t, :, None, None] for x in (given.rate, gates["log_keep"].exp(), gates["log_momentum"].exp())
        )
        speed = tuple(coast * old - rate * slope for old, slope in zip(speed, slopes, strict=True))
        now = tuple(keep * old + move for old, move in zip(now, speed, strict=True))
        torch.testing.assert_close(found[:, t], (hidden(q @ now[0]) @ now[1])[:, :, 0])
        start = now if t % size == size - 1 else start
    assert not clip or 0 < sum(clipped) < T
    assert after.momentum is not None
    for found_all, wanted_all in ((after.now, now), (after.start, start), (after.momentum, speed)):
        for one, other in zip(found_all, wanted_all, strict=True):
            torch.testing.assert_close(one, other)


def by_autograd(k: Tensor, v: Tensor, weights: Weights) -> Weights:
    leaves = tuple(matrix.detach().requires_grad_() for matrix in weights)
    loss = (hidden(k @ leaves[0]) @ leaves[1] - v).square().sum() / 2
    return torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("preset", PLUGIN.presets)
def test_mini_batches_give_what_single_tokens_give(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mixer, x = built(preset), torch.randn(2, 37, 24)
    found = mixer(x, ctx=Context())[0]
    monkeypatch.setenv("ARCHSEARCH_IMPL", "reference")
    torch.testing.assert_close(found, mixer(x, ctx=Context())[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("preset", ["ttt-linear", "titans"])
def test_no_bit_of_an_output_depends_on_a_later_token_or_another_sequence(preset: str) -> None:
    mixer, x = built(preset).train(), torch.randn(3, 60, 24)
    changed = x.clone()
    changed[:, 37:] += 1
    changed[1] = 7.0
    before, after = (mixer(given, ctx=Context())[0] for given in (x, changed))
    assert torch.equal(before[0, :37], after[0, :37])
    assert torch.equal(before[2, :37], after[2, :37])


def test_gates_that_forget_all_leave_everything_finite() -> None:
    forgotten = torch.full((B, T, H), -torch.inf, dtype=torch.float64)
    given = tokens(log_keep=forgotten, log_momentum=forgotten.clone())
    o, held = learning_memory(given, zeros(D, D), Learning(inner=BARE, mini_batch=8), want_state=True)
    assert torch.isfinite(o).all()
    assert torch.isfinite(held.now[0]).all()


@torch.no_grad()
@pytest.mark.parametrize("impl", ["chunkwise", "reference"])
def test_titans_outgrows_float64_on_a_token_that_comes_again_and_again_and_a_clip_keeps_it_small(
    impl: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient of two matrices grows with the cube of their size: steps that overshoot do so ever more."""
    monkeypatch.setenv("ARCHSEARCH_IMPL", impl)
    x = 30 * torch.randn(1, 1, 24, generator=torch.Generator().manual_seed(0)).expand(1, 256, 24).double()
    assert not built("titans").double()(x, ctx=Context())[0].isfinite().all()
    mixer = built("titans", clip=1.0)
    o, state = mixer(x.float(), ctx=Context(want_state=True))
    assert o.isfinite().all()
    matrices = [state.tensors[f"weights{index}"].norm() for index in range(2)]
    first = [matrix.norm() for matrix in mixer.first]
    assert sum(matrices) < sum(first) + 256 * 0.1 * 2  # rate 0.1, doubled by a momentum of a half


@torch.no_grad()
@pytest.mark.parametrize(
    ("preset", "options"),
    [
        ("ttt-linear", {}),
        ("ttt-mlp", {}),
        ("titans", {"clip": 1.0}),
        ("titans", {"inner_norm": True, "residual": True}),
    ],
    ids=["ttt-linear", "ttt-mlp", "titans-clip", "titans-normed"],
)
@pytest.mark.parametrize("again", [True, False], ids=["one-token", "many"])
def test_long_sequences_stay_finite(preset: str, options: dict[str, Any], again: bool) -> None:
    x = 30 * torch.randn(2, 1 if again else 2048, 24, generator=torch.Generator().manual_seed(0)).expand(2, 2048, 24)
    assert built(preset, **options)(x, ctx=Context())[0].isfinite().all()


def built(preset: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return PLUGIN.build(PLUGIN.parse_options({**PLUGIN.presets[preset], **options}), SHAPE, LAYER)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"average": True, "momentum": True}, "average = true with momentum = true.*leave one"),
        ({"clip": 1e-9}, "clip = 1e-09 leaves nothing of a gradient: set 1e-6 or more"),
        ({"output_gate": "gelu", "output_norm": "rms"}, "output_gate = gelu with output_norm = rms: choose"),
    ],
)
def test_options_that_make_no_sense_together_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionsError, match=said):
        PLUGIN.parse_options(values)


@pytest.mark.parametrize("phase", ["train", "prefill"])
@pytest.mark.parametrize("context", [1, 20, 33, 80])
@pytest.mark.parametrize("preset", PLUGIN.presets)
def test_matrix_products_of_a_sequence(preset: str, context: int, phase: Any) -> None:
    """Those of the dual form written out row by row, so that no pair that a mask drops is multiplied."""
    options, mixer = PLUGIN.parse_options(PLUGIN.presets[preset]), built(preset)
    with FlopCounterMode(display=False) as counter:
        for weight in (mixer.proj.weight, mixer.out.weight):
            _ = torch.ones(context, weight.shape[1]) @ weight.T
        sizes = [len(part) for part in torch.arange(context).split(options.mini_batch)]
        for index, size in enumerate(sizes):
            learnt = phase == "prefill" or index < len(sizes) - 1
            mini_batch(options, size, first=index == 0, learnt=learnt, wanted=phase == "prefill")
    said = PLUGIN.flops(options, SHAPE, LAYER, phase=phase, context=context).matmul
    assert said == pytest.approx(counter.get_total_flops(), rel=0.05)


def mini_batch(options: Any, size: int, *, first: bool, learnt: bool, wanted: bool) -> None:
    heads = SHAPE.n_heads
    layers = options.layers(SHAPE)
    for index, (rows, columns) in enumerate(layers):
        weights, x, error = (torch.ones(heads, *sizes) for sizes in ((rows, columns), (size, rows), (size, columns)))
        _ = x @ weights, x @ weights
        if options.momentum and not first:
            _ = x @ weights
        if options.average and wanted:
            _ = x @ weights
        if index:
            _ = error @ weights[:, : rows - options.bias].mT
        for row in range(size):
            _ = x[:, row : row + 1] @ x[:, : row + 1].mT
            _ = torch.ones(heads, 1, row + 1) @ error[:, : row + 1]
        if learnt:
            _ = x.mT @ error
            if options.momentum:
                _ = x.mT @ error
    if options.momentum:
        decays(heads, size)


def decays(heads: int, size: int) -> None:
    """Both kinds of decays, i between the two tokens of each pair."""
    for row in range(size):
        for column in range(row + 1):
            _ = torch.ones(heads, 1, row - column + 1) @ torch.ones(heads, row - column + 1, 1)
        _ = torch.ones(heads, 1, row + 1) @ torch.ones(heads, row + 1, 1)


def test_decoding_in_the_middle_of_a_mini_batch_goes_on_from_the_state_alone() -> None:
    for preset in PLUGIN.presets:
        mixer, x = built(preset), torch.randn(2, 30, 24)
        whole = mixer(x, ctx=Context())[0]
        _, state = mixer(x[:, :21], ctx=Context(want_state=True))
        for token in range(21, 30):
            one, state = mixer.step(x[:, token], state=state.clone(), ctx=Context())
            torch.testing.assert_close(one, whole[:, token], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_queries_and_keys_of_one_projection_are_convolved_with_biases_and_values_are_not() -> None:
    """TTT's layer for a Mamba backbone (arXiv 2407.04620, section 2.7, and its code), and its state."""
    torch.manual_seed(0)
    values = {**PLUGIN.presets["ttt-linear"], "shared_projection": True, "conv": 4, "output_gate": "gelu"}
    options = PLUGIN.parse_options(values)
    mixer, x, width = PLUGIN.build(options, SHAPE, LAYER), torch.randn(2, 30, 24), 16
    assert PLUGIN.params(options, SHAPE, LAYER) == sum(weights.numel() for weights in mixer.parameters())
    mixer.conv_bias.normal_()
    both, v = mixer.proj(x)[..., : 2 * width].chunk(2, -1)
    found, wanted = mixer._mix(mixer.proj(x)[..., : 2 * width], None, None)[0].chunk(3, -1), []
    for kind in range(2):
        conv = torch.nn.Conv1d(width, width, 4, groups=width, padding=3)
        conv.weight.copy_(mixer.conv.weight[:, kind * width :][:, :width].flip(0).T[:, None])
        conv.bias.copy_(mixer.conv_bias.chunk(2)[kind])
        wanted.append(conv(both.mT)[..., :30].mT)
    for one, other in zip(found, (*wanted, v), strict=True):
        torch.testing.assert_close(one, other)
    whole, state = mixer(x, ctx=Context())[0], mixer.init_state(2, 30)
    first, state = mixer(x[:, :13], state=state, ctx=Context())
    steps = [first]
    for t in range(13, 30):
        y, state = mixer.step(x[:, t], state=state, ctx=Context())
        steps.append(y[:, None])
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=1e-4, atol=1e-5)


def test_a_projection_is_shared_where_there_is_a_convolution_and_is_not_written_where_it_is_not() -> None:
    with pytest.raises(OptionsError, match=r"shared_projection = true with conv = 0 makes q of k: set conv"):
        PLUGIN.parse_options({"shared_projection": True})
    assert "shared_projection" not in PLUGIN.parse_options(PLUGIN.presets["titans"]).model_dump()
