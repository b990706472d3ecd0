"""A trial of two workers is preempted as any other: it goes on from its checkpoint, at the URL that the spec names, and
gives the record of one that nothing has interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from soak import LIMIT, SPEC, Soak, end, waited_for

from archsearch.storage import TrialRecord

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
REPORTS = 4
"""Of a trial, before it is interrupted: from its beginning it would take as many to be where it was."""
SPLIT = (
    SPEC.replace("eval_every = 1000", "eval_every = 100")
    .replace("checkpoint_seconds = 1", "checkpoint_seconds = 0.2\naccumulate = 2\nstop_at = 0.0")
    .replace("trials = 2", 'trials = 1\nreferences = ["full"]')
) + '[resources]\nworkers = 2\ncheckpoints = "{{store}}"\n'


class Split(Soak):
    """Searches whose trials two workers train, with checkpoints at a URL."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        super().__init__(folder, f"sqlite:///{folder}/search.db", steps=600)
        self.store = folder / "store"

    def started(self, verb: str) -> subprocess.Popen[str]:
        what = str(self.spec("split", SPLIT).resolve()) if verb == "run" else "split"
        if verb == "run":
            file = Path(what)
            file.write_text(file.read_text().replace("{store}", f"file://{self.store}"))
        return self.start(verb, what, "--log-format", "json")

    def told(self, event: str, trial: int, verb: str = "run") -> list[dict[str, Any]]:
        """What drivers have logged of a trial."""
        log = self.folder / f"{verb}.log"
        lines = log.read_text().splitlines(keepends=True) if log.exists() else []
        found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]
        return [line for line in found if line.get("event") == event and line["trial"] == trial]

    def steps(self, trial: int, verb: str = "run") -> list[int]:
        """The steps that were reported, in their order."""
        return [line["step"] for line in self.told("trial_progressed", trial, verb)]

    def under_way(self, process: subprocess.Popen[str], after: int = 0) -> TrialRecord:
        """The candidate, once its workers have reported `REPORTS` times beyond `after`, and have left a checkpoint."""

        def look() -> TrialRecord | None:
            for trial in self.placed("split"):
                reported = len(self.steps(trial.id)) - after
                if trial.kind == "search" and reported >= REPORTS and list(self.store.rglob("*.pt")):
                    return trial
            return None

        found: TrialRecord = waited_for(look, process, "the candidate is not under way")
        return found

    def ended(self, process: subprocess.Popen[str], code: int = 0) -> None:
        """Waits until the driver has, with this exit code."""
        try:
            assert process.wait(LIMIT) == code, self.log()
        finally:
            end(process)

    def measured(self) -> dict[str, Any]:
        """What was measured of complete trials, by key."""
        trials = self.trials("split")
        assert {trial.state for trial in trials} == {"complete"}
        return {found.key: found.payload for trial in trials for found in trial.measurements}


def test_a_trial_of_two_workers_that_is_preempted_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """Twice: its workers are killed, and later the whole search is stopped and resumed."""
    cut, whole = Split(tmp_path / "cut"), Split(tmp_path / "whole")
    process = cut.started("run")
    try:
        trial = cut.under_way(process)
        assert trial.placement is not None
        os.kill(trial.placement["pid"], signal.SIGKILL)
        waited_for(lambda: cut.told("trial_ended", trial.id), process, "nobody notices that a worker is gone")
        first = cut.steps(trial.id)
        cut.under_way(process, after=len(first))
        os.kill(process.pid, signal.SIGINT)
    except BaseException:
        end(process)
        raise
    cut.ended(process, 130)
    lost = cut.told("trial_ended", trial.id)[0]
    assert lost["state"] == "preempted"
    assert "it was killed from outside (SIGKILL): tried again in 2 s" in lost["reason"]
    second = cut.steps(trial.id)[len(first) :]
    assert [found.state for found in cut.trials("split")] == ["complete", "preempted"]
    cut.ended(cut.started("resume"))
    third = cut.steps(trial.id, "resume")
    assert second[0] > first[-1] / 2, f"trained anew: {first}, {second}"
    assert third[0] > second[-1] / 2, f"trained anew: {second}, {third}"
    assert not list(cut.store.rglob("*.pt")), "what is trained leaves none behind"
    assert [found.attempts for found in cut.trials("split")] == [0, 1]
    whole.ended(whole.started("run"))
    interrupted, alone = cut.measured(), whole.measured()
    assert interrupted.keys() == alone.keys()
    for key, one in alone.items():
        other = interrupted[key]
        assert one["versions"]["workers"] == other["versions"]["workers"] == "2"
        assert other["test"] == pytest.approx(one["test"], abs=1e-4)
        losses = [[look["loss"] for look in found["curve"]] for found in (one, other)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
