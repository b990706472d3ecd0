"""Op forms: for each op of each mixer the form that runs on this machine and on each known card, why, and proven when;
told without torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module

from archsearch.errors import ArchsearchError, foreign_code
from archsearch.evidence.conformance import package_of
from archsearch.evidence.proofs import SHARED, triton_version
from archsearch.evidence.records import row_text
from archsearch.evidence.standing import PROVE, Standing, is_installed, standings
from archsearch.kernels import Table
from archsearch.kernels.forms import policy
from archsearch.kernels.machine import Card, cards_here
from archsearch.registry import Registry

CORE = "(core)"
"""Stands for the mixer where kernels are none's: the small ops around every mixer."""

NO_CARD = "no NVIDIA card is here"
NO_TRITON = 'Triton is not installed (pip install "archsearch[kernels]")'
NO_KERNELS = "it has no kernels of its own"
ELSEWHERE = "its tables are not in triton.table of its package: archsearch kernels list has its rows"
BEFOREHAND = ("bfloat16", "float32")
"""What a row is proven in beforehand; float16 is proven where it is met."""

_MOST_FAULTS = 3


@dataclass(frozen=True, kw_only=True)
class OpForm:
    """What runs an op on a card, empty for a machine without one: ``form`` is "triton", "pytorch", or both where some
    rows are taken and others are not; ``why`` says it of the rows, ``proven`` when they were put to the proof, as a day
    or as the first and the last. ``here`` is whether this is the machine that tells it, ``refused`` whether a row was
    put to the proof and is not taken."""

    mixer: str
    op: str
    form: str
    why: str
    proven: str
    card: str
    here: bool
    refused: bool = False

    @property
    def has_kernels(self) -> bool:
        """Whether there are any for it."""
        return self.why != NO_KERNELS

    @property
    def named(self) -> str:
        """The form, for people."""
        return self.form.replace("triton", "Triton").replace("pytorch", "PyTorch")

    @property
    def text(self) -> str:
        """For people, without the op."""
        when = f", proven {self.proven}" if self.proven else ""
        return f"{self.named}{f' on {self.card}' if self.card else ''}: {self.why}{when}"


def op_forms(registry: Registry, *, load: bool = False) -> list[OpForm]:
    """Of every op of every mixer, then of the core: first on this machine, then on each other card that its rows were
    put to the proof on. A mixer without kernels has a line of its own name. Raises `OptionsError` as `policy` does.

    With ``load``, tables that do not stand in ``triton.table`` of their plugin's package are looked for where it
    registers its kernels, which loads torch."""
    rule, here = policy(), cards_here()
    found = list[OpForm]()
    for mixer in [plugin.name for plugin in registry.mixers()]:
        try:
            held = tables_of_mixer(registry, mixer, load=load)
            why = ELSEWHERE if registry.measured(mixer).has_kernels else NO_KERNELS
        except ArchsearchError as error:
            held, why = [], str(error)
        if not held:
            found.append(
                OpForm(mixer=mixer, op=mixer, form="pytorch", why=why, proven="", card=_named(here[:1]), here=True)
            )
        found += [form for table in held for form in _of_table(mixer, table, here, rule)]
    return found + [form for table in tables_of(SHARED) for form in _of_table(CORE, table, here, rule)]


def registered_tables(registry: Registry) -> dict[str, Table]:
    """Every table of the core and of the registered mixers by its op, wherever a plugin keeps it; loads torch where
    that is not ``triton.table``."""
    named = [table for mixer in registry.mixers() for table in tables_of_mixer(registry, mixer.name, load=True)]
    return dict(sorted((table.op, table) for table in [*tables_of(SHARED), *named]))


def tables_of_mixer(registry: Registry, mixer: str, *, load: bool = False) -> list[Table]:
    """The tables of a mixer's plugin, as `op_forms` finds them."""
    package = package_of(registry.mixer(mixer))
    measured = registry.measured(mixer)
    if not measured.has_kernels:
        return []
    with foreign_code(f'mixer "{mixer}"', "its tables of kernels"):
        held = [] if package is None else tables_of(package)
        if not held and load:
            checks = list(measured.checks())
            held = list({check.table.op: check.table for check in checks}.values())
    return held


