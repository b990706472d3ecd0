"""The tables beside public forms: counts and medians of the file, every cell once, forms side by side."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest
from reference.peers import PEERS, peers_table

HEAD = {"date": "2026-01-02", "torch": "2.13.0", "machine": "x86_64", "commit": "abc"}


def row(cell: str, peer: str, size: str, form: str, ratio: float, **more: Any) -> dict[str, Any]:
    figures = {"ours_ms": 2.0, "theirs_ms": 2.0 * ratio, "low": ratio - 0.1, "high": ratio + 0.1, "repeats": 9}
    return {"cell": cell, "peer": peer, "size": size, "form": form, "ratio": ratio, "differs": 0.0, **figures, **more}


def told(folder: Path, *rows: dict[str, Any]) -> str:
    file = folder / "peers.json"
    file.write_text(json.dumps({**HEAD, "rows": rows}))
    return peers_table(file)


def test_forms_stand_side_by_side_and_a_missing_one_is_empty(tmp_path: Path) -> None:
    text = told(
        tmp_path,
        row("KDA", "transformers", "T=256 B=1", "forward", 8.0),
        row("KDA", "transformers", "T=256 B=1", "forward+backward", 14.0),
        row("KDA", "transformers", "T=1024 B=4", "forward", 0.5),
        row("full", "static cache", "S=32768", "decode", 1.25, ours_ms=1234.0, theirs_ms=1542.5),
    )
    head, ops, decoded = text.split("\n\n")
    assert head == (
        "4 cells, measured on 2026-01-02 with torch 2.13.0 on one thread of x86_64: median 4.62, least 0.50, 1 below 1."
    )
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in ops.splitlines()]
    assert cells[0] == ["op, beside", "size", "forward", "forward+backward"]
    assert cells[2:] == [
        ["KDA, transformers", "T=256 B=1", "8.00 (7.90 to 8.10)", "14.00 (13.90 to 14.10)"],
        ["KDA, transformers", "T=1024 B=4", "0.50 (0.40 to 0.60)", ""],
    ]
    last = [cell.strip() for cell in decoded.splitlines()[-1].strip("|").split("|")]
    assert last == ["full, static cache", "1.23e+03, 1.54e+03 ms", "1.25 (1.15 to 1.35)"]


def test_the_same_op_beside_two_peers_is_two_lines(tmp_path: Path) -> None:
    text = told(
        tmp_path,
        *(
            row("Mamba-2", peer, "T=256 B=1", "forward", ratio)
            for peer, ratio in (("transformers", 1.2), ("fla", 0.75))
        ),
    )
    assert "Mamba-2, transformers" in text
    assert "Mamba-2, fla" in text
    assert "median 0.97, least 0.75, 1 below 1" in text


def test_a_file_without_what_a_table_needs_is_refused(tmp_path: Path) -> None:
    broken = row("KDA", "fla", "T=1", "forward", 1.0)
    del broken["low"]
    with pytest.raises(KeyError, match="low"):
        told(tmp_path, broken)


def test_the_page_has_every_measured_cell() -> None:
    rows = json.loads(PEERS.read_text(encoding="utf-8"))["rows"]
    text = peers_table()
    ratios = [row["ratio"] for row in rows]
    assert len({(row["cell"], row["peer"], row["size"], row["form"]) for row in rows}) == len(rows)
    assert text.startswith(f"{len(rows)} cells")
    assert f"median {statistics.median(ratios):.2f}, least {min(ratios):.2f}" in text
    for each in rows:
        assert f"{each['ratio']:.2f} ({each['low']:.2f} to {each['high']:.2f})" in text
