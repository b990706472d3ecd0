"""Sweep: the searches that train each mixer over sizes of its state and numbers of pairs to recall.

After Arora et al. 2024 (arXiv 2402.18668, figure 2), where each architecture is sized by what sizes it: a feature or
state dimension, a window, else the width of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from archsearch.arch import ModelSpec
from archsearch.errors import SpecError, listing
from archsearch.registry import Registry
from archsearch.search.sizes import Place, made, sized_layers
from archsearch.search.spec import SearchSpec
from archsearch.search.tables.backbone import BackboneTable
from archsearch.search.tables.objectives import TaskTable
from archsearch.tasks import Task, resolve_task

PAIRS = "pairs"
"""The option of a task that says how many pairs are recalled."""

MOST_SIZES = 32

DEFAULT_PAIRS = (4, 8, 16)
"""Numbers of pairs where nobody gives others."""


def sweep_specs(
    base: SearchSpec,
    registry: Registry,
    *,
    mixers: Sequence[str] = (),
    pairs: Sequence[int] = (),
    sizes: int = 3,
) -> tuple[SearchSpec, ...]:
    """The searches of a sweep, each a list of architectures on the tasks of all numbers of pairs.

    The first has the name and the width of `base`, with each of `mixers` (else of ``space.mixers``) at `sizes` sizes of
    its state: the values that ``[space.MIXER]`` lists, else powers of 2 of the tunable option that changes its state
    most, or, where none does, what a token reads of it. A mixer that no option sizes is trained at other widths too, in
    searches named ``NAME-d32`` and so on. `pairs` takes the first task of `base` with other numbers of pairs, else its
    tasks are taken as they are. A list of architectures (``space.pattern = "listed"``) is taken as it is.

    Raises `SpecError`, `OptionsError` or `UnknownNameError`, naming the key or the option.
    """
    _check_numbers(mixers, pairs, sizes)
    if base.compare is not None and base.compare.match != "tokens":
        raise SpecError(
            f'compare.match = "{base.compare.match}" goes with `archsearch compare`, not with a sweep, which '
            "trains every size as it is listed: drop it"
        )
    tables = _task_tables(base, pairs, registry)
    tasks = [_with_pairs(table, f"tasks[{index}]", registry) for index, table in enumerate(tables)]
    names = tuple(mixers) or base.space.mixers
    if not names:
        return (_search(base, tables, base.model.d_model, base.space.architectures),)
    found = _by_width(base, names, tasks, registry, sizes)
    return tuple(_search(base, tables, width, listed) for width, listed in found.items() if listed)


def _check_numbers(mixers: Sequence[str], pairs: Sequence[int], sizes: int) -> None:
    for option, given in (("--mixers", mixers), ("--pairs", pairs)):
        twice = [str(value) for value in given if list(given).count(value) > 1]
        if twice:
            raise SpecError(f"{option} names {twice[0]} twice: drop one")
    if not 1 <= sizes <= MOST_SIZES:
        raise SpecError(f"--sizes {sizes}: give 1 to {MOST_SIZES} sizes of each mixer's state")


def _task_tables(base: SearchSpec, pairs: Sequence[int], registry: Registry) -> tuple[TaskTable, ...]:
    if not pairs:
        return base.tasks
    first = base.tasks[0]
    _with_pairs(first, "tasks[0]", registry)
    tables = []
    for count in pairs:
        table = first.model_copy(update={"options": {**first.options, PAIRS: count}})
        try:
            _with_pairs(table, "tasks[0]", registry)
        except SpecError as error:
            raise SpecError(f"--pairs {count}: {error}") from None
        tables.append(table)
    return tuple(tables)


def _with_pairs(table: TaskTable, where: str, registry: Registry) -> Task:
    task = resolve_task(table.name, registry, setting=table.setting, options=table.options)
    if PAIRS not in type(task.options).model_fields:
        raise SpecError(f'{where}: the task "{task.name}" has no number of pairs to sweep over: take mqar')
    return task


def _by_width(
    base: SearchSpec, names: Sequence[str], tasks: Sequence[Task], registry: Registry, count: int
) -> Mapping[int, Sequence[str]]:
    """Patterns by the width of the model, the spec's own width first."""
    model = base.model.backbone(vocab_size=max(task.vocab_size for task in tasks))
    lengths = tuple(sorted({task.seq_len for task in tasks}))
    place = Place(model=model, n_layers=base.model.n_layers, lengths=lengths, registry=registry)
    found: dict[int, list[str]] = {model.d_model: []}
    for name in names:
        layers = sized_layers(name, base.space.options.get(name, {}), place, count)
        if layers:
            found[model.d_model] += [place.pattern(layer) for layer in layers]
        else:
            for width in _widths(model, count):
                found.setdefault(width, []).append(place.pattern(made(name, registry)))
    return {width: tuple(dict.fromkeys(patterns)) for width, patterns in found.items()}