def tables_of(package: str) -> list[Table]:
    """The tables in ``triton.table`` of a package, or in ``table`` of one that holds kernels itself, by their ops."""
    for name in (f"{package}.triton.table", f"{package}.table"):
        if is_installed(name):
            held = vars(import_module(name)).values()
            found = {table.op: table for table in held if isinstance(table, Table)}
            if found:
                return [found[op] for op in sorted(found)]
    return []


def _of_table(mixer: str, table: Table, here: Sequence[Card], rule: str) -> Iterator[OpForm]:
    known = [row for row in standings([table.package]) if row.op == table.op]
    if not here:
        yield OpForm(mixer=mixer, op=table.op, form="pytorch", why=NO_CARD, proven="", card="", here=True)
    for card in here:
        yield _on_card(mixer, table, card, known, rule, here=True)
    others = dict.fromkeys((row.card, row.arch) for row in known)
    for name, arch in others:
        if name not in {card.label for card in here}:
            label, _, driver = name.partition(", driver ")
            yield _on_card(mixer, table, Card(label, driver, arch), known, rule, here=False)


def _on_card(mixer: str, table: Table, card: Card, known: Iterable[Standing], rule: str, *, here: bool) -> OpForm:
    mine = [row for row in known if row.card == card.label or (row.listed and row.arch == card.arch)]
    rows = {(row_text(key), dtype) for key in table.rows if key[0] == card.arch for dtype in BEFOREHAND}
    told = {(row.row, row.dtype): row for row in sorted(mine, key=lambda row: row.form == "pytorch")}
    taken = [row for row in told.values() if row.form == "triton"]
    if here and triton_version() is None:
        form, why = "pytorch", NO_TRITON
    elif not rows:
        archs = ", ".join(sorted({key[0] for key in table.rows}))
        form, why = "pytorch", f"it has no configuration for {card.arch}, only for {archs}"
    else:
        form = "triton" if rows <= {(row.row, row.dtype) for row in taken} else "triton and pytorch"
        form = form if taken else "pytorch"
        why = "; ".join(_reasons(told, len(rows - told.keys()), rule))
    days = sorted({row.proven for row in told.values()})
    return OpForm(
        mixer=mixer,
        op=table.op,
        form=form,
        why=why,
        proven=" to ".join(dict.fromkeys([*days[:1], *days[-1:]])),
        card=card.label,
        here=here,
        refused=len(taken) < len(told),
    )


def _reasons(told: Mapping[tuple[str, str], Standing], unknown: int, rule: str) -> Iterator[str]:
    """What is to be said of the rows: how many are taken, then those that are not by their reasons, then the rest."""
    taken = sum(row.form == "triton" for row in told.values())
    if taken:
        yield f"{taken} of {len(told) + unknown} rows passed"
    faults: dict[str, list[str]] = {}
    for (row, dtype), standing in told.items():
        if standing.form != "triton":
            faults.setdefault(standing.why, []).append(f"{row} {dtype}")
    for why, rows in list(faults.items())[:_MOST_FAULTS]:
        yield f"{rows[0]}{f' and {len(rows) - 1} more' * (len(rows) > 1)}: {why}"
    if len(faults) > _MOST_FAULTS:
        yield f"{len(faults) - _MOST_FAULTS} further reasons: archsearch kernels list has them"
    if unknown:
        yield f"{unknown} {_unproven(rule)}" if told else _unproven(rule)


def _unproven(rule: str) -> str:
    return {
        "never": f"not proven, and {PROVE}=never",
        "listed": f"not proven yet, and {PROVE}=listed: archsearch kernels prove proves them",
    }.get(rule, "not proven yet: their first use on this card proves them")


def _named(cards: Sequence[Card]) -> str:
    return cards[0].label if cards else ""
