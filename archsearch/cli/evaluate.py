"""``archsearch evaluate``: train and measure one architecture, without Ray and without a database."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archsearch.cli.model_options import ChannelMixer, DModel, HeadDim, Heads, KvHeads, ShortConv
from archsearch.cli.outlet import QuietOutlet
from archsearch.cli.output import JsonFlag, console, print_json, prints_told, table
from archsearch.cli.settings import read_settings
from archsearch.printable import printable

if TYPE_CHECKING:
    from archsearch.arch import ArchSpec
    from archsearch.measurement import Measurement
    from archsearch.registry import Registry
    from archsearch.training import Progress, Recipe


LAST_SEED = 2**62


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("evaluate")(evaluate)


def evaluate(
    arch: Annotated[str, typer.Argument(help='Layer pattern, such as "kda full".')],
    task: Annotated[list[str], typer.Option("--task", help='Task, such as "mqar:noisy_update"; may be repeated.')],
    seed: Annotated[int, typer.Option("--seed", min=0, max=LAST_SEED, help="The first seed.")] = 0,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="How many seeds, counted up from the first.")] = 1,
    learning_rate: Annotated[
        list[float] | None, typer.Option("--learning-rate", help="Learning rate to try; may be repeated.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Optimiser steps.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Sequences a step.")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[str, typer.Option("--dtype", help="float32 or bfloat16 (autocast) for the training.")] = "float32",
    d_model: DModel = 64,
    heads: Heads = 2,
    head_dim: HeadDim = 0,
    kv_heads: KvHeads = 0,
    short_conv: ShortConv = 4,
    channel_mixer: ChannelMixer = "none",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help='Any key of the recipe or the model, such as "recipe.warmup=0.2"; may be repeated.'),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="Evaluator of a plugin, asked about the model too; may be repeated."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Trains one architecture on each task and seed; the best learning rate on validation is reported on test."""
    from archsearch.arch import ArchSpec, ModelSpec
    from archsearch.registry import load_registry
    from archsearch.training import Recipe

    registry, other = load_registry(), read_settings(settings or [])
    model = {
        "d_model": d_model,
        "n_heads": heads,
        "n_kv_heads": kv_heads,
        "head_dim": head_dim,
        "channel_mixer": channel_mixer,
        "short_conv": short_conv,
    }
    given = {"steps": steps, "batch_size": batch_size, "learning_rates": learning_rate or None}
    told = {key: value for key, value in given.items() if value is not None}
    spec = ArchSpec.parse(arch, registry, ModelSpec.read({**model, **other["model"]}))
    recipe = Recipe.read({"seeds": seeds, "device": device, "dtype": dtype, **told, **other["recipe"]})
    with prints_told():
        measurements = list(_measured(spec, task, recipe, seed, registry, metric or []))
    if json:
        print_json(_as_json(spec, measurements, registry))
    else:
        _print(spec.pattern(registry), measurements, registry)
    if all(measurement.status == "diverged" for measurement in measurements):
        raise typer.Exit(6)


def _measured(
    arch: ArchSpec, tasks: list[str], recipe: Recipe, first_seed: int, registry: Registry, evaluators: list[str]
) -> Iterator[Measurement]:
    from archsearch.tasks import resolve_task
    from archsearch.training import evaluate as train_and_measure

    for name in evaluators:
        registry.evaluator(name)

    for resolved in [resolve_task(name, registry) for name in tasks]:
        for seed in range(first_seed, first_seed + recipe.seeds):
            with _Progress(f"{resolved.label} seed {seed}") as report:
                yield train_and_measure(
                    arch, resolved, recipe, seed, registry=registry, on_progress=report, evaluators=evaluators
                )


def _as_json(arch: ArchSpec, measurements: list[Measurement], registry: Registry) -> dict[str, Any]:
    return {
        "pattern": arch.pattern(registry),
        "digest": arch.digest,
        "measurements": [measurement.to_json() for measurement in measurements],
        "summary": [_summary(group) for group in _by_task(measurements)],
    }


