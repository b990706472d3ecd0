"""Two processes train one candidate as one process does: losses, decisions, metrics, checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes
from splitting_samples import MOE, AddsMeans, Asks, Counts, Draws, Spoils, SpoilsValidation, begun, check_same, finished

from archsearch.errors import SpecError
from archsearch.training.group import ALONE, Group, merge, versions_of

RATES = [1e-2, 1e-3]
SPLIT: Mapping[str, dict[str, Any]] = {
    "added-losses": {"layer": AddsMeans, "pattern": "toy full"},
    "random-and-nonlinear": {"layer": Draws, "batch_size": 8, "accumulate": 4},
    "experts-that-nobody-chose": {"model": MOE, "batch_size": 4, "pattern": "toy toy"},
    "parts-without-targets": {"task": "uneven", "batch_size": 11, "accumulate": 6},
    "clipped": {"clip": 1e-2},
    "several-rates": {"learning_rates": RATES, "pattern": "full toy"},
    "judged-by-steps": {"broken": {"step": "evicts"}},
    "computed-twice": {"pattern": "linear full", "checkpoint_activations": True},
    "taught": {"layer": Asks, "pattern": "toy full", "teacher": "full", "learning_rates": [1e-2]},
    "diverged": {"layer": Spoils, "learning_rates": RATES},
    "not-finite-on-validation": {"layer": SpoilsValidation},
}
"""Trainings, each with two parts where nothing else is said; how many processes share them makes no difference."""
LINEAR = ("added-losses", "parts-without-targets", "clipped", "several-rates")
"""Those whose loss is a mean over sequences: not splitting the batch at all makes no difference either."""

SAVED = {"learning_rates": RATES, "checkpoint_seconds": 1e-9, "accumulate": 2}
CUT = 8
"""Steps after which a checkpointed training is left: in the middle of the second rate."""


def trained(case: str, group: Group = ALONE, **more: Any) -> dict[str, Any]:
    """A training of `SPLIT`."""
    return finished(begun(**{"accumulate": 2, **SPLIT[case], **more, "group": group}))


def cut(file: Path, group: Group = ALONE) -> None:
    """Leaves a training after `CUT` steps."""
    evaluation = begun(checkpoint=file, group=group, **SAVED)
    for _ in range(CUT):
        evaluation.advance(0)


def work(rank: int, folder: str) -> None:
    """What each of two processes does; saves what it found."""
    home = Path(folder)
    dist.init_process_group("gloo", init_method=f"file://{home}/meeting", rank=rank, world_size=2)
    group = Group.here()
    found = {case: trained(case, group) for case in SPLIT}
    evaluation = begun(Counts, more_params=4, accumulate=2, group=group)
    evaluation.advance(0)
    fit = evaluation._fit
    assert fit is not None
    found["counts"] = dict(fit.model.state_dict())
    cut(home / "two.pt", group)
    resumed = begun(checkpoint=home / "one.pt" if rank == 0 else home / "none.pt", group=group, **SAVED)
    found["resumed"] = {"step": resumed.progress.step, **finished(resumed)}
    resumed.discard()
    spoilt = begun(checkpoint=home / "spoilt.pt", group=group, **SAVED)
    found["spoilt"] = spoilt.progress.step
    torch.save(found, home / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two processes have left what they found, after one left a checkpoint for them."""
    folder = tmp_path_factory.mktemp("together")
    cut(folder / "one.pt")
    content = torch.load(folder / "one.pt", weights_only=True)
    torch.save({**content, "fit": {}}, folder / "spoilt.pt")
    processes.spawn(work, args=(str(folder),), nprocs=2)  # type: ignore[no-untyped-call]
    return folder


@pytest.fixture(scope="module")
def found(home: Path) -> list[dict[str, Any]]:
    return [torch.load(home / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("case", SPLIT)
def test_two_processes_train_as_one(case: str, found: list[dict[str, Any]]) -> None:
    wanted = trained(case)
    check_same(found[0][case], wanted)
    for name in ("validation", "test"):
        assert found[0][case][name] == pytest.approx(wanted[name], abs=1e-6)


@pytest.mark.parametrize("case", LINEAR)
def test_two_processes_train_as_one_that_splits_nothing(case: str, found: list[dict[str, Any]]) -> None:
    check_same(found[0][case], trained(case, accumulate=1))


@pytest.mark.parametrize("case", SPLIT)
def test_all_processes_hold_the_same(case: str, found: list[dict[str, Any]]) -> None:
    first, second = (dict(one[case]) for one in found)
    weights = [first.pop("weights"), second.pop("weights")]
    assert str(first) == str(second)
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name])


def test_a_diverged_training_says_where_in_both(found: list[dict[str, Any]]) -> None:
    for one in found:
        assert "the loss is not finite at step 4: layer 0 (toy) first gives NaN" in one["diverged"]["reason"]
        assert "the output on validation is not finite at step 3" in one["not-finite-on-validation"]["reason"]


def test_buffers_and_weights_that_nothing_uses_stay_alike(found: list[dict[str, Any]]) -> None:
    for name, tensor in found[0]["counts"].items():
        assert torch.equal(tensor, found[1]["counts"][name])
        if name.endswith("unused"):
            assert torch.equal(tensor, torch.ones(2, 2))
    assert any(name.endswith("seen") and tensor > 0 for name, tensor in found[0]["counts"].items())


def test_a_checkpoint_goes_on_in_any_number_of_processes(home: Path, found: list[dict[str, Any]]) -> None:
    wanted = finished(begun(**SAVED))
    assert [one["resumed"].pop("step") for one in found] == [CUT, CUT]
    for one in found:
        check_same(one["resumed"], wanted)
    assert not (home / "one.pt").exists()
    resumed = begun(checkpoint=home / "two.pt", **SAVED)
    assert resumed.progress.step == CUT
    check_same(finished(resumed), wanted)


def test_a_spoilt_checkpoint_is_left_alone_by_all(found: list[dict[str, Any]]) -> None:
    assert [one["spoilt"] for one in found] == [0, 0]


def test_parts_that_cannot_be_shared_are_refused() -> None:
    with pytest.raises(SpecError, match=r"accumulate = 3 parts of 8 sequences cannot be shared by 2 workers"):
        begun(accumulate=3, group=Group(rank=0, size=2))


def test_a_process_alone_asks_nobody() -> None:
    assert Group.here() == ALONE
    assert ALONE.leads
    assert list(ALONE.share(3)) == [0, 1, 2]
    assert ALONE.least(5) == 5
    assert ALONE.tell({"a": 1}, torch.device("cpu")) == {"a": 1}
    figures, model = torch.ones(2), torch.nn.Linear(2, 2)
    merge(model, figures, versions_of(model), ALONE)
    ALONE.add_up([figures])
    assert figures.tolist() == [1, 1]
