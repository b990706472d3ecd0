"""Text from specs and plugins, made safe for what Streamlit reads as Markdown."""

from __future__ import annotations

import re

_LINKS = re.compile(r"(?i)(?<=http)(?=s?://)|(?<=www)(?=\.)|(?=@)")
_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:^=])")


def plain(text: str) -> str:
    """`text` as it stands, for a place that reads Markdown: no emphasis, no HTML, no colour, no formula, and no link.

    What would become a link by itself gets a word joiner, which takes no room, inside it.
    """
    return _SPECIAL.sub(r"\\\1", _LINKS.sub("\u2060", text))


def code(text: str) -> str:
    """`text` as it stands and in the type of code, within a line of Markdown."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{' '.join(text.split())}{space}{fence}"


def capitalised(text: str) -> str:
    """A clause as a sentence: a capital first, a full stop at the end."""
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith(".") else ".")


def shortened(text: str, most: int = 60) -> str:
    """`text` in at most `most` characters; what is left out is marked by an ellipsis in the middle."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"
