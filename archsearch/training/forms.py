"""The forms of a trial: kernels are proven before its clock starts, and which it may take is fixed until it ends."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from archsearch.arch import ArchSpec
from archsearch.composition import mixers_of
from archsearch.errors import foreign_code
from archsearch.evidence.conformance import package_of
from archsearch.evidence.proofs import SHARED
from archsearch.kernels import device as devices
from archsearch.kernels.forms import Forms, Use, below, forget, policy, proven_here
from archsearch.model import Context, HybridLM
from archsearch.recipe import Recipe
from archsearch.registry import Registry
from archsearch.training.judge import autocast, stepped

_TOKENS = 16
"""Which rows a model meets follows from its sizes, and not from its tokens."""


def settled_forms(
    arch: ArchSpec, recipe: Recipe, registry: Registry, *, device: torch.device, by_steps: bool
) -> Forms | None:
    """The rows that `arch` may take on a device from now on, once those that it meets and of which nothing is known are
    proven; None where "auto" takes no kernel. Trains nothing, and leaves random numbers as they are."""
    if not devices.takes_kernels(device):
        return None
    forget()
    if policy() == "first-use":
        meet_rows(arch, recipe, registry, device, by_steps=by_steps)
    return Forms(proven=proven_here(packages_of(arch, registry), device))


def settled_here(arch: ArchSpec, recipe: Recipe, registry: Registry) -> frozenset[Use]:
    """The rows of `settled_forms` on the card of this process; none without one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    forms = settled_forms(arch, recipe, registry, device=device, by_steps=True)
    return frozenset() if forms is None else forms.proven


def meet_rows(arch: ArchSpec, recipe: Recipe, registry: Registry, device: torch.device, *, by_steps: bool) -> None:
    """Runs a fresh model over a few tokens, forwards and backwards, and over one by one where it is judged so."""
    mixers = ", ".join(f'mixer "{name}"' for name in mixers_of(arch.layers, registry))
    cards = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(cards), foreign_code(mixers, "a look at its kernels"):
        torch.manual_seed(0)
        model = HybridLM(arch, registry).to(device)
        tokens = torch.zeros(1, _TOKENS, dtype=torch.int64, device=device)
        with autocast(recipe, device):
            model.logits_at(tokens, torch.ones_like(tokens, dtype=torch.bool), ctx=Context()).sum().backward()
        if by_steps:
            model.eval()
            scored = torch.arange(_TOKENS, device=device)[None] >= _TOKENS - 2
            with torch.no_grad(), autocast(recipe, device):
                stepped(model, tokens, scored, 0.0)


def packages_of(arch: ArchSpec, registry: Registry) -> list[str]:
    """The packages whose kernels an architecture may run: of its mixers, and the core's."""
    plugins = [registry.resolve(name).plugin for name in mixers_of(arch.layers, registry)]
    return [SHARED, *dict.fromkeys(filter(None, map(package_of, plugins)))]


def of_arch(uses: Iterable[Use], arch: ArchSpec, registry: Registry) -> frozenset[Use]:
    """Of rows those that an architecture may take."""
    packages = packages_of(arch, registry)
    return frozenset(use for use in uses if any(below(use[0], package) for package in packages))
