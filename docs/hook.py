"""The site's hooks: mkdocs asks them for what is made from the code, and for pages of files outside of docs/."""

from __future__ import annotations

from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from reference.pages import DOCS, SOURCES, filled, linked, shown, sources, uri_of


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds a page for every file outside of the documentation that a page links to."""
    for file in sources():
        files.append(File.generated(config, uri_of(file), content=shown(file)))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Fills a page, and leads its links to pages of the site."""
    uri = page.file.src_uri
    if uri.startswith(f"{SOURCES}/"):
        return markdown
    return linked(filled(markdown), folder=(DOCS / uri).parent, uri=uri)
