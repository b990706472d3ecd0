"""Laws of a model: layers of the mixer, several in one `HybridLM`, decode as they read, and stand where they may."""

from __future__ import annotations

import torch
from torch import Tensor

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.composition import refusal
from archsearch.errors import SpecError
from archsearch.layer import Resolver
from archsearch.model import HybridLM
from archsearch.testing.case import Case
from archsearch.testing.laws import forms
from archsearch.testing.laws.law import LawBroken, NothingToTry, law
from archsearch.testing.laws.runs import same, seeded

TOKENS, PROMPT = 24, 9
META = 4


@law(
    "A model of several such layers decodes what its forward pass gives, with meta tokens and without.",
    cause="a cache of the class or of the module that layers share, or a shared value without the layer's index",
    declared="split",
)
def a_model_decodes_as_it_reads(case: Case) -> None:
    """A prefill and steps of a whole model."""
    for meta in (0, META):
        arch = arch_of(case, meta)
        reason = refusal(arch, resolver_of(case))
        if reason is not None:
            raise NothingToTry(f"the plugin refuses such a model: {reason}")
        model = built(case, arch)
        tokens = _tokens(case)
        with torch.no_grad(), seeded():
            wanted = model(tokens)[:, PROMPT - 1 :]
            found = _decoded(model, tokens)
        after = f" after {META} meta tokens" if meta else ""
        what = f"(of those after a prompt of {PROMPT}) a model of {len(arch.layers)} layers{after}, decoding, differs"
        try:
            same(found, wanted, what, 10 * case.tolerance)
        except LawBroken:
            _right_alone(case)
            raise


def _right_alone(case: Case) -> None:
    """Raises `NothingToTry` where one layer by itself decodes something else already."""
    for one in (forms.forward_equals_repeated_step, forms.forward_equals_split_prefill_then_steps):
        try:
            one.check(case)
        except LawBroken as broken:
            raise NothingToTry(f"a layer alone breaks another law: {broken}") from None


def arch_of(case: Case, meta_tokens: int = 0) -> ArchSpec:
    """The case's pattern, in a backbone of nothing but its mixers."""
    shape = case.shape
    model = ModelSpec(
        d_model=shape.d_model,
        n_heads=shape.n_heads,
        n_kv_heads=shape.n_kv_heads,
        head_dim=shape.head_dim,
        dtype=shape.dtype,
        meta_tokens=meta_tokens,
        channel_mixer="none",
        vocab_size=32,
    )
    return ArchSpec(model=model, layers=case.layer.pattern or ())


def resolver_of(case: Case) -> Resolver:
    """Who knows the names of the pattern."""
    if case.layer.resolver is None:
        raise NothingToTry("the case has no resolver: make it by Case.of")
    return case.layer.resolver


def built(case: Case, arch: ArchSpec) -> HybridLM:
    """The model, from a fixed seed, in evaluation mode."""
    with seeded():
        return HybridLM(arch, resolver_of(case)).eval().to(case.device)


def _tokens(case: Case) -> Tensor:
    return torch.randint(32, (2, TOKENS), generator=torch.Generator().manual_seed(4)).to(case.device)


def _decoded(model: HybridLM, tokens: Tensor) -> Tensor:
    """Logits of every token from the last of the prompt on."""
    logits, states = model.prefill(tokens[:, :PROMPT], model.init_state(2, TOKENS))
    found = [logits]
    for token in range(PROMPT, TOKENS):
        logits, states = model.step(tokens[:, token], states)
        found.append(logits)
    return torch.stack(found, 1)


@law(
    "A layer that check() refuses is refused by the model too, and that it is tried in, it takes.",
    cause="a check() that says no where the layer is built and run, or that answers with no reason",
    runs_layer=False,
)
def refused_layers_are_not_built(case: Case) -> None:
    """Every layer of the pattern."""
    reason = case.figures().refusal()
    if reason is not None:
        raise LawBroken(f"layer {case.layer.index} of {case.layer.depth} is refused: {reason}")
    arch = arch_of(case)
    if refusal(arch, resolver_of(case)) is None:
        return
    try:
        built(case, arch)
    except SpecError:
        return
    raise LawBroken("the pattern is refused, and a model of it is built all the same")


LAWS = (a_model_decodes_as_it_reads, refused_layers_are_not_built)
