"""The runner: begins a search or goes on with one, and drives it to its end."""

from __future__ import annotations

from collections.abc import Collection

from archsearch.search.changes import SourceChange, affected, check_growth, refuse_changed_source, source_changes
from archsearch.search.drive import Drive, SearchOutcome
from archsearch.search.problem import Problem
from archsearch.search.ray_session import check_room
from archsearch.search.spec import SearchSpec
from archsearch.search.stored import parts_now
from archsearch.search.time_limit import TimeLimit
from archsearch.search.view import GuardedView, View
from archsearch.storage import Driver, Lease, SearchRecord, Store, owner_here
from archsearch.training.teaching import check_teacher

__all__ = ["SearchOutcome", "resume_search", "run_search"]

_MEASURED = ("complete", "pruned", "diverged", "failed", "queued", "running", "preempted", "cancelled")
"""States of trials that `retrain` sets aside; infeasible ones are judged anew anyway."""


def run_search(
    problem: Problem,
    *,
    store: Store,
    view: View | None = None,
    address: str | None = None,
    limit: TimeLimit | None = None,
) -> SearchOutcome:
    """Runs a new search to its end, or until SIGINT, SIGTERM or `limit`, on a local Ray or the cluster at `address`.

    Raises `NothingFeasibleError` when no candidate can be trained, `StorageError` when the name is taken, and
    `ClusterError` when workers cannot be used. After any end no trial is left queued or running in the store.
    """
    spec = problem.spec
    check_room(spec.search.concurrency, address, workers=spec.resources.workers)
    check_teacher(problem.space.model, spec.recipe, problem.registry)
    reports = [report for report in problem.registry.reports() if report.status == "ok"]
    parts = problem.parts()
    search_id = store.create_search(
        spec.name,
        spec.to_json(),
        [objective.to_json() for objective in problem.objectives],
        plugins=[(report.name, report.distribution, report.version) for report in reports],
        parts=[(part.name, part.version, part.digest) for part in parts],
        driver=Driver.here(),
        owner=owner_here(),
    )
    return Drive(problem, Lease(store, search_id), search_id, GuardedView(view or View()), address, limit=limit).run()


def resume_search(
    problem: Problem,
    *,
    store: Store,
    view: View | None = None,
    address: str | None = None,
    allowed: Collection[str] = (),
    wait: bool = False,
    retrain: bool = False,
    limit: TimeLimit | None = None,
) -> SearchOutcome:
    """Goes on with the search of the problem's name, which was stopped, or whose driver was killed; retrains nothing
    that is measured.

    The spec of `problem` may differ from the stored one by growth of the keys in `allowed`, of
    `storage.spec_keys.GROWING`. With `wait`, a driver that seems alive on another host is watched until it is known to
    be dead. Results of source that has changed since are refused, or with `retrain` set aside and made again.

    Raises `StorageError` when there is no such search or its driver is alive, `SpecError` for other changes of spec
    or source, and what `run_search` raises.
    """
    view = GuardedView(view or View())
    spec = problem.spec
    record = store.search(spec.name)
    stored = SearchSpec.from_dict(record.spec)
    check_growth(stored, spec, allowed)
    has_grown = spec.to_json() != stored.to_json()
    check_room(spec.search.concurrency, address, workers=spec.resources.workers)
    now = _parts(problem, store, record.id)
    changes = source_changes(store.parts(record.id), now)
    if not retrain:
        refuse_changed_source(spec.name, changes)
    claimed = store.claim_search(record.id, driver=Driver.here(), wait=wait, watch=view.noted)
    lease = Lease(store, record.id, claimed.fence)
    lease.mark_orphans(record.id)
    if changes:
        _set_aside(lease, record, changes, problem.teacher_mixers)
        lease.set_parts(record.id, [(part, *made) for part, made in now.items()])
    if has_grown:
        lease.set_spec(record.id, spec.to_json())
    before = None if changes or has_grown else record
    return Drive(problem, lease, record.id, view, address, before=before, limit=limit).run()


def _parts(problem: Problem, store: Store, search_id: int) -> dict[str, tuple[str, str]]:
    """What computes the results now, by name: of the spec's mixers, and of those that came with added candidates."""
    return {part.name: (part.version, part.digest) for part in parts_now(problem, store, search_id)}


def _set_aside(store: Store, record: SearchRecord, changes: Collection[SourceChange], teacher: Collection[str]) -> None:
    """Results of source that has changed: they stay to be read, and count no more."""
    for trial in store.trials(record.id, states=_MEASURED):
        found = affected(trial.arch, changes, teacher)
        if found:
            store.set_trial_state(trial.id, "superseded", "; ".join(map(str, found)))
