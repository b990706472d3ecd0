"""The project's figures on this machine's CPU, each a rate or a ratio within one run, with repeats and spread.

python benchmarks/figures.py [linear] [model] [systems] [quickstart] [search] [cli]

What `systems` finds goes into docs/results/steps.json too, from which `make tables` writes a table.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from archsearch_plugins.linear import unit_length
from archsearch_plugins.linear.channel import decay as channel_decay
from archsearch_plugins.linear.ops import linear_attention
from archsearch_plugins.linear.tokens import Tokens
from fair import architectures
from peers import thread_seconds

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.bench import Timing, alternate, ratio
from archsearch.model import HybridLM
from archsearch.ops import gated_norm
from archsearch.ops.short_conv import ShortConv
from archsearch.registry import Registry, load_registry
from archsearch.search import SearchSpec, run_search
from archsearch.search.model_choice import Judged
from archsearch.search.problem import Problem
from archsearch.search.sampler import Sampler
from archsearch.storage import Store
from archsearch.tasks import resolve_task
from archsearch.training import Recipe, evaluate

ROOT = Path(__file__).parents[1]
STEPS = ROOT / "docs" / "results" / "steps.json"
GATES: dict[str, tuple[str, bool]] = {
    "linear": ("none", False),
    "retnet": ("constant", False),
    "lightning": ("constant", False),
    "mamba2": ("head", False),
    "gla": ("channel", False),
    "deltanet": ("none", True),
    "gated-deltanet": ("head", True),
    "kda": ("channel", True),
}
"""Decay and update rule (delta or not) of each preset: what its time in the op depends on."""


def main() -> None:
    """Prints the sections named on the command line, all of them without a name."""
    sections: dict[str, Callable[[], None]] = {
        "linear": linear,
        "model": model,
        "systems": systems,
        "quickstart": quickstart,
        "search": search,
        "cli": cli,
    }
    torch.set_num_threads(1)
    for name in sys.argv[1:] or sections:
        sections[name]()


def show(label: str, figure: str, target: str) -> None:
    """One line of the report."""
    print(f"{label:<66} {figure:<34} target {target}", flush=True)


def show_ratio(label: str, slow: Timing, fast: Timing, target: str) -> None:
    """One ratio with its spread."""
    middle, low, high = ratio(slow, fast)
    show(label, f"{middle:.2f}x ({low:.2f} to {high:.2f}, {len(slow.seconds)} repeats)", target)


def linear() -> None:
    """The chunkwise form against token by token: B=4, H=4, K=V=64, T=1024, fp32, one core, forward + backward."""
    for preset, (decay, delta) in GATES.items():
        inputs = _linear_inputs(decay, delta, batch=4, heads=4, tokens=1024, width=64)

        def run(impl: str, inputs: dict[str, Any] = inputs) -> None:
            out, state = linear_attention(Tokens(**inputs), impl=impl)
            (out.square().sum() + state.square().sum()).backward()

        times = alternate(
            {"reference": lambda run=run: run("reference"), "chunkwise": lambda run=run: run("chunkwise")},  # type: ignore[misc]
            repeats=3,
            warmup=1,
        )
        target = "8x" if decay == "channel" else "15x"
        show_ratio(
            f"linear attention, {preset}: chunkwise over token by token", times["reference"], times["chunkwise"], target
        )


def _linear_inputs(decay: str, delta: bool, *, batch: int, heads: int, tokens: int, width: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    inputs: dict[str, Any] = {
        "q": normal(batch, tokens, heads, width),
        "k": F.normalize(normal(batch, tokens, heads, width), dim=-1),
        "v": normal(batch, tokens, heads, width),
    }
    shapes = {"constant": (heads,), "head": (batch, tokens, heads), "channel": (batch, tokens, heads, width)}
    if decay != "none":
        inputs["log_decay"] = F.logsigmoid(normal(*shapes[decay]) + 3)
    if delta:
        inputs["beta"] = torch.sigmoid(normal(batch, tokens, heads))
    return {name: value.requires_grad_() for name, value in inputs.items()}


def model() -> None:
    """A training step of a 2-layer, d=64 model with a linear mixer against the same with full attention."""
    for preset in GATES:
        _model_step(preset, tokens=64, batch=64, repeats=9, target="at most 3x", slow=preset)
    for preset, (_, delta) in GATES.items():
        _model_step(preset, tokens=8192 if delta else 4096, batch=1, repeats=3, target="above 1x", slow="full")


def _model_step(preset: str, *, tokens: int, batch: int, repeats: int, target: str, slow: str) -> None:
    steps = {name: _training_step(f"{name}*2", tokens, batch) for name in (preset, "full")}
    times = alternate(steps, repeats=repeats)
    fast = "full" if slow == preset else preset
    show_ratio(f"training step, T={tokens}, batch {batch}: {slow} over {fast}", times[slow], times[fast], target)


def systems() -> None:
    """A training step of the quickstart's size of every system of the field, against the same with full attention."""
    registry, rows, repeats = load_registry(), [], 9
    archs = architectures(registry, layers=3)
    full = _step_of(archs["full"], registry, tokens=48, batch=64)
    for name, arch in archs.items():
        step = _step_of(arch, registry, tokens=48, batch=64)
        times = alternate({"full": full, "other": step}, repeats=repeats, stopwatch=thread_seconds)
        middle, low, high = ratio(times["other"], times["full"])
        rows.append({"system": name, "ratio": round(middle, 2), "low": round(low, 2), "high": round(high, 2)})
        show_ratio(f"quickstart's training step: {name} over full", times["other"], times["full"], "at most 4x")
    about = {"measured": time.strftime("%Y-%m-%d"), "torch": torch.__version__, "repeats": repeats}
    STEPS.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n", encoding="utf-8")


