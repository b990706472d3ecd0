"""Storage: the store of searches, trials and measurements, and the only SQL."""

from __future__ import annotations

from archsearch.storage.driver import Driver
from archsearch.storage.reader import Reader
from archsearch.storage.records import (
    STALE_AFTER,
    MeasurementRecord,
    MetricValue,
    NewTrial,
    SearchRecord,
    TrialRecord,
)
from archsearch.storage.schema import current, head, upgrade
from archsearch.storage.store import Store
from archsearch.storage.trial_pages import TrialPage, TrialQuery
from archsearch.storage.url import hide, identity, storage_url

__all__ = [
    "STALE_AFTER",
    "Driver",
    "MeasurementRecord",
    "MetricValue",
    "NewTrial",
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
    "storage_url",
    "upgrade",
]
