"""Imports: a laptop's searches in the team's database, once, with all that is theirs and links that hold."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from storage_samples import OBJECTIVES, measurement

from archsearch.errors import StorageError
from archsearch.storage import Driver, MetricValue, NewProposal, NewTrial, Store, schema
from archsearch.storage.backup import file_url
from archsearch.storage.imports import import_searches

Add = Callable[..., int]


@pytest.fixture
def laptop_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/laptop.db"


@pytest.fixture
def laptop(laptop_url: str) -> Iterator[Store]:
    with Store.open(laptop_url) as opened:
        yield opened


def _search(store: Store, name: str, **changes: Any) -> int:
    return store.create_search(name, {"name": name, "seed": len(name)}, OBJECTIVES, **changes)


def _trial(store: Store, search: int, digest: str = "d0", **changes: Any) -> int:
    values: dict[str, Any] = {
        "kind": "search",
        "state": "complete",
        "arch": {"layers": ["full"]},
        "digest": digest,
        "pattern": "full*2",
        "params": {"unit": "full"},
        "seeds": [0],
        "costs": {"state_bytes@32768": 4096.0},
        "violations": {},
    }
    return store.add_trial(search, NewTrial(**{**values, **changes}))


def _measure(store: Store, trial: int, *, seed: int = 0, reused_from: int | None = None) -> None:
    found = measurement(seed=seed, curve=[{"step": 1, "loss": 2.5}])
    store.add_measurement(trial, found, {"test": {"mqar.accuracy": 0.5}}, task="mqar", reused_from=reused_from)


def _fill(store: Store) -> int:
    """A search of three trials on the laptop, one of which confirms another."""
    search = _search(
        store, "mine", plugins=[("full", "archsearch", "0.1.0")], parts=[("core", "0.1.0", "c")], owner=None
    )
    first = _trial(store, search)
    _measure(store, first)
    store.add_metrics(first, [MetricValue(name="recall", split="test", value=0.5, seed=0)])
    _measure(store, _trial(store, search, kind="confirm", parent=first, seeds=[9]), seed=9)
    _trial(store, search, reason=f"repeat of trial {first}: answered from the store")
    (proposal,) = store.propose(search, [NewProposal(digest="d9", arch={"layers": []}, pattern="full")])
    store.link_proposal(proposal.id, _trial(store, search, "d9", kind="added", state="running"))
    store.edit_search("mine", tag=["paper"], note="from the train")
    store.set_search_state(search, "complete", "16 candidates")
    return search


@pytest.fixture
def team(store: Store) -> Store:
    """The team's database, whose ids are beyond the laptop's."""
    other = _search(store, "theirs")
    for _ in range(5):
        _trial(store, other)
    return store


def test_a_search_comes_with_all_that_is_its_own(team: Store, url: str, laptop: Store, laptop_url: str) -> None:
    before = _fill(laptop)
    (done,) = import_searches(url, laptop_url, owner="ada")
    assert (done.search, done.name, done.outcome, done.trials) == ("mine", "mine", "imported", 4)
    there, here = laptop.search("mine"), team.search("mine")
    for name in ("state", "reason", "spec", "objectives", "created_at", "finished_at", "tags", "note"):
        assert getattr(here, name) == getattr(there, name)
    assert here.owner == "ada", "who brings a search that has no owner owns it"
    assert team.parts(here.id) == laptop.parts(before)
    assert team.plugins(here.id) == laptop.plugins(before)
    for mine, theirs in zip(team.trials(here.id), laptop.trials(before), strict=True):
        for name in ("number", "kind", "arch", "digest", "pattern", "params", "seeds", "costs", "created_at"):
            assert getattr(mine, name) == getattr(theirs, name)
        measured = team.trial(mine.id).measurements
        assert measured == laptop.trial(theirs.id).measurements
    drop = ["trial", "parent"]
    assert team.metrics_frame("mine").drop(columns="trial").equals(laptop.metrics_frame("mine").drop(columns="trial"))
    frames = [
        store.trials_frame("mine").drop(columns=[*drop, "reason", "state", "finished_at"]) for store in (team, laptop)
    ]
    assert frames[0].equals(frames[1])


def test_links_lead_to_trials_that_are_here(team: Store, url: str, laptop: Store, laptop_url: str) -> None:
    _fill(laptop)
    import_searches(url, laptop_url)
    search = team.search("mine")
    first, confirm, repeat, added = team.trials(search.id)
    assert first.id != 1
    assert confirm.parent == first.id
    assert repeat.reason == f"repeat of trial {first.id}: answered from the store"
    (proposal,) = team.proposals(search.id)
    assert proposal.trial == added.id
    assert (added.state, "resume" in added.reason) == ("preempted", True)


def test_nothing_is_brought_twice(team: Store, url: str, laptop: Store, laptop_url: str) -> None:
    _fill(laptop)
    import_searches(url, laptop_url, renamed={"mine": "hers"})
    count = len(team.trials(team.search("hers").id))
    for renamed in ({}, {"mine": "another"}):
        (again,) = import_searches(url, laptop_url, renamed=renamed)
        assert (again.outcome, again.name, again.reason) == ("already here", "hers", "")
    assert [record.name for record in team.searches()] == ["theirs", "hers"]
    assert len(team.trials(team.search("hers").id)) == count
    assert team.search("hers").spec["name"] == "hers", "resume finds a search by the name in its spec"


def test_one_that_has_gone_on_since_is_told(team: Store, url: str, laptop: Store, laptop_url: str) -> None:
    search = _fill(laptop)
    import_searches(url, laptop_url)
    _trial(laptop, search, "d5")
    (again,) = import_searches(url, laptop_url)
    assert (again.outcome, again.trials) == ("already here", 4)
    assert "it has 5 trials there and 4 here: `archsearch rm mine` first" in again.reason


GROWN = {"search": {"trials": 32, "retries": 2}, "budget": {"params": "1M"}, "resources": {"gpus": 1}}


@pytest.mark.parametrize("grown", ["there", "here"])
def test_one_that_has_grown_since_is_the_same(
    team: Store, url: str, laptop: Store, laptop_url: str, grown: str
) -> None:
    search = _fill(laptop)
    import_searches(url, laptop_url)
    store, number = (laptop, search) if grown == "there" else (team, team.search("mine").id)
    store.set_spec(number, {**store.search("mine").spec, **GROWN})
    _trial(store, number, "d5")
    (again,) = import_searches(url, laptop_url)
    assert (again.outcome, again.trials) == ("already here", 4 if grown == "there" else 5)
    assert "`archsearch rm mine` first brings it as it is there" in again.reason


def test_another_search_of_the_same_moment_is_another(team: Store, url: str, laptop: Store, laptop_url: str) -> None:
    search = _fill(laptop)
    import_searches(url, laptop_url)
    laptop.set_spec(search, {**laptop.search("mine").spec, **GROWN, "seed": 99})
    (done,) = import_searches(url, laptop_url, renamed={"mine": "another"})
    assert done.outcome == "imported"


def test_a_taken_name_is_told_and_the_others_come(team: Store, url: str, laptop: Store, laptop_url: str) -> None:
    taken = _search(laptop, "theirs", owner="ada")
    laptop.set_search_state(taken, "complete")
    _fill(laptop)
    refused, done = import_searches(url, laptop_url)
    assert (refused.outcome, done.outcome) == ("refused", "imported")
    assert "another search of that name: add --rename theirs=NEW_NAME" in refused.reason
    (renamed, again) = import_searches(url, laptop_url, renamed={"theirs": "hers"})
    assert (renamed.outcome, renamed.name, again.outcome) == ("imported", "hers", "already here")
    assert team.search("hers").owner == "ada"


def test_one_that_runs_is_refused_and_an_interrupted_one_can_be_resumed(
    team: Store, url: str, laptop: Store, laptop_url: str
) -> None:
    _search(laptop, "alive", driver=Driver.here())
    dead = _search(laptop, "dead", driver=Driver(host="h", boot_id="b", pid_namespace="n", pid=1, started=1))
    _trial(laptop, dead, state="running")
    with closing(sqlite3.connect(laptop_url.removeprefix("sqlite:///"))) as connection:
        connection.execute("UPDATE search SET heartbeat_at = '2026-01-01 00:00:00.000000' WHERE name = 'dead'")
        connection.commit()
    refused, done = import_searches(url, laptop_url)
    assert (refused.outcome, refused.reason) == (
        "refused",
        "it is running: stop it, or wait until it has ended, and import again",
    )
    assert done.outcome == "imported"
    here = team.search("dead")
    assert (here.state, here.driver) == ("interrupted", None)
    assert [trial.state for trial in team.trials(here.id)] == ["preempted"]
    assert team.claim_search(here.id, driver=Driver.here()).state == "running"


def test_what_was_taken_from_another_search_leads_there_or_to_itself(
    team: Store, url: str, laptop: Store, laptop_url: str
) -> None:
    origin, lender = _search(laptop, "origin"), _search(laptop, "lender-left-there")
    lent, left = _trial(laptop, origin), _trial(laptop, lender)
    borrower = _search(laptop, "borrower")
    trial = _trial(laptop, borrower, seeds=[0, 1])
    _measure(laptop, trial, seed=0, reused_from=lent)
    _measure(laptop, trial, seed=1, reused_from=left)
    for search in (origin, lender, borrower):
        laptop.set_search_state(search, "complete")
    import_searches(url, laptop_url, names=["origin"])
    import_searches(url, laptop_url, names=["borrower"])
    (here,) = team.trials(team.search("origin").id)
    (mine,) = team.trials(team.search("borrower").id)
    assert [found.reused_from for found in team.trial(mine.id).measurements] == [here.id, mine.id]
    assert [record.name for record in team.searches()] == ["theirs", "origin", "borrower"]


def test_an_older_file_is_brought_and_stays_as_it_is(team: Store, url: str, tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    schema.make(file_url(old), "0001")
    with closing(sqlite3.connect(old)) as connection:
        connection.execute(
            "INSERT INTO search (id, name, state, reason, spec, objectives, created_at, heartbeat_at) VALUES "
            "(1, 'old', 'complete', '', '{}', '[]', '2026-01-02 03:04:05.000006', '2026-01-02 03:04:05.000006')"
        )
        connection.commit()
    content = old.read_bytes()
    (done,) = import_searches(url, file_url(old))
    assert done.outcome == "imported"
    assert team.search("old").created_at.isoformat() == "2026-01-02T03:04:05.000006+00:00"
    assert old.read_bytes() == content


def test_a_row_that_cannot_be_read_refuses_its_search_alone(
    team: Store, url: str, laptop: Store, laptop_url: str
) -> None:
    for name in ("broken", "sound"):
        search = _search(laptop, name)
        _trial(laptop, search)
        laptop.set_search_state(search, "complete")
    with closing(sqlite3.connect(laptop_url.removeprefix("sqlite:///"))) as connection:
        connection.execute("UPDATE trial SET arch = '{no json' WHERE search_id = 1")
        connection.commit()
    refused, done = import_searches(url, laptop_url)
    assert (refused.outcome, done.outcome) == ("refused", "imported")
    assert "trial 1 cannot be copied: its arch is '{no json'" in refused.reason
    assert [record.name for record in team.searches()] == ["theirs", "sound"]


def test_what_is_not_there_is_told(team: Store, url: str, laptop: Store, laptop_url: str, tmp_path: Path) -> None:
    _fill(laptop)
    with pytest.raises(StorageError, match=r'has no search "mien" \(did you mean "mine"'):
        import_searches(url, laptop_url, names=["mien"])
    with pytest.raises(StorageError, match="there is no database"):
        import_searches(url, f"sqlite:///{tmp_path}/nothing.db")


def test_many_trials_come_in_order(
    team: Store, url: str, laptop: Store, laptop_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archsearch.storage.copying.CHUNK", 7)
    search = _search(laptop, "long")
    parents = [_trial(laptop, search, f"d{number}") for number in range(20)]
    for number, parent in enumerate(parents):
        _trial(laptop, search, f"d{number}", kind="confirm", parent=parent)
    laptop.set_search_state(search, "complete")
    import_searches(url, laptop_url)
    found = team.trials(team.search("long").id)
    assert [trial.digest for trial in found] == [f"d{number}" for number in [*range(20), *range(20)]]
    by_id = {trial.id: trial.digest for trial in found}
    assert [by_id[trial.parent] for trial in found[20:] if trial.parent] == [f"d{number}" for number in range(20)]