def quickstart() -> None:
    """A training step of the quickstart's model as it is, against the same with the forms that PyTorch has ready."""
    for pattern in ("full*3", "sliding(window=8)*3", "gla*3", "gated-deltanet*3", "kda*3"):
        step = _training_step(pattern, 48, 64, short_conv=4)
        times = alternate({"ready": _with_ready_forms(step), "ours": step}, repeats=15, warmup=3)
        show_ratio(f"quickstart's training step, {pattern}: ready forms over ours", times["ready"], times["ours"], "-")


def _with_ready_forms(step: Callable[[], None]) -> Callable[[], None]:
    """The step with a grouped convolution, a normalisation, a gated norm and decays that autograd takes apart."""

    def conv(self: ShortConv, x: torch.Tensor, tail: None, positions: None) -> torch.Tensor:
        width, channels = self.weight.shape
        padded = F.pad(x.mT, (width - 1, 0))
        return F.conv1d(padded, self.weight.flip(0).mT[:, None], groups=channels).mT

    def norm(x: torch.Tensor, weight: torch.Tensor, gate: torch.Tensor, activation: str, eps: float) -> torch.Tensor:
        opened = F.silu(gate) if activation == "silu" else torch.sigmoid(gate)
        return F.rms_norm(x, weight.shape, weight, eps).flatten(-2) * opened

    def patched() -> None:
        with (
            patch.object(ShortConv, "_shifted", conv),
            patch.object(gated_norm._GatedNorm, "apply", norm),
            patch.object(unit_length._UnitLength, "apply", partial(F.normalize, dim=-1)),
            patch.object(channel_decay, "_may_look", lambda log_decay: False),
        ):
            step()

    return patched


def _training_step(pattern: str, tokens: int, batch: int, short_conv: int = 0) -> Callable[[], None]:
    registry = load_registry()
    shape = {"d_model": 64, "n_heads": 2, "channel_mixer": "none", "short_conv": short_conv}
    return _step_of(ArchSpec.parse(pattern, registry, ModelSpec.read(shape)), registry, tokens, batch)


