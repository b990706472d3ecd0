"""The compose file: valid, nothing published but the proxy, secrets as files, every image pinned."""

from __future__ import annotations

import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from deploy_files import DEPLOY, FILES, compose, compose_validator, documents, ident

COMPOSE = DEPLOY / "compose"
SERVICES: dict[str, Any] = compose()["services"]
IMAGE = re.compile(r"(?:image:|FROM|BASE=)\s*[\"']?(?P<name>[a-z0-9.]+(?:/[a-z0-9._/-]+)?):(?P<tag>[^\s\"'}]+)", re.M)


def networks(name: str) -> set[str]:
    return set(SERVICES[name].get("networks", ()))


@pytest.mark.parametrize("path", sorted(COMPOSE.glob("*.yaml")), ids=ident)
def test_the_file_is_what_the_specification_says(path: Path) -> None:
    compose_validator().validate(documents(path)[0])


@pytest.mark.parametrize(
    "change",
    [{"network": ["data"]}, {"networks": "data"}, {"depends_on": {"migrate": {"condition": "done"}}}, {"init": 1}],
    ids=["key", "type", "condition", "flag"],
)
def test_a_slip_in_it_is_seen(change: dict[str, Any]) -> None:
    wrong = compose()
    assert compose_validator().is_valid(wrong)
    wrong["services"]["head"] |= change
    assert not compose_validator().is_valid(wrong)


def test_what_it_names_is_there() -> None:
    found = compose()
    for name, service in SERVICES.items():
        for secret in service.get("secrets", ()):
            source = secret if isinstance(secret, str) else secret["source"]
            assert source in found["secrets"], name
        assert networks(name) <= set(found["networks"]), name
        for other in service.get("depends_on", ()):
            assert other in SERVICES, name
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            if source.startswith((".", "/")) and not source.startswith("../postgres"):
                assert (COMPOSE / source).exists(), f"{name}: {source}"
            elif not source.startswith(("$", ".")):
                assert source in found["volumes"], name


def test_the_cluster_and_the_database_are_inside() -> None:
    inside = {name for name, network in compose()["networks"].items() if network.get("internal")}
    assert {"cluster", "data"} <= inside
    for name in ("head", "worker", "postgres", "migrate", "cli"):
        assert networks(name) <= inside, f"{name} is reached from outside"
        assert "ports" not in SERVICES[name]
    assert "data" not in networks("worker"), "workers need no database"


def test_only_the_proxy_and_grafana_are_published_and_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        "dashboard": ["${BIND:-127.0.0.1}:${PORT:-8443}:8443"],
        "grafana": ["127.0.0.1:${GRAFANA_PORT:-3000}:3000"],
    }
    assert "--host" not in SERVICES["dashboard"]["command"], "the dashboard listens on loopback, the proxy beside it"
    assert SERVICES["proxy"]["network_mode"] == SERVICES["oauth2-proxy"]["network_mode"] == "service:dashboard"


def test_ray_asks_for_a_token_everywhere() -> None:
    for name in ("head", "worker", "cli"):
        assert "ray_token" in SERVICES[name]["secrets"]


def test_the_jobs_page_is_switched_on_by_another_file_alone() -> None:
    """The token and the writer's password are files of the container, and nothing more is published."""
    plain = SERVICES["dashboard"]
    assert "--allow-submit" not in plain["command"]
    assert "ray_token" not in plain["secrets"]
    assert "cluster" not in plain["networks"]
    more = compose("submit.yaml")
    assert set(more["services"]) == {"dashboard"}
    dashboard = more["services"]["dashboard"]
    assert "ports" not in dashboard
    assert dashboard["command"][: len(plain["command"])] == plain["command"]
    assert dashboard["secrets"] == ["ray_token", {"source": "submitter_pgpass", "target": "pgpass"}]
    assert set(dashboard["networks"]) == {*plain["networks"], "cluster"}
    alias = SERVICES["head"]["networks"]["cluster"]["aliases"][0]
    assert dashboard["command"][dashboard["command"].index("--address") + 1] == f"http://{alias}:8265"
    assert set(dashboard["environment"]) == {"ARCHSEARCH_SUBMIT_STORAGE"}
    assert "//archsearch_writer@" in dashboard["environment"]["ARCHSEARCH_SUBMIT_STORAGE"]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_holds_no_secret_in_its_environment(name: str) -> None:
    for variable, value in SERVICES[name].get("environment", {}).items():
        secret = re.search(r"PASSWORD|SECRET|TOKEN", variable)
        assert not secret or variable.endswith("FILE"), f"{name}: {variable}"
        assert not re.search(r"//[^/@]+:[^/@]+@", str(value)), f"{name}: a password in {variable}"


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"postgres"}))
def test_a_service_has_no_rights_to_gain(name: str) -> None:
    assert "no-new-privileges:true" in SERVICES[name]["security_opt"]
    assert name == "grafana" or SERVICES[name]["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("path", FILES, ids=ident)
def test_every_image_has_a_version(path: Path) -> None:
    for found in IMAGE.finditer(path.read_text()):
        tag = found["tag"].partition(":-")[2] or found["tag"]
        assert re.match(r"v?\d+\.\d+", tag), f"{found[0]}: name a version"


def test_every_image_is_seen() -> None:
    text = (COMPOSE / "compose.yaml").read_text()
    assert len(IMAGE.findall(text)) == len(re.findall(r"^\s+image:", text, re.M))


def test_secrets_are_made_once_for_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    make = ["bash", str(COMPOSE / "secrets.sh"), str(folder)]
    subprocess.run(make, check=True)
    made = {path.name: path.read_bytes() for path in folder.iterdir()}
    named = [
        found["file"] for path in COMPOSE.glob("*.yaml") for found in documents(path)[0].get("secrets", {}).values()
    ]
    assert sorted(f"secrets/{name}" for name in made) == sorted(named)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    password = made["writer_password"].decode()
    assert len(password) == 64
    assert made["writer_pgpass"].decode() == f"postgres:5432:archsearch:archsearch_writer:{password}\n"
    assert made["submitter_pgpass"] == made["reader_pgpass"] + made["writer_pgpass"]
    assert len(made["cookie_secret"]) == 32
    assert len({made["ray_token"], *(made[f"{role}_password"] for role in ("migrator", "writer", "reader"))}) == 4
    subprocess.run(make, check=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == made


def test_no_secret_can_be_committed() -> None:
    for name in ("deploy/compose/secrets/ray_token", "deploy/compose/.env"):
        subprocess.run(["git", "check-ignore", "-q", name], cwd=DEPLOY.parent, check=True)
    tracked = subprocess.run(
        ["git", "ls-files", "deploy/compose/secrets"], cwd=DEPLOY.parent, capture_output=True, text=True, check=True
    )
    assert tracked.stdout.split() in ([], ["deploy/compose/secrets/.gitignore"])


def test_the_roles_get_their_passwords_by_no_argument(tmp_path: Path) -> None:
    """psql reads each password itself, from the mounted file, and quotes it."""
    program = tmp_path / "psql"
    program.write_text('#!/usr/bin/env bash\necho "arguments: $*"\n[[ "$*" == *--file* ]] || cat\n')
    program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    run = ["bash", str(COMPOSE / "roles.sh")]
    said = subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout
    assert "--file /roles/roles.sql" in said
    for role in ("migrator", "writer", "reader"):
        assert f"\\set password `cat /run/secrets/{role}_password`\n" in said
        assert f"ALTER ROLE archsearch_{role} LOGIN PASSWORD :'password';\n" in said
