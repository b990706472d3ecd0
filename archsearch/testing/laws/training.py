"""Laws of training: gradients reach every parameter, and low precision runs."""

from __future__ import annotations

import torch

from archsearch.model import Context
from archsearch.testing.case import Case
from archsearch.testing.laws.law import LawBroken, NothingToTry, law
from archsearch.testing.laws.runs import continued, seeded, whole
from archsearch.testing.stack import Stack


@law(
    "Gradients are finite and reach every parameter and the input.",
    cause="a parameter that forward does not use, a detach, or a root or division at zero",
)
def gradients_are_finite_and_reach_every_parameter(case: Case) -> None:
    """One backward pass in training mode, the added losses included."""
    mixer, x, ctx = case.mixer().train(), case.inputs(2).requires_grad_(), Context()
    with seeded():
        out, _ = mixer(x.clone(), ctx=ctx)
        if not list(mixer.parameters()) and torch.equal(out, mixer(x.flip(1) + 1.0, ctx=Context())[0]):
            raise NothingToTry("it has no weights, and its output does not depend on its input")
        ((out * case.noise(out, seed=3)).sum() + sum(ctx.losses.values())).backward()
    own = mixer.own if isinstance(mixer, Stack) else mixer
    gradients = {"x": x.grad, **{name: weights.grad for name, weights in own.named_parameters()}}
    for name, gradient in gradients.items():
        if name in case.idle_parameters:
            continue
        if gradient is None:
            raise LawBroken(f"{name} has no gradient")
        if not torch.isfinite(gradient).all():
            raise LawBroken(f"the gradient of {name} is not finite")
        if not gradient.abs().max() > 0:
            raise LawBroken(f"the gradient of {name} is zero")


@law(
    "In bfloat16 outputs are finite and bfloat16, in the forward pass and in steps.",
    cause="a float32 buffer or constant that turns the output to float32, or an exponential that overflows",
)
def bfloat16_runs(case: Case) -> None:
    """The whole layer in bfloat16."""
    if case.interpreted:
        raise NothingToTry("Triton's interpreter multiplies matrices of bfloat16 wrongly")
    mixer, x = case.mixer().to(torch.bfloat16), case.inputs(2, 33).to(torch.bfloat16)
    with torch.no_grad():
        outputs = {
            "forward": whole(mixer, x),
            "decoding": continued(mixer, x, [30, 1, 1, 1], mixer.init_state(2, 33))[0],
        }
    for name, out in outputs.items():
        if out.dtype != torch.bfloat16:
            raise LawBroken(f"{name} gives {str(out.dtype).removeprefix('torch.')} for bfloat16")
        if not torch.isfinite(out).all():
            raise LawBroken(f"{name} is not finite in bfloat16")


LAWS = (gradients_are_finite_and_reach_every_parameter, bfloat16_runs)
