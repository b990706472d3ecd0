"""What the law of torch-free costs says of a plugin, by where its class stands."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from archsearch.testing.case import Case
from archsearch.testing.laws import LAWS, Outcome, tried
from archsearch.testing.toy import ToyPlugin

(LAW,) = (law for law in LAWS if law.name == "import_and_costs_need_no_torch")
PLUGIN = """
from archsearch.testing.toy import ToyPlugin

class Mine(ToyPlugin):
    name = "mine"
    presets = {}
"""
COSTED_WITH_TORCH = """
    def params(self, options, shape, layer):
        import torch
        return int(torch.tensor(2 * shape.d_model * options.channels))
"""
NEEDS_AN_ARGUMENT = """
    def __init__(self, wanted):
        self.wanted = wanted
"""
RAISES = """
    def traffic(self, options, shape, layer, *, context):
        raise ValueError("no traffic")
"""
SCRIPT = """
from archsearch.testing.case import Case
from archsearch.testing.laws import LAWS, tried

(law,) = (law for law in LAWS if law.name == "import_and_costs_need_no_torch")
outcome = tried(law, Case.of(Mine(), {}))
print(outcome.status, outcome.text)
"""
AS_MAIN = "if __name__ == '__main__':" + SCRIPT.replace("\n", "\n    ")


def outcome_of(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, *arguments: Any) -> Outcome:
    """Of the plugin `Mine` of a module with that text."""
    name = f"module_of_{folder.name}"
    (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(folder)
    plugin = importlib.import_module(name).Mine(*arguments)
    return tried(LAW, Case.of(plugin, {}))


@pytest.mark.parametrize(
    ("head", "body"),
    [
        pytest.param("", "", id="arithmetic"),
        pytest.param("import torch\n", "", id="imports-torch", marks=pytest.mark.door),
        pytest.param("", COSTED_WITH_TORCH, id="costs-by-torch"),
    ],
)
def test_a_module_is_costed_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str, body: str
) -> None:
    outcome = outcome_of(tmp_path, monkeypatch, head + PLUGIN + body)
    assert outcome.status == ("failed" if head or body else "passed")
    assert not outcome.text or "loads torch" in outcome.text


def test_costs_that_raise_alone_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = outcome_of(tmp_path, monkeypatch, PLUGIN + RAISES)
    assert outcome.status == "failed"
    assert "no traffic" in outcome.text


def test_what_cannot_be_made_again_is_skipped_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = outcome_of(tmp_path, monkeypatch, PLUGIN + NEEDS_AN_ARGUMENT, 3)
    assert outcome.status == "skipped"
    assert "wanted" in outcome.text


def test_a_class_inside_of_a_function_is_skipped_with_a_reason() -> None:
    class Mine(ToyPlugin):
        name = "mine"

    outcome = tried(LAW, Case.of(Mine(), {}))
    assert (outcome.status, "inside of a function" in outcome.text) == ("skipped", True)


def test_a_module_of_tests_is_skipped_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = outcome_of(tmp_path, monkeypatch, "from archsearch.testing import MixerConformance\n" + PLUGIN)
    assert (outcome.status, "among tests" in outcome.text) == ("skipped", True)


@pytest.mark.door
@pytest.mark.parametrize(("script", "status"), [(AS_MAIN, "passed"), (SCRIPT, "skipped")], ids=["guarded", "bare"])
def test_a_script_is_loaded_by_its_file(tmp_path: Path, script: str, status: str) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN + script)
    done = subprocess.run([sys.executable, "mine.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == status
