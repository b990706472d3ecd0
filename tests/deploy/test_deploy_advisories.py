"""The advisories of deploy/SECURITY.md: every row is held by a bound, a pin or an image's version."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass

import pytest
from deploy_files import DEPLOY, ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@dataclass(frozen=True)
class Row:
    advisory: str
    package: str
    fixed: Version
    held: str


def rows() -> list[Row]:
    text = (DEPLOY / "SECURITY.md").read_text()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "CVE-" in line[:8]]
    return [Row(cell[0], cell[1], Version(cell[2]), cell[3]) for cell in cells]


def lower_bounds() -> dict[str, Version]:
    """The least version of every dependency that any of its lines allows, extras among them."""
    extras = PROJECT["optional-dependencies"]
    bounds: dict[str, list[Version]] = {}
    for line in [*PROJECT["dependencies"], *(line for extra in extras.values() for line in extra)]:
        requirement = Requirement(line)
        least = [Version(one.version) for one in requirement.specifier if one.operator in (">=", "==", "~=")]
        bounds.setdefault(canonicalize_name(requirement.name), []).extend(least or [Version("0")])
    return {name: min(found) for name, found in bounds.items()}


def pins() -> dict[str, Version]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def image_versions(name: str) -> set[Version]:
    files = [*DEPLOY.rglob("*.yaml")]
    found = {tag for path in files for tag in re.findall(rf"image: \S*/{name}:v?(\d[\d.]*)", path.read_text())}
    return {Version(tag) for tag in found}


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.package}-{row.advisory.split(',')[0]}")
def test_an_advisory_is_stayed_clear_of(row: Row) -> None:
    if row.held == "image":
        held = image_versions(row.package)
        assert held
        assert min(held) >= row.fixed
    elif row.held == "constraints":
        assert pins()[row.package] >= row.fixed
    else:
        assert row.held == "pyproject"
        assert lower_bounds()[row.package] >= row.fixed
        assert pins()[row.package] >= row.fixed


def test_there_are_advisories_of_every_part_that_listens() -> None:
    assert {row.package for row in rows()} >= {"ray", "streamlit", "torch", "oauth2-proxy", "caddy"}


def test_what_would_be_too_old_is_seen() -> None:
    assert lower_bounds()["ray"] < Version("3")
    assert not lower_bounds()["torch"] >= Version("99")
