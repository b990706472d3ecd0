"""Proposals: candidates that people add to a search, and the trials that they came to."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from archsearch.errors import StorageError
from archsearch.storage import NewProposal, Store

Add = Callable[..., int]
ARCH = {"model": {}, "layers": [{"mixer": "full", "options": {}}]}


def _candidate(digest: str) -> NewProposal:
    return NewProposal(digest=digest, arch=ARCH, pattern=f"pattern of {digest}")


def test_candidates_wait_until_they_are_linked_to_a_trial(store: Store, search_id: int, add_trial: Add) -> None:
    one, two = store.propose(search_id, [_candidate("a"), _candidate("b")], owner="ada")
    assert (one.arch, one.pattern, one.owner, one.trial) == (ARCH, "pattern of a", "ada", None)
    store.link_proposal(one.id, add_trial(kind="added", digest="a"))
    assert [proposal.digest for proposal in store.proposals(search_id, waiting=True)] == ["b"]
    assert [proposal.digest for proposal in store.proposals(search_id)] == ["a", "b"]
    assert two.trial is None


def test_one_that_was_added_before_keeps_its_record(store: Store, search_id: int) -> None:
    (first,) = store.propose(search_id, [_candidate("a")], owner="ada")
    again = store.propose(search_id, [_candidate("b"), _candidate("a"), _candidate("b")], owner="grace")
    assert [proposal.digest for proposal in again] == ["b", "a", "b"]
    assert again[1] == first
    assert [proposal.owner for proposal in store.proposals(search_id)] == ["ada", "grace"]


def test_one_that_the_search_has_is_linked_to_its_first_trial_that_counts(
    store: Store, search_id: int, add_trial: Add
) -> None:
    add_trial(digest="a", state="superseded")
    known = add_trial(digest="a", state="complete")
    add_trial(digest="a", state="complete")
    add_trial(digest="a", kind="confirm", parent=known)
    only_old = add_trial(digest="b", state="superseded")
    linked, waiting = store.propose(search_id, [_candidate("a"), _candidate("b")])
    assert (linked.trial, waiting.trial) == (known, None)
    assert only_old != known


def test_a_search_that_is_not_there_takes_none(store: Store) -> None:
    with pytest.raises(StorageError, match="no search with the id 7"):
        store.propose(7, [_candidate("a")])


def test_parts_are_added_to_those_that_a_search_has(store: Store, search_id: int) -> None:
    store.set_parts(search_id, [("core", "1", "c")])
    store.add_parts(search_id, [("core", "2", "x"), ("mixer:full", "1", "f")])
    assert store.parts(search_id) == {"core": ("1", "c"), "mixer:full": ("1", "f")}
