"""The law of values: what a plugin says of its values is what its layer lets the backbone's value residual reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from archsearch.errors import PluginError
from archsearch.model import Context, Mixer, MixerState
from archsearch.model.value_residual import NAME, ValueResidual
from archsearch.testing.case import Case
from archsearch.testing.laws.law import LawBroken, NothingToTry, law
from archsearch.testing.laws.runs import packed_context, same, seeded
from archsearch.testing.stack import Stack

SOURCE = -1
"""The layer that the earlier values are said to come from."""
PROMPT, TOKENS = 17, 23

Call = Callable[[Context], tuple[Tensor, MixerState | None]]


@law(
    "Values that values() names are shared and mixed with earlier ones, alike in every form.",
    cause="a mix_values() that forward or step does not call, or not with all tokens, or after the core has read them",
    runs_layer=False,
)
def values_take_a_residual(case: Case) -> None:
    """As the first layer, with earlier values of weight 0, and with half of both."""
    said = case.figures().values()
    if said is None:
        raise NothingToTry("the plugin says that it has no values of heads")
    mixer, x = case.mixer(), case.inputs(2, TOKENS)
    first = case.noise(x.new_empty(2, TOKENS, *said), seed=5)
    plain = _out(case, mixer, x, None)
    _shares(case, mixer, x, said, plain)
    with _residual(case, mixer, (1.0, 0.0)):
        same(_out(case, mixer, x, first), plain, "with earlier values of weight 0 the layer differs", case.tolerance)
    with _residual(case, mixer, (0.5, 0.5)):
        mixed = _out(case, mixer, x, first)
        if torch.equal(mixed, plain):
            raise LawBroken("earlier values change nothing")
        _apart(case, mixer, x, first)
        _decodes(case, mixer, x, first, mixed)
        _has_gradient(case, mixer, x, first)


def _shares(case: Case, mixer: Mixer, x: Tensor, said: tuple[int, int], plain: Tensor) -> None:
    ctx = Context()
    with _residual(case, mixer, None):
        same(_run(mixer, x, ctx)[0], plain, "sharing its values changes the layer's output", case.tolerance)
    shared = ctx.shared.get((case.layer.index, case.layer.part + NAME))
    wanted = (2, TOKENS, *said)
    if not isinstance(shared, Tensor) or shared.shape != wanted:
        found = "none" if not isinstance(shared, Tensor) else str(list(shared.shape))
        raise LawBroken(f"values() says {list(wanted)} for {TOKENS} tokens of 2 sequences, and {found} are shared")


def _apart(case: Case, mixer: Mixer, x: Tensor, first: Tensor) -> None:
    """Packed sequences, each as if alone."""
    lengths = (9, TOKENS - 9)
    pieces = zip(x[:1].split(lengths, 1), first[:1].split(lengths, 1), strict=True)
    alone = torch.cat([_out(case, mixer, *piece) for piece in pieces], dim=1)
    ctx = packed_context(case, lengths)
    ctx.shared[SOURCE, NAME] = first[:1]
    same(_run(mixer, x[:1], ctx)[0], alone, "with earlier values packed sequences differ", case.tolerance)


def _decodes(case: Case, mixer: Mixer, x: Tensor, first: Tensor, wanted: Tensor) -> None:
    """A prompt, then steps; a mixer whose decoding differs by design is tried for errors alone."""
    state: MixerState | None = mixer.init_state(2, TOKENS)
    found = []
    for start, end in ((0, PROMPT), *((token, token + 1) for token in range(PROMPT, TOKENS))):
        ctx = Context(want_state=True, shared={(SOURCE, NAME): first[:, start:end]})
        assert state is not None
        out, state = _run(mixer, x[:, start:end], ctx, state=state, step=end - start == 1)
        found.append(out)
    if not {"split", "step"} & set(case.plugin.broken_laws):
        same(torch.cat(found, dim=1), wanted, "with earlier values decoding differs", case.tolerance)


def _has_gradient(case: Case, mixer: Mixer, x: Tensor, first: Tensor) -> None:
    first = first.clone().requires_grad_()
    mixer.train()
    try:
        with torch.enable_grad():
            _run(mixer, x, Context(shared={(SOURCE, NAME): first}))[0].square().sum().backward()
    finally:
        mixer.eval().zero_grad()
    if first.grad is None or not torch.isfinite(first.grad).all() or not first.grad.abs().max() > 0:
        raise LawBroken("no finite gradient reaches the earlier values")


@contextmanager
def _residual(case: Case, mixer: Mixer, weights: tuple[float, float] | None) -> Iterator[None]:
    """The layer with the two weights of what it mixes, as the first layer where there are none."""
    own = mixer.own if isinstance(mixer, Stack) else mixer
    residual = ValueResidual(case.layer, None if weights is None else (SOURCE, ""), learned=True).to(case.device)
    if residual.weights is not None and weights is not None:
        residual.weights = torch.nn.Parameter(torch.tensor(weights, device=case.device))
    own.value_residual = residual
    try:
        yield
    finally:
        own.value_residual = None


def _out(case: Case, mixer: Mixer, x: Tensor, first: Tensor | None) -> Tensor:
    shared = {} if first is None else {(SOURCE, NAME): first}
    with torch.no_grad():
        return _run(mixer, x, Context(shared=shared))[0]


def _run(
    mixer: Mixer, x: Tensor, ctx: Context, *, state: MixerState | None = None, step: bool = False
) -> tuple[Tensor, MixerState | None]:
    """`x` `[B, T, D]`; raises `LawBroken` for values of another shape than earlier ones of `values()`."""
    try:
        with seeded():
            if not step or state is None:
                out, after = mixer(x.clone(), state=state, ctx=ctx)
                return out, after
            y, after = mixer.step(x[:, 0].clone(), state=state, ctx=ctx)
            return y[:, None], after
    except PluginError as error:
        raise LawBroken(f"with earlier values of the shape that values() says: {error}") from None


LAWS = (values_take_a_residual,)
