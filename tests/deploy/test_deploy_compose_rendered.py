"""What compose itself makes of the files, in every combination: anchors merged, lists joined, variables filled in."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import pytest
from deploy_files import DEPLOY, compose

COMPOSE = DEPLOY / "compose"
BASE = "compose.yaml"
MORE = sorted(path.name for path in COMPOSE.glob("*.yaml") if path.name != BASE)
FILES = [(BASE, *more) for more in chain.from_iterable(combinations(MORE, count) for count in range(len(MORE) + 1))]
PROFILES = sorted({profile for service in compose()["services"].values() for profile in service.get("profiles", ())})
CHOSEN = [(), *((profile,) for profile in PROFILES), tuple(PROFILES)]
PUBLISHED = {"dashboard": [("127.0.0.1", "8443", 8443)], "grafana": [("127.0.0.1", "3000", 3000)]}


def named(files: tuple[str, ...]) -> str:
    return "+".join(name.removesuffix(".yaml") for name in files)


every_combination = pytest.mark.parametrize("files", FILES, ids=named)


@functools.cache
def program() -> tuple[str, ...]:
    """Compose, as docker's plugin or as a program of its own, version 2 or later: the first reads other files."""
    for words in (("docker", "compose"), ("docker-compose",)):
        if shutil.which(words[0]):
            asked = subprocess.run([*words, "version", "--short"], capture_output=True, text=True, check=False)
            version = re.match(r"v?(\d+)\.", asked.stdout)
            if version and int(version[1]) >= 2:
                return words
    pytest.skip("compose 2 or later is not installed (Debian 13: apt-get install docker-compose)")


def asked(files: tuple[str, ...], *words: str, variables: str = "/dev/null", chosen: tuple[str, ...] = ()) -> str:
    """What it prints for `config`; it warns of nothing. Variables are those of a file, and not of who runs the test."""
    options = [part for name in files for part in ("--file", str(COMPOSE / name))]
    options += [part for profile in chosen for part in ("--profile", profile)]
    command = [*program(), "--env-file", variables, *options, "config", *words]
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@functools.cache
def rendered(files: tuple[str, ...], chosen: tuple[str, ...] = tuple(PROFILES), variables: str = "/dev/null") -> Any:
    return json.loads(asked(files, "--format", "json", chosen=chosen, variables=variables))


