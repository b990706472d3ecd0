"""Names: every command, option and variable that deploy/ uses is one that archsearch or Ray has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from deploy_files import DEPLOY, FILES, ROOT, containers, documents, ident, manifests, pods

from archsearch.cli import app

COMMAND = re.compile(r"(?<![\w/.:@-])archsearch (?P<words>[a-z][^|;&#`)\n]*)")
RAY = re.compile(r"(?<![\w/.-])ray (?P<command>start|up|health-check|get-auth-token)\b(?P<words>[^|;&#`)]*)")
TRUST = "A job runs as Ray's user, and so can read what that user can"
TEXTS = [path for path in FILES if path.name not in ("searches.json", "SECURITY.md")]


@cache
def commands() -> dict[str, Any]:
    """Every command by its words, with the options that it has."""
    found: dict[str, Any] = {}
    root: Any = typer.main.get_command(app)

    def walk(command: Any, words: str) -> None:
        found[words] = {option for one in command.params for option in (*one.opts, *one.secondary_opts)} | {"--help"}
        for name, below in getattr(command, "commands", {}).items():
            walk(below, f"{words} {name}".strip())

    walk(root, "")
    return found


def unfolded(path: Path) -> str:
    """The text of a file without comments of YAML and shell, and with continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", path.read_text())
    if path.suffix == ".md":
        return text
    return re.sub(r"(^|\s)# .*", r"\1", text)


def calls(path: Path) -> Iterator[list[str]]:
    """The words of every call of archsearch in a file; lists of YAML are calls too."""
    for found in COMMAND.finditer(unfolded(path)):
        yield found["words"].translate(str.maketrans("\"'[]{}", "      ")).split()
    if path.suffix == ".yaml" and path.parent.name in ("compose", "kubernetes", "kubernetes-submit"):
        yield from listed(list(yaml.safe_load_all(path.read_text())))


def listed(node: Any) -> Iterator[list[str]]:
    if isinstance(node, dict):
        for value in node.values():
            yield from listed(value)
    elif isinstance(node, list):
        if node and node[0] == "archsearch" and len(node) > 1:
            yield [str(word) for word in node[1:]]
        for value in node:
            yield from listed(value)


@pytest.mark.parametrize("path", TEXTS, ids=ident)
def test_commands_and_their_options_exist(path: Path) -> None:
    first = {name.split()[0] for name in commands() if name}
    for words in calls(path):
        if words[0] not in first:  # prose, as "archsearch is": commands of pages are read by tests/docs
            continue
        known = [n for n in (1, 2) if " ".join(words[:n]) in commands()]
        has = commands()[" ".join(words[: known[-1]])]
        given = {word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)}
        assert given <= has, f"archsearch {' '.join(words)}: {given - has}"


@pytest.mark.parametrize("path", [path for path in TEXTS if path.suffix != ".md"], ids=ident)
def test_what_is_called_is_a_command(path: Path) -> None:
    """At the head of a line of a script, after a job's entrypoint, and in a list of YAML nothing is prose."""
    text = unfolded(path)
    called = re.findall(r"^\s*(?:exec |entrypoint: )?archsearch ([a-z-]+) ", text, re.M)
    if path.suffix == ".yaml":
        called += [words[0] for words in listed(list(yaml.safe_load_all(path.read_text())))]
    assert {word for word in called if not word.startswith("--")} <= {name.split()[0] for name in commands() if name}


def test_calls_are_found() -> None:
    found = [" ".join(words) for path in TEXTS for words in calls(path)]
    assert "db upgrade" in found
    assert any(text.startswith("run ") and "--resume --wait --address" in text for text in found)
    assert any(text.startswith("dashboard --allow-host") for text in found)
    assert any(text.startswith("submit specs/quickstart.toml") for text in found)


@pytest.mark.parametrize("path", TEXTS, ids=ident)
def test_options_of_ray_exist(path: Path) -> None:
    from ray.scripts import scripts

    for found in RAY.finditer(unfolded(path)):
        command = scripts.cli.commands[found["command"]]
        has = {option for one in command.params for option in (*one.opts, *one.secondary_opts)} | {"--help"}
        given = {word.partition("=")[0] for word in re.findall(r"(?<!\S)--[a-z][a-z-]*", found["words"])}
        assert given <= has, f"{found[0]}: {given - has}"


