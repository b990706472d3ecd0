"""Sharing: owners, tags and notes, archives, removal with what it frees, and retention."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import event
from storage_samples import OBJECTIVES, measurement

from archsearch.errors import StorageError
from archsearch.storage import Driver, Lease, NewProposal, NewTrial, Store, outdated, owner_here
from archsearch.storage.owner import VARIABLE

Add = Callable[..., int]


def _measured(store: Store, trial: int, *, reused_from: int | None = None, seed: int = 0) -> None:
    values = {"validation": {"mqar.accuracy": 0.5}, "test": {"mqar.accuracy": 0.25}}
    store.add_measurement(trial, measurement(seed=seed), values, task="mqar", reused_from=reused_from)


def _ended(store: Store, search_id: int, state: str = "complete") -> None:
    store.set_search_state(search_id, state)


def _second(store: Store, **changes: Any) -> tuple[int, int]:
    """A second search with one trial."""
    search = store.create_search("second", {"name": "second"}, OBJECTIVES, **changes)
    trial = NewTrial(
        kind="search",
        state="running",
        arch={"layers": ["full"]},
        digest="d0",
        pattern="full*2",
        params={},
        seeds=[0],
        costs={"state_bytes@32768": 1.0},
        violations={},
    )
    return search, store.add_trial(search, trial)


def test_the_owner_is_the_one_that_is_named_else_the_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "  ada\n")
    assert owner_here() == "ada"
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("LOGNAME", "grace")
    assert owner_here() == "grace"


def test_without_a_login_there_is_no_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise KeyError("uid not found")

    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr("getpass.getuser", unknown)
    assert owner_here() is None


def test_a_name_that_steers_is_escaped_and_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "\x1b[31m" + "x" * 300)
    owner = owner_here()
    assert owner is not None
    assert owner.startswith("\\x1b")
    assert len(owner) == 200


def test_a_search_has_its_owner(store: Store) -> None:
    store.create_search("hers", {}, OBJECTIVES, owner="ada")
    assert store.search("hers").owner == "ada"
    assert store.searches_frame()["owner"].tolist() == ["ada"]


def test_tags_a_note_and_an_owner_are_edited(store: Store, search_id: int) -> None:
    store.edit_search("first", tag=["paper", "gpu", "paper"], note="for the\nappendix", owner="ada")
    found = store.edit_search("first", tag=["draft"], untag=["gpu"])
    assert (found.tags, found.note, found.owner) == (("paper", "draft"), "for the\nappendix", "ada")
    assert store.edit_search("first", note="", owner="") == store.search("first")
    assert (store.search("first").note, store.search("first").owner) == ("", None)
    frame = store.searches_frame()
    assert frame["tags"].tolist() == [["paper", "draft"]]


@pytest.mark.parametrize("word", ["", "two words", "a,b", "\x1b[1m", "x" * 51])
def test_what_is_no_tag_is_refused(store: Store, search_id: int, word: str) -> None:
    with pytest.raises(StorageError, match="tag"):
        store.edit_search("first", tag=["good", word])
    assert store.search("first").tags == ()


def test_edits_of_what_is_not_there_are_told(store: Store, search_id: int) -> None:
    with pytest.raises(StorageError, match='did you mean "first"'):
        store.edit_search("frist", note="x")
    store.edit_search("first", tag=["paper"])
    with pytest.raises(StorageError, match='has no tag "papre": it has paper'):
        store.edit_search("first", untag=["papre"])
    with pytest.raises(StorageError, match="10,000 characters"):
        store.edit_search("first", note="x" * 10_001)


def test_a_search_is_edited_while_it_runs_and_goes_on(store: Store, search_id: int, add_trial: Add) -> None:
    before = store.search("first")
    store.edit_search("first", note="watched")
    store.heartbeat(search_id)
    add_trial()
    after = store.search("first")
    assert (after.state, after.beats, after.note) == ("running", before.beats + 1, "watched")


def test_an_archived_search_is_whole_and_comes_back(store: Store, search_id: int, add_trial: Add) -> None:
    add_trial()
    _ended(store, search_id)
    moment = store.archive_search("first").archived_at
    assert moment is not None
    assert store.archive_search("first").archived_at == moment
    assert len(store.trials(search_id)) == 1
    assert store.archive_search("first", archived=False).archived_at is None


def test_a_search_that_runs_is_neither_archived_nor_removed(store: Store) -> None:
    store.create_search("alive", {}, OBJECTIVES, driver=Driver.here())
    with pytest.raises(StorageError, match=r'"alive" is running \(process \d+ on .*\): stop it, .* archive it'):
        store.archive_search("alive")
    with pytest.raises(StorageError, match=r"then remove it"):
        store.remove_searches(["alive"])
    assert store.search("alive").archived_at is None


def test_removal_takes_all_that_is_a_searchs_and_nothing_else(store: Store, search_id: int, add_trial: Add) -> None:
    parent = add_trial(state="complete")
    confirm = add_trial(kind="confirm", parent=parent, seeds=[7])
    for trial in (parent, confirm):
        _measured(store, trial)
    store.set_parts(search_id, [("mixer:full", "0.1.0", "d")])
    store.propose(search_id, [NewProposal(digest="d9", arch={}, pattern="full")])
    _ended(store, search_id)
    other, kept = _second(store)
    _measured(store, kept)
    held = store.holding(["first"])
    assert store.remove_searches(["first"]) == held
    assert (held.searches, held.trials, held.measurements, held.metrics, held.lent) == (("first",), 2, 2, 6, 0)
    assert held.size_bytes > 500
    assert [record.name for record in store.searches()] == ["second"]
    assert (store.trials(search_id), store.parts(search_id), store.plugins(search_id)) == ([], {}, [])
    assert len(store.trial(kept).measurements) == 1
    assert store.proposals(search_id) == []
    assert [trial.id for trial in store.trials(other)] == [kept]


def test_what_others_took_stays_and_may_be_taken_again(store: Store, search_id: int, add_trial: Add) -> None:
    origin = add_trial(state="complete")
    _measured(store, origin)
    _ended(store, search_id)
    _, borrower = _second(store)
    _measured(store, borrower, reused_from=origin)
    assert store.remove_searches(["first"]).lent == 1
    (measured,) = store.trial(borrower).measurements
    assert measured.payload["test"] == {"accuracy": 0.25}
    assert measured.reused_from == borrower, "it must not count as trained there"
    assert store.trial(borrower).origin(measured) == "taken from a trial that is gone"
    found = store.find_measurement("k0")
    assert found is not None
    assert found[0] == borrower


@pytest.mark.parametrize("at_once", [False, True], ids=["store", "driver"])
def test_a_result_whose_source_is_gone_is_kept_as_ones_own(
    store: Store, search_id: int, add_trial: Add, at_once: bool
) -> None:
    origin = add_trial(state="complete")
    _measured(store, origin)
    _ended(store, search_id)
    second, borrower = _second(store)
    store.remove_searches(["first"])
    _measured(Lease(store, second) if at_once else store, borrower, reused_from=origin)
    (measured,) = store.trial(borrower).measurements
    assert measured.reused_from == borrower
    _measured(Lease(store, second) if at_once else store, borrower, seed=1)
    assert [found.reused_from for found in store.trial(borrower).measurements] == [borrower, None]


@pytest.mark.parametrize("at_once", [False, True], ids=["store", "driver"])
def test_a_driver_that_takes_a_result_while_its_source_is_removed(
    url: str, store: Store, search_id: int, add_trial: Add, at_once: bool
) -> None:
    """The driver writes after the removal has seen to what others took, and before the trials are gone."""
    origin = add_trial(state="complete")
    _measured(store, origin)
    _ended(store, search_id)
    second, borrower = _second(store)
    with Store.open(url) as another:
        driver = Lease(another, second) if at_once else another
        writing = Thread(target=_measured, args=(driver, borrower), kwargs={"reused_from": origin})

        def between(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if statement.startswith("DELETE FROM metric") and not writing.is_alive():
                writing.start()
                writing.join(0.5)  # it waits for the removal to end, where it must

        event.listen(store._engine, "before_cursor_execute", between)
        store.remove_searches(["first"])
        writing.join()
    (measured,) = store.trial(borrower).measurements
    assert measured.reused_from == borrower


def test_a_removed_name_is_free(store: Store, search_id: int) -> None:
    _ended(store, search_id)
    store.remove_searches(["first"])
    assert store.create_search("first", {}, OBJECTIVES) > 0


def test_all_are_removed_or_none(store: Store, search_id: int) -> None:
    _ended(store, search_id)
    _second(store, driver=Driver.here())
    with pytest.raises(StorageError, match='"second" is running'):
        store.remove_searches(["first", "second"])
    with pytest.raises(StorageError, match='no search "third"'):
        store.remove_searches(["first", "third"])
    assert len(store.searches()) == 2


def test_retention_takes_what_ended_long_ago(store: Store) -> None:
    for name, state in (("done", "complete"), ("left", "cancelled"), ("kept", "complete"), ("bad", "failed")):
        _ended(store, store.create_search(name, {}, OBJECTIVES), state)
    store.create_search("alive", {}, OBJECTIVES, driver=Driver.here())
    for name in ("done", "bad"):
        store.archive_search(name)
    now = datetime.now(UTC)

    def names(days: float, *states: str) -> list[str]:
        found = outdated(store.searches(), now=now + timedelta(days=90), older_than=timedelta(days=days), states=states)
        return [record.name for record in found]

    assert names(89) == ["done", "bad"]
    assert names(91) == []
    assert names(89, "cancelled", "failed") == ["left", "bad"]
    assert "alive" not in names(89, "complete", "running", "interrupted")
