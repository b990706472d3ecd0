"""Which row of a table serves a call, and which rows count as verified."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from archsearch.errors import KernelUnavailableError
from archsearch.evidence import proofs
from archsearch.evidence.digests import source_digest
from archsearch.kernels import Config, Table, arch_of, forms
from archsearch.ops import impl
from archsearch.ops.triton.exact import for_float32

ROWS = {
    ("sm_90", 64, 32): {"forward": Config(tiles={"M": 32})},
    ("sm_90", 64, 64): {"forward": Config(tiles={"M": 64})},
    ("sm_90", 128, 32): {"forward": Config(tiles={"M": 16})},
    ("sm_80", 64, 64): {"forward": Config(tiles={"M": 8})},
}


MACHINE = proofs.Machine(card="H200", arch="sm_90", driver="570", torch="2.11.0", triton="3.6.0", ptxas="12.8")


def served(table: Table, head_dim: int, chunk: int = 64, device: str = "cpu") -> impl.Served:
    return impl.Served(table=table, device=torch.device(device), dtype=torch.bfloat16, head_dim=head_dim, chunk=chunk)


@pytest.fixture
def table() -> Table:
    return Table(op="tabled", package="archsearch_plugins.full", rows=ROWS)


@pytest.mark.parametrize(
    ("asked", "row"),
    [
        (("sm_90", 64, 64), ("sm_90", 64, 64)),
        (("sm_90", 60, 64), ("sm_90", 64, 64)),
        (("sm_90", 8, 63), ("sm_90", 64, 32)),
        (("sm_90", 65, 64), ("sm_90", 128, 32)),
        (("sm_90", 64, 16), ("sm_90", 64, 32)),
        (("sm_80", 64, 128), ("sm_80", 64, 64)),
    ],
)
def test_the_smallest_head_dim_and_the_largest_chunk_that_fit_serve(
    table: Table, asked: tuple[str, int, int], row: tuple[str, int, int]
) -> None:
    assert table.key(*asked) == row
    assert table.pick(*asked) == ROWS[row]


def test_what_no_row_serves_is_an_error_that_says_what_there_is(table: Table) -> None:
    with pytest.raises(KernelUnavailableError, match=r"tabled has no Triton.*for sm_75, only for sm_80, sm_90"):
        table.key("sm_75", 64, 64)
    with pytest.raises(KernelUnavailableError, match="head_dim = 129 has no Triton configuration on sm_90: 128 is"):
        table.key("sm_90", 129, 64)


def test_a_forced_row_serves_every_call_until_the_block_ends(table: Table) -> None:
    with table.forced(("sm_80", 64, 64)):
        assert table.key("sm_90", 128, 32) == ("sm_80", 64, 64)
    assert table.key("sm_90", 128, 32) == ("sm_90", 128, 32)
    with pytest.raises(KernelUnavailableError, match="no Triton configuration"), table.forced(("sm_70", 1, 1)):
        pass


EXACT = {"forward": Config(tiles={"M": 4})}


@pytest.fixture
def exact_table() -> Table:
    """With a candidate and configurations for float32 of one row, of which the candidate has another kernel too."""
    key = ("sm_90", 64, 64)
    others = [{"forward": Config(tiles={"M": 2}), "inner": Config(tiles={"M": 1})}]
    return Table(op="exact", package="archsearch_plugins.full", rows=ROWS, candidates={key: others}, exact={key: EXACT})


@pytest.mark.parametrize(
    ("dtype", "interpreted", "forced", "taken"),
    [
        (torch.float32, False, False, True),
        (torch.bfloat16, False, True, False),
        (torch.float16, False, False, False),
        (torch.float32, True, False, False),
        (torch.float32, True, True, True),
    ],
)
def test_float32_has_configurations_of_its_own_but_where_it_stands_for_fewer_bits(
    exact_table: Table,
    dtype: torch.dtype,
    interpreted: bool,
    forced: bool,
    taken: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1" if interpreted else "0")
    with exact_table.forced(("sm_90", 64, 64), exact=forced):
        assert (exact_table.row(("sm_90", 64, 64), dtype) == EXACT) == taken


def test_configurations_for_float32_stand_before_those_of_a_candidate(
    exact_table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    key, wide = ("sm_90", 64, 64), torch.float32
    assert exact_table.row(key, wide) == EXACT
    assert exact_table.row(("sm_90", 64, 32), wide) == ROWS[("sm_90", 64, 32)]
    with exact_table.using(key, 0):
        assert exact_table.row(key, wide) == {**EXACT, "inner": Config(tiles={"M": 1})}
        assert exact_table.row(key)["forward"] == Config(tiles={"M": 2})


def test_while_they_are_listed_every_dtype_takes_the_configurations_for_float32(exact_table: Table) -> None:
    with exact_table.exactly():
        assert exact_table.row(("sm_90", 64, 64)) == exact_table.row(("sm_90", 64, 64), torch.bfloat16) == EXACT
        assert exact_table.row(("sm_90", 64, 32)) == ROWS[("sm_90", 64, 32)]
    assert exact_table.row(("sm_90", 64, 64)) == ROWS[("sm_90", 64, 64)]


def test_configurations_for_float32_have_smaller_tiles_where_a_head_has_more_channels() -> None:
    row = {"forward": Config.of(4, 3, M=128, N=64), "decode": Config.of(4, 3, N=16), "merge": Config.of(4, 1, S=16)}
    found = for_float32({("sm_90", dim, 0): row for dim in (16, 64, 128)}, ("forward", "decode"))
    assert found == {
        ("sm_90", 64, 0): {"forward": Config.of(8, 1, M=32, N=32), "decode": Config.of(8, 1, N=16, G=16)},
        ("sm_90", 128, 0): {"forward": Config.of(8, 1, M=16, N=16), "decode": Config.of(8, 1, N=16, G=16)},
    }


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An importable package with a kernel, and a list that verifies the row (sm_90, 64, 64)."""
    folder = tmp_path / "proved_plugin"
    (folder / "kernels").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "kernels" / "device.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "proved_plugin", raising=False)
    passed = proofs.Proof(
        op="proved",
        arch="sm_90",
        head_dim=64,
        chunk=64,
        source=proofs.proven_source("proved_plugin"),
        card="H200",
        driver="570",
        torch="2.11.0",
        triton=str(proofs.triton_version()),
        ptxas="12.8",
        date="2026-01-01",
    )
    proofs.Proofs(records=(passed,)).write(folder / proofs.Proofs.FILE)
    yield "proved_plugin"
    proofs.proofs.cache_clear()
    source_digest.cache_clear()


