"""Forms: which rows "auto" takes on a card, proven at their first use; decided once, and fixed for the whole of a
trial."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

from archsearch.errors import KernelUnavailableError, OptionsError, listing, nearest
from archsearch.evidence.kept import kept
from archsearch.evidence.proofs import Machine, Proof, Proofs, proofs, proven_source
from archsearch.evidence.records import row_text
from archsearch.evidence.standing import PROVE
from archsearch.evidence.tuned import tuned_row
from archsearch.kernels import device as devices
from archsearch.kernels import machine as machines
from archsearch.kernels.config import Key, Table
from archsearch.kernels.device import arch_of, obstacle
from archsearch.kernels.prove import NotTriedError, OutOfTimeError, Prover, Row

if TYPE_CHECKING:
    import torch

POLICIES = ("first-use", "listed", "never")
"""A row is proven when it is first met; only proofs that there are count; no kernel is taken."""

TRACED = "it is not proven yet, and nothing is proven inside torch.compile"
CAPTURED = "it is not proven yet, and nothing is proven while a CUDA graph is captured"
LISTED = "it is not proven yet, and nothing is proven at this moment"

Use: TypeAlias = tuple[str, str, Key, str, str]
"""Package, op, row, dtype, and the digest of a tuned row's configurations (empty for the table's own)."""

prover = Prover()
"""How a row is proven at its first use."""

_log = logging.getLogger("archsearch.impl")
Place: TypeAlias = tuple[str, str, Key, str, int | None]
"""Device, op, row, dtype, and the number of the candidate that the row runs with: all dtypes and cards of an
architecture share it, so that what is decided for one says nothing of another's."""

_decided: dict[Place, str | None] = {}
"""Why "auto" does not take a row in this process, None where it does."""

_late: dict[tuple[str, str], str] = {}
"""By device and label the rows that ran out of time in this process, which does not try them again, and why."""


_listed: list[list[Row]] = []
"""Where rows go that are not to be proven now; the innermost is the last, as of `_held`."""


@dataclass(frozen=True, kw_only=True)
class Forms:
    """The rows that "auto" takes in a trial, whatever is proven meanwhile; ``taken`` are those that it took,
    ``settled`` those whose configurations it settled itself, when it first met them."""

    proven: frozenset[Use]
    taken: set[str] = field(default_factory=set, compare=False)
    settled: set[tuple[str, Key]] = field(default_factory=set, compare=False)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of the rows."""
        return digest_of(self.proven)

    @property
    def told(self) -> str:
        """The rows that were taken, in words."""
        return "; ".join(sorted(self.taken)) or "none"


_held: list[Forms] = []
"""The innermost is that of the trial that runs; a list, since gradients are computed on a thread of their own."""


def policy() -> str:
    """Raises `OptionsError` for a value of ``ARCHSEARCH_PROVE`` that is no policy."""
    found = os.environ.get(PROVE) or POLICIES[0]
    if found not in POLICIES:
        raise OptionsError(f"{PROVE}={found}: unknown{nearest(found, POLICIES)}; use {listing(POLICIES)}")
    return found


def refusal(table: Table, device: torch.device, head_dim: int, chunk: int, dtype: str, *, traced: bool) -> str | None:
    """Why "auto" does not take the Triton kernel of the row that serves a call on a card, None where it does.

    A row of which nothing is known is proven first, unless ``ARCHSEARCH_PROVE`` says otherwise or the call is `traced`
    or captured. Raises `OptionsError` as `policy` does.
    """
    hindrance = obstacle(device)
    if hindrance:
        return hindrance
    try:
        key = table.key(arch_of(device), head_dim, chunk)
    except KernelUnavailableError as error:
        return str(error)
    if _held:
        return _in_trial(_held[-1], table, key, dtype, device)
    place = _place(device, table, key, dtype)
    if place not in _decided:
        why = _undecided(table, key, dtype, device, traced=traced)
        if why == LISTED:
            return why
        if why in (TRACED, CAPTURED):
            _warn(f"{label(table.op, key, dtype)} runs in PyTorch: {why}; a call before, or kernels prove, proves it")
            return why
        place = _place(device, table, key, dtype)  # with the configurations that it came to
        _decided[place] = why
    return _decided[place]


def _place(device: torch.device, table: Table, key: Key, dtype: str) -> Place:
    return str(device), table.op, key, dtype, table.candidate(key)


def _in_trial(forms: Forms, table: Table, key: Key, dtype: str, device: torch.device) -> str | None:
    if _place(device, table, key, dtype) not in _decided and (table.op, key) not in forms.settled:
        # where only proofs that there are count, no model was run before the trial
        forms.settled.add((table.op, key))
        machine = machines.machine_of(device)
        number = None if machine is None else tuned(table, key, machine)
        with table.using(key, number):
            proven = _use(table, key, dtype) in forms.proven
        table.use(key, number if proven else None)
    use = _use(table, key, dtype)
    if use not in forms.proven:
        return f"{label(table.op, key, dtype)} was not proven when this trial began"
    forms.taken.add(label(table.op, key, dtype) + (f" tuned {use[-1]}" if use[-1] else ""))
    return None


def _undecided(table: Table, key: Key, dtype: str, device: torch.device, *, traced: bool) -> str | None:
    rule, named = policy(), label(table.op, key, dtype)
    if rule == "never":
        return f"{PROVE}=never"
    machine = machines.machine_of(device)
    assert machine is not None
    table.use(key, tuned(table, key, machine))
    row = Row(table=table, key=key, dtype=dtype, device=str(device), machine=machine, candidate=table.candidate(key))
    found = row.tried()
    if found is None:
        if rule == "listed":
            return _unlisted(named, rule)
        if (row.device, row.label) in _late:
            return _late[row.device, row.label]  # which was said
        if traced:
            return TRACED
        if _capturing(device):
            return CAPTURED
        if _listed:
            _listed[-1].append(row)
            return LISTED
        return prove_row(row)
    why = _failed(found, named)
    return None if why is None else _warned(why)


def prove_row(row: Row) -> str | None:
    """Proves a row that was met, and says so; why "auto" does not take it, None where it does."""
    why = prove_now(row)
    return None if why is None else _warned(why)


def prove_now(row: Row) -> str | None:
    """Proves a row, and says that it begins; why it is not proven then, None where it is."""
    named = row.label
    _log.warning("%s is proven before its first use, in a process of its own, which may take a minute or two", named)
    try:
        return _failed(prover.prove(row), named)
    except OutOfTimeError as error:
        _late[row.device, named] = f"{named}: {error}"
        return _late[row.device, named]
    except NotTriedError as error:
        return f"{named}: {error}"


def why_unproven(row: Row) -> str | None:
    """Why a row is not to be run where it is asked for by name, None where it is proven: one of which nothing is known
    is proven first where ``ARCHSEARCH_PROVE`` lets "auto" do so, and what is proven counts whatever it says. Raises
    `OptionsError` as `policy` does."""
    rule, found = policy(), row.tried()
    if found is not None:
        return _failed(found, row.label)
    if rule != "first-use":
        return _unlisted(row.label, rule)
    return _late.get((row.device, row.label)) or prove_now(row)


def _unlisted(named: str, rule: str) -> str:
    return f"{named} is not proven here, and {PROVE}={rule}: archsearch kernels prove proves it"


def _failed(found: Proof, named: str) -> str | None:
    return None if found.passed else f"{named} failed on this card: {found.fault}"


@contextmanager
def listing_unproven() -> Iterator[list[Row]]:
    """While the block runs, rows that would be proven at their first use are listed instead, each as often as it is
    met, and PyTorch runs in their place: where the time that a proof takes would be somebody's."""
    found: list[Row] = []
    _listed.append(found)
    try:
        yield found
    finally:
        _listed.pop()


