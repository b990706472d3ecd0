"""``archsearch sweep``: what is planned and refused, and the curves of a stored sweep as text, picture and data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_samples import payload
from grids import grid
from typer.testing import Result

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.registry import Registry
from archsearch.search import Problem, SearchOutcome
from archsearch.search.progress import Progress
from archsearch.search.time_limit import TimeLimit
from archsearch.storage import NewTrial, Store, storage_url

Run = Callable[..., Result]
LEVELS = {"full": 0.95, "sliding(window=4)": 0.2, "sliding(window=16)": 0.6}


def fill(url: str, registry: Registry, name: str = "swept") -> None:
    """A sweep of two mixers at 4 and 12 pairs."""
    with Store.open(url) as store:
        search = store.create_search(name, {"objectives": {"context": 4096}}, [])
        for layer, level in LEVELS.items():
            arch = ArchSpec.parse(f"{layer}*2", registry, ModelSpec(d_model=64, n_heads=2, channel_mixer="none"))
            made = NewTrial(
                kind="search",
                state="queued",
                digest=arch.digest,
                pattern=f"{layer}*2",
                arch=arch.to_json(),
                params={},
                seeds=[0, 1],
                costs={},
                violations={},
            )
            trial = store.add_trial(search, made)
            for pairs in (4, 12):
                for seed in (0, 1):
                    options = {"name": "mqar", "setting": "compact", "options": {"pairs": pairs}}
                    key = f"{name}/{layer}/{pairs}/{seed}"
                    data = payload(layer, seed, level + 0.02 * seed, key=key, task_options=options, seq_len=48)
                    store.add_measurement(trial, data, {}, task=f"mqar:compact(pairs={pairs})")
            store.set_trial_state(trial, "complete")


def test_a_sweep_is_shown_and_written(run: Run, url: str, registry: Registry, tmp_path: Path) -> None:
    fill(url, registry)
    shown = run("sweep", "recall", "swept", "--csv", "points.csv", "--picture", "curves.svg")
    assert shown.exception is None, shown.exception
    text = " ".join(shown.stdout.split())
    assert "swept: accuracy on test, by the size of the state" in text
    assert "0.960 ± 0.010" in text
    assert "accuracy, 12 pairs" in text
    assert "counted at the task's 48 tokens, and again at 4,096" in text
    assert (tmp_path / "points.csv").read_text().splitlines()[0].startswith("mixer,family,layer,d_model")
    drawn = (tmp_path / "curves.svg").read_text()
    assert "12 pairs" in drawn
    assert "sliding" in drawn
    data = json.loads(run("sweep", "recall", "swept", "--json").stdout)
    assert len(data["points"]) == 6
    assert {point["pairs"] for point in data["points"]} == {4, 12}


def test_a_plan_trains_nothing(run: Run) -> None:
    shown = run("sweep", "recall", "--mixers", "full,moba(top_k=2)", "--pairs", "4,8", "--sizes", "2", "--plan")
    assert shown.exception is None, shown.exception
    assert "4 architectures at 2 numbers of pairs, 32 trainings at most" in " ".join(shown.stdout.split())
    assert "moba(block_size=4, top_k=2)*2" in shown.stdout
    plan = ("sweep", "recall", "--mixers", "full", "--pairs", "4", "--plan", "--json")
    data = json.loads(run(*plan).stdout)
    assert [search["name"] for search in data["searches"]] == ["recall", "recall-d32", "recall-d128"]
    assert data["trainings"] == 12


REFUSED = {
    "pairs": (["--pairs", "4,x"], '--pairs: "x" is no whole number above 0'),
    "minutes": (["--minutes", "0"], "--minutes 0: give a number of minutes above 0"),
    "picture": (["--picture", "curves.doc"], "--picture curves.doc: its name must end with"),
    "against": (["swept", "--against", "state"], "--against state"),
    "name": (["swept", "--mixers", "full"], '"swept" is the name of a sweep, which is shown'),
    "mixer": (["--mixers", "sofmax", "--plan"], 'unknown mixer "sofmax"'),
    "empty": (["--mixers", "full,,kda", "--plan"], "has an empty entry"),
}


@pytest.mark.parametrize("case", grid(REFUSED, ("pairs", "against", "name", "mixer")))
def test_what_cannot_be_swept_is_one_sentence(case: tuple[list[str], str], run: Run) -> None:
    words, said = case
    refused = run("sweep", "recall", *words)
    assert refused.exit_code != 0
    assert said in str(refused.exception), refused.exception


@pytest.mark.slow
def test_a_picture_in_no_folder_and_an_unknown_sweep_are_refused(run: Run, url: str, registry: Registry) -> None:
    fill(url, registry)
    assert 'no search "none"' in str(run("sweep", "recall", "none").exception)
    refused = run("sweep", "recall", "swept", "--picture", "nowhere/curves.svg")
    assert "cannot write the picture nowhere/curves.svg" in str(refused.exception)


@pytest.mark.parametrize("flags", [[], pytest.param(["--json"], marks=pytest.mark.slow)])
def test_its_searches_are_run_one_after_another_with_one_end(
    run: Run, registry: Registry, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    begun: list[tuple[str, TimeLimit]] = []

    def carried_out(
        problem: Problem, finish: Any, *, storage: str | None, limit: TimeLimit, going_on: object, **_: Any
    ) -> None:
        assert going_on is None
        begun.append((problem.spec.name, limit))
        url = storage_url(storage)
        if len(begun) == 1:
            fill(url, registry, problem.spec.name)
        with Store.open(url) as store:
            ended = SearchOutcome(name=problem.spec.name, state="complete", reason="", seconds=1.0, progress=Progress())
            finish(store, ended, url)

    monkeypatch.setattr("archsearch.cli.sweep.carry_out", carried_out)
    refused = run("sweep", "recall", "--mixers", "full", "--pairs", "4", "--picture", "none/x.svg")
    assert "cannot write none/x.svg" in str(refused.exception)
    assert begun == []
    told = run("sweep", "recall", "--mixers", "full", "--pairs", "4", "--minutes", "5", *flags)
    assert told.exception is None, told.exception
    assert [name for name, _ in begun] == ["recall", "recall-d32", "recall-d128"]
    assert len({limit for _, limit in begun}) == 1
    if flags:
        data = json.loads(told.stdout)
        assert (data["state"], len(data["points"])) == ("complete", 6)
    else:
        assert told.stdout.count("accuracy on test, by the size of the state") == 1
        assert "archsearch sweep recall recall" in told.stdout


@pytest.mark.slow
def test_what_was_stopped_before_anything_was_measured_tells_how_it_ended(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(problem: Problem, finish: Any, *, storage: str | None, **_: Any) -> None:
        url, spec = storage_url(storage), problem.spec
        with Store.open(url) as store:
            store.create_search(spec.name, spec.to_json(), [])
            finish(
                store,
                SearchOutcome(name=spec.name, state="cancelled", reason="stopped", seconds=1.0, progress=Progress()),
                url,
            )
        raise SystemExit(130)

    monkeypatch.setattr("archsearch.cli.sweep.carry_out", stopped)
    told = run("sweep", "recall", "--mixers", "full,sliding", "--pairs", "4")
    assert "not drawn: " in told.stdout
    assert "the same command with --resume" in told.stdout
