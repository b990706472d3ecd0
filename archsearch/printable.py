"""Printable text: what came from elsewhere, shown so that it can neither steer a terminal nor hide in it."""

from __future__ import annotations

import unicodedata

_KEPT = frozenset("\n\t")
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories of characters that steer or hide: controls, formats (direction marks, joiners), surrogates."""


def printable(text: str, *, lines: bool = True) -> str:
    """`text` with every character that steers a terminal or is not seen written as Python escapes it (``\\x1b``).

    Line ends and tabs stay, unless `lines` is false: then they are escaped too, for a cell or a name in a sentence.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if _shown(character, lines) else _escaped(character) for character in text)


def _shown(character: str, lines: bool) -> bool:
    if character in _KEPT:
        return lines
    return unicodedata.category(character) not in _UNSEEN


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
