"""``archsearch mixers`` lists what can be searched over, and tells the options of one."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner, Result

from archsearch.cli import app
from archsearch.errors import UnknownNameError
from archsearch.registry import load_registry

LOADED = "full,sliding,linear,moba,nsa"


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugins that are asked about, in a terminal wide enough for their words."""
    monkeypatch.setenv("ARCHSEARCH_LOAD_PLUGINS", LOADED)
    monkeypatch.setenv("COLUMNS", "400")


def asked(*words: str) -> Result:
    return CliRunner().invoke(app, ["mixers", *words])


def test_every_mixer_and_preset_is_listed() -> None:
    listed = json.loads(asked("--json").stdout)
    registry = load_registry()
    names = {mixer.name for mixer in registry.mixers()}
    names |= {name for mixer in names for name in registry.presets_of(mixer)}
    assert {entry["name"] for entry in listed} == names
    lines = asked().stdout.splitlines()
    assert all(any(f" {name} " in line for line in lines) for name in names)


def test_a_family_is_listed_alone() -> None:
    listed = json.loads(asked("--family", "sparse", "--json").stdout)
    assert {entry["mixer"] for entry in listed} == {"moba", "nsa"}
    assert "kda" not in asked("--family", "sparse").stdout


def test_a_preset_is_told_with_its_own_values() -> None:
    shown = asked("kda")
    assert shown.exit_code == 0, shown.output
    assert "kda, a preset of linear, of the family linear" in shown.stdout
    assert "what forgets: nothing, a constant" in shown.stdout
    told = json.loads(asked("kda", "--json").stdout)
    options = {one["option"]: one for one in told["options"]}
    assert (options["decay"]["default"], options["decay"]["type"]) == ("channel", "none | constant | head | channel")
    assert options["decay"]["searched"] == ["none", "constant", "head", "channel"]
    assert told["fixes"]["decay"] == "channel"
    assert {"retnet", "kda"} <= {one["preset"] for one in told["presets"]}
    assert json.loads(asked("linear", "--json").stdout)["fixes"] == {}


@pytest.mark.parametrize(("words", "said"), [(["kdaa"], '"kda"'), (["--family", "liner"], '"linear"')])
def test_what_is_not_known_is_told_with_what_is_near(words: list[str], said: str) -> None:
    refused = asked(*words)
    assert isinstance(refused.exception, UnknownNameError)
    assert f"did you mean {said}" in str(refused.exception)