def test_a_proof_holds_for_its_row_its_source_and_its_triton(plugin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(op="proved", package=plugin, rows=ROWS)
    assert table.proof(("sm_90", 64, 64)) is not None
    assert table.proof(("sm_90", 64, 32)) is None
    proofs.proofs.cache_clear()
    monkeypatch.setattr(proofs, "triton_version", lambda: "0.0")
    assert table.proof(("sm_90", 64, 64)) is None


def test_a_changed_kernel_makes_the_proof_stale(plugin: str, tmp_path: Path) -> None:
    table = Table(op="proved", package=plugin, rows=ROWS)
    assert table.proof(("sm_90", 64, 64)) is not None
    (tmp_path / plugin / "kernels" / "device.py").write_text("x = 2\n")
    proofs.proofs.cache_clear()
    source_digest.cache_clear()
    assert table.proof(("sm_90", 64, 64)) is None


def test_auto_takes_triton_on_a_card_only_where_it_was_verified(plugin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(op="proved", package=plugin, rows=ROWS)
    monkeypatch.setenv("ARCHSEARCH_PROVE", "listed")
    monkeypatch.setattr(forms, "arch_of", lambda device: "sm_90")
    monkeypatch.setattr(forms.machines, "machine_of", lambda device: MACHINE)
    forms.forget()

    def chosen(head_dim: int, chunk: int, device: str = "cuda") -> str:
        return impl.choose_impl("proved", "auto", served=served(table, head_dim, chunk, device))

    assert chosen(64, 64) == "triton"
    assert chosen(64, 32) == "chunkwise"
    assert chosen(512, 64) == "chunkwise"
    assert chosen(64, 64, device="cpu") == "chunkwise"


def test_triton_by_name_runs_under_the_interpreter_and_else_says_why_not(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert impl.choose_impl("tabled", "triton", served=served(table, 64)) == "triton"
    with pytest.raises(KernelUnavailableError, match="head_dim = 512"):
        impl.choose_impl("tabled", "triton", served=served(table, 512))
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(KernelUnavailableError, match="tensors are on the device cpu, not on cuda"):
        impl.choose_impl("tabled", "triton", served=served(table, 64))


def test_the_environment_leaves_ops_without_a_kernel_at_their_pytorch_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(impl.VARIABLE, "triton")
    assert impl.choose_impl("kernelless", "auto") == "chunkwise"


def test_the_choice_leaves_no_break_in_a_compiled_graph(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")

    def double_or_triple(x: torch.Tensor, wanted: str) -> torch.Tensor:
        chosen = impl.choose_impl("tabled", wanted, served=served(table, x.shape[-1]))
        return x * 3 if chosen == "triton" else x * 2

    compiled = torch.compile(double_or_triple, fullgraph=True, backend="eager")
    ones = torch.ones(2, 64)
    assert torch.equal(compiled(ones, "triton"), 3 * ones)
    assert torch.equal(compiled(ones, "auto"), 2 * ones)


def test_a_cpu_tensor_stands_for_the_architecture_that_the_interpreter_runs() -> None:
    assert arch_of(torch.device("cpu")) == "sm_90"
