"""The accepted compile report: it is of today's kernels, it has no fault without a reason, and it can be had again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from archsearch.evidence.compiled import Compiled, Report
from archsearch.evidence.proofs import triton_version

ACCEPTED = Path(__file__).parent / "accepted.json"
SAMPLE = [
    "full_attention decode split-group-16 D=64 sm_90",
    "latent_attention_absorbed decode split-heads-16 D=64 sm_90",
    "linear_attention outputs hebbian-channel D=32 chunk 64 sm_80",
    "linear_attention states hebbian-head float32 has_initial want_states narrow-keys D=128 chunk 64 sm_90",
    "moba_attention past_forward D=32 sm_80",
    "nsa_attention choose_step splits-1 D=64 sm_90",
    "window_attention forward D=64 sm_90",
]
COMPILE = """
import json, sys
from archsearch.bench.builds import all_builds
from archsearch.kernels.compiler import compile_build
from archsearch.registry import load_registry
registry, wanted = load_registry(), set(json.loads(sys.argv[1]))
for arch in ("sm_90", "sm_80"):
    for build in all_builds(registry, arch):
        if f"{build.label} {arch}" in wanted:
            print(compile_build(build, arch).model_dump_json())
"""


def run_apart(*command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in a process of its own: the interpreter of this one takes the place of every kernel."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", **environ}
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)


def compile_command(*arguments: str) -> dict[str, object]:
    """What ``archsearch kernels compile`` reports against the accepted report."""
    done = run_apart(
        "-c",
        "from archsearch.cli import main; main()",
        "kernels",
        "compile",
        "--accepted",
        str(ACCEPTED),
        "--json",
        *arguments,
    )
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def accepted() -> Report:
    return Report.read(ACCEPTED)


def test_the_accepted_report_is_of_todays_kernels_and_has_no_fault() -> None:
    assert compile_command("--check")["faults"] == []


def test_every_reason_is_for_a_spill_that_there_is(accepted: Report) -> None:
    assert set(accepted.reasons) == {compiled.label for compiled in accepted.records if compiled.spill_bytes}


def test_a_sample_compiled_afresh_is_as_accepted(accepted: Report, tmp_path: Path) -> None:
    done = run_apart("-c", COMPILE, json.dumps(SAMPLE), TRITON_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    compiled = [Compiled.model_validate_json(line) for line in done.stdout.splitlines()]
    assert {kernel.label for kernel in compiled} == set(SAMPLE)
    assert [fault for kernel in compiled for fault in kernel.faults()] == []
    if triton_version() == accepted.triton:
        held = {kernel.label: kernel for kernel in accepted.records}
        assert compiled == [held[kernel.label] for kernel in compiled]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_all_kernels_compile_as_accepted() -> None:
    assert compile_command()["faults"] == []
