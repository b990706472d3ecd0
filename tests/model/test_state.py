"""MixerState: what the host knows of its lengths, and when it must ask the device."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from archsearch.errors import SpecError
from archsearch.model import MixerState


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tensor]]:
    """The tensors that were asked for a value."""
    asked: list[Tensor] = []
    genuine = Tensor.__int__

    def ask(x: Tensor) -> int:
        asked.append(x)
        return genuine(x)

    monkeypatch.setattr(Tensor, "__int__", ask)
    yield asked


def empty(batch: int = 2, capacity: int = 20) -> MixerState:
    lengths = torch.zeros(batch, dtype=torch.int64)
    return MixerState.empty({"rows": torch.zeros(batch, capacity, 3)}, lengths, capacity)


def test_the_host_knows_what_follows_from_an_empty_state(monkeypatch: pytest.MonkeyPatch) -> None:
    with counted(monkeypatch) as asked:
        state = empty()
        assert state.longest == 0
        state = state.after(state.tensors, 7).clone().after(state.tensors, 1)
        state.check_room(12)
        assert state.longest == 8
    assert not asked
    assert state.lengths.tolist() == [8, 8]


def test_who_knows_may_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    state = MixerState(tensors={}, lengths=torch.tensor([3, 9, 1]), capacity=20)
    with counted(monkeypatch) as asked:
        assert state.check_room(11, held=9) == 9
        state.longest = 9
        assert state.after({}, 4).longest == 13
        assert state.most == 9
    assert not asked


def test_of_other_states_the_device_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    state = MixerState(tensors={}, lengths=torch.tensor([3, 9, 1]), capacity=20)
    with counted(monkeypatch) as asked:
        assert state.longest == 9
        assert state.after({}, 4).longest == 13
        assert state.longest == 9
    assert len(asked) == 1


def test_lengths_that_were_written_to_are_read_again() -> None:
    state = empty()
    state.lengths.fill_(5)
    assert state.longest == 5
    state.lengths[1] += 2
    assert state.after({}, 1).longest == 8
    assert state.longest == 7


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda state: pickle.loads(pickle.dumps(state))],
    ids=["copy", "deepcopy", "pickle"],
)
@pytest.mark.parametrize("writes", [0, 1, 2])
def test_copies_know_lengths_that_were_written_to(copied: Callable[[MixerState], MixerState], writes: int) -> None:
    state = empty()
    for _ in range(writes):
        state.lengths.fill_(1)
    assert state.longest == min(writes, 1)
    state.lengths.fill_(5)
    assert copied(state).longest == 5


def test_other_lengths_make_another_state() -> None:
    state = empty().after({}, 3)
    assert replace(state, lengths=torch.tensor([11, 2])).longest == 11
    assert replace(state, capacity=30).longest == 3
    state.lengths = torch.tensor([4, 6])
    assert state.longest == 6


def test_under_inference_mode_the_device_is_asked_each_time() -> None:
    with torch.inference_mode():
        state = empty().after({}, 3)
        assert state.longest == 3
        state.lengths.add_(4)
        assert state.longest == 7
        assert state.after({}, 1).longest == 8


def test_a_state_of_no_sequences_is_empty() -> None:
    assert MixerState(tensors={}, lengths=torch.zeros(0, dtype=torch.int64), capacity=4).longest == 0


def test_tokens_past_the_capacity_are_refused() -> None:
    state = empty().after({}, 18)
    state.check_room(2)
    with pytest.raises(SpecError, match="3 more tokens after 18 exceed the state's capacity of 20"):
        state.check_room(3)
