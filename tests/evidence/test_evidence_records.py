"""Files of evidence: one format, found in packages, read strictly, and added to without losing what was there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from archsearch.errors import SpecError
from archsearch.evidence import proofs
from archsearch.evidence.compiled import Report
from archsearch.evidence.conformance import ConformanceRecords
from archsearch.evidence.digests import source_digest
from archsearch.evidence.proofs import Proof, Proofs, proven_source
from archsearch.evidence.records import Records
from archsearch.kernels.forms import proven_here

KINDS: list[type[Records[Any]]] = [Proofs, ConformanceRecords, Report]
BROKEN = {
    "no-json": "{",
    "no-utf8": b"\xff\xfe",
    "deep": "[" * 100_000,
    "list": "[]",
    "number": "3",
    "other-version": '{"version": 2, "records": []}',
    "unknown-key": '{"version": 1, "records": [], "more": 1}',
    "record-of-another-kind": '{"version": 1, "records": [{"mixer": "full"}]}',
    "record-that-is-none": '{"version": 1, "records": [1]}',
}


def proof(**changes: Any) -> Proof:
    row = {"op": "op", "arch": "sm_90", "head_dim": 64, "chunk": 0, "source": "", "card": "H200", "driver": "580"}
    return Proof(**{**row, "torch": "2.11.0", "triton": "3.6.0", "ptxas": "12.8", "date": "2026-01-01", **changes})


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """An importable package with a folder `triton` in it."""
    name = f"evident_{abs(hash(request.node.nodeid))}"
    for folder in (tmp_path / name, tmp_path / name / "triton"):
        folder.mkdir()
        (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    return name


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_file_that_holds_something_else_is_named_with_its_remedy(
    kind: type[Records[Any]], content: str | bytes, package: str, tmp_path: Path
) -> None:
    path = tmp_path / package / kind.FILE
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SpecError) as error:
        kind.listed(package)
    assert str(error.value).startswith(f"{path}: holds no {kind.HOLDS} (")
    assert str(error.value).endswith(f"): {kind.REMEDY}")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_file_that_is_not_there_is_an_error_by_its_path_and_nothing_in_a_package(
    kind: type[Records[Any]], package: str, tmp_path: Path
) -> None:
    assert kind.listed(package) == ()
    assert kind.holders(package) == []
    with pytest.raises(SpecError, match=r"missing\.json: holds no .* \(No such file or directory\)"):
        kind.read(tmp_path / "missing.json")


def test_a_file_has_a_line_a_record_in_order(tmp_path: Path) -> None:
    path = tmp_path / "below" / Proofs.FILE
    Proofs(records=(proof(op="z"), proof(op="a"))).write(path)
    lines = path.read_text().splitlines()
    assert [json.loads(line.rstrip(","))["op"] for line in lines if '"op"' in line] == ["a", "z"]
    assert json.loads(path.read_text())["version"] == 1
    assert list(path.parent.iterdir()) == [path]
    Proofs().write(path)
    assert Proofs.read(path) == Proofs()


def test_a_newer_record_takes_the_place_of_its_like_alone(tmp_path: Path) -> None:
    path = tmp_path / Proofs.FILE
    older = proof(), proof(triton="3.5.0"), proof(head_dim=128)
    Proofs.add(path, older)
    Proofs.add(path, [proof(date="2026-02-02")])
    assert Proofs.read(path).records == (older[1], proof(date="2026-02-02"), older[2])


def test_a_file_that_cannot_be_read_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / Proofs.FILE
    path.write_text("{")
    with pytest.raises(SpecError, match="holds no proofs"):
        Proofs.add(path, [proof()])
    assert path.read_text() == "{"


def test_what_cannot_be_written_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpecError, match=r"cannot write .*: name another file or folder"):
        Proofs().write(tmp_path / "file" / Proofs.FILE)


def test_files_are_found_in_the_folders_of_a_package(package: str, tmp_path: Path) -> None:
    Proofs(records=(proof(),)).write(tmp_path / package / "triton" / Proofs.FILE)
    assert Proofs.listed(package) == ()
    assert Proofs.holders(package) == [f"{package}.triton"]
    assert Proofs.listed(f"{package}.triton") == (proof(),)


def test_a_digest_is_of_every_python_file_of_all_the_packages(package: str, tmp_path: Path) -> None:
    def digest(*packages: str) -> str:
        source_digest.cache_clear()
        return source_digest(*packages)

    alone, both = digest(package), digest(package, "archsearch.evidence")
    (tmp_path / package / "notes.txt").write_text("no code")
    assert digest(package) == alone != both
    (tmp_path / package / "triton" / "device.py").write_text("x = 1\n")
    assert digest(package) != alone
    assert digest(package, "archsearch.evidence") != both


def test_rows_that_a_packages_list_proves_are_known_where_there_is_no_card(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    __import__(package)
    monkeypatch.setattr(proofs, "triton_version", lambda: "3.6.0")
    monkeypatch.setenv("ARCHSEARCH_CACHE", str(tmp_path / "cache"))
    holder, found = f"{package}.triton", []
    source_digest.cache_clear()
    for records in ((), (proof(source="other"),), (proof(source=proven_source(holder)),)):
        Proofs(records=records).write(tmp_path / package / "triton" / Proofs.FILE)
        proofs.proofs.cache_clear()
        found.append(proven_here([package], torch.device("cpu")))
    proofs.proofs.cache_clear()
    row = holder, "op", ("sm_90", 64, 0), "bfloat16", ""
    assert found == [frozenset(), frozenset(), frozenset({row})]
