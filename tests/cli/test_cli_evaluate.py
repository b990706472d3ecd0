"""``evaluate``: what is told beside the figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

from archsearch import training
from archsearch.measurement import Measurement

Run = Callable[..., Result]
TINY = ("--steps", "1", "--batch-size", "2", "--seeds", "2")


def test_a_layer_that_was_not_exercised_is_told_once_for_all_seeds(run: Run) -> None:
    result = run("evaluate", "sliding(window=4096) full", "--task", "mqar:easy", *TINY)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("not exercised: sliding(window=4096) sees all of up to 4096 tokens, and mqar:easy") == 1


def test_as_many_seeds_as_the_recipe_says(run: Run) -> None:
    result = run(
        "evaluate", "full", "--task", "mqar:easy", "--steps", "1", "--batch-size", "2", "--set", "recipe.seeds=3"
    )
    assert "over 3 seeds" in result.stdout


@pytest.mark.parametrize("judged", ["steps", None])
def test_how_it_was_judged(run: Run, monkeypatch: pytest.MonkeyPatch, judged: str | None) -> None:
    real = Measurement.to_json

    def as_newer(self: Measurement) -> dict[str, Any]:
        return {**real(self), **({"judged": judged} if judged else {})}

    monkeypatch.setattr(Measurement, "to_json", as_newer)
    shown = run("evaluate", "full", "--task", "mqar:easy", *TINY).stdout
    assert ("judged by prefill and steps: a mixer of it breaks a law by design" in shown) is (judged is not None)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_too_little_memory_is_no_defect(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from archsearch import cli

    def fail(*words: object, **options: object) -> Measurement:
        raise error

    monkeypatch.setattr(training, "evaluate", fail)
    monkeypatch.setattr("sys.argv", ["archsearch", "evaluate", "full", "--task", "mqar:easy"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "there is not enough memory" in capsys.readouterr().err
