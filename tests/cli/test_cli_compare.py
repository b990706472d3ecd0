"""``archsearch compare``: tables of a stored search, its remarks, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_samples import add_trial, payload
from tiny_spec import tiny_spec
from typer.testing import Result

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.registry import load_registry
from archsearch.search import Problem, SearchOutcome, SearchSpec
from archsearch.search.progress import Progress
from archsearch.storage import NewTrial, Store, storage_url

Run = Callable[..., Result]


def fill(url: str) -> None:
    with Store.open(url) as store:
        search = store.create_search("held", {"compare": {"baseline": "full"}}, [])
        add_trial(store, search, "linear full", costs=(4.0, 2e6), accuracies=[0.90, 0.91, 0.92])
        add_trial(store, search, "full full", costs=(8.0, 2e6), accuracies=[0.50, 0.52, 0.51])
        add_trial(store, search, "moba full", costs=(9.0, 2e6), state="infeasible", reason="over budget")


def test_a_search_is_shown_against_its_baseline(run: Run, url: str) -> None:
    fill(url)
    shown = run("compare", "held", "--baseline", "full full")
    assert (shown.exit_code, shown.exception) == (0, None)
    text = " ".join(shown.stdout.split())
    assert "mqar, on test" in text
    assert "0.910 ± 0.006" in text
    assert "+0.400" in text
    assert "better" in text
    assert "in the one comparison that is made less often than once in 20 (Holm)" in text
    assert "not compared: moba full is infeasible: over budget" in text
    data = json.loads(run("compare", "held", "--baseline", "linear full", "--json").stdout)
    assert data["baseline"] == "linear full"
    other = data["architectures"][1]["tasks"]["mqar"]
    assert other["clear"] is True
    assert other["against"]["mean"] == pytest.approx(-0.4)


def test_what_cannot_be_compared_is_one_sentence(run: Run, url: str, tmp_path: Path) -> None:
    fill(url)
    (tmp_path / "tiny.toml").write_text(tiny_spec(3))
    for words, said in (
        (["held", "--resume"], "is the name of a search, which is shown"),
        (["held", "--dry-run"], "is the name of a search, which is shown"),
        (["tiny.toml"], "tiny.toml has no [compare] table"),
        (["none"], 'no search "none"'),
        (["held", "--baseline", "ful full"], "is none of the architectures"),
    ):
        refused = run("compare", *words)
        assert refused.exit_code != 0
        assert said in str(refused.exception), refused.exception


def test_a_task_that_the_baseline_lacks_has_no_difference(run: Run, url: str) -> None:
    """The baseline diverged before it came to the second task: the others are not called baselines there."""
    with Store.open(url) as store:
        search = store.create_search("held", {}, [])
        base = add_trial(store, search, "full full", costs=(8.0, 2e6), accuracies=[None], state="diverged")
        other = add_trial(store, search, "linear full", costs=(4.0, 2e6), accuracies=[0.9, 0.8, 0.85])
        store.add_measurement(other, payload("linear full b", 0, 0.75), {}, task="second")
    assert base != other
    shown = run("compare", "held").stdout
    first, second = shown.split("second, on test")
    assert "baseline" in first
    assert "baseline" not in second.split("differences are")[0]
    assert "given up where a seed diverged on mqar: full full, which may lack" in shown


def listed_spec(tmp_path: Path) -> None:
    text = tiny_spec(3).replace(
        'mixers = ["full", "sliding"]', 'pattern = "listed"\narchitectures = ["full", "linear"]'
    )
    text = text.replace("[space.sliding]\nwindow = [8]\nsinks = [0]\n", "").replace("trials = 2\n", "")
    (tmp_path / "tiny.toml").write_text(text + "[compare]\n")


def test_a_baseline_that_will_not_be_trained_is_refused_before_training(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    monkeypatch.setattr("archsearch.cli.compare.carry_out", lambda problem, *_, **__: begun.append(problem.spec.name))
    listed_spec(tmp_path)
    refused = run("compare", "tiny.toml", "--baseline", "sliding")
    assert '--baseline: "sliding" is none of the architectures' in str(refused.exception)
    refused = run("compare", "tiny.toml", "--csv", "none/x.csv")
    assert "cannot write none/x.csv: No such file or directory" in str(refused.exception)
    assert begun == []
    assert run("compare", "tiny.toml", "--csv", "x.csv").exception is None
    assert begun.pop() == "tiny"
    assert not (tmp_path / "x.csv").exists(), "nothing is left where nothing is written"
    for given in ("linear", "linear*2"):
        assert run("compare", "tiny.toml", "--baseline", given).exception is None
    assert begun == ["tiny", "tiny"]


LIST = 'pattern = "listed"\narchitectures = ["sliding(window=8)", "gated-deltanet", "kda"]'


def matched_spec(tmp_path: Path, match: str) -> None:
    text = tiny_spec(16).replace(
        'mixers = ["full", "sliding"]',
        LIST,
    )
    text = text.replace("[space.sliding]\nwindow = [8]\nsinks = [0]\n", "").replace("trials = 2\n", "")
    (tmp_path / "tiny.toml").write_text(text + f'[compare]\nmatch = "{match}"\n')


def test_what_would_be_trained_is_shown_and_nothing_is(run: Run, tmp_path: Path) -> None:
    matched_spec(tmp_path, "state_read")
    shown = run("compare", "tiny.toml", "--dry-run")
    assert (shown.exit_code, shown.exception) == (0, None)
    assert "matched by state_read: bytes of state read for one decoded token at 1,024 tokens" in shown.stdout
    data = json.loads(run("compare", "tiny.toml", "--dry-run", "--json").stdout)
    assert data["baseline"] == "sliding(window=8)*2"
    matching = data["matching"]
    assert [row["pattern"] for row in matching["architectures"]] == [row["pattern"] for row in data["architectures"]]
    for row in matching["architectures"]:
        assert row["pattern"] in shown.stdout
        assert abs(row["after"] / matching["target"] - 1) <= 0.05
    assert not list(tmp_path.glob("*.db"))
    matched_spec(tmp_path, "tokens")
    plain = run("compare", "tiny.toml", "--dry-run").stdout
    assert "trained by the recipe as it stands" in plain
    assert "baseline" in plain
    assert json.loads(run("compare", "tiny.toml", "--dry-run", "--json").stdout)["matching"] is None


def add_listed(store: Store, search: int, pattern: str, asked: str | None) -> None:
    model = ModelSpec(d_model=16, n_heads=2, channel_mixer="none")
    arch = ArchSpec.parse(pattern, load_registry(), model)
    trial = store.add_trial(
        search,
        NewTrial(
            kind="search",
            state="queued",
            digest=arch.digest,
            pattern=pattern,
            params={"architecture": asked} if asked else {},
            seeds=[0],
            arch=arch.to_json(),
            costs={},
            violations={},
        ),
    )
    store.add_measurement(trial, payload(pattern, 0, 0.5), {}, task="mqar")
    store.set_trial_state(trial, "complete", "")


def test_how_a_stored_comparison_was_matched_is_shown_with_it(run: Run, url: str, tmp_path: Path) -> None:
    matched_spec(tmp_path, "state_read")
    spec = SearchSpec.load(tmp_path / "tiny.toml").to_json()
    base, kda = "sliding(window=8)*2", "kda(key_dim=2)*2"
    with Store.open(url) as store:
        search = store.create_search("matched", spec, [])
        for pattern, asked in ((base, "sliding(window=8)"), (kda, "kda"), ("linear*2", None)):
            add_listed(store, search, pattern, asked)
    first = run("compare", "matched")
    assert first.exception is None
    shown = " ".join(first.stdout.split())
    assert "matched by state_read: bytes of state read for one decoded token at 1,024 tokens" in shown
    assert f"kda {kda}" in shown
    assert "not compared: gated-deltanet is not begun" in shown
    assert "not matched, as it is none of the list: linear*2, which stands beside the others" in shown
    found = json.loads(run("compare", "matched", "--baseline", "kda", "--json").stdout)["matching"]
    assert found["baseline"] == base, "what they were matched to, whichever they are held against"
    assert [row["asked"] for row in found["architectures"]] == ["sliding(window=8)", "kda"]
    assert found["architectures"][0]["before"] == found["architectures"][0]["after"] == found["target"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("match", ["train_flops", "state_read"])
def test_a_matched_comparison_runs_to_its_tables(run: Run, tmp_path: Path, match: str) -> None:
    matched_spec(tmp_path, match)
    shown = run("compare", "tiny.toml", "--json")
    assert (shown.exit_code, shown.exception) == (0, None), shown.stderr
    data = json.loads(shown.stdout)
    rows = {row["asked"]: row for row in data["architectures"]}
    planned = json.loads(run("compare", "tiny.toml", "--dry-run", "--json").stdout)["matching"]
    assert data["matching"] == planned, "the record says what was planned"
    for planned in data["matching"]["architectures"]:
        assert rows[planned["asked"]]["digest"] == planned["digest"]
        assert rows[planned["asked"]]["tasks"]["mqar"]["steps"] == planned["steps"].get("mqar", 16)


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_what_was_stopped_before_anything_was_measured_tells_how_it_ended(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    def stopped(problem: Problem, finish: Any, *, storage: str | None, **_: Any) -> None:
        url, spec = storage_url(storage), problem.spec
        with Store.open(url) as store:
            store.create_search(spec.name, spec.to_json(), [])
            ended = SearchOutcome(name=spec.name, state="cancelled", reason="stopped", seconds=1.0, progress=Progress())
            finish(store, ended, url)

    monkeypatch.setattr("archsearch.cli.compare.carry_out", stopped)
    listed_spec(tmp_path)
    told = run("compare", "tiny.toml", *flags)
    assert told.exception is None
    if flags:
        data = json.loads(told.stdout)
        assert (data["state"], data["architectures"]) == ("cancelled", [])
        assert "no trial that is complete" in data["not_compared"]
    else:
        assert "not compared: " in told.stdout
        assert "archsearch resume tiny" in told.stdout


def test_how_soon_each_has_learnt_what_full_attention_learns_is_told(run: Run, url: str) -> None:
    with Store.open(url) as store:
        search = store.create_search("held", {}, [])
        for pattern, values in {
            "full full": (0.2, 0.4, 0.6, 0.8, 0.9),
            "linear full": (0.1, 0.1, 0.1, 0.1, 0.4),
        }.items():
            trial = add_trial(store, search, pattern, costs=(4.0, 2e6), accuracies=[values[-1]])
            looks = [{"step": 20.0 * (at + 1), "loss": 1.0, "accuracy": value} for at, value in enumerate(values)]
            recipe = {"steps": 100, "batch_size": 8, "eval_every": 20, "stop_at": 0.0}
            found = {**payload(pattern, 0, values[-1]), "curve": looks, "seq_len": 16, "recipe": recipe}
            store.add_measurement(trial, found, {}, task="mqar")
    shown = run("compare", "held").stdout
    text = " ".join(shown.split())
    assert "to half" in shown
    assert "not in 12.8 k tokens" in text
    assert "of what full attention gains" in text
    data = json.loads(run("compare", "held", "--json").stdout)
    speeds = {row["pattern"]: row["speeds"]["mqar"]["tokens_to_half"] for row in data["architectures"]}
    assert (speeds["full full"]["arrived"], speeds["linear full"]["arrived"]) == (1, 0)
