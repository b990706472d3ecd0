"""``archsearch kernels``: the Triton kernels, compiled ahead of time without a card, and proven on the one there is."""

from __future__ import annotations

import typer

from archsearch.cli.kernels import candidates, compiling, listing, modelling, proving, tuning

app = typer.Typer(help="Triton kernels: compile them ahead of time, model them, prove them on the card that is here.")
for module in (compiling, modelling, candidates, proving, tuning, listing):
    module.register(app)


def register(parent: typer.Typer) -> None:
    """Adds the group."""
    parent.add_typer(app, name="kernels")
