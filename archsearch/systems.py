"""Systems: what the field published under a name, in one line, as a preset of a plugin stands for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class System:
    """A published mixer: ``rule`` is what it does to a token in one line of plain text, S a state, q, k and v of the
    token; ``source`` is where it was published, such as "arXiv 2412.06464"."""

    rule: str
    source: str
