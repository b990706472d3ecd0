"""Folders that a killed process left are removed by the next one, and nobody else's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from archsearch.storage import Driver
from archsearch.storage.scraps import passing_folder, scratch, sweep

ROOT = Path(__file__).parents[2]


def test_the_folder_of_a_killed_process_is_swept_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    mine = Path(passing_folder(parent=str(tmp_path)))
    script = (
        "import os, sys; from archsearch.storage.scraps import passing_folder; "
        "print(passing_folder(parent=sys.argv[1]), flush=True); os.kill(os.getpid(), 9)"
    )
    made = [sys.executable, "-c", script, str(tmp_path)]
    theirs = subprocess.run(made, capture_output=True, text=True, timeout=280, check=False).stdout.strip()
    assert (Path(theirs) / "owner.json").exists()
    assert sweep(str(tmp_path)) == [theirs]
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [mine]


def test_a_scratch_folder_is_empty_says_whose_it_is_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch("job") as folder:
        assert list(folder.iterdir()) == []
        (owner,) = tmp_path.glob("archsearch-job-*/owner.json")
        assert folder.parent == owner.parent
        owner.write_text(json.dumps(Driver.here().to_json() | {"started": 1}))
        with scratch("another"):
            assert not folder.exists(), "what a killed process has left goes before"
    assert list(tmp_path.iterdir()) == []


_LOOSE = re.compile(r"""(TemporaryDirectory|mkdtemp)\([^)]*prefix=f?["']archsearch""")


def test_no_folder_is_made_that_nobody_would_sweep() -> None:
    """One of our own name that does not say whose it is."""
    sources = [path for room in ("archsearch", "dashboard") for path in (ROOT / room).rglob("*.py")]
    assert len(sources) > 100
    loose = [path.name for path in sources if _LOOSE.search(path.read_text())]
    assert loose == []


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
