"""Systems of the field: the table of README.md and of the page of the mixers."""

from __future__ import annotations

from collections import Counter

from archsearch.analysis.catalogue import systems
from reference.registered import registry
from reference.texts import code, table


def systems_table(page: str = "#{}") -> str:
    """One row a system: the name it runs by, the mixer, its rule, where it was published, how its state grows.

    `page` is the address of a mixer's page, by its name or by the ``folder`` of its plugin.
    """
    columns = ["system", "mixer", "family", "rule, in a line", "published", "state"]
    return table(
        columns,
        (
            [
                code(entry.name),
                f"[{entry.mixer}]({page.format(entry.mixer, folder=_folder(entry.mixer))})",
                entry.family,
                entry.rule,
                entry.source,
                entry.growth or "by its place",
            ]
            for entry in systems(registry())
        ),
    )


def _folder(mixer: str) -> str:
    """Of the plugin that has a mixer."""
    return type(registry().mixer(mixer)).__module__.rpartition(".")[2]


def systems_counted() -> str:
    """How many there are, in a sentence."""
    counts = Counter(entry.family for entry in systems(registry()))
    told = ", ".join(f"{count} {family}" for family, count in sorted(counts.items()))
    return f"{counts.total()} systems of the field run here ({told})."
