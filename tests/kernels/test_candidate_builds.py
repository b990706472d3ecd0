"""Candidates of a table are compiled ahead of time where they differ from its own configurations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import kernel_samples
import pytest

from archsearch.bench.builds import in_float32, with_candidates
from archsearch.kernels import Build, Config, Table
from archsearch.kernels.config import tables

OP = "built_op"
WARM = {"forward": Config(tiles={"M": 64}), "inner": Config(tiles={"M": 16})}


@pytest.fixture
def table() -> Iterator[Table]:
    """A row with two candidates, of which the second has the table's own forward and another inner kernel, and one
    without."""
    rows = {("sm_90", 64, 0): WARM, ("sm_90", 128, 0): WARM, ("sm_80", 64, 0): WARM}
    others = [{"forward": Config(tiles={"M": 32})}, {"inner": Config(tiles={"M": 32}), "forward": WARM["forward"]}]
    yield Table(op=OP, package="archsearch_plugins.full.triton", rows=rows, candidates={("sm_90", 64, 0): others})
    del tables[OP]


def builds_of(table: Table, arch: str) -> Iterator[Build]:
    for key in table.rows:
        if key[0] == arch:
            for name, config in table.row(key).items():
                yield Build(
                    op=OP,
                    name=name,
                    fn=kernel_samples.product,
                    signature={},
                    constexprs={"BLOCK": config.tiles["M"]},
                    config=config,
                    head_dim=key[1],
                )


def test_what_differs_is_built_again_under_the_candidates_number(table: Table) -> None:
    found = with_candidates(lambda arch: builds_of(table, arch), "sm_90")
    assert {build.label: build.constexprs["BLOCK"] for build in found} == {
        "built_op forward D=64": 64,
        "built_op inner D=64": 16,
        "built_op forward D=128": 64,
        "built_op inner D=128": 16,
        "built_op forward candidate 0 D=64": 32,
        "built_op inner candidate 1 D=64": 32,
    }
    assert len(found) == 6


def test_the_table_is_as_before(table: Table) -> None:
    with_candidates(lambda arch: builds_of(table, arch), "sm_90")
    assert table.candidate(("sm_90", 64, 0)) is None


def test_an_architecture_without_candidates(table: Table) -> None:
    assert len(with_candidates(lambda arch: builds_of(table, arch), "sm_80")) == 2


def multiplying(table: Table, *, own: bool = False) -> Callable[[str], Iterator[Build]]:
    """Of each row a kernel that multiplies, and one that does not; with one in float32 of its `own`."""

    def builds(arch: str) -> Iterator[Build]:
        for build in builds_of(table, arch):
            if build.name == "forward":
                constants = {**build.constexprs, "PRECISION": "tf32"}
                signature = {"q": "*bf16", "norms": "*fp32", "T": "i32"}
                yield replace(build, signature=signature, constexprs=constants)
                if own:
                    yield replace(build, signature={"q": "*fp32"}, constexprs={"PRECISION": "ieee"}, variant="float32")
            else:
                yield build

    return builds


def test_what_multiplies_is_built_in_float32_where_the_row_has_configurations_for_it() -> None:
    rows = {("sm_90", 64, 0): WARM, ("sm_90", 128, 0): WARM, ("sm_90", 256, 0): WARM}
    narrow = {"forward": Config(tiles={"M": 8})}
    exact = {("sm_90", 64, 0): narrow, ("sm_90", 256, 0): narrow}
    table = Table(op=OP, package="archsearch_plugins.full.triton", rows=rows, exact=exact)
    try:
        (found,) = in_float32(multiplying(table), "sm_90")
        assert found.label == "built_op forward float32 D=64"
        assert found.signature == {"q": "*fp32", "norms": "*fp32", "T": "i32"}
        assert found.constexprs == {"BLOCK": 8, "PRECISION": "ieee"}
        assert found.exact
        assert table.row(("sm_90", 64, 0)) == WARM
        assert in_float32(multiplying(table, own=True), "sm_90") == []
    finally:
        del tables[OP]
