"""Plugins that travel: a folder becomes a wheel, whose files lie beside the spec and are imported from there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from job_wheels import ASKING, MODULE, asking_wheel, wheel
from jobs_fakes import SPEC, FakeClient, good_answer

from archsearch.errors import ClusterError, PluginError, UnknownNameError
from archsearch.jobs import Cluster, Plugins, Rows, packed, prepare, submit
from archsearch.jobs.requirements import missing

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


@pytest.fixture
def asking(spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel of a plugin that asks for what is not installed here, for the search of `spec`."""
    spec.write_text(SPEC.replace('"full", "sliding"', '"full", "mine"'))
    monkeypatch.delitem(sys.modules, "mine_mixer", raising=False)
    return asking_wheel(tmp_path)


def test_what_the_cluster_lacks_is_installed_there_by_pip(
    asking: Path, spec: Path, cluster: Cluster, client: FakeClient, rows: Rows
) -> None:
    lacking, answers = ["tiny-dependency>=1"], list[dict[str, object]]()
    told: list[str] = []

    def submit_job(**options: object) -> str:
        answers.append(dict(options))
        client.answer = good_answer([], lacking=lacking if len(answers) == 1 else [])
        return original(**options)

    original, client.submit_job = client.submit_job, submit_job  # type: ignore[method-assign]
    with packed([str(asking)], pytest.fail) as plugins:
        submission = prepare(spec, plugins=plugins)
        assert submission.question.wants == ("tiny-dependency>=1",)
        assert submission.parts == (), "what cannot be imported here is judged there"
        submit(cluster, submission, rows, tell=told.append)
        place = f"wheels/{plugins.wheels[0].digest}/mine_mixer-1.2-py3-none-any.whl"
    first, second, job = answers
    assert "pip" not in first["runtime_env"]  # type: ignore[operator]
    assert str(first["entrypoint"]).startswith("archsearch question")
    for sent in (second, job):
        assert sent["runtime_env"]["pip"] == ["${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}/" + place]  # type: ignore[index]
        assert str(sent["entrypoint"]).startswith("python -m archsearch.cli")
    assert client.files["mine_mixer/__init__.py"] == ASKING, "its source is the same wherever it is imported"
    assert place in client.files
    assert "the cluster lacks tiny-dependency>=1: Ray has pip install it there" in "".join(told)


def test_what_the_cluster_has_is_not_installed(
    asking: Path, spec: Path, cluster: Cluster, client: FakeClient, rows: Rows
) -> None:
    client.answer = good_answer([])
    with packed([str(asking)], pytest.fail) as plugins:
        submit(cluster, prepare(spec, plugins=plugins), rows)
    assert "pip" not in client.sent[0]["runtime_env"]
    assert not [name for name in client.files if name.endswith(".whl")]


def test_what_pip_cannot_install_is_told(
    asking: Path, spec: Path, cluster: Cluster, client: FakeClient, rows: Rows
) -> None:
    client.answer = good_answer([], lacking=["tiny-dependency>=1"])
    with packed([str(asking)], pytest.fail) as plugins:
        with pytest.raises(ClusterError, match="the cluster lacks tiny-dependency>=1, which a plugin that goes along"):
            submit(cluster, prepare(spec, plugins=plugins), rows)
        original = client.submit_job

        def submit_job(**options: object) -> str:
            job = original(**options)
            if "pip" in options["runtime_env"]:  # type: ignore[operator]
                client.questions[job].status, client.printed[job] = "FAILED", ""
                client.questions[job].message = (
                    "runtime_env setup failed: Failed to set up runtime environment.\nLast 50 lines of stdout:\n"
                    "    ERROR: Could not find a version that satisfies the requirement tiny-dependency>=1\n"
                    "    ERROR: No matching distribution found for tiny-dependency>=1\n"
                )
            return job

        client.submit_job = submit_job  # type: ignore[method-assign]
        with pytest.raises(ClusterError, match="pip on the cluster: No matching distribution found for tiny-dep"):
            submit(cluster, prepare(spec, plugins=plugins), rows)
    assert client.jobs == {}


def test_a_plugin_that_is_broken_here_for_another_reason_is_told(asking: Path, spec: Path, tmp_path: Path) -> None:
    path = asking_wheel(tmp_path, "pluggy")
    with packed([str(path)], pytest.fail) as plugins, pytest.raises(UnknownNameError, match="failed to load: mine"):
        prepare(spec, plugins=plugins)


@pytest.mark.parametrize(
    ("asked", "lacking"),
    [
        ("pluggy", False),
        ("pluggy>=1.5,<99", False),
        ("pluggy<1", True),
        ("tiny-dependency", True),
        ("tiny-dependency; sys_platform == 'none'", False),
        ("tiny-dependency; extra == 'more'", False),
        ("sqlalchemy[mssql]", True),
        ("pluggy @ https://example.org/pluggy.whl", False),
        ("no requirement at all", True),
    ],
)
def test_what_is_not_installed_here_is_missing(asked: str, lacking: bool) -> None:
    assert missing([asked]) == [asked] * lacking


def test_what_is_known_on_the_cluster_alone_is_judged_there(spec: Path) -> None:
    spec.write_text(SPEC.replace('"full", "sliding"', '"full", "elsewhere"'))
    assert prepare(spec, plugins=Plugins(requirements=("elsewhere==1",))).parts == ()
