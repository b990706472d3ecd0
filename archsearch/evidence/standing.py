"""Standing: which form the rows of kernels run in here, why, and since when; told without torch."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from archsearch.evidence.kept import kept
from archsearch.evidence.proofs import Proof, Proofs, card_label, proven_source, triton_version
from archsearch.evidence.records import row_text

PROVE = "ARCHSEARCH_PROVE"
"""The environment variable that says which rows "auto" takes; "never" is none."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A row in a dtype as it was last put to the proof on a card: the form that runs there, "triton" or "pytorch", why,
    and the day. What is `listed` in a package holds on every card of the architecture."""

    op: str
    row: str
    dtype: str
    form: str
    why: str
    card: str
    proven: str
    arch: str
    listed: bool


def standings(packages: Iterable[str]) -> list[Standing]:
    """Of every proof of some packages, and of those below them: in their lists, then those of this user's cache."""
    packages = list(packages)
    listed = [holder for package in packages for holder in Proofs.holders(package)]
    found = [_standing(holder, proof) for holder in listed for proof in Proofs.listed(holder)]
    owned = [proof for proof in kept() if any(f"{proof.package}.".startswith(f"{package}.") for package in packages)]
    return [*found, *(_standing(proof.package, proof) for proof in owned)]


def _standing(package: str, proof: Proof) -> Standing:
    changed = stale(package, proof)
    if changed:
        form, why = "pytorch", f"{changed}: it is proven again at its next use"
    elif proof.timeouts:
        times = "once" if proof.timeouts == 1 else f"{proof.timeouts} times in a row"
        form, why = "pytorch", f"not proven, ran out of time {times} ({proof.fault}): its next first use tries again"
    elif proof.passed:
        form, why = "triton", f"passed {proof.cases} cases" if proof.cases else "passed"
        if os.environ.get(PROVE) == "never":
            form, why = "pytorch", f"{PROVE}=never: no kernel is taken, though it {why}"
    else:
        form, why = "pytorch", f"failed: {proof.fault}"
    tuned = f" tuned {proof.config}" if proof.config else ""
    row = f"{row_text(proof.key)}{tuned}"
    return Standing(
        op=proof.op,
        row=row,
        dtype=proof.dtype,
        form=form,
        why=why,
        card=card_label(proof.card, proof.driver),
        proven=proof.date,
        arch=proof.arch,
        listed=not proof.package,
    )


def stale(package: str, proof: Proof) -> str:
    """What has changed since a proof was made, as far as it can be told without a card; empty for nothing."""
    if not is_installed(package):
        return f"{package} is not installed any more"
    if proof.source != proven_source(package):
        return "the kernels have changed"
    if proof.triton != triton_version():
        return f"Triton was {proof.triton}"
    if proof.package and proof.torch.partition("+")[0] != _torch_version():
        return f"torch was {proof.torch}"
    return ""


def is_installed(package: str) -> bool:
    """Whether a package can be found here."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def _torch_version() -> str | None:
    try:
        return version("torch").partition("+")[0]
    except PackageNotFoundError:
        return None
