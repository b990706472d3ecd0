"""A prefill of the sliding layer that goes on after a cache: ragged sequences in pieces equal whole ones."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from archsearch_plugins.sliding import SlidingPlugin, layer
from torch import Tensor
from torch.testing import assert_close

from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context, Mixer, MixerState

PLUGIN = SlidingPlugin()
SHAPE = ModelShape(d_model=24, n_heads=2, n_kv_heads=1, head_dim=8, dtype="float32")
SIZES = [(4, 0), (5, 7), (8, 3), (1, 2), (70, 2), (300, 4)]
FORMS = ["chunkwise", "triton"]


def build(window: int, sinks: int) -> Mixer:
    torch.manual_seed(0)
    return PLUGIN.build(PLUGIN.parse_options({"window": window, "sinks": sinks}), SHAPE, LayerInfo())


def tokens(lengths: list[int], more: int) -> list[Tensor]:
    """One sequence each, `[1, length + more, D]`."""
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(1, length + more, 24, generator=draw) for length in lengths]


def ragged_state(
    mixer: Mixer, sequences: list[Tensor], lengths: list[int], capacity: int, *, unwritten: float = torch.nan
) -> MixerState:
    """The states after the first `lengths` tokens of each, as one of a batch; `unwritten` in rows without a token."""
    states = []
    for x, length in zip(sequences, lengths, strict=True):
        _, state = mixer(x[:, :length], state=mixer.init_state(1, capacity), ctx=Context())
        assert state is not None
        free = (torch.arange(state.tensors["k"].shape[1]) >= length)[:, None, None]
        tensors = {name: cache.masked_fill(free, unwritten) for name, cache in state.tensors.items()}
        states.append(MixerState(tensors=tensors, lengths=state.lengths, capacity=capacity))
    tensors = {name: torch.cat([state.tensors[name] for state in states]) for name in ("k", "v")}
    return MixerState(tensors=tensors, lengths=torch.cat([state.lengths for state in states]), capacity=capacity)


def later(sequences: list[Tensor], lengths: list[int], more: int) -> Tensor:
    return torch.cat([x[:, length : length + more] for x, length in zip(sequences, lengths, strict=True)])


@pytest.mark.parametrize("pieces", [[2, 1, 7, 70], [64, 2, 1, 1, 12]], ids=str)
@pytest.mark.parametrize(("window", "sinks"), SIZES)
@pytest.mark.parametrize("form", FORMS)
def test_ragged_states_in_pieces(
    monkeypatch: pytest.MonkeyPatch, form: str, window: int, sinks: int, pieces: list[int]
) -> None:
    monkeypatch.setenv("ARCHSEARCH_IMPL", form)
    mixer, lengths, more = build(window, sinks), [1, 40, 9], 80
    sequences, outputs = tokens(lengths, more), []
    with torch.no_grad():
        state = ragged_state(mixer, sequences, lengths, 120, unwritten=1e4)
        for piece in later(sequences, lengths, more).split(pieces, 1):
            out, state = mixer(piece, state=state, ctx=Context())
            outputs.append(out)
        monkeypatch.setenv("ARCHSEARCH_IMPL", "reference")
        whole = [mixer(x, ctx=Context())[0][:, -more:] for x in sequences]
    assert_close(torch.cat(outputs, 1), torch.cat(whole), rtol=1e-5, atol=1e-5)
    assert state.lengths.tolist() == [length + more for length in lengths]


@pytest.mark.parametrize("form", FORMS)
def test_gradients_flow_through_a_ragged_state(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setenv("ARCHSEARCH_IMPL", form)
    mixer, lengths, more = build(4, 2), [1, 12, 5], 9
    sequences = [x.requires_grad_() for x in tokens(lengths, more)]
    state = ragged_state(mixer, sequences, lengths, 30)
    continued, _ = mixer(later(sequences, lengths, more), state=state, ctx=Context())
    whole = torch.cat([mixer(x, ctx=Context())[0][:, -more:] for x in sequences])
    weights = torch.randn(whole.shape, generator=torch.Generator().manual_seed(2))
    found, wanted = (torch.autograd.grad((out * weights).sum(), sequences) for out in (continued, whole))
    for one, other in zip(found, wanted, strict=True):
        assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_state_of_another_dtype() -> None:
    mixer, (x,) = build(5, 2), tokens([30], 10)
    with torch.no_grad():
        _, state = mixer(x[:, :30], state=mixer.init_state(1, 40, dtype=torch.float64), ctx=Context())
        out, _ = mixer(x[:, 30:], state=state, ctx=Context())
        assert_close(out, mixer(x, ctx=Context())[0][:, 30:], rtol=1e-5, atol=1e-5)


def test_one_call_of_the_op_for_a_piece_of_any_length() -> None:
    mixer, (x,) = build(5, 2), tokens([30], 500)
    with torch.no_grad(), patch.object(layer, "window_attention", wraps=layer.window_attention) as op:
        state = ragged_state(mixer, [x], [30], 530)
        op.reset_mock()
        mixer(x[:, 30:], state=state, ctx=Context())
    assert op.call_count == 1
    (laid,) = op.call_args.args
    assert (laid.q.shape[1], laid.k.shape[1]) == (500, 5 + 2 + 500)
