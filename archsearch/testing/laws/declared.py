"""The law of broken laws: what a plugin declares broken is broken."""

from __future__ import annotations

from dataclasses import replace

from archsearch.testing.case import Case
from archsearch.testing.laws import causality, forms, model, packing, positions
from archsearch.testing.laws.law import Law, LawBroken, NothingToTry, law, tried

DECLARABLE: tuple[Law, ...] = tuple(
    one for room in (forms, causality, packing, positions, model) for one in room.LAWS if one.declared
)


@law(
    "A law that the plugin declares broken fails for some of its options.",
    cause="a word of broken_laws that is out of date: take it out, as it costs the mixer its training or speed",
    runs_layer=False,
    once=True,
)
def declared_laws_are_broken(case: Case) -> None:
    """The laws of each declared word, with the case's options, and with its siblings' until one breaks them."""
    if not case.plugin.broken_laws:
        raise NothingToTry("the plugin declares no law broken")
    for word in case.plugin.broken_laws:
        if not any(_breaks(word, replace(case, options=options)) for options in (case.options, *case.siblings)):
            raise LawBroken(f'"{word}" is declared broken, but holds')


def _breaks(word: str, case: Case) -> bool:
    return any(tried(one, case).status == "declared broken" for one in DECLARABLE if one.declared == word)


LAWS = (declared_laws_are_broken,)
