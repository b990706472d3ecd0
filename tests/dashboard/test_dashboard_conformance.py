"""What is recorded of a mixer's conformance, in words: held, failed, declared broken, of other source, not recorded."""

from __future__ import annotations

from typing import Any

import pytest
from archsearch_dashboard.queries.conformance import COMMAND, conformance_of, law_text
from dashboard_samples import open_page, registry

from archsearch.errors import SpecError
from archsearch.evidence.conformance import ANY, ConformanceRecord, package_of, tried_source
from archsearch.testing.toy import ToyPlugin

PACKAGE = str(package_of(registry().mixer("full")))
REFERENCE: dict[str, Any] = {"test_one_token": {"passed": 3}, "test_packed_sequences_are_apart": {"passed": 2}}
COSTS: dict[str, Any] = {"test_params_equal_what_is_built": {"passed": 4}, "test_dense_up_to_is_true": {"skipped": 1}}


def record(form: str, laws: dict[str, Any], **others: Any) -> ConformanceRecord:
    known = {
        "version": 1,
        "failed": (),
        "untried": 0,
        "source": tried_source(PACKAGE),
        "torch": "2.13.0",
        "triton": None,
        "date": "2026-11-21",
    }
    return ConformanceRecord(mixer="full", form=form, laws=laws, **(known | others))


def show(monkeypatch: pytest.MonkeyPatch, *known: ConformanceRecord) -> None:
    """Has these records stand in the package of every mixer."""
    monkeypatch.setattr("archsearch_dashboard.queries.conformance.records_of", lambda mixer: list(known))


def test_laws_that_hold_are_counted_by_form(monkeypatch: pytest.MonkeyPatch) -> None:
    interpreted = record("triton interpreted", {"test_one_token": {"passed": 1}}, untried=7)
    show(monkeypatch, record(ANY, COSTS), record("reference", REFERENCE), interpreted)
    found = conformance_of(registry().mixer("full"))
    assert found.headline == (
        "3 laws hold (reference, triton interpreted for 1 of them), recorded 2026-11-21 with torch 2.13.0."
    )
    assert found.short == "3 laws hold"
    assert found.failures == []
    assert found.notes == [
        "Had nothing to try: dense up to is true.",
        "Slow cases that were left out: 7 triton interpreted.",
    ]
    table = found.table.set_index("law")
    assert table.loc["one token", "reference"] == "3 passed"
    assert table.loc["dense up to is true", "in any form"] == "1 with nothing to try"
    assert table.loc["packed sequences are apart", "triton interpreted"] == ""


def test_a_failed_law_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    laws = REFERENCE | {"test_one_token": {"passed": 2, "failed": 1}}
    show(monkeypatch, record("reference", laws, failed=("TestFull::test_one_token[nope-reference]",)))
    found = conformance_of(registry().mixer("full"))
    assert found.short == "1 law failed"
    assert found.failures == ["Fails the law “one token” (reference): TestFull::test_one_token[nope-reference]"]
    assert found.headline.startswith("1 law holds (reference)")
    app = open_page("mixers", mixer="full")
    assert not app.exception
    assert any("Fails the law" in error.value for error in app.error)


def test_a_law_that_is_declared_broken_or_untried_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    laws = {"test_one_token": {"passed": 2, "declared broken": 1}, "test_empty_packed_batch": {}}
    show(monkeypatch, record("reference", REFERENCE | laws))
    found = conformance_of(registry().mixer("full"))
    assert found.headline.startswith("1 law holds")
    assert found.notes == ["Not tried: empty packed batch."]
    assert found.table.set_index("law").loc["one token", "reference"] == "2 passed, 1 declared broken"


def test_records_of_other_source_are_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    show(monkeypatch, record(ANY, COSTS), record("reference", REFERENCE, source="0" * 16))
    found = conformance_of(registry().mixer("full"))
    assert found.short == "3 laws hold, other source"
    assert found.notes[0].startswith("Recorded for other source than what is installed (reference)")


def test_what_is_not_recorded_has_the_command(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    show(monkeypatch)
    app = open_page("mixers", mixer="full")
    assert not app.exception
    assert COMMAND in [block.value for block in app.code]
    (headline,) = [text.value for text in app.markdown if "on a card" in text.value]
    assert headline.startswith("The tests of archsearch try every law of the contract on this mixer, on a CPU")
    assert headline.replace("\\", "").endswith("Nothing was recorded on a card.")


def test_of_a_mixer_of_somebody_elses_package_nothing_is_claimed() -> None:
    found = conformance_of(ToyPlugin())
    assert found.short == "not recorded"
    assert "whether they do is not known here. Nothing was recorded on a card." in found.headline


def test_a_file_that_cannot_be_read_gives_its_sentence(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(mixer: object) -> list[ConformanceRecord]:
        raise SpecError("conformance.json: holds no conformance records")

    monkeypatch.setattr("archsearch_dashboard.queries.conformance.records_of", refuse)
    app = open_page("mixers", mixer="full")
    assert not app.exception
    assert any("holds no conformance records" in text.value.replace("\\", "") for text in app.markdown)


def test_names_of_laws_are_words() -> None:
    assert law_text("test_no_token_sees_the_future") == "no token sees the future"
