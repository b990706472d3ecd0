"""Storage: the store of searches, trials and measurements, and the only SQL."""

from __future__ import annotations

from archsearch.storage.records import (
    STALE_AFTER,
    MeasurementRecord,
    MetricValue,
    SearchRecord,
    TrialRecord,
)
from archsearch.storage.schema import current, head, upgrade
from archsearch.storage.store import Store
from archsearch.storage.url import hide, storage_url

__all__ = [
    "STALE_AFTER",
    "MeasurementRecord",
    "MetricValue",
    "SearchRecord",
    "Store",
    "TrialRecord",
    "current",
    "head",
    "hide",
    "storage_url",
    "upgrade",
]
