"""Proposals: candidates that people, or programs of theirs, add to a search; its driver takes them up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from archsearch.errors import StorageError
from archsearch.storage.clock import database_now
from archsearch.storage.columns import PROPOSAL
from archsearch.storage.records import NewProposal, ProposalRecord
from archsearch.storage.rows import finite, read_columns
from archsearch.storage.sharing import Sharing
from archsearch.storage.tables import Part, Proposal, Search, Trial


class Proposals(Sharing):
    """The part of `Store` that hands candidates from people to a search."""

    def propose(
        self, search_id: int, candidates: Iterable[NewProposal], *, owner: str | None = None
    ) -> list[ProposalRecord]:
        """Adds candidates to a search, all or none; returns a record of each, in their order.

        One that was added before keeps its record, and one that the search has a trial of is linked to that trial.
        """
        wanted = list(candidates)
        with self._writing() as session:
            found = session.scalar(select(Search.id).where(Search.id == search_id).with_for_update())
            if found is None:
                raise StorageError(f"{self.url} has no search with the id {search_id}")
            known = _by_digest(self._proposals(session, search_id))
            trials = _trials(session, search_id, [candidate.digest for candidate in wanted])
            new = {candidate.digest: candidate for candidate in wanted if candidate.digest not in known}
            session.add_all(
                Proposal(
                    search_id=search_id,
                    digest=candidate.digest,
                    arch=finite(candidate.arch),
                    pattern=candidate.pattern,
                    owner=owner,
                    created_at=database_now(session),
                    trial_id=trials.get(candidate.digest),
                )
                for candidate in new.values()
            )
            session.flush()
            known = _by_digest(self._proposals(session, search_id))
            return [known[candidate.digest] for candidate in wanted]

    def proposals(self, search_id: int, *, waiting: bool = False) -> list[ProposalRecord]:
        """What was added to a search, the oldest first; with `waiting` only what its driver has not taken up."""
        with self._reading() as session:
            return self._proposals(session, search_id, waiting=waiting)

    def link_proposal(self, proposal_id: int, trial_id: int) -> None:
        """Says which trial a proposal came to."""
        with self._writing() as session:
            session.execute(update(Proposal).where(Proposal.id == proposal_id).values(trial_id=trial_id))

    def add_parts(self, search_id: int, parts: Iterable[tuple[str, str, str]]) -> None:
        """Adds parts of the source, (name, version, digest), that a search has come to run; those it has stay."""
        with self._writing() as session:
            session.execute(select(Search.id).where(Search.id == search_id).with_for_update())
            known = set(session.scalars(select(Part.name).where(Part.search_id == search_id)))
            session.add_all(
                Part(search_id=search_id, name=name, version=version, digest=digest)
                for name, version, digest in parts
                if name not in known
            )

    def _proposals(self, session: Session, search_id: int, *, waiting: bool = False) -> list[ProposalRecord]:
        query = select(*(getattr(Proposal, name) for name in PROPOSAL)).where(Proposal.search_id == search_id)
        if waiting:
            query = query.where(Proposal.trial_id.is_(None))
        found = read_columns(session, query.order_by(Proposal.id), "proposal", PROPOSAL, self._remarks)
        names = ["trial" if name == "trial_id" else name for name in found]
        return [ProposalRecord(**dict(zip(names, values, strict=True))) for values in zip(*found.values(), strict=True)]


def _by_digest(found: Iterable[ProposalRecord]) -> dict[str, ProposalRecord]:
    return {proposal.digest: proposal for proposal in found}


def _trials(session: Session, search_id: int, digests: Sequence[str]) -> Mapping[str, int]:
    """The trial that a search has of each candidate: its first that counts."""
    query = (
        select(Trial.digest, Trial.id)
        .where(Trial.search_id == search_id, Trial.digest.in_(digests))
        .where(Trial.kind != "confirm", Trial.state.not_in(("superseded", "pruned")))
        .order_by(Trial.number.desc())
    )
    return {row.digest: row.id for row in session.execute(query)}