def services(files: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """All of them, whatever profile each is of."""
    found: dict[str, dict[str, Any]] = rendered(files)["services"]
    return found


@pytest.mark.parametrize("chosen", CHOSEN, ids=lambda chosen: "+".join(chosen) or "none")
@every_combination
def test_compose_reads_every_combination(files: tuple[str, ...], chosen: tuple[str, ...]) -> None:
    started = {
        name
        for name, service in compose()["services"].items()
        if "profiles" not in service or {*service["profiles"]} & {*chosen}
    }
    assert set(rendered(files, chosen)["services"]) == started


def test_what_the_guide_names_is_among_them() -> None:
    calls = re.findall(r"docker compose ([^`\n]*)", (DEPLOY / "README.md").read_text())
    assert calls
    for call in calls:
        assert set(re.findall(r"(?:-f|--file) (\S+)", call)) <= {BASE, *MORE}, call
        assert set(re.findall(r"--profile (\S+)", call)) <= {*PROFILES}, call
    assert all(any(name in call for call in calls) for name in MORE)


def test_a_profile_is_one_of_these() -> None:
    assert sorted(asked((BASE,), "--profiles").split()) == PROFILES


@every_combination
def test_nothing_is_published_but_the_proxy_and_grafana_and_both_on_loopback(files: tuple[str, ...]) -> None:
    found = {
        name: [(port.get("host_ip"), port["published"], port["target"]) for port in service["ports"]]
        for name, service in services(files).items()
        if service.get("ports")
    }
    assert found == PUBLISHED
    assert not any(service.get("network_mode") == "host" for service in services(files).values())


@every_combination
def test_no_service_stands_in_a_network_that_nobody_named(files: tuple[str, ...]) -> None:
    """One without networks would be in the default one, which leads outside."""
    found = rendered(files)
    inside = {name for name, network in found["networks"].items() if network.get("internal")}
    assert (inside, set(found["networks"])) == ({"cluster", "data", "monitoring"}, {*inside, "outside"})
    joined = {name: {*service.get("networks", ())} for name, service in found["services"].items()}
    assert {name for name, networks in joined.items() if "outside" in networks} == {"dashboard", "grafana"}
    for name, networks in joined.items():
        assert networks or found["services"][name]["network_mode"] == "service:dashboard", name
    for database in ("worker", "grafana", "prometheus"):
        assert "data" not in joined[database]
    assert ("cluster" in joined["dashboard"]) == ("submit.yaml" in files)


@every_combination
def test_every_secret_is_a_file_of_the_folder_and_in_no_environment(files: tuple[str, ...]) -> None:
    found = rendered(files)
    for name, secret in found["secrets"].items():
        assert Path(secret["file"]) == COMPOSE / "secrets" / name.removeprefix("archsearch_")
        assert not {"environment", "external", "content"} & {*secret}
    for name, service in found["services"].items():
        places = [secret["target"] for secret in service.get("secrets", ())]
        assert len(places) == len({*places}), f"{name}: one secret hides another"
        for variable, value in (service.get("environment") or {}).items():
            hidden = re.search(r"PASSWORD|SECRET|TOKEN", variable)
            assert not hidden or str(value).startswith("/run/secrets/"), f"{name}: {variable}"
            assert not re.search(r"//[^/@]+:[^/@]+@", str(value)), f"{name}: a password in {variable}"


@every_combination
def test_each_role_has_one_password_and_no_other(files: tuple[str, ...]) -> None:
    held = {
        name: {secret["source"] for secret in service.get("secrets", ())} for name, service in services(files).items()
    }
    submits = "submit.yaml" in files
    assert held["worker"] == {"ray_token"}
    assert held["migrate"] == {"migrator_pgpass"}
    assert held["head"] == held["cli"] == {"ray_token", "writer_pgpass"}
    assert held["prune"] == {"writer_pgpass"}
    assert held["backup"] == {"reader_pgpass"}
    assert held["dashboard"] == ({"ray_token", "submitter_pgpass"} if submits else {"reader_pgpass"})
    assert held["proxy"] == {"users.caddy"}


@every_combination
def test_no_service_has_rights_to_gain_nor_the_machine_s_own_folders(files: tuple[str, ...]) -> None:
    for name, service in services(files).items():
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged"), name
        assert name in ("grafana", "postgres") or service["cap_drop"] == ["ALL"], name
        assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "proxy" else []), name
        for volume in service.get("volumes", ()):
            place = volume["source"]
            if volume["type"] == "bind":
                assert Path(place).is_relative_to(DEPLOY.parent), f"{name}: {place}"
                assert volume["read_only"], f"{name}: {place}"


@every_combination
def test_cards_are_the_workers_alone(files: tuple[str, ...]) -> None:
    asks = {name for name, service in services(files).items() if "devices" in json.dumps(service.get("deploy", {}))}
    assert asks == ({"worker"} if "gpu.yaml" in files else set())


def test_the_example_of_variables_says_what_holds_without_it() -> None:
    """Empty ones among them: a volume where no folder is named, no retention where no age is."""
    example = rendered((BASE,), variables=str(COMPOSE / ".env.example"))
    assert example["services"] == services((BASE,))


def test_what_the_variables_name_is_taken(tmp_path: Path) -> None:
    named = tmp_path / "variables"
    named.write_text(f"SITE=search.example.org\nBIND=0.0.0.0\nPORT=443\nBACKUPS={tmp_path}\nPRUNE_OLDER_THAN=1y\n")
    found = rendered((BASE, "submit.yaml"), variables=str(named))["services"]
    (port,) = found["dashboard"]["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("0.0.0.0", "443", 8443)
    assert "search.example.org" in found["dashboard"]["command"]
    assert found["proxy"]["environment"]["SITE"] == "search.example.org"
    (volume,) = found["backup"]["volumes"]
    assert (volume["type"], volume["source"]) == ("bind", str(tmp_path))
    assert found["prune"]["environment"]["PRUNE_OLDER_THAN"] == "1y"
