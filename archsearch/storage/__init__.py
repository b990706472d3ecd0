"""Storage: the store of searches, trials and measurements, and the only SQL."""

from __future__ import annotations

from archsearch.storage.driver import Driver
from archsearch.storage.lease import Lease
from archsearch.storage.owner import owner_here
from archsearch.storage.reader import Reader
from archsearch.storage.records import (
    STALE_AFTER,
    MeasurementRecord,
    MetricValue,
    NewProposal,
    NewTrial,
    ProposalRecord,
    SearchRecord,
    TrialRecord,
)
from archsearch.storage.schema import current, head, upgrade
from archsearch.storage.sharing import Holding, outdated
from archsearch.storage.store import Store
from archsearch.storage.trial_pages import TrialPage, TrialQuery
from archsearch.storage.url import hide, identity, storage_url

__all__ = [
    "STALE_AFTER",
    "Driver",
    "Holding",
    "Lease",
    "MeasurementRecord",
    "MetricValue",
    "NewProposal",
    "NewTrial",
    "ProposalRecord",
    "Reader",
    "SearchRecord",
    "Store",
    "TrialPage",
    "TrialQuery",
    "TrialRecord",
    "current",
    "head",
    "hide",
    "identity",
    "outdated",
    "owner_here",
    "storage_url",
    "upgrade",
]