@cache
def variables() -> frozenset[str]:
    """Every variable of ours that the source names."""
    sources = [path for folder in ("archsearch", "dashboard", "plugins") for path in (ROOT / folder).rglob("*.py")]
    return frozenset(name for path in sources for name in re.findall(r"\bARCHSEARCH_[A-Z_]+\b", path.read_text()))


OF_DEPLOY = {"ARCHSEARCH_TAG"}
"""Of compose alone: the tag of the image."""


@pytest.mark.parametrize("path", FILES, ids=ident)
def test_variables_exist(path: Path) -> None:
    named = set(re.findall(r"\bARCHSEARCH_[A-Z_]+\b", path.read_text()))
    assert named - OF_DEPLOY <= variables()


def test_variables_of_ray_exist() -> None:
    """Those that Ray reads, one that its launcher sets, and one of the batch script's own."""
    known = {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_USAGE_STATS_ENABLED", "RAY_HEAD_IP", "RAY_PORT"}
    named = {name for path in FILES for name in re.findall(r"\bRAY_[A-Z_]+\b", path.read_text())}
    assert named <= known


STARTS_RAY = re.compile(r"\bray start --")


def test_every_node_ends_one_worker_at_a_time_where_memory_runs_low() -> None:
    """The container's script starts what the image's environment is for; Kubernetes starts Ray in that image."""
    starts = [path for path in FILES if path.suffix != ".md" and STARTS_RAY.search(unfolded(path))]
    assert {path.name for path in starts} >= {
        "entrypoint.sh",
        "archsearch.sbatch",
        "cluster.yaml",
        "ray-worker.service",
    }
    for path in starts:
        says = path.with_name("Containerfile") if path.name == "entrypoint.sh" else path
        commands = 1 if path.name == "entrypoint.sh" else len(re.findall(r"RAY_AUTH_MODE=token", path.read_text()))
        assert says.read_text().count("RAY_worker_killing_policy_by_group=true") == commands, path


def test_variables_of_a_pod_are_those_that_its_parts_read() -> None:
    entrypoint = "".join(path.read_text() for path in (DEPLOY / "container").glob("*.sh"))
    for name, found in manifests():
        for pod in pods(found):
            for container in containers(pod):
                for variable in container.get("env", []):
                    known = variable["name"].startswith(("ARCHSEARCH_", "OAUTH2_PROXY_", "PG"))
                    assert known or f"${{{variable['name']}" in entrypoint, f"{name}: {variable['name']}"


def test_ray_s_launcher_reads_its_file() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(documents(DEPLOY / "ray" / "cluster.yaml")[0])
    validate_config(config)
    assert config["available_node_types"]["local.cluster.node"]["min_workers"] == 2
    for start in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token" in start[-1]


@pytest.mark.parametrize("name", ["ray-head", "ray-worker"])
def test_a_unit_brings_its_node_back(name: str) -> None:
    text = (DEPLOY / "systemd" / f"{name}.service").read_text()
    assert re.search(r"^Restart=always$", text, re.M)
    assert re.search(r"^StartLimitIntervalSec=0$", text, re.M)
    assert re.search(r"^Environment=RAY_AUTH_MODE=token", text, re.M)
    assert "--block" in text
    asked = set(re.findall(r"\$([A-Z_]+)", text)) - {"CREDENTIALS_DIRECTORY"}
    given = set(re.findall(r"^([A-Z_]+)=", (DEPLOY / "systemd" / "ray.env.example").read_text(), re.M))
    assert asked <= given


def test_versions_are_those_of_the_project() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    pins = (ROOT / "constraints.txt").read_text()
    for path in FILES:
        text = path.read_text()
        assert set(re.findall(r"archsearch:(\d[\w.]*)", text)) <= {project}
        for ray in re.findall(r'rayVersion: "([\d.]+)"', text):
            assert f"\nray=={ray}\n" in pins


@pytest.mark.parametrize("path", [DEPLOY / "SECURITY.md", ROOT / "docs" / "jobs.md"], ids=lambda path: path.name)
def test_what_a_job_can_read_is_said_alike(path: Path) -> None:
    assert TRUST in " ".join(path.read_text().split())
