"""Reads: which bytes of a state one decode step depends on, found by disturbing them one row at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from archsearch.layer import LayerInfo
from archsearch.model import Context, Mixer, MixerState
from archsearch.testing.stack import own_prefix

_LARGE = 30.0
_DRAWS = 16
"""Of a tensor, by which a closer look replaces it."""


@dataclass(frozen=True, kw_only=True)
class StepReads:
    """Bytes of the state that a step read from before it, and bytes that it wrote, for one sequence.

    Of a `Stack`, those that its last layer read of any state, and wrote of its own; ``shared_bytes`` are those that
    the layers before it wrote of theirs, which it may have read in the same step; ``untold_bytes`` those of integers
    that stayed what they were, which it may have written.
    """

    read_bytes: int
    written_bytes: int
    shared_bytes: int = 0
    untold_bytes: int = 0


@torch.no_grad()
def step_reads(mixer: Mixer, x: Tensor, *, spare: int = 5, closer: bool = False) -> StepReads:
    """What the step for the last token of `x` `[1, T, D]` reads and writes, in units of a tensor's innermost rows.

    A unit was written when it, or the same unit disturbed, is another after the step. It was read when disturbing it
    (by a large amount either way, and by NaN, which also shows where a value is read and then multiplied by zero)
    changes the output or another unit, or what the step writes to it; what a layer before makes of its own state for
    itself counts for that layer alone.
    Rows of `spare` tokens that never came stay in the state: reading them counts too. A tensor of integers cannot
    be disturbed soundly, and is taken as read whole. Whole numbers that a layer before shares, as what it chose, stay
    what they were: it is that layer which read what they depend on.

    What decides a choice alone is seen to be read only where the choice becomes another: not the lesser keys of a block
    whose best one counts, nor those whose scores are equal. A ``closer`` look, which takes several times as long,
    disturbs the units among other values of their tensor too, that are drawn.
    """
    return stretch_reads(mixer, x, 1, spare=spare, closer=closer)[0]


@torch.no_grad()
def stretch_reads(mixer: Mixer, x: Tensor, count: int, *, spare: int = 5, closer: bool = False) -> list[StepReads]:
    """`step_reads` of each of the last `count` tokens of `x` `[1, T, D]`, one step after the other."""
    first = x.shape[1] - count
    state = mixer.init_state(1, x.shape[1] + spare, dtype=x.dtype)
    if first:
        _, state = mixer(x[:, :first].clone(), state=state, ctx=Context(want_state=True))
    found = []
    for token in range(first, x.shape[1]):
        probe = _Probe(mixer, x[:, token], state.clone(), closer=closer)
        found.append(_reads_of(probe))
        _, state = mixer.step(x[:, token].clone(), state=state, ctx=Context(want_state=True))
    return found


def _reads_of(probe: _Probe) -> StepReads:
    read = written = shared = untold = 0
    for name, tensor in probe.before.tensors.items():
        units = _units(tensor)[0]
        unit_bytes = units.shape[-1] * units.element_size()
        (written_units, read_units), own = probe.moved(name), name.startswith(own_prefix(probe.mixer))
        if own:
            written += int(written_units.sum()) * unit_bytes
            untold += 0 if tensor.is_floating_point() else int((~written_units).sum()) * unit_bytes
        else:
            shared += int(written_units.sum()) * unit_bytes
        if own or tensor.is_floating_point():
            read += int(read_units.sum()) * unit_bytes
    return StepReads(read_bytes=read, written_bytes=written, shared_bytes=shared, untold_bytes=untold)


class _Probe:
    """One step of one sequence, to be repeated with parts of its state disturbed."""

    def __init__(self, mixer: Mixer, x_t: Tensor, before: MixerState, *, closer: bool) -> None:
        self.mixer, self.x_t, self.before, self.closer = mixer, x_t, before, closer
        self.chosen: dict[tuple[int, str], Any] = {}
        self.output, self.after = self._step(x_t, before)

    def moved(self, name: str) -> tuple[Tensor, Tensor]:
        """Two of `[units]`: whether the step wrote the unit, and whether it depends on it.

        A zero written over a zero shows only on a disturbed unit; integers are never disturbed, and read as a whole.
        """
        changed = (_units(self.after[name]) != _units(self.before.tensors[name]))[0].any(-1)
        if not self.before.tensors[name].is_floating_point():
            return changed, torch.ones_like(changed)
        written, read = self._looked(name, changed, None)
        for seed in range(_DRAWS if self.closer else 0):
            more, seen = self._looked(name, changed, seed)
            written, read = written | more, read | seen
        return written, read

    def _looked(self, name: str, changed: Tensor, seed: int | None) -> tuple[Tensor, Tensor]:
        """What is seen of a tensor as it is, or as it is drawn by that seed."""
        disturbed, output, after = self._disturbed(name, seed)
        before, behind = _units(disturbed[name])[: len(changed)], _units(after[name])[: len(changed)]
        written = changed | (_own(behind) != _own(before)).any(-1)
        return written, self._read(name, written, output, after)

    def _read(self, name: str, written: Tensor, output: Tensor, after: dict[str, Tensor]) -> Tensor:
        """Against the last copy, which nothing disturbs: in a batch of another size a choice between nearly equal
        scores may be another."""
        read = _differs(output[:-1], output[-1:]).view(-1, len(written)).any(0)
        for other, tensor in after.items():
            if not other.startswith(own_prefix(self.mixer)):
                continue
            units = _units(tensor)
            # [disturbances, units, units of other]
            changed = _differs(units[:-1], units[-1:]).view(-1, len(written), units.shape[1])
            if other == name:
                changed.diagonal(dim1=1, dim2=2).logical_and_(written)
            read |= changed.any(-1).any(0)
        return read

    def _disturbed(self, name: str, seed: int | None) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]:
        """Of each disturbance, a copy of the sequence for each unit, in which that unit is disturbed, and one as it is;
        with the step from them all, `[disturbances * units + 1, ...]`."""
        count, width = _units(self.before.tensors[name]).shape[1:]
        disturbances = _disturbances(width, seed)
        copies = len(disturbances) * count + 1
        tensors = {
            key: value.expand(copies, *value.shape[1:]).clone(memory_format=torch.contiguous_format)
            for key, value in self.before.tensors.items()
        }
        if seed is not None:
            draw = torch.randn(tensors[name].shape[1:], generator=torch.Generator().manual_seed(seed))
            tensors[name].copy_(draw)
        for units, (kept, by) in zip(_units(tensors[name])[:-1].split(count), disturbances, strict=True):
            _own(units).mul_(kept).add_(by.to(units))
        lengths = self.before.lengths.repeat(copies)
        state = MixerState(tensors=tensors, lengths=lengths, capacity=self.before.capacity)
        return tensors, *self._step(self.x_t.expand(copies, -1), state)

    def _step(self, x_t: Tensor, state: MixerState) -> tuple[Tensor, dict[str, Tensor]]:
        ctx = _Choosing(want_state=True, chosen=self.chosen)
        output, after = self.mixer.step(x_t.clone(), state=state.clone(), ctx=ctx)
        return output, after.tensors


@dataclass(kw_only=True)
class _Choosing(Context):
    """A pass in which the whole numbers that layers share are those that they shared first, kept in ``chosen``."""

    chosen: dict[tuple[int, str], Any]

    def share(self, layer: LayerInfo, name: str, value: Any) -> None:
        super().share(layer, name, value)
        key = layer.index, layer.part + name
        self.shared[key] = _chosen(value, self.chosen.setdefault(key, value))


def _disturbances(width: int, seed: int | None) -> list[tuple[float, Tensor]]:
    """What a unit of that width is multiplied by, and what is added to it `[width]`: by the ``seed`` two of another
    direction."""
    even = torch.ones(width)
    found = [(1.0, _LARGE * even), (1.0, -_LARGE * even), (1.0, math.nan * even)]
    if seed is not None:
        draw = torch.randn(width, generator=torch.Generator().manual_seed(_DRAWS + seed))
        found += [(0.0, 0.0 * even), (0.0, _LARGE * draw), (0.0, -_LARGE * draw)]
    return found


def _chosen(value: Any, first: Any) -> Any:
    """`value` with the integers of `first`, which is built alike, for each sequence."""
    if isinstance(value, Tensor):
        whole = isinstance(first, Tensor) and not value.is_floating_point() and value.shape[1:] == first.shape[1:]
        return first.expand_as(value) if whole else value
    if isinstance(value, (list, tuple)):
        return type(value)(_chosen(*pair) for pair in zip(value, first, strict=True))
    if isinstance(value, dict):
        return {name: _chosen(one, first[name]) for name, one in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{one.name: _chosen(getattr(value, one.name), getattr(first, one.name)) for one in fields(value)}
        )
    return value


def _units(tensor: Tensor) -> Tensor:
    """`[B, rows, ...]` as innermost rows, `[B, units, width]`; a view where the tensor is contiguous."""
    return tensor.reshape(len(tensor), -1, tensor.shape[-1] if tensor.dim() > 2 else 1)


def _own(units: Tensor) -> Tensor:
    """`[units, width]`: of each copy the unit that is disturbed in it; a view."""
    return units.diagonal(dim1=0, dim2=1).T


def _differs(value: Tensor, base: Tensor) -> Tensor:
    """Along the last axis; rounding, which may depend on the size of a batch, is no difference."""
    tolerance = 1e-5 * (1 + base.abs().amax())
    return ~((value - base).abs() <= tolerance).all(-1)