def _widths(model: ModelSpec, count: int) -> Iterator[int]:
    """`count` widths a factor of 2 apart, the model's own in their middle."""
    for power in range(-(count // 2), count - count // 2):
        width = int(model.d_model * 2.0**power)
        if width >= model.n_heads:
            yield width


def _widened(model: BackboneTable, d_model: int) -> dict[str, Any]:
    """``[model]`` at another width: a ``head_dim`` that was given grows with it, as it sizes the state."""
    values = {**model.given, "n_layers": model.n_layers, "d_model": d_model}
    if "head_dim" in values:
        values["head_dim"] = max(1, model.head_dim * d_model // model.d_model)
    if "vocab_size" not in model.model_fields_set:
        del values["vocab_size"]
    return values


def _search(base: SearchSpec, tables: Sequence[TaskTable], width: int, listed: Sequence[str]) -> SearchSpec:
    data = base.to_json()
    if width != base.model.d_model:
        data["name"] = f"{base.name}-d{width}"
        data["model"] = _widened(base.model, width)
    data["tasks"] = [table.model_dump(mode="json") for table in tables]
    data["space"] = {"pattern": "listed", "architectures": list(listed)}
    data["objectives"] = {
        "maximize": ["recall"],
        "minimize": list(base.objectives.minimize) or ["state_bytes"],
        "context": base.objectives.context,
    }
    data["search"] = {"concurrency": base.search.concurrency, "retries": base.search.retries}
    data["compare"] = {"baseline": None}
    data["storage"] = base.storage.model_dump()
    return SearchSpec.from_dict(data)


def trainings(specs: Sequence[SearchSpec]) -> int:
    """The most trainings that the searches take: of every architecture, task, learning rate and seed."""
    return sum(
        len(spec.space.architectures) * len(spec.tasks) * len(spec.recipe.learning_rates) * spec.recipe.seeds
        for spec in specs
    )


def told(specs: Sequence[SearchSpec]) -> str:
    """What the searches are, in a line."""
    names = [spec.name for spec in specs]
    archs = sum(len(spec.space.architectures) for spec in specs)
    tasks = len(specs[0].tasks)
    return (
        f"{archs} architecture{'s' if archs != 1 else ''} at {tasks} number{'s' if tasks != 1 else ''} of pairs, "
        f"{trainings(specs):,} trainings at most, in the search{'es' if len(names) != 1 else ''} {listing(names)}"
    )


def default_spec(pairs: Sequence[int] | None) -> SearchSpec:
    """The sweep that is made without a spec: two small layers of one mixer of each family, on sequences that `pairs`
    leave room in."""
    most = max(pairs or DEFAULT_PAIRS)
    words = max(32, 2 * most)
    length = max(64, -(-4 * most // 16) * 16)
    return SearchSpec.from_dict(
        {
            "name": "recall",
            "model": {"d_model": 64, "n_layers": 2, "n_heads": 2, "short_conv": 4, "channel_mixer": "none"},
            "space": {"mixers": ["full", "sliding", "gated-deltanet", "mamba2"]},
            "tasks": [
                {
                    "name": "mqar",
                    "setting": "easy",
                    "options": {"seq_len": length, "pairs": count, "keys": words, "values": words},
                }
                for count in (pairs or DEFAULT_PAIRS)
            ],
            "recipe": {"steps": 300, "batch_size": 32, "learning_rates": [0.003, 0.01], "seeds": 2},
            "objectives": {"maximize": ["recall"], "minimize": ["state_bytes"]},
        }
    )


def texts_of(option: str, text: str | None) -> tuple[str, ...]:
    """The parts of a list with commas, of which those in brackets belong to a part; raises `SpecError` for an empty
    part."""
    if text is None:
        return ()
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "([") - (sign in ")]")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    found = tuple(part.strip() for part in parts)
    if not all(found):
        raise SpecError(f'{option} "{text}" has an empty entry: write them with commas between')
    return found


def wholes_of(option: str, text: str | None) -> tuple[int, ...]:
    """The whole numbers above 0 of a list with commas; raises `SpecError`."""
    found = []
    for part in texts_of(option, text):
        if not (part.isascii() and part.isdigit() and len(part) < 10 and int(part) > 0):
            raise SpecError(f'{option}: "{part}" is no whole number above 0: write a list, as "4,8,16"')
        found.append(int(part))
    return tuple(found)
