"""What a card is for, in one command of at most nine minutes: prove the kernels, measure ops and models, report.

python benchmarks/gpu.py [--minutes M] [--jobs N] [--out FOLDER] [--packages FOLDER] [--skip-proofs] [--laws]

Nothing is installed, and no network is asked: this checkout runs as it lies here, with the torch and the Triton of the
Python that starts it. What else it needs and the machine lacks is named before anything begins; such packages may be
carried in a folder, `.gpu-packages` of the checkout or another (--packages), which pip fills where there is a network.

Rows are proven over the cases of a first use, several at a time, those that most models use first; what passed is kept
in this user's cache, where `auto` takes it, and copied to FOLDER/proofs, since a lent machine goes back with its cache:
put back as proofs.json of the cache, it holds on the same card, driver and versions. Then the ops, in the order of
worth, peers beside, and one model in two patterns. What is not proven by then is not proven by the way: unless
ARCHSEARCH_PROVE is set, it is "listed", so that such ops are listed as not proven, and models run them in PyTorch.
Everything is written as it comes: what was measured before time ran out stays. What an earlier run left in its place is
put aside first, as NAME.json.earlier. A step that fails or is ended does not keep the others from running, and the
report shows what there is and names what is missing; the exit status is 1 when one did.
--laws instead runs the conformance suite of every mixer with its kernels on the card, which takes longer, and keeps its
records in the packages.

A repeat, to see whether the figures stand, fits into a quarter of an hour together with the first run:

python benchmarks/gpu.py --skip-proofs --minutes 5 --out FOLDER/again

--interpreted tries all of it without a card: Triton's interpreter and the CPU stand in, and no figure counts.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
CLI = (sys.executable, "-c", "from archsearch.cli import main; main()")
WORTH = "gated-deltanet,kda,window,mamba2,moba,nsa,retnet,gla,packed,full"
"""Ops by what a figure of theirs would decide: first those whose peers' figures are known."""

NEEDED = """
import archsearch.bench.kernels, archsearch.bench.model, archsearch.bench.results, archsearch.cli.bench
import archsearch.cli.kernels, archsearch.proving.rows, triton
from archsearch.evidence.kept import kept_path
from archsearch.registry import load_registry
print(kept_path())
failed = [f"{report.name}: {report.error}" for report in load_registry().reports() if report.status == "failed"]
raise SystemExit("; ".join(failed) or 0)
"""
"""Imports what the steps import, and says where proofs are kept."""

INTERPRETED = "interpreter"
"""In place of a card's name."""

PROVE = "ARCHSEARCH_PROVE"
"""Says which rows are proven when they are met."""

PLAYED_ROW, PLAYED_OP = "gates", "decay gate"
"""What the interpreter proves and measures: the row of a table, and the op that measures it."""

KEPT_SECONDS = 10.0
"""Between two copies of the proofs, while a step runs."""

PROOFS = 0.35
"""Share of the time that proofs may take."""

PATTERNS = ("full*8", "[kda kda kda full]*2")
BACKBONE = ("--d-model", "2048", "--heads", "16", "--head-dim", "128")
CONTEXTS = ("--train", "8k", "--prefill", "32k", "--decode", "1Mi,32k,128k")
"""First the context that the targets name (`archsearch.bench.results.targets`)."""

TINY = ("--d-model", "16", "--heads", "1", "--train", "32", "--prefill", "32", "--decode", "32")
"""What the interpreter, or the CPU, does soon."""

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
    """What proves, unless rows were proven before, measures and reports, in order, in so many minutes altogether. The
    interpreter is given the least of each."""
    whole, played = 1.0 if proofs else 1.0 - PROOFS, slug == INTERPRETED
    kernels, model = out / f"{slug}-kernels.json", out / f"{slug}-model.json"
    prove = ["kernels", "prove", "--quick", "--missing", "--jobs", str(jobs), "--minutes", f"{0.30 * minutes:.2f}"]
    ops = ["bench", "kernels", "--json", str(kernels), "--minutes", f"{0.40 / whole * minutes:.2f}"]
    models = ["bench", "model", "--json", str(model)]
    if played:
        prove, ops = [*prove, "--only", PLAYED_ROW], [*ops, "--only", PLAYED_OP]
        models = [*models, "--patterns", "full", "sliding", *TINY]
    else:
        ops, models = [*ops, "--peers", "--first", WORTH], [*models, "--patterns", *PATTERNS, *BACKBONE, *CONTEXTS]
    picture = ["--png", str(out / f"{slug}.png")] if find_spec("matplotlib") else []
    report = ["bench", "report", str(kernels), str(model), *picture]
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