def _warned(why: str) -> str:
    _warn(f"{why}; PyTorch runs in its place")
    return why


@cache
def _warn(text: str) -> None:
    """Once in a process: a decision is made anew before each trial."""
    _log.warning("%s", text)


def tuned(table: Table, key: Key, machine: Machine) -> int | None:
    """The candidate that `archsearch kernels tune` found fastest on a machine, None where the table's own row is."""
    found = tuned_row(table.op, table.package, key, machine)
    numbers = table.numbers(key) if found is not None and found.config else ()
    return next((number for number in numbers if found and table.digest(key, number) == found.config), None)


def _capturing(device: torch.device) -> bool:
    import torch

    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def label(op: str, key: Key, dtype: str) -> str:
    """A row in a dtype, for people."""
    return f"{op} {row_text(key)} {dtype}"


def _use(table: Table, key: Key, dtype: str) -> Use:
    return table.package, table.op, key, dtype, table.digest(key, table.candidate(key))


def proven_here(packages: Iterable[str], device: torch.device) -> frozenset[Use]:
    """The rows of some packages, and of those below them, that "auto" takes on a device as it is now: of their lists,
    and of what was proven here."""
    if policy() == "never":
        return frozenset()
    machine = machines.machine_of(device) if devices.takes_kernels(device) else None
    known: dict[Use, bool] = {}
    for package in packages:
        for holder in Proofs.holders(package):
            known |= {_use_of(holder, proof): True for proof in proofs(holder)}
        for proof in kept():
            held_here = proof.machine == machine and below(proof.package, package)
            if held_here and proof.source == proven_source(proof.package):
                known[_use_of(proof.package, proof)] = proof.passed
    return frozenset(use for use, passed in known.items() if passed)


def _use_of(package: str, proof: Proof) -> Use:
    return package, proof.op, proof.key, proof.dtype, proof.config


def below(package: str, other: str) -> bool:
    """Whether a package is another, or lies in it."""
    return package == other or package.startswith(f"{other}.")


def digest_of(uses: Iterable[Use]) -> str:
    """16 hexadecimal digits of rows."""
    return hashlib.sha256(repr(sorted(uses)).encode()).hexdigest()[:16]


@contextmanager
def held(forms: Forms | None) -> Iterator[None]:
    """While the block runs, "auto" takes the rows of `forms` and no other; None changes nothing."""
    if forms is None:
        yield
        return
    _held.append(forms)
    try:
        yield
    finally:
        _held.pop()


def forget() -> None:
    """What was decided in this process is decided anew: before a trial, which looks at what is proven by then."""
    _decided.clear()
