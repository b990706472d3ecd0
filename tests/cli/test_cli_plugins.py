"""``archsearch plugins`` lists every plugin, and names those whose source changed while their version did not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from archsearch.cli import app
from archsearch.cli import plugins as command
from archsearch.errors import StorageError
from archsearch.registry import Registry, load_registry
from archsearch.source import core_digest

RUNNER = CliRunner()
VERSION = load_registry().version_of("moba")
PART = (VERSION, "0" * 16, "quickstart")
SAID = (
    f'moba: its source has changed since search "quickstart" (version {VERSION} is the same): '
    "raise its version, or results of old and new source are told apart by digest alone"
)


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder without a database, and the plugins that come with the package."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ARCHSEARCH_STORAGE", raising=False)
    monkeypatch.setenv("ARCHSEARCH_LOAD_PLUGINS", "full,sliding,linear,moba,nsa,tasks")
    return tmp_path


class FakeReader:
    """A store that recorded these parts."""

    def __init__(self, parts: Mapping[str, tuple[str, str, str]] | StorageError) -> None:
        self.parts = parts
        self.closed = False

    def last_parts(self) -> Mapping[str, tuple[str, str, str]]:
        """What was recorded, or what is wrong with the database."""
        if isinstance(self.parts, StorageError):
            raise self.parts
        return self.parts

    def close(self) -> None:
        """Notes it."""
        self.closed = True


@pytest.fixture
def recorded(alone: Path, monkeypatch: pytest.MonkeyPatch) -> FakeReader:
    """A database that holds a search with another source of "linear"."""
    (alone / "archsearch.db").touch()
    reader = FakeReader({"mixer:moba": PART})
    monkeypatch.setattr("archsearch.storage.Store.open", lambda url, read_only: reader)
    return reader


def test_no_database_is_made(alone: Path) -> None:
    shown = RUNNER.invoke(app, ["plugins"])
    assert shown.exit_code == 0, shown.output
    assert "linear" in shown.output
    assert "changed" not in shown.output
    assert list(alone.iterdir()) == []


def test_a_changed_source_is_named(recorded: FakeReader) -> None:
    shown = RUNNER.invoke(app, ["plugins"])
    assert shown.exit_code == 0
    assert SAID in " ".join(shown.stdout.split())
    assert shown.stdout.count("has changed") == 1
    assert recorded.closed


def test_json_has_digests_and_changes(recorded: FakeReader) -> None:
    data = json.loads(RUNNER.invoke(app, ["plugins", "--json"]).stdout)
    registry = load_registry()
    digests = {plugin["name"]: plugin["digests"] for plugin in data["plugins"]}
    assert digests["moba"] == {"mixer:moba": registry.source_of("moba")}
    assert digests["tasks"]["task:mqar"] == registry.task_source_of("mqar")
    assert data["core"] == core_digest()
    assert data["changed"] == [
        {
            "part": "mixer:moba",
            "version": VERSION,
            "search": "quickstart",
            "before": "0" * 16,
            "now": registry.source_of("moba"),
            "message": SAID,
        }
    ]


def test_a_database_that_fails_breaks_no_listing(recorded: FakeReader, alone: Path) -> None:
    recorded.parts = StorageError("the disk is gone")
    shown = RUNNER.invoke(app, ["plugins", "--json"])
    assert shown.exit_code == 0
    assert json.loads(shown.stdout)["changed"] == []


@pytest.mark.parametrize("storage", ["sqlite:///broken.db", "mysql://x/y", "nonsense", "sqlite:///no/such/folder/a.db"])
def test_a_database_that_cannot_be_opened_breaks_no_listing(storage: str, alone: Path) -> None:
    (alone / "broken.db").write_text("this is no database, but a text of some length\n" * 50)
    shown = RUNNER.invoke(app, ["plugins", "--storage", storage])
    assert shown.exit_code == 0, shown.output
    assert "linear" in shown.stdout


@pytest.mark.parametrize(
    ("last", "count"),
    [
        ({"mixer:moba": PART}, 1),
        ({"mixer:moba": PART, "task:mqar": PART}, 2),
        ({"mixer:moba": ("archsearch 0.1.0 r0", "0" * 16, "quickstart")}, 0),
        ({"mixer:moba": (VERSION, "unknown-7", "quickstart")}, 0),
        ({"core": ("archsearch 0.1.0", "0" * 16, "quickstart")}, 0),
        ({"mixer:gone": PART}, 0),
        ({}, 0),
    ],
)
def test_what_counts_as_changed(last: dict[str, tuple[str, str, str]], count: int, registry: Registry) -> None:
    parts = registry.parts(["moba"], ["mqar"])
    assert len(command.changed(parts, last)) == count


def test_the_same_source_has_not_changed(registry: Registry) -> None:
    parts = registry.parts(["moba"], ["mqar"])
    assert command.changed(parts, {part.name: (part.version, part.digest, "s") for part in parts}) == []
