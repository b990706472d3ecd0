"""Text of others as Markdown and as files: nothing in it is carried out."""

from __future__ import annotations

import pandas as pd
import pytest
from archsearch_dashboard.downloads import csv_bytes, safe_name
from archsearch_dashboard.text import code, plain, shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("**bold** _it_ `code`", r"\*\*bold\*\* \_it\_ \`code\`"),
        ("<b>x</b>", r"\<b\>x\</b\>"),
        ("[a](b)", r"\[a\]\(b\)"),
        ("$x$ :red[y] ~~z~~", r"\$x\$ \:red\[y\] \~\~z\~\~"),
        ("a word", "a word"),
    ],
)
def test_plain_escapes_markdown(text: str, shown: str) -> None:
    assert plain(text) == shown


@pytest.mark.parametrize("text", ["http://example.org", "HTTPS://example.org", "www.example.org", "a@example.org"])
def test_plain_makes_no_link_of_an_address(text: str) -> None:
    assert "\u2060" in plain(text)


@pytest.mark.parametrize(("text", "most"), [("short", 60), ("x" * 61, 60), ("a" * 30 + "b" * 40, 20)])
def test_shortened_keeps_both_ends(text: str, most: int) -> None:
    short = shortened(text, most)
    assert len(short) <= most
    assert (short[0], short[-1]) == (text[0], text[-1])
    assert ("…" in short) == (len(text) > most)


def test_a_cell_is_no_formula() -> None:
    table = pd.DataFrame({"=a": ["=1+1", "+cmd", "@x", "-", "-0.5", "plain"], "value": [1.5, -2.0, 0, 1, 2, 3]})
    lines = csv_bytes(table).decode().splitlines()
    assert lines[1:] == ["'=1+1,1.5", "'+cmd,-2.0", "'@x,0.0", "-,1.0", "-0.5,2.0", "plain,3.0"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("quick-candidates.csv", "quick-candidates.csv"),
        ("../../etc/passwd.csv", "etc-passwd.csv"),
        ("<b> & 'x'.html", "b-x.html"),
        ("***.csv", "search.csv"),
    ],
)
def test_safe_name(text: str, name: str) -> None:
    assert safe_name(text) == name
    assert len(safe_name("x" * 500 + ".csv")) <= 100


@pytest.mark.parametrize(
    ("text", "written"),
    [("full*3", "`full*3`"), ("`b` **c**", "`` `b` **c** ``"), ("<b>x</b>\n# y", "`<b>x</b> # y`")],
    ids=["plain", "backticks", "html-and-lines"],
)
def test_code_in_a_line_cannot_end_before_its_end(text: str, written: str) -> None:
    assert code(text) == written
