"""Stored trials with options that mixers refuse now: they stay to be read, and a search goes on beside them."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from campaign_bench import CampaignBench

from archsearch.arch import ModelSpec
from archsearch.errors import SpecError
from archsearch.registry import Registry
from archsearch.search.problem import Problem
from archsearch.search.spec import SearchSpec
from archsearch.search.stored import as_begun, parts_now, read_stored
from archsearch.storage import NewTrial, Store

OLD = {"mixer": "full", "options": {"rope": 0.0, "rope_base": 500.0}}
SAID = "rope_base=500.0 says nothing of rope=0: use rope above 0, or rope_base=10000.0"


def age(path: Path, trial: int, *, state: str) -> None:
    """Gives a trial an option that its mixer has not."""
    with closing(sqlite3.connect(path)) as database, database:
        (text,) = database.execute("select arch from trial where id = ?", (trial,)).fetchone()
        arch = json.loads(text)
        arch["layers"][0]["options"]["gone"] = 1
        database.execute("update trial set arch = ?, state = ? where id = ?", (json.dumps(arch), state, trial))


def test_an_option_that_nothing_reads_is_told_with_the_trial_and_the_remedy(
    tmp_path: Path, installed: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    arch = {"model": ModelSpec(d_model=16, n_heads=2).model_dump(mode="json"), "layers": [OLD]}
    with Store.open(f"sqlite:///{tmp_path / 'old.db'}") as store:
        search = store.create_search("old", {}, [])
        new = NewTrial(
            kind="added",
            state="complete",
            digest="d",
            pattern="full(rope_base=500)",
            arch=arch,
            params={},
            seeds=[],
            costs={},
            violations={},
        )
        (record,) = [store.trial(store.add_trial(search, new))]
        assert read_stored(record, installed) is None
        assert f'trial {record.id}, "full(rope_base=500)", stays as it is' in caplog.text
        assert SAID in caplog.text
        assert "`archsearch add`" in caplog.text

        class Posed:
            registry = installed

            def parts(self) -> list[Any]:
                return []

        posed: Any = Posed()
        assert parts_now(posed, store, search) == []


def test_a_search_goes_on_beside_trials_that_cannot_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "old.db"
    tables: dict[str, Any] = {"search": {"trials": 4, "confirm_seeds": 1}}
    with Store.open(f"sqlite:///{path}") as store:
        first = CampaignBench(store, **tables).prepare().run()
        done = [trial for trial in first.trials(kinds=["search"]) if trial.state == "complete" and not trial.reason]
        counted = first.campaign.progress.trained
    for trial, state in zip(done, ("complete", "preempted", "superseded"), strict=False):
        age(path, trial.id, state=state)
    with Store.open(f"sqlite:///{path}") as store:
        again = CampaignBench(store, resume=True, **tables)
        assert again.campaign.progress.trained == counted - 2
        again.prepare().run()
        states = [store.trial(trial.id).state for trial in done[:3]]
        assert states == ["complete", "cancelled", "superseded"]
        assert store.trial(done[1].id).reason == "its architecture cannot be read any more"
        assert store.trial(done[0].id).measurements
        assert again.campaign.progress.trained == counted  # two others in the place of those
    for trial in done[:3]:
        assert f"trial {trial.id}, " in caplog.text


def test_a_spec_with_an_option_that_nothing_reads_says_that_its_results_stay(installed: Registry) -> None:
    spec = SearchSpec.from_dict(
        {
            "name": "old",
            "model": {"d_model": 16, "n_heads": 2, "n_layers": 2},
            "space": {"mixers": ["full"], "full": {"rope": [0.0], "rope_base": [500.0]}},
            "tasks": [{"name": "mqar"}],
            "recipe": {"steps": 10},
            "objectives": {"maximize": ["recall"], "minimize": ["state_bytes"]},
        }
    )
    with pytest.raises(SpecError) as refused, as_begun("old"):
        Problem.of(spec, installed)
    said = str(refused.value)
    assert said.startswith('"old" cannot go on as it was begun: space.full.rope_base = 500.0: full: rope_base=500.0')
    assert said.endswith("and a new search of the mended spec takes them from this database")
