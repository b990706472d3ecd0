"""The board, the alerts and the scrape configuration: every query names metrics that a driver serves."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deploy_files import DEPLOY, ROOT, compose, documents

from archsearch.search.metrics import MetricsAddress, SearchMetrics
from archsearch.storage import Driver, Store
from archsearch.storage.records import SEARCH_STATES, TRIAL_STATES

MONITORING = DEPLOY / "monitoring"
BOARD: dict[str, Any] = json.loads((MONITORING / "grafana" / "searches.json").read_text())
ALERTS = [rule for group in documents(MONITORING / "alerts.yaml")[0]["groups"] for rule in group["rules"]]
QUERIES = [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]
QUERIES += [rule["expr"] for rule in ALERTS] + [item["query"] for item in BOARD["templating"]["list"]]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of all samples that a driver serves."""
    with Store.open(f"sqlite:///{tmp_path_factory.mktemp('metrics')}/searches.db") as store:
        store.create_search("toy", {}, [])
        families = list(SearchMetrics(store, "toy").registry.collect())
    counted = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}
    return {family.name + end for family in families for end in counted.get(family.type, [""])}


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_names_metrics_and_states_that_there_are(query: str, served: set[str]) -> None:
    assert set(re.findall(r"archsearch_\w+", query)) <= served
    for states in re.findall(r'state[!=~]+"([^"]+)"', query):
        assert set(states.split("|")) <= {*SEARCH_STATES, *TRIAL_STATES}


def test_every_metric_is_shown_somewhere(served: set[str]) -> None:
    shown = {name for query in QUERIES for name in re.findall(r"archsearch_\w+", query)}
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in served} == {
        re.sub(r"_(bucket|count|sum)$", "", name) for name in shown
    }


def test_every_metric_is_documented(served: set[str]) -> None:
    text = (ROOT / "docs" / "watching.md").read_text()
    told = set(re.findall(r"`(archsearch_\w+)`", text))
    assert told == {re.sub(r"_(bucket|count|sum)$", "", name) for name in served}


def test_every_alert_is_documented_and_no_other() -> None:
    text = (ROOT / "docs" / "watching.md").read_text()
    assert re.findall(r"^\| `([A-Z]\w+)` \|", text, re.MULTILINE) == [rule["alert"] for rule in ALERTS]


def test_no_alert_takes_a_port_that_is_down_for_a_fault() -> None:
    """Most of the ports have no driver, and one that ended in order leaves its port as one that was killed does."""
    assert not [rule["alert"] for rule in ALERTS if re.search(r"\bup\b|\babsent", rule["expr"])]


def test_the_line_for_cron_names_what_the_command_prints(tmp_path: Path) -> None:
    """`searches --json` has the state of a search whose driver is dead, by the names that the line asks for."""
    from typer.testing import CliRunner

    from archsearch.cli import app

    url = f"sqlite:///{tmp_path}/searches.db"
    with Store.open(url) as store:
        store.create_search("toy", {}, [], driver=replace(Driver.here(), started=1))
    told = json.loads(CliRunner().invoke(app, ["searches", "--json", "--storage", url]).stdout)
    text = (ROOT / "docs" / "watching.md").read_text()
    (line,) = re.findall(r"^archsearch searches --json \| jq .*", text, re.MULTILINE)
    rows, state, name = re.findall(r"\.(\w+)", line)
    assert [(row[state], row[name]) for row in told[rows]] == [("interrupted", "toy")]


def test_the_ports_are_those_that_drivers_take() -> None:
    address = MetricsAddress.read(compose()["services"]["head"]["environment"]["ARCHSEARCH_METRICS"])
    targets = documents(MONITORING / "prometheus.yaml")[0]["scrape_configs"][0]["static_configs"][0]["targets"]
    assert targets == [f"ray-head:{port}" for port in range(address.first, address.last + 1)]


def test_panels_lie_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


def test_prometheus_reads_its_files(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    text = (MONITORING / "prometheus.yaml").read_text().replace("/etc/prometheus/", f"{MONITORING}/")
    (tmp_path / "prometheus.yaml").write_text(text)
    subprocess.run(["promtool", "check", "config", str(tmp_path / "prometheus.yaml")], check=True, capture_output=True)


def test_grafana_finds_what_is_provisioned() -> None:
    source = documents(MONITORING / "grafana" / "datasources.yaml")[0]["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    folder = documents(MONITORING / "grafana" / "boards.yaml")[0]["providers"][0]["options"]["path"]
    mounts = [volume.split(":")[1] for volume in compose()["services"]["grafana"]["volumes"]]
    assert folder in mounts
