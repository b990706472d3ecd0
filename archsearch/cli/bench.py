"""``archsearch bench``: what ops and models take on this device, and reports of what was measured."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from archsearch.cli.model_options import ChannelMixer, DModel, HeadDim, Heads, KvHeads, VocabSize
from archsearch.cli.output import JsonFlag, console, print_json, quiet_console, tell

if TYPE_CHECKING:
    from archsearch.bench.results.schema import KernelRow, ModelRow, Results

RowT = TypeVar("RowT", "KernelRow", "ModelRow")

RESULTS = Path("benchmarks/results")
"""Where the repository keeps its result files."""

JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the figures to a result file.")]
DeviceOption = Annotated[str, typer.Option(metavar="DEVICE", help="cuda or cpu; by default cuda where there is one.")]
MinutesOption = Annotated[float, typer.Option(help="What is left after so many minutes is listed as not measured.")]

app = typer.Typer(help="Measure ops and models on this device, report what was measured.")


def register(parent: typer.Typer) -> None:
    """Adds the group."""
    parent.add_typer(app, name="bench")


@app.command("kernels")
def bench_kernels(
    peers: Annotated[
        bool, typer.Option("--peers", help="Measure other implementations beside ours, in the same run.")
    ] = False,
    json: JsonFile = None,
    only: Annotated[str, typer.Option(metavar="OP", help="Only ops whose name contains this.")] = "",
    first: Annotated[
        str, typer.Option(metavar="OPS", help="Ops that are measured first, by commas: those whose names contain it.")
    ] = "",
    quick: Annotated[bool, typer.Option("--quick", help="One shape an op.")] = False,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="Shapes that a CPU runs in seconds; without CUDA always.")
    ] = False,
    impl: Annotated[
        str, typer.Option(metavar="IMPL", help="triton, chunkwise or reference; by default the op's fastest.")
    ] = "",
    device: DeviceOption = "",
    minutes: MinutesOption = 9.0,
) -> None:
    """Times every op forward, forward and backward, and for one decoded token, beside the bound of this device.

    Each contender's outputs and gradients are compared with a reference in the same run, and only what agrees gets a
    figure; what fails is listed with its reason. On a card no kernel runs that is not proven there: a row of which
    nothing is known is proven first, which counts among the minutes, or listed as not proven where ARCHSEARCH_PROVE is
    listed or never. Exits with 1 when one of archsearch's own results is wrong or failed.
    """
    from archsearch.bench.ceilings import measure_ceilings
    from archsearch.bench.clock import clock_for
    from archsearch.bench.device import device_named
    from archsearch.bench.environment import environment
    from archsearch.bench.kernels import Bench, bench_ops, ops_of
    from archsearch.bench.op import FULL, QUICK, TINY
    from archsearch.bench.results.schema import OURS, Results
    from archsearch.registry import load_registry

    place = device_named(device)
    ops = ops_of(load_registry(), only, first)
    clock = clock_for(place)
    rates = measure_ceilings(place, clock)
    bench = Bench(device=place, clock=clock, ceilings=rates, peers=peers, minutes=minutes, form=impl)
    grid = TINY if tiny or place.type != "cuda" else QUICK if quick else FULL
    empty = Results(kind="kernels", environment=environment(place), ceilings=rates)
    rows = _collect(bench_ops(ops, grid, bench), empty, json)
    if any(row.contender == OURS and row.status in ("wrong", "failed") for row in rows):
        raise typer.Exit(1)


_SIZES = ("d_model", "n_heads", "n_kv_heads", "head_dim", "channel_mixer", "vocab_size")
"""What a result of whole models says of the backbone."""


@app.command("model")
def bench_model(
    patterns: Annotated[list[str], typer.Argument(metavar="PATTERN...", help="Layer patterns; the first is the base.")],
    named: Annotated[bool, typer.Option("--patterns", help="May stand before the patterns.")] = False,
    d_model: DModel = 2048,
    heads: Heads = 16,
    head_dim: HeadDim = 0,
    kv_heads: KvHeads = 0,
    channel_mixer: ChannelMixer = "swiglu",
    vocab_size: VocabSize = 32768,
    train: Annotated[str, typer.Option(help="Contexts to train on, by commas; by default 8k on a card.")] = "",
    prefill: Annotated[str, typer.Option(help="Contexts to read; by default up to 128k on a card.")] = "",
    decode: Annotated[str, typer.Option(help="Contexts to decode at; by default up to 1M on a card.")] = "",
    batch: Annotated[int, typer.Option(min=1, help="Sequences that are decoded together.")] = 1,
    json: JsonFile = None,
    device: DeviceOption = "",
) -> None:
    """Measures whole models: training, prefill, one decoded token, memory, each beside what the cost model predicts.

    Predictions are the cost model's FLOPs and bytes at the speeds that this device reached with a copy and a matrix
    product. Ops run the form that "auto" chooses, or that ARCHSEARCH_IMPL names.
    """
    from archsearch.arch import ArchSpec, ModelSpec
    from archsearch.bench.ceilings import measure_ceilings
    from archsearch.bench.clock import clock_for
    from archsearch.bench.device import device_named, dtype_of
    from archsearch.bench.environment import environment
    from archsearch.bench.model import ModelBench, bench_pattern, impl_in_use, plan_for
    from archsearch.bench.results.schema import Results
    from archsearch.registry import load_registry

    place = device_named(device)
    dtype = dtype_of(place)
    spec = ModelSpec.read(
        {
            "d_model": d_model,
            "n_heads": heads,
            "n_kv_heads": kv_heads,
            "head_dim": head_dim,
            "vocab_size": vocab_size,
            "channel_mixer": channel_mixer,
            "dtype": str(dtype).removeprefix("torch."),
        }
    )
    registry, clock = load_registry(), clock_for(place)
    for pattern in patterns:
        ArchSpec.parse(pattern, registry, spec)
    rates = measure_ceilings(place, clock)
    bench = ModelBench(device=place, dtype=dtype, clock=clock, ceilings=rates, spec=spec, registry=registry)
    plan = plan_for(place, train=_contexts(train), prefill=_contexts(prefill), decode=_contexts(decode), batch=batch)
    sizes = {name: getattr(spec, name) for name in _SIZES} | {"impl": impl_in_use()}
    empty = Results(kind="model", environment=environment(place), ceilings=rates, model=sizes)
    rows = _collect((row for pattern in patterns for row in bench_pattern(pattern, plan, bench)), empty, json)
    if any(row.status in ("wrong", "failed") for row in rows):
        raise typer.Exit(1)


def _contexts(text: str) -> list[int]:
    from archsearch.costs import parse_context

    return [parse_context(part.strip()) for part in text.split(",") if part.strip()]


@app.command("report")
def bench_report(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILES]", help="Result files or folders; else benchmarks/results.")
    ] = None,
    png: Annotated[Path | None, typer.Option("--png", metavar="FILE", help="Draw the shares of the bound.")] = None,
    targets: Annotated[bool, typer.Option("--targets", help="Only the targets, and what became of them.")] = False,
    json: JsonFlag = False,
) -> None:
    """Shows what result files hold: every figure with its spread and its share of the bound, and the targets.

    A file that is missing, empty or cut is named after what the others hold, of one that was cut every whole row is
    shown, and the exit status is 1. A run that was ended before its end is told in its heading.
    """
    from archsearch.bench.results.files import gather_results
    from archsearch.bench.results.targets import judge_targets
    from archsearch.cli.bench_tables import target_table
    from archsearch.errors import SpecError

    paths = files or [RESULTS]
    results, lacking = gather_results(paths)
    if not results:
        none = f"{', '.join(map(str, paths))}: holds no result files: write one with archsearch bench"
        raise SpecError("; ".join(lacking) or none)
    verdicts = judge_targets(results)
    if json:
        plain, judged = [file.model_dump(mode="json") for file in results], [asdict(one) for one in verdicts]
        print_json({"results": plain, "targets": judged, "missing": lacking})
    else:
        if not targets:
            _show(results)
        console().print(target_table(verdicts))
    for each in lacking:
        tell(f"missing: {each}")
    if png is not None:
        from archsearch.cli.bench_picture import write_bench_picture

        write_bench_picture(results, png)
        quiet_console(stderr=json).print(f"written: {png}", soft_wrap=True)
    if lacking:
        raise typer.Exit(1)


def _show(results: Iterable[Results]) -> None:
    from archsearch.cli.bench_tables import kernel_table, model_table

    out = console()
    for file in results:
        out.print(_heading(file), soft_wrap=True)
        out.print(kernel_table(file) if file.kind == "kernels" else model_table(file))


def _collect(measured: Iterable[RowT], empty: Results, path: Path | None) -> list[RowT]:
    """Prints each row as it comes and keeps the file up to date, so that a run that is ended leaves what it has, and
    says that it was ended."""
    from archsearch.bench.results.files import write_results
    from archsearch.cli.bench_tables import row_line

    out = console() if path is None else quiet_console()  # the file is the answer
    rows, field = list[RowT](), "kernels" if empty.kind == "kernels" else "models"

    def keep(*, complete: bool) -> None:
        if path is not None:
            write_results(empty.model_copy(update={field: tuple(rows), "complete": complete}), path)

    out.print(_heading(empty), soft_wrap=True)
    keep(complete=False)
    for row in measured:
        rows.append(row)
        out.print(row_line(row), soft_wrap=True)
        keep(complete=False)
    keep(complete=True)
    if path is not None:
        out.print(f"written: {path}", soft_wrap=True)
    return rows


def _heading(results: Results) -> str:
    from archsearch.cli.bench_tables import heading

    return heading(results)
