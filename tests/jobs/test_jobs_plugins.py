"""Plugins that travel: a folder becomes a wheel, whose files lie beside the spec and are imported from there."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest
from jobs_fakes import SPEC, FakeClient, good_answer

from archsearch.errors import PluginError, UnknownNameError
from archsearch.jobs import Cluster, Plugins, Rows, packed, prepare, submit

MODULE = """
from archsearch.hookspecs import hookimpl
from archsearch.testing.toy import ToyPlugin

class Mine(ToyPlugin):
    name = "mine"

@hookimpl
def register_mixers(register):
    register(Mine())
"""
PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "mine-mixer"
version = "1.2"
[project.entry-points.archsearch]
mine = "mine_mixer"
[tool.setuptools]
packages = ["mine_mixer"]
"""


def wheel(folder: Path, *, name: str = "mine_mixer-1.2-py3-none-any.whl", **files: str) -> Path:
    """A wheel as pip builds it, or with other files."""
    path = folder / name
    about = "mine_mixer-1.2.dist-info"
    held = {
        "mine_mixer/__init__.py": MODULE,
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: mine-mixer\nVersion: 1.2\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
        f"{about}/entry_points.txt": "[archsearch]\nmine = mine_mixer\n",
        f"{about}/RECORD": "",
        **files,
    }
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in held.items():
            archive.writestr(inside, text)
    return path


def test_a_wheel_is_named_by_what_it_holds(tmp_path: Path) -> None:
    one, other, changed = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    for folder in (one, other, changed):
        folder.mkdir()
    about = "mine_mixer-1.2.dist-info"
    paths = [
        wheel(one),
        wheel(other, **{f"{about}/RECORD": "built elsewhere"}),
        wheel(changed, **{"mine_mixer/__init__.py": MODULE + "\n"}),
    ]
    with packed([*map(str, paths), "another==1.0"], pytest.fail) as plugins:
        first, second, third = plugins.wheels
        assert plugins.requirements == ("another==1.0",)
    assert (first.name, first.version) == ("mine-mixer", "1.2")
    assert first.digest == second.digest != third.digest


def test_a_folder_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "false")  # as pip reads it: without; the index is not asked
    folder = tmp_path / "mine"
    (folder / "mine_mixer").mkdir(parents=True)
    (folder / "mine_mixer" / "__init__.py").write_text(MODULE)
    (folder / "pyproject.toml").write_text(PROJECT.replace('"setuptools.build_meta"', '"broken"'))
    told: list[str] = []
    with pytest.raises(PluginError, match="no wheel can be built of it"), packed([str(folder)], told.append):
        pass
    assert told == [f"building a wheel of {folder}, at most 300 s"]


@pytest.mark.parametrize(
    ("name", "files", "told"),
    [
        ("mine_mixer-1.2-cp311-cp311-linux_x86_64.whl", {}, "holds compiled code"),
        ("mine_mixer-1.2-py3-none-any.whl", {"../outside.py": ""}, "files beside its packages"),
        ("mine_mixer-1.2-py3-none-any.whl", {"/etc/outside.py": ""}, "files beside its packages"),
        ("mine_mixer-1.2-py3-none-any.whl", {"mine_mixer-1.2.data/scripts/run": ""}, "files beside its packages"),
    ],
)
def test_a_wheel_that_cannot_travel_is_refused(tmp_path: Path, name: str, files: dict[str, str], told: str) -> None:
    with pytest.raises(PluginError, match=told), packed([str(wheel(tmp_path, name=name, **files))], pytest.fail):
        pass


def test_what_is_no_plugin_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken-1-py3-none-any.whl").write_text("no wheel")
    for given, told in (
        ("./none", "there is no such file or folder"),
        ("none-1-py3-none-any.whl", "there is no such file or folder"),
        (str(tmp_path / "empty"), "pyproject.toml is wanted"),
        (str(tmp_path / "broken-1-py3-none-any.whl"), "no wheel that can be read"),
    ):
        with pytest.raises(PluginError, match=told), packed([given], pytest.fail):
            pass


def test_a_plugin_that_is_not_installed_here_is_checked_here_and_sent(
    spec: Path, cluster: Cluster, client: FakeClient, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec.write_text(SPEC.replace('"full", "sliding"', '"full", "mine"'))
    monkeypatch.delitem(sys.modules, "mine_mixer", raising=False)
    with pytest.raises(UnknownNameError, match="--plugin FOLDER or REQUIREMENT"):
        prepare(spec)
    with packed([str(wheel(tmp_path))], pytest.fail) as plugins:
        submission = prepare(spec, plugins=plugins)
        assert any(name == "mixer:mine" and "mine-mixer 1.2" in version for name, version, _ in submission.parts)
        client.answer = good_answer(submission.parts)
        submit(cluster, submission, rows)
    monkeypatch.delitem(sys.modules, "mine_mixer", raising=False)
    assert client.files["mine_mixer/__init__.py"] == MODULE
    assert "mine_mixer-1.2.dist-info/entry_points.txt" in client.files
    assert "pip" not in client.sent[0]["runtime_env"]
    assert not any("archsearch-plugins-" in folder for folder in sys.path)


def test_a_package_without_a_plugin_is_told(spec: Path, tmp_path: Path) -> None:
    about = "mine_mixer-1.2.dist-info"
    path = wheel(tmp_path, **{f"{about}/entry_points.txt": "[console_scripts]\nmine = mine_mixer:main\n"})
    with packed([str(path)], pytest.fail) as plugins, pytest.raises(PluginError, match="names no plugin"):
        prepare(spec, plugins=plugins)


def test_what_is_known_on_the_cluster_alone_is_judged_there(spec: Path) -> None:
    spec.write_text(SPEC.replace('"full", "sliding"', '"full", "elsewhere"'))
    assert prepare(spec, plugins=Plugins(requirements=("elsewhere==1",))).parts == ()
