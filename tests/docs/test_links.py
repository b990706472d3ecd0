"""Links between pages, and into them, lead somewhere; the menu has every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from doc_pages import GENERATED, text_of
from reference import pages
from reference.pages import DOCS, ROOT, linked, shown, sources, uri_of

_LINK = re.compile(r"\[[^\[\]]*\]\(([^()\s]+)\)")
_FENCE = re.compile(r"^(`{3,}).*?^\1$", re.MULTILINE | re.DOTALL)


def anchors_of(page: Path) -> set[str]:
    """The names of a page's headings, as the site makes them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text_of(page)), re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings)
    return {re.sub(r"[-\s]+", "-", heading) for heading in plain}


def fault_of(target: str, page: Path) -> str | None:
    """Why a link of a page leads nowhere, None where it leads somewhere or to another host."""
    if ":" in target:
        return None
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.exists():
        return f"{target}: no such file"
    if anchor and file.suffix == ".md" and anchor not in anchors_of(file):
        return f"{target}: no such heading"
    return None


def test_links_lead_to_files_and_headings_that_exist(page: Path, text: str) -> None:
    targets = _LINK.findall(_FENCE.sub("", text))
    assert [fault for target in targets if (fault := fault_of(target, page))] == []


def test_a_link_to_nowhere_is_found() -> None:
    page = DOCS / "index.md"
    assert fault_of("nowhere.md", page) == "nowhere.md: no such file"
    assert fault_of("spec.md#nothing", page) == "spec.md#nothing: no such heading"
    assert fault_of("spec.md#going-on", page) is None
    assert fault_of("https://example.org/nowhere.md", page) is None


def test_the_menu_has_every_page_and_no_other() -> None:
    listed = re.findall(r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in GENERATED)


def test_the_site_asks_nothing_of_another_host_and_opens_without_a_server() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert config["theme"]["font"] is False
    assert config["use_directory_urls"] is False
    assert config["plugins"] == ["search"]


@pytest.mark.parametrize(
    ("link", "led"),
    [
        ("[a](../examples/quickstart.toml)", "[a](source/examples/quickstart.toml.md)"),
        ("[a](../plugins/full/README.md)", "[a](source/plugins/full/README.md)"),
        ("[a](../plugins)", "a"),
        ("[a](spec.md#going-on)", "[a](spec.md#going-on)"),
        ("[a](../nowhere.toml)", "[a](../nowhere.toml)"),
        ("[a](../../../etc/passwd)", "[a](../../../etc/passwd)"),
        ("[a](https://example.org)", "[a](https://example.org)"),
        ("![a](img/front.png)", "![a](img/front.png)"),
    ],
)
def test_a_link_out_of_the_documentation_leads_to_a_page_that_shows_the_file(link: str, led: str) -> None:
    assert linked(link, folder=DOCS, uri="index.md") == led


def test_a_shown_file_leads_back_into_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "spec.md").write_text("# Spec")
    (tmp_path / "plugin").mkdir()
    readme = tmp_path / "plugin" / "README.md"
    readme.write_text("[spec](../docs/spec.md) [cost](cost.py)")
    (tmp_path / "plugin" / "cost.py").write_text("cost = 1")
    monkeypatch.setattr(pages, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    assert shown(readme) == "[spec](../../spec.md) [cost](cost.py.md)"
    assert shown(tmp_path / "plugin" / "cost.py") == (
        "---\nsearch:\n  exclude: true\n---\n\n# plugin/cost.py\n\n````python\ncost = 1\n````\n"
    )


def test_every_file_that_is_linked_is_shown() -> None:
    found = {uri_of(file) for file in sources()}
    assert {"source/examples/quickstart.toml.md", "source/plugins/linear/README.md"} <= found
