"""Text of others as Markdown and as files: nothing in it is carried out."""

from __future__ import annotations

import pandas as pd
import pytest
from archsearch_dashboard.downloads import safe_name
from archsearch_dashboard.tables import shown
from archsearch_dashboard.text import cell, code, markup, plain, shortened

from archsearch.analysis.csv_text import csv_bytes


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
    assert lines[0] == "'=a,value"
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


@pytest.mark.parametrize("head", ["=", "+", "-", "@", "\t", "\r", "\n", "＝"], ids=lambda head: f"{ord(head):x}")
def test_no_text_leaves_as_a_formula_and_every_number_as_a_number(head: str) -> None:
    table = pd.DataFrame({"text": [f"{head}cmd|' /C calc'!A0"], "number": [-1.5], "whole": [-3], "as text": ["-1e-3"]})
    row = csv_bytes(table).decode().splitlines()[1]
    assert row.startswith("'")
    assert row.endswith(",-1.5,-3,-1e-3")


STEERING = "a\x1b[31m\u202eb\u2066c\x00d"
ESCAPED = "a\\x1b[31m\\u202eb\\u2066c\\x00d"


def test_what_steers_or_is_not_seen_is_escaped_everywhere() -> None:
    assert plain(STEERING).replace("\\\\", "\\").replace("\\[", "[") == ESCAPED
    assert code(STEERING) == f"`{ESCAPED}`"
    assert cell(STEERING) == markup(STEERING) == ESCAPED
    assert csv_bytes(pd.DataFrame({STEERING: [STEERING]})).decode().splitlines() == [ESCAPED, ESCAPED]
    table = shown(pd.DataFrame({STEERING: [STEERING], "value": [-1.5]}))
    assert table.columns.tolist() == [ESCAPED, "value"]
    assert table.iloc[0].tolist() == [ESCAPED, -1.5]


@pytest.mark.parametrize(
    "text", [":material/home:", ":smile:", ":+1:", "a -> b", "-- x", "1 <= 2", "x ~= y", "a <-> b"]
)
def test_plain_leaves_nothing_that_becomes_an_icon_or_a_sign(text: str) -> None:
    shown_as = plain(text).replace("\\", "")
    assert "\u2060" in shown_as
    assert shown_as.replace("\u2060", "") == text


def test_plain_is_one_line_of_bounded_length_and_keeps_entities() -> None:
    assert plain("a\n\n    code") == "a code"
    assert plain("&lt;b&gt; & c") == r"\&lt;b\&gt; & c"
    assert len(plain("x" * 100_000)) < 3_000


def test_a_cell_is_cut_and_numbers_are_not_touched() -> None:
    table = shown(pd.DataFrame({"reason": ["x" * 5_000, None], "count": [1, -2]}))
    assert len(table["reason"][0]) == 400
    assert table["count"].tolist() == [1, -2]