class _Progress:
    """One line on stderr that is overwritten, on a terminal only."""

    def __init__(self, label: str) -> None:
        self._label, self._outlet = printable(label), QuietOutlet(stderr=True)
        self._shown = self._outlet.isatty()

    def __enter__(self) -> _Progress:
        return self

    def __call__(self, progress: Progress) -> None:
        if self._shown:
            value = "" if progress.value is None else f"  {progress.metric} {progress.value:.3f}"
            self._outlet.write(f"\r\033[K{self._label}: step {progress.step} of {progress.total_steps}{value}")

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._outlet.write("\r\033[K")


def _by_task(measurements: list[Measurement]) -> list[list[Measurement]]:
    groups: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        groups.setdefault(measurement.task, []).append(measurement)
    return list(groups.values())


def _summary(group: list[Measurement]) -> dict[str, Any]:
    values = [measurement.test[measurement.metric] for measurement in group if measurement.status == "complete"]
    return {
        "task": group[0].task,
        "metric": group[0].metric,
        "chance": group[0].chance,
        "seeds": [measurement.seed for measurement in group],
        "diverged": [measurement.seed for measurement in group if measurement.status == "diverged"],
        "mean": statistics.fmean(values) if values else None,
        "min": min(values, default=None),
        "max": max(values, default=None),
        "exercised": group[0].exercised,
    }


def _own_metrics(measurements: list[Measurement], registry: Registry) -> Iterator[str]:
    """What evaluators found of each model, on test."""
    for measurement in measurements:
        names = [name.partition(":")[2] for name in measurement.versions if name.startswith("evaluator:")]
        metrics = {key: one for name in names for key, one in registry.evaluator(name).metrics.items()}
        found = [
            f"{key} {measurement.test[key]:.4g}{f' {one.unit}' if one.unit else ''}"
            for key, one in metrics.items()
            if key in measurement.test
        ]
        if found:
            yield f"{measurement.task} seed {measurement.seed}: {', '.join(found)}"


def _print(pattern: str, measurements: list[Measurement], registry: Registry) -> None:
    from archsearch.cli.remarks import judged, not_exercised

    out = console()
    rows = []
    for measurement in measurements:
        value = f"{measurement.test[measurement.metric]:.3f}" if measurement.test else measurement.status
        rate = f"{measurement.learning_rate:g}" if measurement.learning_rate else "-"
        rows.append(
            [
                measurement.task,
                measurement.seed,
                measurement.metric,
                value,
                f"{measurement.chance:.3f}",
                rate,
                measurement.steps,
                f"{measurement.train_seconds:.1f}",
                f"{measurement.tokens_per_second:,.0f}",
            ]
        )
    columns = ["task", ">seed", "metric", ">test", ">chance", ">rate", ">steps", ">seconds", ">tokens/s"]
    out.print(table(columns, rows, title=pattern))
    for group in _by_task(measurements):
        first, summary = group[0], _summary(group)
        if len(group) > 1 and summary["mean"] is not None:
            out.print(
                f"{first.task}: mean {summary['mean']:.3f}, {summary['min']:.3f} to {summary['max']:.3f} "
                f"over {len(group)} seeds"
            )
        for measurement in group:
            if measurement.reason:
                out.print(f"{first.task} seed {measurement.seed}: diverged: {measurement.reason}")
    for line in _own_metrics(measurements, registry):
        out.print(line, soft_wrap=True)
    found = [layer for measurement in measurements for layer in measurement.unexercised]
    payloads = [measurement.to_json() for measurement in measurements]
    for line in [*not_exercised(found), *judged(payloads, registry)]:
        out.print(line, soft_wrap=True)
    recipe = measurements[0].recipe
    out.print(
        f"valid for d_model {measurements[0].arch['model']['d_model']}, {recipe['steps']} steps of "
        f"{recipe['batch_size']} sequences, at the length each task is trained on"
    )
