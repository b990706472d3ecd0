"""Compilation ahead of time: what is reported of a kernel, what counts as a fault, what is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from archsearch.errors import KernelUnavailableError, SpecError
from archsearch.evidence.compiled import Compiled, Report, differences, drift

COMPILE = """
import json, sys
from pathlib import Path
from kernel_samples import build
from archsearch.kernels.compiler import compile_build
cases, cache = json.loads(sys.argv[1]), Path(sys.argv[2])
print(json.dumps([compile_build(build(**case), arch, cache).model_dump() for case, arch in cases]))
"""
CASES = [
    ({}, "sm_90"),
    ({}, "sm_80"),
    ({"matrix": False, "tile": 32}, "sm_90"),
    ({"tile": 128, "warps": 1}, "sm_80"),
    ({"turned": True}, "sm_90"),
]
FLOAT32 = {"operands": "*fp32", "precision": "ieee", "tile": 32}
EXACT = [
    (FLOAT32, "sm_90"),
    (FLOAT32, "sm_80"),
    ({**FLOAT32, "rounded": True}, "sm_90"),
    ({"matrix": False, "tile": 32, "precision": "ieee"}, "sm_90"),
    ({"tile": 32, "precision": "ieee"}, "sm_80"),
]


def compiled_apart(cases: list[tuple[dict[str, int], str]], cache: Path) -> list[Compiled]:
    """Compiled in a process of its own: the interpreter of this one takes the place of every kernel."""
    environ = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", COMPILE, json.dumps(cases), str(cache)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [Compiled(**entry) for entry in json.loads(done.stdout)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(scope="module")
def compiled(cache: Path) -> list[Compiled]:
    return compiled_apart(CASES, cache)


def test_a_sound_kernel_has_no_fault(compiled: list[Compiled]) -> None:
    for kernel in compiled[:2]:
        assert kernel.faults() == []
        assert (kernel.products, kernel.scalar, kernel.spill_bytes) == (1, 0, 0)
        assert 0 < kernel.registers <= 255


def test_a_product_that_is_no_matrix_instruction_is_a_fault(compiled: list[Compiled]) -> None:
    assert compiled[2].faults() == ["1 of its 1 products did not become matrix instructions"]


def test_a_product_in_float32_is_to_be_no_matrix_instruction(tmp_path: Path) -> None:
    """What is rounded on the way is a fault, and so is a product of bfloat16 that is widened first."""
    *exact, rounded, widened, narrow = compiled_apart(EXACT, tmp_path)
    for kernel in exact:
        assert (kernel.products, kernel.exact, kernel.scalar, kernel.rounded) == (1, 1, 0, 0)
        assert kernel.faults() == []
        assert Compiled.model_validate_json(kernel.model_dump_json()) == kernel
    assert rounded.faults() == ["rounds the float32 operands of 1 of its 1 products"]
    assert widened.faults() == ["1 of its 1 products did not become matrix instructions"]
    assert (narrow.exact, narrow.faults()) == (0, [])
    assert {"exact", "rounded"}.isdisjoint(narrow.model_dump())


def test_a_spill_is_a_fault(compiled: list[Compiled]) -> None:
    assert compiled[3].spill_bytes > 0
    assert any("spills" in fault for fault in compiled[3].faults())


def test_what_was_compiled_is_kept_by_its_digest(compiled: list[Compiled], cache: Path) -> None:
    kept = {path.name.split("-")[0]: path for path in cache.iterdir()}
    assert set(kept) == {kernel.digest for kernel in compiled}
    marked = kept[compiled[0].digest]
    marked.write_text(compiled[0].model_copy(update={"registers": 7}).model_dump_json())
    assert compiled_apart(CASES[:1], cache)[0].registers == 7


def test_digests_differ_by_constant_configuration_and_architecture(compiled: list[Compiled]) -> None:
    assert len({kernel.digest for kernel in compiled}) == len(CASES)


def test_a_digest_covers_what_a_kernel_calls_and_the_constants_that_it_reads() -> None:
    script = "from kernel_samples import product; from archsearch.kernels.compiler import sources_of; "
    script += "import json; print(json.dumps(sources_of(product)))"
    environ = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=True)
    sources = dict(json.loads(done.stdout))
    assert set(sources) == {"kernel_samples.product", "kernel_samples.tile_of", "kernel_samples.ROUND"}
    assert sources["kernel_samples.ROUND"] == "1.0"


def test_an_accumulator_turned_in_registers_is_seen(compiled: list[Compiled]) -> None:
    assert [kernel.turned for kernel in compiled] == [0, 0, 0, 0, 1]


def test_an_interpreted_kernel_cannot_be_compiled() -> None:
    from kernel_samples import build

    from archsearch.kernels.compiler import compile_build

    with pytest.raises(KernelUnavailableError, match="TRITON_INTERPRET is set"):
        compile_build(build(), "sm_90")
    with pytest.raises(SpecError, match="--arch sm_35"):
        compile_build(build(), "sm_35")


def sample(**changes: object) -> Compiled:
    """A sound kernel, changed."""
    sound = Compiled(
        kernel="op forward D=64",
        arch="sm_80",
        tiles={"M": 64},
        num_warps=4,
        num_stages=2,
        registers=128,
        spill_bytes=0,
        shared_bytes=1024,
        products=2,
        scalar=0,
        turned=0,
        digest="a",
    )
    return sound.model_copy(update=changes)


def report(*kernels: Compiled, **reasons: str) -> Report:
    return Report(triton="3.7.1", ptxas="12.8", records=kernels, reasons=reasons)


def test_a_spill_with_a_reason_is_accepted_and_nothing_else_is() -> None:
    spilling = sample(spill_bytes=8, scalar=1, shared_bytes=200_000)
    reasons = {spilling.label: "outside the loop"}
    assert len(report(spilling).faults()) == 3
    assert [fault for fault in report(spilling).faults(reasons) if "spills" in fault] == []
    assert len(report(spilling).faults(reasons)) == 2


def test_every_difference_from_the_accepted_report_shows() -> None:
    same, changed, gone = (sample(kernel=name, digest=name) for name in ("same", "changed", "gone"))
    digests = {"same sm_80": "same", "changed sm_80": "other", "new sm_80": "new"}
    assert differences(report(same, changed, gone), digests, ["sm_80"]) == [
        "new sm_80: is not in the accepted report",
        "gone sm_80: is in the accepted report, but no longer built",
        "changed sm_80: has changed since the report was accepted",
    ]
    assert differences(report(sample(arch="sm_90")), {}, ["sm_80"]) == []


def test_the_same_source_that_comes_out_otherwise_shows() -> None:
    accepted = report(sample(), sample(kernel="changed"))
    now = report(sample(registers=130, spill_bytes=8), sample(kernel="changed", digest="b", registers=1))
    assert drift(accepted, now) == [
        "op forward D=64 sm_80: registers = 130, accepted was 128",
        "op forward D=64 sm_80: spill_bytes = 8, accepted was 0",
    ]
    assert drift(accepted.model_copy(update={"triton": "3.6.0"}), now) == []


def test_an_accumulator_transposed_in_registers_is_a_fault_on_hopper() -> None:
    assert sample(turned=1).faults() == []
    assert any("transposes 1" in fault for fault in sample(turned=1, arch="sm_90").faults())


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    written = report(sample(), sample(kernel="b"), **{"b sm_80": "why"})
    written.write(tmp_path / "report.json")
    read = Report.read(tmp_path / "report.json")
    assert read.to_dict() == written.to_dict()
    assert [compiled.kernel for compiled in read.records] == ["b", "op forward D=64"]
    (tmp_path / "no-report.json").write_text("{}")
    with pytest.raises(SpecError, match=r"no-report\.json: holds no compile report \(triton: Field required\): write"):
        Report.read(tmp_path / "no-report.json")
