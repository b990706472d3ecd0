"""What a step is seen to read and write, on layers where it is known."""

from __future__ import annotations

import torch
from torch import Tensor

from archsearch.mixer import LayerInfo, ModelShape, StateTensor
from archsearch.model import Context, Mixer, MixerState
from archsearch.testing.reads import step_reads
from archsearch.testing.toy import ToyOptions, ToyPlugin

SHAPE = ModelShape(d_model=8, n_heads=1, n_kv_heads=1, head_dim=8, dtype="float32")


class _Rows(ToyPlugin):
    """A row of 8 numbers a token."""

    def state(self, options: ToyOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return (StateTensor(name="rows", row_shape=(8,), dtype="float32", role="kv", stride=1),)


class _WeighedRows(Mixer):
    """The sum of the rows so far, by weights: one weight for the newest, one for those before, one for unused rows."""

    weights = (1.0, 1.0, None)

    def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
        at = int(state.lengths[0])
        rows = state.tensors["rows"]
        rows[:, at] = x_t
        newest, earlier, unused = self.weights
        total = newest * rows[:, at]
        if earlier is not None:
            total = total + earlier * rows[:, :at].sum(1)
        if unused is not None:
            total = total + unused * rows[:, at + 1 :].sum(1)
        return total, MixerState(tensors={"rows": rows}, lengths=state.lengths + 1, capacity=state.capacity)

    def forward(self, x: Tensor, *, state: MixerState | None = None, ctx: Context) -> tuple[Tensor, MixerState | None]:
        assert state is not None
        state.tensors["rows"][:, : x.shape[1]] = x
        return x, MixerState(tensors=state.tensors, lengths=state.lengths + x.shape[1], capacity=state.capacity)


def _seen(weights: tuple[float | None, ...], tokens: int = 6) -> tuple[float, float]:
    """Rows read and rows written."""
    mixer = _WeighedRows(_Rows(), ToyOptions(), SHAPE, LayerInfo())
    mixer.weights = weights  # type: ignore[assignment]
    seen = step_reads(mixer, torch.randn(1, tokens, 8), spare=3)
    return seen.read_bytes / 32, seen.written_bytes / 32


def test_earlier_rows_are_read_and_the_new_one_is_written() -> None:
    assert _seen((1.0, 1.0, None)) == (5, 1)


def test_rows_that_are_not_looked_at_are_not_read() -> None:
    assert _seen((1.0, None, None)) == (0, 1)


def test_a_row_multiplied_by_zero_was_read() -> None:
    assert _seen((1.0, 0.0, None)) == (5, 1)


def test_unused_rows_count_when_they_are_read() -> None:
    assert _seen((1.0, 1.0, 0.0)) == (8, 1)


def test_the_toy_reads_and_writes_its_sum() -> None:
    mixer = ToyPlugin().build(ToyOptions(channels=16), SHAPE, LayerInfo())
    for tokens in (1, 2, 9):
        seen = step_reads(mixer, torch.randn(1, tokens, 8))
        assert (seen.read_bytes, seen.written_bytes) == (64, 64)


def test_zeros_written_over_zeros_are_written() -> None:
    class Clears(_WeighedRows):
        def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
            state.tensors["rows"][:, -1] = 0
            return super().step(x_t, state=state, ctx=ctx)

    mixer = Clears(_Rows(), ToyOptions(), SHAPE, LayerInfo())
    assert step_reads(mixer, torch.randn(1, 6, 8)).written_bytes == 2 * 32


def test_a_row_that_decides_a_choice_alone_is_seen_by_a_closer_look() -> None:
    """The row that is chosen stays so however far it is moved, and is seen where it is emptied among other rows."""

    class Chooses(_WeighedRows):
        def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
            at = int(state.lengths[0])
            chosen = state.tensors["rows"][:, :at].sum(-1).abs().argmax(-1)
            _, after = super().step(x_t, state=state, ctx=ctx)
            return x_t + chosen[:, None], after

    mixer = Chooses(_Rows(), ToyOptions(), SHAPE, LayerInfo())
    torch.manual_seed(0)
    x = torch.randn(1, 6, 8)
    assert step_reads(mixer, x).read_bytes == 4 * 32
    assert step_reads(mixer, x, closer=True).read_bytes == 5 * 32


def test_integers_that_stay_may_have_been_written() -> None:
    class Counts(_Rows):
        def state(self, options: ToyOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
            place = StateTensor(name="place", row_shape=(1,), dtype="int64", role="recurrent", base=1)
            return (*super().state(options, shape, layer), place)

    class Keeps(_WeighedRows):
        def step(self, x_t: Tensor, *, state: MixerState, ctx: Context) -> tuple[Tensor, MixerState]:
            y, after = super().step(x_t, state=state, ctx=ctx)
            tensors = {**after.tensors, "place": state.tensors["place"]}
            return y, MixerState(tensors=tensors, lengths=after.lengths, capacity=after.capacity)

    seen = step_reads(Keeps(Counts(), ToyOptions(), SHAPE, LayerInfo()), torch.randn(1, 6, 8))
    assert (seen.written_bytes, seen.untold_bytes) == (32, 8)
