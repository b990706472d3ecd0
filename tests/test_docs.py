"""The pages for people say what is so: links lead somewhere, targets of make exist, and the floors are those held."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from house import ROOT
from test_layering import FLOORS

PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(path for place in ("docs/*.md", "deploy/*.md", "plugins/*/README.md") for path in ROOT.glob(place)),
    ]
)
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_targets_of_make_exist(page: Path) -> None:
    named = re.findall(r"(?:^|`)make ([a-z][a-z-]*)", page.read_text(), re.MULTILINE)
    assert set(named) <= TARGETS


def test_make_alone_prints_every_target_with_what_it_does() -> None:
    said = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    printed = dict(line.split(maxsplit=1) for line in said.splitlines())
    phony = re.search(r"^\.PHONY: (.*)", MAKEFILE, re.MULTILINE)
    assert phony is not None
    assert set(printed) == set(phony[1].split()) == TARGETS


def test_the_page_of_the_architecture_has_the_floors_that_are_held() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text.partition("## The floors")[2].partition("## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert [set(re.findall(r"`([^`]+)`", rooms)) for rooms in reversed(rows)] == FLOORS
