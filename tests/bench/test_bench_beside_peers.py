"""`make bench-peers`: what it compares, how it takes times, what it writes; peers and clocks are stand-ins."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from bench_samples import benchmark
from torch import Tensor


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return benchmark("peers", monkeypatch)


@pytest.fixture
def calls(driver: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what was timed, in order; a call of "ours" takes 1 s of the thread's clock, one of "theirs" 3 s."""
    made: list[str] = []

    def seconds(run: Callable[[], object]) -> float:
        name = str(run())
        made.append(name)
        return {"ours": 1.0, "theirs": 3.0}[name]

    monkeypatch.setattr(driver, "thread_seconds", seconds)
    return made


@pytest.mark.parametrize(("seconds", "repeats"), [(40.0, 10), (0.1, 5), (1e6, 101)], ids=["asked", "fewest", "most"])
def test_each_side_is_first_in_every_other_pair(
    driver: ModuleType, calls: list[str], seconds: float, repeats: int
) -> None:
    ours, theirs = driver.in_turn(lambda: "ours", lambda: "theirs", seconds)
    assert (ours, theirs) == ([1.0] * repeats, [3.0] * repeats)
    pairs = list(zip(calls[4::2], calls[5::2], strict=True))
    assert pairs[:4] == [("theirs", "ours"), ("ours", "theirs")] * 2
    assert all(set(pair) == {"ours", "theirs"} for pair in pairs)


def test_a_ratio_is_the_median_over_pairs_with_quartiles_and_above_1_we_are_faster(driver: ModuleType) -> None:
    """Pairs, and not medians of each side: a slow moment of the machine is in both of a pair."""
    ours, theirs = [1.0, 10.0, 1.0, 1.0, 1.0], [2.0, 30.0, 4.0, 5.0, 6.0]
    found = driver.row_of("cell", "peer", "T=1", "forward", (ours, theirs), 1e-6)
    assert (found.low, found.ratio, found.high) == (2.5, 4.0, 5.5)
    assert (found.ours_ms, found.theirs_ms, found.repeats, found.differs) == (1e3, 5e3, 5, 1e-6)


def cell(theirs: Callable[[dict[str, Tensor]], Tensor]) -> Any:
    def inputs(batch: int, tokens: int) -> dict[str, Tensor]:
        return {
            "x": torch.linspace(1.0, 2.0, batch * tokens * 256).view(batch, tokens, 4, 64),
            "n": torch.ones(1).int(),
        }

    return SimpleNamespace(
        name="squares",
        peer="nobody",
        tolerance=1e-4,
        inputs=inputs,
        ours=lambda given: given["x"].square(),
        theirs=theirs,
    )


class OtherGradient(torch.autograd.Function):
    """Squares, with half of the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grads[0] * x


@pytest.mark.parametrize("form", ["forward", "forward+backward"])
def test_what_agrees_is_timed_and_says_how_far_it_is_apart(driver: ModuleType, form: str) -> None:
    found = driver.of_op(cell(lambda given: given["x"] * given["x"] * (1 + 1e-6)), 2, 3, form, 0.0)
    assert (found.cell, found.peer, found.size, found.form) == ("squares", "nobody", "T=3 B=2", form)
    assert 1e-7 < found.differs < 1e-5
    assert found.repeats == driver.FEWEST


@pytest.mark.parametrize(
    ("form", "theirs", "differs"),
    [
        ("forward", lambda given: given["x"] ** 2 * 1.01, "0.01"),
        ("forward", lambda given: given["x"] * torch.nan, "nan"),
        ("forward+backward", lambda given: OtherGradient.apply(given["x"]), "0.5"),
    ],
    ids=["output", "not-finite", "gradient"],
)
def test_what_differs_ends_the_run_before_anything_is_timed(
    driver: ModuleType, calls: list[str], form: str, theirs: Any, differs: str
) -> None:
    with pytest.raises(SystemExit, match=rf"squares beside nobody, T=3 B=2, .*: results differ by {differs} of ours"):
        driver.of_op(cell(theirs), 2, 3, form, 0.0)
    assert calls == []


def test_models_are_compared_where_they_are_defined_alike(driver: ModuleType) -> None:
    logits = SimpleNamespace(ours=lambda token: torch.ones(1, 4), theirs=lambda token: torch.full((1, 4), 1.5))
    step = SimpleNamespace(name="full", peer="nobody", tolerance=1e-4, make=lambda: logits)
    with pytest.raises(SystemExit, match=r"decoding, full beside nobody: results differ by 0\.5"):
        driver.of_steps(step, 0.0)
    step.tolerance = None
    found = driver.of_steps(step, 0.0)
    assert (found.form, found.differs) == ("decode", None)


@pytest.fixture
def environments(driver: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Stand-ins for the Pythons of the peers' environments: each prints the row of one cell."""
    found: dict[str, Path] = {}
    for peer, ratio in (("transformers", 2.0), ("fla", 0.5)):
        row = driver.row_of("cell", peer, "T=1", "forward", ([1.0] * 5, [ratio] * 5), 0.0)
        found[peer] = stand_in(tmp_path / peer, f"print({json.dumps(asdict(row))!r})")
    monkeypatch.setattr(driver, "ENVIRONMENTS", found)
    return found


def stand_in(path: Path, code: str) -> Path:
    path.write_text(f"#!{sys.executable}\n{code}\n")
    path.chmod(0o755)
    return path


def test_the_rows_of_every_environment_are_counted_and_written(
    driver: ModuleType,
    environments: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "folder" / "peers.json"
    monkeypatch.setattr(sys, "argv", ["peers.py", "--json", str(file)])
    driver.main()
    told = capsys.readouterr().out
    assert "2 cells, median 1.25 (wanted 1.2), least 0.50" in told
    assert "1 below 1.0" in told
    data = json.loads(file.read_text())
    assert [(row["peer"], row["ratio"]) for row in data["rows"]] == [("transformers", 2.0), ("fla", 0.5)]
    assert data["torch"] == str(torch.__version__)
    assert statistics.median(row["ratio"] for row in data["rows"]) == 1.25


@pytest.mark.parametrize(
    ("code", "why"), [("raise SystemExit('differs')", "the cells of fla ended with status 1"), ("", "is not there")]
)
def test_an_environment_that_fails_or_is_missing_ends_the_run(
    driver: ModuleType,
    environments: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    code: str,
    why: str,
) -> None:
    environments["fla"] = stand_in(tmp_path / "broken", code) if code else tmp_path / "nothing"
    monkeypatch.setattr(sys, "argv", ["peers.py", "--json", str(tmp_path / "peers.json")])
    with pytest.raises(SystemExit, match=why):
        driver.main()
    assert not (tmp_path / "peers.json").exists()
