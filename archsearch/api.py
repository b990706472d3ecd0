"""The Python interface for notebooks and scripts: cost, evaluate, run, open_store. Heavy imports wait for a call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.costs import ArchCost, CostModel
from archsearch.registry import Registry, load_registry

if TYPE_CHECKING:
    from archsearch.measurement import Measurement
    from archsearch.search import SearchOutcome, SearchSpec
    from archsearch.storage import Store
    from archsearch.tasks import Task
    from archsearch.training import Progress, Recipe


def cost(
    arch: str | ArchSpec,
    *,
    context: int,
    model: ModelSpec | Mapping[str, Any] | None = None,
    plugins: Iterable[Any] = (),
    registry: Registry | None = None,
) -> ArchCost:
    """Costs of an architecture (a pattern, or an `ArchSpec`) at `context` tokens; imports no torch.

    `model` gives the backbone's sizes for a pattern; `plugins` are mixers that no distribution installs.
    """
    registry = _registry(registry, plugins)
    return CostModel(registry).cost(_arch(arch, model, registry), context)


def evaluate(
    arch: str | ArchSpec,
    task: str | Task,
    recipe: Recipe | Mapping[str, Any] | None = None,
    seed: int = 0,
    *,
    model: ModelSpec | Mapping[str, Any] | None = None,
    plugins: Iterable[Any] = (),
    registry: Registry | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Measurement:
    """Trains an architecture on a task (``"mqar:noisy_update"``) in this process and measures it.

    Without `model` a pattern gets the small backbone of the tests: d_model 64, 2 heads,
    no channel mixer, and a convolution of width 4 in front of every token mixer.
    """
    from archsearch.tasks import resolve_task
    from archsearch.training import Recipe
    from archsearch.training import evaluate as train_and_measure

    registry = _registry(registry, plugins)
    if not isinstance(recipe, Recipe):
        recipe = Recipe.read(recipe or {})
    resolved = resolve_task(task, registry) if isinstance(task, str) else task
    if model is None:
        model = ModelSpec(channel_mixer="none", short_conv=4)
    return train_and_measure(
        _arch(arch, model, registry), resolved, recipe, seed, registry=registry, on_progress=on_progress
    )


def run(
    spec: str | Path | Mapping[str, Any] | SearchSpec,
    *,
    storage: str | None = None,
    plugins: Iterable[Any] = (),
    registry: Registry | None = None,
) -> SearchOutcome:
    """Runs a whole search on a local Ray and returns its outcome; `spec` is a TOML file, its data, or a `SearchSpec`.

    A spec with rungs is climbed, whatever limits ``[ladder]`` has, and the outcome is that of the last rung that was
    begun. The database is `storage`, else ``ARCHSEARCH_STORAGE``, else the spec's, else ``sqlite:///archsearch.db``.
    """
    from archsearch.search import Problem, SearchSpec, run_search
    from archsearch.storage import Store, storage_url

    registry = _registry(registry, plugins)
    if isinstance(spec, str | Path):
        spec = SearchSpec.load(spec)
    elif not isinstance(spec, SearchSpec):
        spec = SearchSpec.from_dict(spec)
    problem = Problem.of(spec, registry)
    with Store.open(storage_url(storage, spec=spec.storage.url)) as store:
        if not spec.rung:
            return run_search(problem, store=store)
        from archsearch.search.ladder.climb import climb

        return climb(problem, run_search, lambda search, posed: search(posed, store=store), store=store)


def open_store(url: str | None = None, *, read_only: bool = True) -> Store:
    """The store of a database URL (else ``ARCHSEARCH_STORAGE``, else the default), whose frames are pandas ones."""
    from archsearch.storage import Store, storage_url

    return Store.open(storage_url(url), read_only=read_only)


def _registry(registry: Registry | None, plugins: Iterable[Any]) -> Registry:
    if registry is None:
        return load_registry(plugins)
    for plugin in plugins:
        registry.add(plugin)
    return registry


def _arch(arch: str | ArchSpec, model: ModelSpec | Mapping[str, Any] | None, registry: Registry) -> ArchSpec:
    if isinstance(arch, ArchSpec):
        return arch
    if model is not None and not isinstance(model, ModelSpec):
        model = ModelSpec.read(model)
    return ArchSpec.parse(arch, registry, model)