def _step_of(arch: ArchSpec, registry: Registry, tokens: int, batch: int) -> Callable[[], None]:
    torch.manual_seed(0)
    built = HybridLM(arch, registry, vocab_size=256)
    optimizer = torch.optim.AdamW(built.parameters(), lr=1e-4, fused=True)
    inputs = torch.randint(0, 256, (batch, tokens))

    def step() -> None:
        loss = F.cross_entropy(built(inputs).flatten(0, 1), inputs.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def search() -> None:
    """Candidates costed and judged, and drawn by NSGA-II before that; what the search adds to a trial."""
    spec = SearchSpec.load(ROOT / "examples" / "quickstart.toml")
    show_rate("candidates costed and judged", [_judged() for _ in range(5)], "5,000/s")
    show_rate("candidates drawn with NSGA-II, costed and judged", [_drawn(spec) for _ in range(5)], "500/s")
    overheads = [_overhead() for _ in range(3)]
    figure = f"{statistics.median(overheads):.3f} s ({min(overheads):.3f} to {max(overheads):.3f}, 3 searches)"
    show("what the search adds to a trial beyond its training", figure, "under 0.3 s")


def show_rate(label: str, rates: list[float], target: str) -> None:
    """One rate with its spread."""
    middle = statistics.median(rates)
    show(label, f"{middle:,.0f}/s ({min(rates):,.0f} to {max(rates):,.0f}, {len(rates)} repeats)", target)


def _problem() -> Problem:
    registry = load_registry()
    return Problem.of(SearchSpec.load(ROOT / "examples" / "quickstart.toml"), registry)


def _judged(count: int = 5000) -> float:
    problem, rng = _problem(), random.Random(0)
    candidates = [problem.space.random(rng) for _ in range(count)]
    start = time.perf_counter()
    for arch in candidates:
        problem.judge(arch)
    return count / (time.perf_counter() - start)


def _drawn(spec: SearchSpec, count: int = 1000) -> float:
    problem = _problem()
    sampler = Sampler(problem.space, problem.objectives, spec.search, seed=0, judged=Judged.of(problem))
    start = time.perf_counter()
    for _ in range(count):
        proposal = sampler.ask()
        verdict = problem.judge(proposal.arch)
        if verdict.trainable:
            sampler.scored(proposal.number, {"recall": 0.5, **verdict.costs}, verdict)
        else:
            sampler.refused(proposal.number, verdict)
    return count / (time.perf_counter() - start)


def _overhead(trials: int = 24) -> float:
    """Seconds a trial from the first one's start to the last one's end, less what the same evaluations take alone."""
    registry = load_registry()
    data = tomllib.loads((ROOT / "examples" / "quickstart.toml").read_text())
    data["name"], data["recipe"] = "overhead", {**data["recipe"], "steps": 1, "batch_size": 4}
    data["search"] |= {"trials": trials, "references": False, "confirm_seeds": 0, "concurrency": 1}
    with tempfile.TemporaryDirectory() as folder, Store.open(f"sqlite:///{folder}/bench.db") as store:
        run_search(Problem.of(SearchSpec.from_dict(data), registry), store=store)
        done = [store.trial(record.id) for record in store.trials(store.search("overhead").id, states=["complete"])]
    begun = min(record.started_at for record in done if record.started_at)
    ended = max(record.finished_at for record in done if record.finished_at)
    task, recipe = resolve_task("mqar:compact", registry), Recipe.read(data["recipe"])
    alone = time.perf_counter()
    for record in done:
        evaluate(ArchSpec.from_json(record.arch, registry), task, recipe, data["seed"], registry=registry)
    alone = time.perf_counter() - alone
    return ((ended - begun).total_seconds() - alone) / len(done)


def cli() -> None:
    """Wall time of commands, new processes each."""
    archsearch = str(Path(sys.executable).with_name("archsearch"))
    cost = ["cost", "[kda kda kda full]*4", "--context", "4096,131072,1048576", "--json"]
    with tempfile.TemporaryDirectory() as folder:

        def run(*arguments: str) -> None:
            subprocess.run([archsearch, *arguments], check=True, capture_output=True, cwd=folder)

        times = alternate({"--help": lambda: run("--help"), "cost": lambda: run(*cost)}, repeats=7)
    show("archsearch --help", str(times["--help"]), "under 500 ms")
    show("archsearch cost, three contexts", str(times["cost"]), "under 1000 ms")


if __name__ == "__main__":
    start = time.perf_counter()
    main()
    print(f"measured in {time.perf_counter() - start:.0f} s on one core of this machine, torch {torch.__version__}")
