"""Pages: what of a page is made from the code, and links to files that lie outside of the documentation."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from archsearch.errors import UnknownNameError, listing, nearest
from reference.commands import commands_reference, exit_reference
from reference.hooks import hooks_reference
from reference.mixers import mixers_overview, mixers_reference
from reference.spec import cost_names, spec_reference
from reference.systems import systems_table
from reference.tasks import tasks_overview, tasks_reference

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
SOURCES = "source"
"""The folder of the site in which files of the repository are shown that a page links to."""

MAKERS: Mapping[str, Callable[[], str]] = {
    "commands": commands_reference,
    "costs": cost_names,
    "exit codes": exit_reference,
    "hooks": hooks_reference,
    "mixers": mixers_reference,
    "mixers at a glance": mixers_overview,
    "spec": spec_reference,
    "systems": systems_table,
    "tasks": tasks_reference,
    "tasks at a glance": tasks_overview,
}
"""What the line ``<!-- generated: NAME -->`` of a page is replaced by."""

_MARK = re.compile(r"^<!-- generated: (.+) -->$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[([^\[\]]*)\]\(([^()\s#]+)(#[^()\s]*)?\)")
_UNSEARCHED = "---\nsearch:\n  exclude: true\n---\n\n"
"""Says of a page that the site's search leaves it out."""
_LANGUAGES = {".py": "python", ".toml": "toml", ".json": "json", ".sh": "sh"}


def filled(markdown: str) -> str:
    """A page with what is made from the code; raises `UnknownNameError` for a mark of another name."""

    def made(mark: re.Match[str]) -> str:
        maker = MAKERS.get(mark[1])
        if maker is None:
            raise UnknownNameError(f'nothing is generated as "{mark[1]}"{nearest(mark[1], MAKERS)}: {listing(MAKERS)}')
        return maker()

    return _MARK.sub(made, markdown)


def linked(markdown: str, *, folder: Path, uri: str) -> str:
    """Markdown of a file in `folder`, to stand at `uri` of the site: its links lead to pages of the site.

    A link to a file outside of the documentation leads to the page that shows it, one to a folder becomes its text.
    What is linked and does not exist is left, for the build to complain about.
    """

    def led(link: re.Match[str]) -> str:
        found = _file(link[2], folder)
        if found is None:
            return link[0]
        if found.is_dir():
            return link[1]
        target = posixpath.relpath(uri_of(found), posixpath.dirname(uri) or ".")
        return f"[{link[1]}]({target}{link[3] or ''})"

    return _LINK.sub(led, markdown)


def uri_of(file: Path) -> str:
    """Where a file of the repository stands in the site."""
    if file.is_relative_to(DOCS):
        return file.relative_to(DOCS).as_posix()
    path = file.relative_to(ROOT).as_posix()
    return f"{SOURCES}/{path}" + ("" if file.suffix == ".md" else ".md")


def shown(file: Path) -> str:
    """The page that shows a file of the repository."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        return linked(text, folder=file.parent, uri=uri_of(file))
    fence, language = "`" * 4, _LANGUAGES.get(file.suffix, "text")
    return f"{_UNSEARCHED}# {file.relative_to(ROOT).as_posix()}\n\n{fence}{language}\n{text}\n{fence}\n"


def sources() -> list[Path]:
    """The files outside of the documentation that its pages link to, and those that these link to."""
    found: dict[Path, None] = {}
    waiting = [(filled(page.read_text(encoding="utf-8")), page.parent) for page in sorted(DOCS.rglob("*.md"))]
    while waiting:
        for file in _outside(*waiting.pop()):
            if file not in found:
                found[file] = None
                if file.suffix == ".md":
                    waiting.append((file.read_text(encoding="utf-8"), file.parent))
    return sorted(found)


def _outside(markdown: str, folder: Path) -> Iterator[Path]:
    for link in _LINK.finditer(markdown):
        file = _file(link[2], folder)
        if file is not None and file.is_file() and not file.is_relative_to(DOCS):
            yield file


def _file(target: str, folder: Path) -> Path | None:
    """The file or folder of the repository that a link leads to, None for an address or for what does not exist."""
    if ":" in target:
        return None
    file = (folder / target).resolve()
    return file if file.is_relative_to(ROOT) and file.exists() else None
