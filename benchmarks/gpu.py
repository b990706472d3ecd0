"""What a card is for, in one command of at most nine minutes: prove the kernels, measure ops and models, report.

python benchmarks/gpu.py [--minutes M] [--jobs N] [--out FOLDER] [--skip-proofs] [--laws]

Rows are proven over the cases of a first use, several at a time, those that most models use first; what passed is kept
in this user's cache, where `auto` takes it, and copied to FOLDER/proofs, since a lent machine goes back with its cache:
put back as proofs.json of the cache, it holds on the same card, driver and versions. Then the ops, in the order of
worth, peers beside, and one model in two patterns. Everything is written as it comes: what was measured before time ran
out stays. A step that fails or is ended does not keep the others from running; the exit status is 1 when one did.
--laws instead runs the conformance suite of every mixer with its kernels on the card, which takes longer, and keeps its
records in the packages.

A repeat, to see whether the figures stand, fits into a quarter of an hour together with the first run:

python benchmarks/gpu.py --skip-proofs --minutes 5 --out FOLDER/again
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
CLI = (sys.executable, "-c", "from archsearch.cli import main; main()")
WORTH = "gated-deltanet,kda,window,mamba2,moba,nsa,retnet,gla,packed,full"
"""Ops by what a figure of theirs would decide: first those whose peers' figures are known."""

PROOFS = 0.35
"""Share of the time that proofs may take."""

PATTERNS = ("full*8", "[kda kda kda full]*2")
BACKBONE = ("--d-model", "2048", "--heads", "16", "--head-dim", "128")
CONTEXTS = ("--train", "8k", "--prefill", "32k", "--decode", "1Mi,32k,128k")
"""First the context that the targets name (`archsearch.bench.results.targets`)."""

LAWS = ROOT / "tests" / "plugins" / "test_builtin_conformance.py"
MIXERS = ("TestLinear", "TestNsa", "TestMoba", "TestSliding", "TestFull")
PYTEST = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider")


@dataclass(frozen=True)
class Step:
    """A command, the share of the time that it may take, and the words that say what it is."""

    name: str
    command: Sequence[str]
    share: float


def steps(slug: str, out: Path, *, minutes: float, jobs: int, proofs: bool = True) -> list[Step]:
    """What proves, unless rows were proven before, measures and reports, in order, in so many minutes altogether."""
    whole = 1.0 if proofs else 1.0 - PROOFS
    kernels, model = out / f"{slug}-kernels.json", out / f"{slug}-model.json"
    prove = ["kernels", "prove", "--quick", "--missing", "--jobs", str(jobs), "--minutes", f"{0.30 * minutes:.2f}"]
    ops = [
        "bench",
        "kernels",
        "--peers",
        "--first",
        WORTH,
        "--json",
        str(kernels),
        "--minutes",
        f"{0.40 / whole * minutes:.2f}",
    ]
    models = ["bench", "model", "--patterns", *PATTERNS, *BACKBONE, *CONTEXTS, "--json", str(model)]
    report = ["bench", "report", str(kernels), str(model), "--png", str(out / f"{slug}.png")]
    planned = [
        Step("proofs", [*CLI, *prove], PROOFS),
        Step("ops", [*CLI, *ops], 0.45 / whole),
        Step("models", [*CLI, *models], 0.15 / whole),
        Step("report", [*CLI, *report], 0.05 / whole),
    ]
    return planned if proofs else planned[1:]


def laws() -> list[Step]:
    """The conformance suite over every mixer, recorded."""
    tried = [*PYTEST, "--conformance-device", "cuda", "--write-conformance"]
    return [Step(f"laws {mixer}", [*tried, f"{LAWS}::{mixer}"], 1 / len(MIXERS)) for mixer in MIXERS]


def run(
    planned: Sequence[Step],
    seconds: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    after: Callable[[], None] = lambda: None,
) -> bool:
    """Runs steps one after the other, each within its share and what is left of the time, and `after`
    each that; whether all went well. What a step leaves of its share falls to those after it."""
    end, fine, before = clock() + seconds, True, 1.0
    for step in planned:
        before -= step.share
        left = end - clock() - max(before, 0.0) * seconds
        print("$", step.name, *step.command[-1:], f"({left:.0f} s at most)", flush=True)
        fine &= ended_well(step.command, max(left, 1.0))
        after()
    return fine


def copy_proofs(target: Path) -> None:
    """Copies what is proven in this user's cache, if anything is."""
    from archsearch.evidence.kept import kept_path

    if kept_path().is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(kept_path(), target)


def ended_well(command: Sequence[str], seconds: float) -> bool:
    """Whether a command ended with 0 in so many seconds; afterwards it and all that it started are gone."""
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(command, cwd=ROOT, env=environ, start_new_session=True)
    try:
        return child.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        print(f"ended: it took longer than {seconds:.0f} s; what it wrote so far stays", flush=True)
        return False
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def main(arguments: Sequence[str] | None = None) -> int:
    """The steps in order; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) - 2), help="rows proven at a time")
    parser.add_argument("--minutes", type=float, default=8.5, help="for everything")
    parser.add_argument("--skip-proofs", action="store_true", help="prove nothing: rows were proven before")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="folder of the result files")
    parser.add_argument("--laws", action="store_true", help="only the laws of every mixer, in an hour at most")
    options = parser.parse_args(arguments)
    slug = card_slug()
    if slug is None:
        print("no CUDA device here: nothing can be proven or measured", file=sys.stderr)
        return 1
    if options.laws:
        return 0 if run(laws(), 3600.0) else 1
    planned = steps(slug, options.out, minutes=options.minutes, jobs=options.jobs, proofs=not options.skip_proofs)
    held = options.out / "proofs" / f"{slug}.json"
    return 0 if run(planned, 60 * options.minutes, after=lambda: copy_proofs(held)) else 1


def card_slug() -> str | None:
    """The card's name for a file, None where there is none."""
    import torch

    if not torch.cuda.is_available():
        return None
    return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())
