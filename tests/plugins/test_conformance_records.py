"""The built-in mixers hold their conformance results: every law of the suite, none failed."""

from __future__ import annotations

import pytest

from archsearch.conformance import ANY, records
from archsearch.registry import Registry
from archsearch.testing.recording import laws_of_suite


@pytest.mark.parametrize("mixer", ["full", "sliding", "linear", "moba", "nsa"])
def test_every_law_is_recorded_and_none_failed(mixer: str, registry: Registry) -> None:
    plugin = registry.mixer(mixer)
    known = {record.form: record for record in records(plugin)}
    assert {ANY, "chunkwise", "reference", "triton interpreted"} <= set(known)
    assert {law for record in known.values() for law in record.laws} == set(laws_of_suite())
    assert [record.failed for record in known.values()] == [()] * len(known)
    tried = {law for record in known.values() for law, outcomes in record.laws.items() if outcomes}
    assert tried == set(laws_of_suite())
    assert {record.version for record in known.values()} == {plugin.version}
