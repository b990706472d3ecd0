"""What tests of the documentation share."""

from __future__ import annotations

from pathlib import Path

import pytest
from doc_pages import GENERATED, PLAIN, text_of
from reference.pages import ROOT


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes a `page` is run for every page that people read."""
    if "page" in metafunc.fixturenames:
        pages = [*GENERATED, *PLAIN]
        metafunc.parametrize("page", pages, ids=[page.relative_to(ROOT).as_posix() for page in pages])


@pytest.fixture
def text(page: Path) -> str:
    return text_of(page)