@contextmanager
def checkout(packages: Path) -> Iterator[dict[str, str]]:
    """The environment in which Python finds this checkout, its entry points among it, as if it were installed, then
    the `packages` that were carried along, then what it finds by itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    with tempfile.TemporaryDirectory(prefix="archsearch-checkout-") as folder:
        for name, place in project["tool"]["setuptools"]["package-dir"].items():
            (Path(folder) / name).symlink_to(ROOT / place, target_is_directory=True)
        named, version = project["project"]["name"], project["project"]["version"]
        info = Path(folder) / f"{named}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {named}\nVersion: {version}\n")
        groups = project["project"]["entry-points"]
        lines = [f"[{group}]\n" + "".join(f"{a} = {b}\n" for a, b in held.items()) for group, held in groups.items()]
        (info / "entry_points.txt").write_text("\n".join(lines))
        paths = [folder, str(packages), *filter(None, [os.environ.get("PYTHONPATH")])]
        yield {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}


def probe(environ: Mapping[str, str]) -> tuple[str, Path]:
    """What keeps the steps from running in an environment, with the remedy, empty where nothing does; and where this
    user's proofs are kept."""
    command = [sys.executable, "-P", "-c", NEEDED]
    done = subprocess.run(command, cwd=ROOT, env=dict(environ), capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return "", Path(done.stdout.strip())
    found = re.search(r"No module named '([^'.]+)", done.stderr)
    if found is None:
        last = (done.stderr.strip().splitlines() or [f"Python ended with {done.returncode}"])[-1]
        return f"the steps cannot run here: {last}", Path()
    version = ".".join(map(str, sys.version_info[:2]))
    return (
        f"{sys.executable} has no {found[1]}, and nothing is installed here: where there is a network, run pip install "
        f"--target .gpu-packages --python-version {version} --only-binary :all: --no-deps -c constraints.txt PACKAGE "
        "for the one of pyproject.toml that brings it, and carry that folder along (--packages)",
        Path(),
    )


def run(
    planned: Sequence[Step],
    seconds: float,
    *,
    environ: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.monotonic,
    keep: Callable[[], None] = lambda: None,
) -> bool:
    """Runs steps one after the other, each within its share and what is left of the time, and meanwhile and after each
    `keep`; whether all went well. What a step leaves of its share falls to those after it."""
    end, fine, before = clock() + seconds, True, 1.0
    for step in planned:
        before -= step.share
        left = end - clock() - max(before, 0.0) * seconds
        print("$", step.name, *step.command[-1:], f"({left:.0f} s at most)", flush=True)
        fine &= ended_well(step.command, max(left, 1.0), environ, keep)
        keep()
    return fine


def copy_proofs(kept: Path, target: Path) -> None:
    """Copies what is proven in this user's cache, if anything is; never a part of it in place of an earlier copy."""
    if not kept.is_file():
        return
    partial = target.with_suffix(".partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(kept, partial)
        partial.replace(target)
    except OSError as error:  # a full disk ends no step
        print(f"cannot write {target}: {error.strerror or error}", flush=True)


def put_aside(slug: str, out: Path) -> None:
    """What an earlier run left in the same folder: a step that ends before its first row must not seem to have it."""
    for path in (out / f"{slug}{end}" for end in ("-kernels.json", "-model.json", ".png")):
        if path.is_file():
            path.replace(path.with_suffix(f"{path.suffix}.earlier"))


def ended_well(
    command: Sequence[str],
    seconds: float,
    environ: Mapping[str, str] | None = None,
    keep: Callable[[], None] = lambda: None,
    every: float = KEPT_SECONDS,
) -> bool:
    """Whether a command ended with 0 in so many seconds, with `keep` called `every` so many; afterwards it and all that
    it started are gone."""
    child = subprocess.Popen(command, cwd=ROOT, env=None if environ is None else dict(environ), start_new_session=True)
    end = time.monotonic() + seconds
    try:
        while (left := end - time.monotonic()) > 0:
            with suppress(subprocess.TimeoutExpired):
                return child.wait(min(left, every)) == 0
            keep()
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
    parser.add_argument(
        "--packages", type=Path, default=ROOT / ".gpu-packages", help="folder of packages that were carried along"
    )
    parser.add_argument("--interpreted", action="store_true", help="without a card: tries the steps, measures nothing")
    options = parser.parse_args(arguments)
    with checkout(options.packages) as environ:
        if options.interpreted:
            environ |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
        lacking, kept = probe(environ)
        slug = "" if lacking else INTERPRETED if options.interpreted else card_slug()
        if not slug:
            print(lacking or "no CUDA device here: nothing can be proven or measured", file=sys.stderr)
            return 1
        if options.laws:
            return 0 if run(laws(), 3600.0, environ=environ) else 1
        environ.setdefault(PROVE, "listed")
        planned = steps(slug, options.out, minutes=options.minutes, jobs=options.jobs, proofs=not options.skip_proofs)
        held = options.out / "proofs" / f"{slug}.json"
        put_aside(slug, options.out)
        fine = run(planned, 60 * options.minutes, environ=environ, keep=lambda: copy_proofs(kept, held))
    return 0 if fine else 1


def card_slug() -> str | None:
    """The card's name for a file, None where there is none."""
    import torch

    if not torch.cuda.is_available():
        return None
    return re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())
