"""Everything that needs a card, in one command: prove the kernels, measure ops and models, report.

python benchmarks/gpu.py [--jobs N] [--minutes M] [--quick] [--skip-tests] [--out FOLDER] [--proofs-folder FOLDER]

The checks run as one process for each test file and head dim, several at a time, since most of their time is
compilation. What passed is listed in verified.json of each package; what the conformance suite finds of each mixer with
its kernels on the card is kept in conformance.json beside that; figures go to benchmarks/results. A step that fails
does not keep the others from running; the exit status is 1 when one did.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests" / "gpu"
DIMS = (16, 32, 64, 128, 256)
WHOLE = ("test_gpu_fused.py",)
"""Files whose rows are few and small: one process each."""

LAWS = ROOT / "tests" / "plugins" / "test_builtin_conformance.py"
MIXERS = ("TestLinear", "TestNsa", "TestMoba", "TestSliding", "TestFull")

NO_TESTS = 5
"""pytest's exit status where a file has no row of a head dim."""

PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider")
CLI = (sys.executable, "-c", "from archsearch.cli import main; main()")
PATTERNS = ("full*8", "[kda kda kda full]*2", "[kda kda kda moba]*2", "[mamba2 mamba2 mamba2 full]*2")
BACKBONE = ("--d-model", "2048", "--heads", "16", "--head-dim", "128")


@dataclass(frozen=True)
class Shard:
    """Some of the checks: a test file, and one head dim of its rows, 0 for all."""

    file: Path
    dim: int = 0

    @property
    def command(self) -> list[str]:
        """pytest on them."""
        chosen = ["-k", f"D{self.dim}-C"] if self.dim else []
        return [*PYTEST, "-m", "gpu", "--write-proofs", str(self.file), *chosen]

    def into(self, folder: str) -> list[str]:
        """Where the lists of what passed go."""
        return ["--proofs-folder", folder]

    def __str__(self) -> str:
        return f"{self.file.stem}{f' D{self.dim}' if self.dim else ''}"


@dataclass(frozen=True)
class Laws:
    """The conformance suite over one mixer, by the class of its tests."""

    mixer: str

    @property
    def command(self) -> list[str]:
        """pytest on its laws with kernels on the card."""
        return [*PYTEST, f"{LAWS}::{self.mixer}", "--conformance-device", "cuda", "--write-conformance"]

    def into(self, folder: str) -> list[str]:
        """Where the records go."""
        return ["--conformance-folder", folder]

    def __str__(self) -> str:
        return f"{LAWS.stem} {self.mixer}"


def shards() -> list[Shard]:
    """Every file and head dim, the widest first: they compile longest."""
    files = sorted(TESTS.glob("test_gpu_*.py"))
    by_dim = [Shard(file, dim) for dim in reversed(DIMS) for file in files if file.name not in WHOLE]
    return [*by_dim, *(Shard(file) for file in files if file.name in WHOLE)]


def prove(jobs: int, folder: Path | None) -> bool:
    """Runs all shards and laws; prints the end of what each said, and what failed. Proofs and records go to the
    packages or to `folder`."""
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    checks: list[Shard | Laws] = [*shards(), *map(Laws, MIXERS)]

    def run(check: Shard | Laws) -> subprocess.CompletedProcess[str]:
        where = [] if folder is None else check.into(str(folder.resolve()))
        return subprocess.run(
            [*check.command, *where], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
        )

    fine = True
    with ThreadPoolExecutor(jobs) as pool:
        for shard, done in zip(checks, pool.map(run, checks), strict=True):
            if done.returncode == NO_TESTS:
                continue
            passed = done.returncode == 0
            fine &= passed
            lines = (done.stdout + done.stderr).strip().splitlines()
            print(f"{shard}: {lines[-1] if lines else done.returncode}", flush=True)
            for line in lines if not passed else ():
                if line.startswith(("E  ", "FAILED", "ERROR")):
                    print(f"    {line[:300]}")
    return fine


def commands(slug: str, out: Path, *, minutes: float, quick: bool) -> list[list[str]]:
    """What measures and reports, in order."""
    kernels, model = out / f"{slug}-kernels.json", out / f"{slug}-model.json"
    short = ["--quick"] if quick else []
    return [
        [*CLI, "bench", "kernels", "--peers", "--json", str(kernels), "--minutes", str(minutes), *short],
        [*CLI, "bench", "model", "--patterns", *PATTERNS, *BACKBONE, "--json", str(model)],
        [*CLI, "bench", "report", str(kernels), str(model), "--png", str(out / f"{slug}.png")],
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """The steps in order; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) - 2), help="test processes at a time")
    parser.add_argument("--minutes", type=float, default=9.0, help="for the ops")
    parser.add_argument("--quick", action="store_true", help="one shape an op")
    parser.add_argument("--skip-tests", action="store_true", help="prove nothing")
    parser.add_argument("--proofs-folder", type=Path, help="where proofs and records go, if not into the packages")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the result files")
    options = parser.parse_args(arguments)
    slug = card_slug()
    if slug is None:
        print("no CUDA device here: nothing can be proven or measured", file=sys.stderr)
        return 1
    fine = options.skip_tests or prove(options.jobs, options.proofs_folder)
    for command in commands(slug, options.out, minutes=options.minutes, quick=options.quick):
        print("$", "archsearch", *command[len(CLI) :], flush=True)
        fine &= subprocess.run(command, cwd=ROOT, check=False).returncode == 0
    return 0 if fine else 1


def card_slug() -> str | None:
    """The card's name for a file, None where there is none."""
    import torch

    if not torch.cuda.is_available():
        return None
    return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())
