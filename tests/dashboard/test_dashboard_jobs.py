"""The page Jobs over a command line that is made up: drafting, checking, sending once, watching and stopping."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from archsearch_dashboard import command_line
from archsearch_dashboard.pages import jobs as page
from archsearch_dashboard.queries import drafts
from archsearch_dashboard.queries.jobs import jobs_table, last_lines
from dashboard_samples import open_page, texts, well
from streamlit.testing.v1 import AppTest

from archsearch.errors import ArchsearchError
from archsearch.search.spec import SearchSpec
from archsearch.storage import Store

ADDRESS = "http://127.0.0.1:8265"
SURVEY = {"taken": False, "space": {"trainable": 5}, "said": ["9 candidates", "nothing is known of their time"]}


def job(name: str, status: str = "RUNNING", **more: Any) -> dict[str, Any]:
    begun = datetime.now(UTC) - timedelta(minutes=5)
    return {"id": name, "search": "quick", "status": status, "started_at": begun.isoformat(), "reason": "", **more}


@dataclass
class Cluster:
    """What the command line would say, and what it was asked."""

    listed: list[dict[str, Any]] = field(default_factory=list)
    surveyed: Mapping[str, Any] = field(default_factory=lambda: SURVEY)
    error: str = ""
    sent: list[tuple[str, str]] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)

    def survey(self, toml: str) -> Mapping[str, Any]:
        return self._or_error(self.surveyed)

    def submit(self, toml: str, key: str, owner: str = "") -> Mapping[str, Any]:
        self._or_error(None)
        self.sent.append((toml, key))
        self.owners.append(owner)
        return job(f"job-{len(self.sent)}", "PENDING", reason="no room yet")

    def jobs(self) -> list[dict[str, Any]]:
        return self._or_error(self.listed)

    def logs(self, name: str) -> str:
        return self._or_error("\n".join(f"line {number}" for number in range(100)))

    def stop(self, name: str) -> Mapping[str, Any]:
        self._or_error(None)
        self.stopped.append(name)
        return job(name, "STOPPED")

    def _or_error(self, answer: Any) -> Any:
        if self.error:
            raise ArchsearchError(self.error)
        return answer


@pytest.fixture
def cluster(url: str, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setenv(command_line.SUBMIT_TO, ADDRESS)
    for name in ("survey", "submit", "jobs", "logs", "stop"):
        monkeypatch.setattr(command_line, name, getattr(made, name))
    return made


def toml_of(app: AppTest) -> dict[str, Any]:
    return tomllib.loads(next(block.value for block in app.code if "[space]" in block.value))


def pressed(app: AppTest, label: str) -> AppTest:
    (button,) = [one for one in app.button if one.label == label]
    return button.click().run()


def disabled(app: AppTest, label: str) -> bool:
    (button,) = [one for one in app.button if one.label == label]
    return bool(button.disabled)


def named(app: AppTest, kind: str, label: str) -> Any:
    (widget,) = [one for one in getattr(app, kind) if one.label == label]
    return widget


def test_the_page_is_there_only_where_searches_may_be_sent(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(command_line.SUBMIT_TO, raising=False)
    assert "Jobs" not in texts(open_page("jobs"))
    monkeypatch.setenv(command_line.SUBMIT_TO, ADDRESS)
    assert f"the cluster at {ADDRESS}" in texts(open_page("jobs")).replace("\\", "").replace("\u2060", "")


def test_a_draft_is_a_spec_before_anything_is_changed(cluster: Cluster) -> None:
    app = well(open_page("jobs"))
    spec = SearchSpec.from_dict(toml_of(app))
    assert (spec.name, spec.space.mixers) == ("my-search", ("full", "sliding", "linear"))
    assert disabled(app, "Send to the cluster")


def test_from_the_form_to_the_cluster(cluster: Cluster) -> None:
    app = well(open_page("jobs"))
    named(app, "text_input", "name").set_value("mine")
    named(app, "text_input", "n_layers").set_value("6")
    named(app, "text_input", "learning_rates").set_value("0.01, 0.003")
    named(app, "multiselect", "decay").set_value(["none", "head"])
    named(app, "text_area", "limits, one a line").set_value("state_bytes@131072 = 18 MiB")
    app = pressed(well(app.run()), "Check")
    said = texts(well(app)) + "".join(block.value for block in app.success)
    assert "9 candidates" in said
    app = well(pressed(app, "Send to the cluster"))
    ((toml, _),) = cluster.sent
    spec = SearchSpec.from_dict(tomllib.loads(toml))
    assert (spec.name, spec.model.n_layers, spec.recipe.learning_rates) == ("mine", 6, (0.01, 0.003))
    assert spec.space.options["linear"] == {"key_dim": (4,), "decay": ("none", "head")}
    assert spec.budget == {"state_bytes@131072": "18 MiB"}
    assert "Sent as job `job-1`, which is PENDING" in app.success[-1].value


def test_a_search_is_owned_by_whom_the_proxy_names(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "submitter", lambda: "ada@example.org")
    app = pressed(open_page("jobs"), "Check")
    assert "as those of ada@example.org" in texts(app).replace("\\", "").replace("\u2060", "")
    well(pressed(app, "Send to the cluster"))
    assert cluster.owners == ["ada@example.org"]


def test_a_second_press_sends_nothing_and_another_draft_does(cluster: Cluster) -> None:
    app = pressed(pressed(open_page("jobs"), "Check"), "Send to the cluster")
    app = pressed(well(app), "Send to the cluster")
    assert len(cluster.sent) == 1
    assert "job-1" in well(app).success[-1].value
    app = pressed(app, "Another draft")
    well(pressed(app, "Send to the cluster"))
    assert len({key for _, key in cluster.sent}) == 2


def test_two_at_once_by_one_key_are_one_job(cluster: Cluster) -> None:
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: page.sent("one key", "name = 'x'", ""), range(2)))
    assert found[0] == found[1]
    assert len(cluster.sent) == 1


def test_a_failed_submission_is_told_and_can_be_tried_again(cluster: Cluster) -> None:
    app = pressed(open_page("jobs"), "Check")
    cluster.error = "cannot reach a Ray cluster at there: is `ray start --head` running?"
    app = pressed(well(app), "Send to the cluster")
    assert "cannot reach a Ray cluster" in app.error[0].value
    assert not app.exception
    cluster.error = ""
    well(pressed(app, "Send to the cluster"))
    assert len(cluster.sent) == 1


@pytest.mark.parametrize(
    ("kind", "label", "value", "said"),
    [
        ("text_input", "n_layers", "0", "model.n_layers = 0"),
        ("text_input", "n_layers", "many", "model.n_layers"),
        ("text_input", "name", "no/name", "name = 'no/name'"),
        ("text_input", "seed", "-1", "seed = -1"),
        ("multiselect", "mixers", [], "space.mixers"),
        ("multiselect", "tasks", [], "tasks"),
        ("text_area", "limits, one a line", "18 MiB", "is no limit: write COST = LIMIT"),
    ],
    ids=["small", "no-number", "name", "seed", "mixers", "tasks", "budget"],
)
def test_what_is_wrong_is_said_in_the_words_of_the_spec(
    cluster: Cluster, kind: str, label: str, value: Any, said: str
) -> None:
    app = open_page("jobs")
    named(app, kind, label).set_value(value)
    app.run()
    assert not app.exception
    (error,) = app.error
    assert said in error.value.replace("\\", "")
    assert disabled(app, "Check")
    assert disabled(app, "Send to the cluster")


@pytest.mark.parametrize(
    "surveyed",
    [{**SURVEY, "taken": True}, {**SURVEY, "space": {"trainable": 0}}, {}],
    ids=["taken", "nothing", "no-answer"],
)
def test_what_would_end_badly_is_not_sent(cluster: Cluster, surveyed: dict[str, Any]) -> None:
    cluster.surveyed = surveyed
    app = well(pressed(open_page("jobs"), "Check"))
    assert disabled(app, "Send to the cluster")


def test_a_changed_draft_wants_another_check(cluster: Cluster) -> None:
    app = well(pressed(open_page("jobs"), "Check"))
    assert not disabled(app, "Send to the cluster")
    named(app, "text_input", "name").set_value("other")
    assert disabled(app.run(), "Send to the cluster")


def test_a_draft_begins_from_a_stored_search(cluster: Cluster) -> None:
    app = open_page("jobs")
    named(app, "selectbox", "Start from").set_value("quick")
    spec = toml_of(well(app.run()))
    assert spec["name"] == "quick-again"
    assert SearchSpec.from_dict(spec).recipe.learning_rates == (0.01, 0.003)


def test_the_form_keeps_what_a_stored_search_says_of_backbones_and_widths(cluster: Cluster, empty_url: str) -> None:
    searched = {"ffn_dim": [0, 64], "backbone": {"n_heads": [2, 4]}}
    given = {**drafts.SMALL, "name": "wide", "model": {"n_layers": 4}}
    spec = SearchSpec.from_dict({**given, "space": {**drafts.SMALL["space"], **searched}})
    with Store.open(empty_url) as store:
        store.create_search("wide", spec.to_json(), [])
    app = open_page("jobs")
    named(app, "selectbox", "Start from").set_value("wide")
    again = SearchSpec.from_dict(toml_of(well(app.run())))
    assert again.space == spec.space
    assert again.to_json()["model"] == spec.to_json()["model"]


def test_a_draft_as_text(cluster: Cluster) -> None:
    app = open_page("jobs")
    app.segmented_control(key="job_how").set_value("TOML")
    area = named(well(app.run()), "text_area", "Spec (TOML)")
    text = area.value
    area.set_value(text.replace("my-search", "pasted"))
    assert toml_of(well(app.run()))["name"] == "pasted"
    named(app, "text_area", "Spec (TOML)").set_value("name = ")
    app.run()
    assert "this is no TOML" in app.error[0].value
    named(app, "text_area", "Spec (TOML)").set_value(f'{text}\n[storage]\nurl = "sqlite:///x.db"\n')
    app.run()
    assert "settled on the cluster" in app.error[0].value


def test_jobs_are_listed_with_their_last_lines(cluster: Cluster) -> None:
    cluster.listed = [job(f"job-{number}") for number in range(40)] + [job("done", "FAILED", reason="no *room*")]
    app = well(open_page("jobs", view="Jobs"))
    assert app.dataframe[0].value["state"].tolist() == ["running"] * 40 + ["failed"]
    assert app.dataframe[0].value["sent"][0] == "5 min ago"
    assert "line 99" in app.code[0].value
    assert "line 39\n" not in app.code[0].value
    named(app, "selectbox", "Job").set_value("done")
    assert r"no \*room\*" in well(app.run()).warning[0].value
    assert "Stop" not in [button.label for button in app.button]


def test_a_job_is_stopped_after_a_question(cluster: Cluster) -> None:
    cluster.listed = [job("one"), job("two")]
    app = open_page("jobs", view="Jobs")
    named(app, "selectbox", "Job").set_value("two")
    app = pressed(app.run(), "Stop")
    assert "Stop job `two`?" in app.warning[0].value
    assert not cluster.stopped
    app = pressed(app, "No")
    assert not app.warning
    app = pressed(pressed(app, "Stop"), "Yes, stop it")
    assert cluster.stopped == ["two"]
    assert not app.warning
    assert "Job `two` is STOPPED" in well(app).success[0].value


def test_a_cluster_without_jobs_and_one_that_does_not_answer(cluster: Cluster) -> None:
    assert "No search was sent to this cluster yet" in texts(well(open_page("jobs", view="Jobs")))
    page._listed.clear()
    cluster.error = "`archsearch jobs` gave no answer in 60 s"
    app = open_page("jobs", view="Jobs")
    assert not app.exception
    assert "gave no answer in 60 s" in app.error[0].value.replace("\\", "")
    assert [button.label for button in app.button] == ["Try again"]
    assert "cluster at" in texts(app)


def test_jobs_of_any_shape_have_a_row() -> None:
    now = datetime.now(UTC)
    table = jobs_table([{}, job("a", owner="ada"), {"id": 3, "started_at": "yesterday", "status": None}], now)
    assert table["owner"].tolist() == ["", "ada", ""]
    assert table["sent"].tolist() == ["", "5 min ago", ""]


def test_a_log_is_shown_by_its_end() -> None:
    shown, left_out = last_lines("\n".join(["a" * 1000] * 70) + "\n\x1b[31mred")
    assert left_out == 11
    assert len(shown.splitlines()[0]) == 401
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    "values",
    [["a", "b"], ["],\n", '"', "    x,"], list(range(20)), [[1, 2], [3]], [{"name": "mqar"}, {"name": "copy"}], []],
    ids=["short", "odd", "long", "nested", "tables", "empty"],
)
def test_a_list_is_read_as_it_was_written(values: list[Any]) -> None:
    draft = {"name": "x", "space": {"mixers": values, "last": 1}, "tasks": values}
    assert drafts.from_text(drafts.to_toml(draft)) == draft
    assert 'mixers = ["full", "sliding", "linear"]' in drafts.to_toml(drafts.SMALL)
