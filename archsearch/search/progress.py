"""Progress: how far a search is, in counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class Progress:
    """Counts of a search; ``planned`` and ``finished`` are trials of every kind that a worker trains.

    ``trained`` counts sampled candidates that were handed out, ``refused`` those over budget, not exercised, or of
    layers that cannot stand as they do, ``repeated`` draws of known candidates, ``reused`` trials answered from the
    store; ``complete``, ``pruned``, ``diverged`` and ``failed`` trials of every kind that ended so, in earlier runs of
    the search too; ``lost`` those that lost their workers again and again, which a resumed search tries again,
    ``retried`` how often a trial was given to another worker; ``confirming`` says that the front is measured again,
    ``ended`` why drawing ended before all trials were trained.
    """

    planned: int = 0
    finished: int = 0
    trained: int = 0
    refused: int = 0
    repeated: int = 0
    reused: int = 0
    complete: int = 0
    pruned: int = 0
    diverged: int = 0
    failed: int = 0
    lost: int = 0
    retried: int = 0
    confirming: bool = False
    ended: str = ""

    def count(self, state: str) -> None:
        """A trial has ended in `state`."""
        if state in ("complete", "pruned", "diverged", "failed"):
            setattr(self, state, getattr(self, state) + 1)

    @property
    def fruitless(self) -> bool:
        """Whether trials were trained and none is complete: such a search has found nothing."""
        return not self.complete and bool(self.diverged or self.failed)
