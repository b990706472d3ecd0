"""Ops and decoding beside public forms on one thread of this machine's CPU: ratio = theirs / ours, above 1 is faster.

python benchmarks/peers.py [--json FILE] [--only WORDS] [--seconds 4]

Every peer has an environment of its own, since one would use the other where it finds it; `make bench-peers` makes
them. In each a process runs its cells: both sides read the same numbers and take turns, results are compared before
anything is timed, and what is timed is the thread's CPU time. A ratio is the median over pairs of repeats, with its
quartiles.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = {name: ROOT / f".venv-peers-{name}" / "bin" / "python" for name in ("transformers", "fla")}
LEAST, MEDIAN = 1.0, 1.2
"""What every cell, and the median of them, is to reach."""

FEWEST, MOST = 5, 101


@dataclass(frozen=True, kw_only=True)
class Row:
    """What came of one cell: milliseconds of both sides, medians, and the quartiles of the ratios of pairs."""

    cell: str
    peer: str
    size: str
    form: str
    ours_ms: float
    theirs_ms: float
    low: float
    ratio: float
    high: float
    repeats: int
    differs: float | None
    """RMS of the difference of the results over that of ours, None where they are not compared."""


def main() -> None:
    """The table of all cells; with ``--peer`` the rows of one environment's cells, as lines of JSON."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--json", type=Path, help="where the rows go")
    reader.add_argument("--only", default="", help="cells whose name, size or form has one of these words, by commas")
    reader.add_argument("--seconds", type=float, default=4.0, help="about how long a cell's repeats may take")
    reader.add_argument("--peer", choices=list(ENVIRONMENTS), help=argparse.SUPPRESS)
    given = reader.parse_args()
    if given.peer:
        for row in measured(given.peer, given.only.split(","), given.seconds):
            print(json.dumps(asdict(row)), flush=True)
        return
    rows = [row for peer in ENVIRONMENTS for row in from_environment(peer, given)]
    if rows:
        ratios = [row.ratio for row in rows]
        below = sum(ratio < LEAST for ratio in ratios)
        print(f"{len(rows)} cells, median {statistics.median(ratios):.2f} (wanted {MEDIAN}), least {min(ratios):.2f}, ")
        print(f"{below} below {LEAST}; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps({**about(), "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


def about() -> dict[str, str]:
    """Where and when it was measured."""
    import torch

    from archsearch.bench.environment import environment

    of = environment(torch.device("cpu"))
    return {"date": of.date, "torch": of.torch, "machine": of.arch, "commit": of.commit or ""}


def from_environment(peer: str, given: argparse.Namespace) -> Iterator[Row]:
    """The rows of one environment's process, printed as they come. Raises `SystemExit` where it is missing or fails."""
    python = ENVIRONMENTS[peer]
    if not python.exists():
        raise SystemExit(f"{python} is not there: make bench-peers makes it")
    command = [python, __file__, "--peer", peer, "--only", given.only, "--seconds", str(given.seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            row = Row(**json.loads(line))
            spread = f"{row.ratio:5.2f} ({row.low:.2f} to {row.high:.2f}, {row.repeats} pairs)"
            label = f"{row.cell}, {row.form}, {row.size}"
            print(f"{label:<52}{row.peer:<24}{row.ours_ms:10.3f} ms {row.theirs_ms:10.3f} ms  {spread}", flush=True)
            yield row
    if process.returncode:
        raise SystemExit(f"the cells of {peer} ended with status {process.returncode}")


def measured(peer: str, words: list[str], seconds: float) -> Iterator[Row]:
    """Rows of the cells of this environment."""
    import torch
    from peer_cells import decode, linear_ops, softmax_ops

    torch.set_num_threads(1)

    def wanted(*labels: str) -> bool:
        return any(word.lower() in " ".join(labels).lower() for word in words)

    ops = linear_ops.fla_cells() if peer == "fla" else [*linear_ops.transformers_cells(), *softmax_ops.cells()]
    for cell in ops:
        for batch, tokens in cell.sizes:
            size = f"T={tokens} B={batch}"
            for form in ("forward", "forward+backward"):
                if wanted(cell.name, cell.peer, size, form):
                    yield of_op(cell, batch, tokens, form, seconds)
    for step in [] if peer == "fla" else decode.cells():
        if wanted(step.name, step.peer, "decode"):
            yield of_steps(step, seconds)


def of_op(cell, batch: int, tokens: int, form: str, seconds: float) -> Row:  # type: ignore[no-untyped-def]
    """One op, with or without its backward pass. Raises `SystemExit` where the results disagree."""
    import torch
    from peer_cells.cell import HEADS, WIDTH

    torch.manual_seed(0)
    inputs = cell.inputs(batch, tokens)
    trained = form != "forward"
    leaves = [x.requires_grad_() for x in inputs.values() if x.is_floating_point()] if trained else []
    weight = torch.randn(batch, tokens, HEADS, WIDTH)

    def side(run: Callable) -> Callable[[], tuple]:  # type: ignore[type-arg]
        def call() -> tuple:  # type: ignore[type-arg]
            with torch.set_grad_enabled(trained):
                out = run(inputs)
                grads = torch.autograd.grad(out, leaves, weight) if trained else ()
            return (out.detach(), *grads)

        return call

    ours, theirs = side(cell.ours), side(cell.theirs)
    differs = difference(ours(), theirs())
    label = f"{cell.name} beside {cell.peer}, T={tokens} B={batch}, {form}"
    check(label, differs, cell.tolerance)
    times = in_turn(ours, theirs, seconds)
    return row_of(cell.name, cell.peer, f"T={tokens} B={batch}", form, times, differs)


def of_steps(cell, seconds: float) -> Row:  # type: ignore[no-untyped-def]
    """Decoded tokens one by one. Raises `SystemExit` where the logits disagree."""
    import torch

    with torch.no_grad():
        steps, token = cell.make(), torch.tensor([7])
        differs = None
        if cell.tolerance is not None:
            differs = max(difference((steps.ours(token),), (steps.theirs(token),)) for _ in range(3))
            check(f"decoding, {cell.name} beside {cell.peer}", differs, cell.tolerance)
        times = in_turn(lambda: steps.ours(token), lambda: steps.theirs(token), seconds)
    return row_of(cell.name, cell.peer, "32k behind", "decode", times, differs)


def difference(ours: tuple, theirs: tuple) -> float:  # type: ignore[type-arg]
    """The greatest of RMS(difference) / RMS(ours) over the results of the two sides."""
    return max(
        float((a - b).double().square().mean().sqrt() / a.double().square().mean().sqrt())
        for a, b in zip(ours, theirs, strict=True)
    )


def check(label: str, differs: float, tolerance: float) -> None:
    """Raises `SystemExit` unless `differs` is within the tolerance."""
    if not differs <= tolerance:
        raise SystemExit(f"{label}: results differ by {differs:.2g} of ours, which may be {tolerance:.2g}")


def in_turn(
    ours: Callable[[], object], theirs: Callable[[], object], seconds: float
) -> tuple[list[float], list[float]]:
    """Thread seconds of pairs of calls, each side first in every other pair, for about so many seconds in all."""
    once = sum(thread_seconds(side) for side in (ours, theirs, ours, theirs)) / 2
    repeats = min(MOST, max(FEWEST, int(seconds / once)))
    taken: tuple[list[float], list[float]] = [], []
    for index in range(repeats):
        for which in (0, 1) if index % 2 else (1, 0):
            taken[which].append(thread_seconds((ours, theirs)[which]))
    return taken


def thread_seconds(run: Callable[[], object]) -> float:
    """CPU time of this thread in one call: what else the machine does is not in it."""
    start = time.thread_time()
    run()
    return time.thread_time() - start


def row_of(
    cell: str, peer: str, size: str, form: str, times: tuple[list[float], list[float]], differs: float | None
) -> Row:
    """A row of the seconds of both sides."""
    ours, theirs = times
    low, middle, high = statistics.quantiles([b / a for a, b in zip(ours, theirs, strict=True)], n=4)
    return Row(
        cell=cell,
        peer=peer,
        size=size,
        form=form,
        ours_ms=statistics.median(ours) * 1e3,
        theirs_ms=statistics.median(theirs) * 1e3,
        low=low,
        ratio=middle,
        high=high,
        repeats=len(ours),
        differs=differs,
    )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
