"""A checkpoint that cannot be read or written is logged, and the training begins anew or goes on without it."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from training_samples import RECIPE, Echo, Tasks, arch_of, registry_of

from archsearch.errors import SpecError
from archsearch.tasks import resolve_task
from archsearch.training import Evaluation, Recipe
from archsearch.training.checkpoint import check_store

RATES = [1e-2, 1e-3]


def evaluation(file: Path | str) -> Evaluation:
    """Of the echo task, saved after every step."""
    registry = registry_of(Tasks(Echo))
    recipe = Recipe.read({**RECIPE, "checkpoint_seconds": 1e-9, "learning_rates": RATES})
    arch = arch_of("full", registry)
    return Evaluation(arch, resolve_task("echo", registry), recipe, 0, registry=registry, checkpoint=file)


def finished(begun: Evaluation) -> dict[str, Any]:
    """What it measures in the end."""
    while not begun.done:
        begun.advance(0)
    found = begun.measurement()
    return {name: getattr(found, name) for name in ("validation", "test", "curve", "steps", "learning_rate")}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in the middle of the second rate."""
    file = tmp_path_factory.mktemp("good") / "trial.pt"
    begun = evaluation(file)
    for _ in range(8):
        begun.advance(0)
    assert evaluation(file).progress.step == 8
    return file


def edited(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Changes what a checkpoint holds."""

    def edit(file: Path) -> None:
        content = torch.load(file, weights_only=True)
        torch.save(change(content) or content, file)

    return edit


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


class Evil:
    """Would run code, were it unpickled."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("evil"),))


def without(name: str) -> Callable[[Any], Any]:
    return lambda content: {key: value for key, value in content.items() if key != name}


def without_in_fit(name: str) -> Callable[[Any], Any]:
    return lambda content: {**content, "fit": without(name)(content["fit"])}


def resized(content: Any) -> None:
    content["fit"]["model"] = {name: value.reshape(-1)[:1] for name, value in content["fit"]["model"].items()}


def other_moments(content: Any) -> None:
    for moments in content["fit"]["optimizer"]["state"].values():
        moments["exp_avg"] = torch.zeros(3)


SPOILT: dict[str, Callable[[Path], None]] = {
    "empty": lambda file: file.write_bytes(b""),
    "cut": cut,
    "text": lambda file: file.write_text("no checkpoint"),
    "folder": folder,
    "pickled-code": lambda file: file.write_bytes(pickle.dumps(Evil())),
    "pickled-list": lambda file: file.write_bytes(pickle.dumps([1, 2])),
    "saved-code": lambda file: torch.save({"key": Evil()}, file),
    "saved-list": lambda file: torch.save([1, 2], file),
    "another-key": edited(lambda content: content.update(key="another")),
    **{f"no-{name}": edited(without(name)) for name in ("key", "sweep", "best", "fit")},
    **{
        f"no-fit-{name}": edited(without_in_fit(name))
        for name in ("model", "optimizer", "rng", "step", "reason", "curve", "losses")
    },
    "sweep-of-numbers": edited(lambda content: content.update(sweep=[1])),
    "sweep-too-long": edited(lambda content: content.update(sweep=content["sweep"] * 2)),
    "best-of-nothing": edited(lambda content: content["best"].update(index=5)),
    "best-of-other-shapes": edited(lambda content: content["best"].update(model={"embedding.weight": torch.ones(2)})),
    "model-of-other-shapes": edited(resized),
    "moments-of-other-shapes": edited(other_moments),
    "rng-of-other-length": edited(lambda content: content["fit"].update(rng=torch.zeros(3, dtype=torch.uint8))),
    "step-out-of-range": edited(lambda content: content["fit"].update(step=99)),
    "curve-without-metric": edited(lambda content: content["fit"].update(curve=[{"step": 3.0}])),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_spoilt_checkpoint_is_left_alone(
    spoil: Callable[[Path], None],
    good: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "trial.pt"
    file.write_bytes(good.read_bytes())
    spoil(file)
    with caplog.at_level(logging.WARNING, "archsearch.training"):
        begun = evaluation(file)
    assert begun.progress.step == 0
    (line,) = caplog.messages
    assert line.startswith(f"checkpoint {file} is left alone, and training begins anew: ")
    assert "\n" not in line
    assert file.exists()
    assert not (tmp_path / "evil").exists()
    begun.advance(0)
    assert begun.progress.step == 1


def test_after_a_spoilt_checkpoint_the_result_is_the_same(good: Path, tmp_path: Path) -> None:
    file = tmp_path / "trial.pt"
    file.write_bytes(good.read_bytes())
    resumed = finished(evaluation(file))
    cut(file)
    assert finished(evaluation(file)) == resumed == finished(evaluation(tmp_path / "none.pt"))


def test_a_full_disk_is_logged_once_and_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(content: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    expected = finished(evaluation(tmp_path / "a.pt"))
    monkeypatch.setattr(torch, "save", full)
    with caplog.at_level(logging.WARNING, "archsearch.training"):
        assert finished(evaluation(tmp_path / "b.pt")) == expected
    assert [line.split(": ", 1)[1] for line in caplog.messages] == ["[Errno 28] No space left on device"]
    assert not (tmp_path / "b.pt").exists()
    assert not list(tmp_path.glob("*.partial"))


def test_a_place_that_cannot_be_written_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way of a folder")
    with caplog.at_level(logging.WARNING, "archsearch.training"):
        begun = evaluation(tmp_path / "file" / "trial.pt")
        finished(begun)
        begun.discard()
    assert len([line for line in caplog.messages if "cannot be" in line]) == 1


def test_a_checkpoint_that_cannot_be_removed_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    begun = evaluation(tmp_path / "trial.pt")
    finished(begun)
    (tmp_path / "trial.pt").unlink()
    (tmp_path / "trial.pt").mkdir()
    with caplog.at_level(logging.WARNING, "archsearch.training"):
        begun.discard()
    assert "cannot be removed" in caplog.text


def test_a_training_goes_on_from_a_checkpoint_in_a_store_by_url(caplog: pytest.LogCaptureFixture) -> None:
    place = "memory://checkpoints/search/7.pt"
    begun = evaluation(place)
    expected = finished(evaluation("memory://checkpoints/search/whole.pt"))
    begun.advance(1e-9)
    again = evaluation(place)
    assert again.progress.step == begun.progress.step > 0
    assert finished(again) == expected
    again.discard()
    assert evaluation(place).progress.step == 0
    assert caplog.messages == []


def test_a_url_of_a_file_is_that_file(tmp_path: Path) -> None:
    begun = evaluation(f"file://{tmp_path}/deep/7.pt")
    begun.advance(1e-9)
    assert (tmp_path / "deep" / "7.pt").exists()


@pytest.mark.parametrize(("place", "said"), [("s3://bucket/x", "s3fs"), ("nope://x", "Protocol not known")])
def test_a_store_whose_package_is_not_there_is_told_before_anything_is_trained(place: str, said: str) -> None:
    check_store("memory://x")
    check_store("file:///x")
    check_store("/x")
    with pytest.raises(SpecError, match=said):
        check_store(place)


def test_a_store_that_is_away_ends_no_training(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*what: Any, **how: Any) -> None:
        raise TimeoutError("the store\ndoes not answer")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", away)
    with caplog.at_level(logging.WARNING, "archsearch.training"):
        finished(evaluation("memory://checkpoints/away.pt"))
    assert [line.split(": ", 1)[1] for line in caplog.messages] == ["the store does not answer"]
