"""Text from specs, plugins and databases, made safe for what Streamlit reads as Markdown, for cells and for HTML."""

from __future__ import annotations

import html
import re

from archsearch.printable import printable

_TURNED = re.compile(
    r"(?i)(?<=http)(?=s?://)|(?<=www)(?=\.)|(?=@)"  # into a link
    r"|(?<=:)(?=[\w+-][\w+/-]*:)"  # into an icon or an emoji
    r"|(?<!\S)(?=(?:<->|->|<-|--|>=|<=|~=)(?!\S))"  # into an arrow or another sign
)
"""Places in text that Streamlit turns into something else even where it is escaped."""
_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:^=]|&(?=#?\w+;))")
_GAPS = re.compile(r"[ \n\t]+")
SENTENCE = 2_000
"""Characters of a sentence, an error or a reason that a page shows; more nobody reads there."""


def plain(text: str) -> str:
    """`text` as it stands, for a place that reads Markdown: no emphasis, no HTML, no colour, no formula, and no link.

    What would become a link, an icon or a sign by itself gets a word joiner, which takes no room, inside it. Lines
    become one, and what is not seen or would turn the reading direction is written as an escape.
    """
    seen = _GAPS.sub(" ", printable(shortened(text, SENTENCE)))
    return _SPECIAL.sub(r"\\\1", _TURNED.sub("\u2060", seen))


def code(text: str) -> str:
    """`text` as it stands and in the type of code, within a line of Markdown."""
    seen = printable(" ".join(text.split())) or " "
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", seen)), default=0))
    space = " " if seen.startswith("`") or seen.endswith("`") else ""
    return f"{fence}{space}{seen}{space}{fence}"


def cell(text: object, most: int = 60) -> str:
    """`text` in one line for a cell, a list or a label that reads no Markdown, in about `most` characters."""
    return printable(shortened(str(text), most), lines=False)


def markup(text: object) -> str:
    """`text` as it stands and in one line, for HTML, between tags and in attributes."""
    return html.escape(printable(str(text), lines=False))


def capitalised(text: str) -> str:
    """A clause as a sentence: a capital first, a full stop at the end."""
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith(".") else ".")


def shortened(text: str, most: int = 60) -> str:
    """`text` in at most `most` characters; what is left out is marked by an ellipsis in the middle."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"
