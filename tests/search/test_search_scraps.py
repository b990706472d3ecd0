"""Folders that a killed process left are removed by the next one, and nobody else's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from archsearch.search.scraps import passing_folder, sweep
from archsearch.storage import Driver


def test_the_folder_of_a_killed_process_is_swept_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    mine = Path(passing_folder(parent=str(tmp_path)))
    script = (
        "import os, sys; from archsearch.search.scraps import passing_folder; "
        "print(passing_folder(parent=sys.argv[1]), flush=True); os.kill(os.getpid(), 9)"
    )
    made = [sys.executable, "-c", script, str(tmp_path)]
    theirs = subprocess.run(made, capture_output=True, text=True, timeout=280, check=False).stdout.strip()
    assert (Path(theirs) / "owner.json").exists()
    assert sweep(str(tmp_path)) == [theirs]
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [mine]


def test_what_cannot_be_told_is_left_alone(tmp_path: Path) -> None:
    elsewhere = Driver.here().to_json() | {"boot_id": "another machine", "pid": 2**30}
    for name, text in (("far", json.dumps(elsewhere)), ("odd", "[]"), ("none", "no json"), ("empty", "{}")):
        (tmp_path / f"archsearch-{name}").mkdir()
        (tmp_path / f"archsearch-{name}" / "owner.json").write_text(text)
    (tmp_path / "archsearch-mine").mkdir()
    dead = Driver.here().to_json() | {"started": 1}
    (tmp_path / "other-tool").mkdir()
    (tmp_path / "other-tool" / "owner.json").write_text(json.dumps(dead))
    (tmp_path / "archsearch-linked").symlink_to(tmp_path / "other-tool")
    assert sweep(str(tmp_path)) == []
    assert len(list(tmp_path.iterdir())) == 7
