"""The pages of the documentation, as the site shows them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from reference.pages import DOCS, ROOT, filled

GENERATED = sorted(DOCS.rglob("*.md"))
PLAIN = sorted([*ROOT.glob("*.md"), *ROOT.glob("plugins/*/README.md"), *ROOT.glob("deploy/**/*.md")])


@cache
def text_of(page: Path) -> str:
    """A page with what is made from the code."""
    text = page.read_text(encoding="utf-8")
    return filled(text) if page.is_relative_to(DOCS) else text
