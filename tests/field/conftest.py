"""The mixers of the field: packages of foreign authors, importable here, and installed for those who ask."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from field_packages import FOLDERS, lay_out

sys.path.extend(str(folder) for folder in FOLDERS)  # their suites import the classes, as an author's own tests do


@pytest.fixture(scope="session")
def field_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every package of the field and its metadata, for the path of another process.

    Laid out by hand; `test_pip_installs_the_same` holds it to what pip makes.
    """
    site = tmp_path_factory.mktemp("site")
    for folder in FOLDERS:
        lay_out(folder, site)
    return site
