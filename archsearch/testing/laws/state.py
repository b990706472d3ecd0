"""Laws of the state: it is allocated as promised, keeps its sizes, and is all that decoding keeps."""

from __future__ import annotations

from dataclasses import replace

import torch

from archsearch.mixer import Dtype
from archsearch.model import Context, MixerState
from archsearch.testing.case import Case
from archsearch.testing.laws.law import LawBroken, law
from archsearch.testing.laws.runs import continued, rebuilt, same, seeded, whole

CAPACITIES = (1, 7, 130)
DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16", "float16")


@law(
    "init_state() allocates the tensors that state() promises, for every capacity and dtype, in every layer.",
    cause="rows by another rule than base + min(cap, ceil(capacity / stride)), or a dtype that does not follow",
    runs_layer=False,
)
def state_allocates_the_bytes_it_promises(case: Case) -> None:
    """The state of three sequences, in the case's layer and in others of the pattern."""
    for place in [case, *map(case.at, case.places())]:
        mixer = place.build()
        for dtype in DTYPES:
            promised = place.figures(replace(case.shape, dtype=dtype)).state()
            wanted = {row.name: (row.row_shape, getattr(torch, row.dtype)) for row in promised}
            for capacity in CAPACITIES:
                state = mixer.init_state(3, capacity, dtype=getattr(torch, dtype))
                rows = {row.name: row.rows(capacity) for row in promised}
                where = f"in layer {place.layer.index}, for {capacity} tokens of {dtype}"
                _is_promised(
                    state, {name: ((3, rows[name], *shape), kind) for name, (shape, kind) in wanted.items()}, where
                )
                if state.lengths.tolist() != [0, 0, 0] or state.capacity != capacity:
                    raise LawBroken(
                        f"the new state has lengths {state.lengths.tolist()}, capacity {state.capacity} {where}"
                    )


def _is_promised(state: MixerState, wanted: dict[str, tuple[tuple[int, ...], torch.dtype]], where: str) -> None:
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state.tensors.items()}
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise LawBroken(f'tensor "{name}" is {_told(found.get(name))}, promised {_told(wanted.get(name))} {where}')


def _told(tensor: tuple[tuple[int, ...], torch.dtype] | None) -> str:
    return "not there" if tensor is None else f"{list(tensor[0])} of {str(tensor[1]).removeprefix('torch.')}"


@law(
    "Decoding changes no size of the state, and counts its tokens.",
    cause="a cache that is grown by concatenation, or lengths that are counted twice or not at all",
)
def state_keeps_its_sizes_while_decoding(case: Case) -> None:
    """Twenty tokens, in prefills and steps."""
    mixer = case.mixer()
    state = mixer.init_state(2, 20)
    before = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state.tensors.items()}
    with torch.no_grad():
        _, state = continued(mixer, case.inputs(2, 20), [11, 1, 1, 6, 1], state)
    _is_promised(state, before, "as it was before decoding")
    if state.lengths.tolist() != [20, 20] or state.capacity != 20:
        raise LawBroken(
            f"after 20 tokens of 20 the state has lengths {state.lengths.tolist()}, capacity {state.capacity}"
        )


@law(
    "The state's tensors, lengths and capacity are all that decoding keeps.",
    cause="a cache in an attribute of the state or of the layer, which is neither counted nor copied",
)
def state_is_all_that_decoding_keeps(case: Case) -> None:
    """Decoding goes on from a copy of the tensors alone, in a new layer of the same weights."""
    x, pieces = case.inputs(2, 40), [9, 1, 1, 7, 1, 1]
    rest = [1, 1, 6, *[1] * 12]
    mixer, fresh = case.mixer(), case.mixer()
    fresh.load_state_dict(mixer.state_dict())
    with torch.no_grad():
        _, state = continued(mixer, x[:, :20], pieces, mixer.init_state(2, 40))
        copy = rebuilt(state)
        wanted, _ = continued(mixer, x[:, 20:], rest, state)
        found, _ = continued(fresh, x[:, 20:], rest, copy)
    same(found, wanted, "20 tokens later, decoding from a copy of the state's tensors differs", case.tolerance)


@law(
    "Room for more tokens changes nothing.",
    cause="rows that never came being attended to, or sizes that follow the capacity instead of the lengths",
)
def spare_capacity_changes_nothing(case: Case) -> None:
    """A state of just the tokens that come, and one of many more."""
    mixer, x, pieces = case.mixer(), case.inputs(2, 40), [30, *[1] * 10]
    with torch.no_grad():
        exact, _ = continued(mixer, x, pieces, mixer.init_state(2, 40))
        spare, _ = continued(mixer, x, pieces, mixer.init_state(2, 171))
    same(spare, exact, "with a capacity of 171 for 40 tokens decoding differs", case.tolerance)


@law(
    "A state is returned when one is wanted, and only then, and wanting one changes no output.",
    cause="a forward that forgets Context.want_state, or that runs another form when a state is wanted",
)
def a_wanted_state_is_returned(case: Case) -> None:
    """One prefill without a state given."""
    mixer, x = case.mixer(), case.inputs(2, 9)
    with torch.no_grad(), seeded():
        out, state = mixer(x.clone(), ctx=Context(want_state=True))
        _, none = mixer(x.clone(), ctx=Context())
        if none is not None:
            raise LawBroken("a state is returned that nobody wanted")
        if not isinstance(state, MixerState) or state.lengths.tolist() != [9, 9]:
            raise LawBroken(f"a state of 9 tokens is wanted, and {getattr(state, 'lengths', state)} is returned")
        same(out, whole(mixer, x), "where a state is wanted forward differs", case.tolerance)


LAWS = (
    state_allocates_the_bytes_it_promises,
    state_keeps_its_sizes_while_decoding,
    state_is_all_that_decoding_keeps,
    spare_capacity_changes_nothing,
    a_wanted_state_is_returned,
)
