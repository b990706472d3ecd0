"""The registry: finds plugins, isolates the broken one, settles who owns a name, and reports."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

import pluggy

from archsearch import hookspecs
from archsearch.errors import ArchsearchError, ConflictError, PluginError, UnknownNameError, listing, nearest, said
from archsearch.evaluator import Evaluator
from archsearch.layer import LayerSpec, Resolved, holds_layers
from archsearch.measured import Measured, Measuring
from archsearch.mixer import MixerPlugin
from archsearch.notation import parse_layer
from archsearch.registration import check_evaluator, check_hooks, check_mixer, check_options, check_task
from archsearch.source import Part, Sources, core_digest
from archsearch.streams import Interrupts, stdout_to_stderr
from archsearch.version1 import adapted, original

GROUP = "archsearch"
BLOCK_VARIABLE = "ARCHSEARCH_BLOCK_PLUGINS"
LOAD_VARIABLE = "ARCHSEARCH_LOAD_PLUGINS"
UNPACKAGED = "(unpackaged)"
"""The distribution of plugins that came by `Registry.add`."""

Status = Literal["ok", "failed", "blocked", "conflict"]


@dataclass(kw_only=True)
class PluginReport:
    """What became of one plugin; ``error`` says why when ``status`` is not "ok"."""

    name: str
    distribution: str
    version: str
    status: Status = "ok"
    error: str | None = None
    mixers: list[str] = field(default_factory=list)
    presets: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    evaluators: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        """The plugin's name, unique among distributions."""
        return f"{self.distribution}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Unpackaged:
    """A plugin that came by `Registry.add`, as a driver sends it to a worker: ``Registry.add(plugin, name=name,
    source=sources)`` there. ``sources`` are the digests by part, such as ``mixer:mine``."""

    name: str
    plugin: Any
    sources: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class _Claim:
    owner: PluginReport
    value: Any


class Registry:
    """Mixers, presets, tasks and evaluators by name. Made by `load_registry` or filled by hand: none is global."""

    def __init__(self) -> None:
        self._manager = pluggy.PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        self._reports: list[PluginReport] = []
        self._names: dict[str, list[_Claim]] = {}
        self._tasks: dict[str, list[_Claim]] = {}
        self._evaluators: dict[str, list[_Claim]] = {}
        self._measured: dict[str, Measured] = {}
        self._unpackaged: list[tuple[PluginReport, Any]] = []
        self._sources = Sources()
        self._digests: dict[str, str] = {}

    # -- filling ---------------------------------------------------------------------------------------------

    def add_entry_point(self, entry: EntryPoint) -> None:
        """Import and register one entry point; whatever it raises ends in the report, not here."""
        report = self._report_of(entry)
        with Interrupts() as interrupts:
            try:
                with stdout_to_stderr():
                    self._register(entry.load(), report)
            except BaseException as error:  # the plugin boundary: anything may come out of foreign code
                if interrupts.came:
                    raise
                report.status, report.error = "failed", _describe(error)

    def add(self, plugin: Any, *, name: str | None = None, source: str | Mapping[str, str] | None = None) -> None:
        """Register a plugin that is no distribution: a module or object with hooks, or a mixer or evaluator itself.

        `source` is the digest of its source, or one by part (``mixer:mine``), where it was computed elsewhere: a class
        that was sent here has lost what its digest is made of. Raises `PluginError` at once when the plugin breaks the
        contract: its author is there to see it.
        """
        label = name or getattr(plugin, "name", None) or getattr(plugin, "__name__", type(plugin).__name__)
        report = PluginReport(name=str(label), distribution=UNPACKAGED, version="0")
        self._reports.append(report)
        hooks = _hooks_of(plugin)
        try:
            with stdout_to_stderr():
                self._register(hooks, report)
                for mixer in report.mixers if report.status == "ok" else ():
                    check_options(self.mixer(mixer), self)
        except (Exception, SystemExit) as error:  # the plugin boundary: anything may come out of foreign code
            self._take_back(report)
            self._reports.remove(report)
            raise PluginError(f'plugin "{label}" cannot be registered: {_describe(error)}') from error
        self._unpackaged.append((report, plugin))
        if isinstance(source, str):
            source = dict.fromkeys(_parts_of(report), source)
        self._digests |= source or {}

    def block(self, entry: EntryPoint, reason: str) -> None:
        """List an entry point without importing it."""
        report = self._report_of(entry)
        report.status, report.error = "blocked", reason

    def _report_of(self, entry: EntryPoint) -> PluginReport:
        distribution = entry.dist.name if entry.dist else "unknown"
        version = entry.dist.version if entry.dist else "0"
        report = PluginReport(name=entry.name, distribution=distribution, version=version)
        self._reports.append(report)
        return report

    def _register(self, plugin: Any, report: PluginReport) -> None:
        try:
            check_hooks(plugin)
            self._manager.register(plugin, name=report.key)
            mixers, tasks, evaluators, measured = self._collect(plugin)
        except BaseException:
            if self._manager.is_registered(plugin):
                self._manager.unregister(plugin)
            raise
        for mixer in mixers:
            report.mixers.append(mixer.name)
            self._claim(self._names, mixer.name, report, Resolved(plugin=mixer, preset={}))
            for preset, values in mixer.presets.items():
                if preset == mixer.name:
                    continue
                report.presets.append(preset)
                self._claim(self._names, preset, report, Resolved(plugin=mixer, preset=values))
        for task in tasks:
            report.tasks.append(task.name)
            self._claim(self._tasks, task.name, report, task)
        for evaluator in evaluators:
            report.evaluators.append(evaluator.name)
            self._claim(self._evaluators, evaluator.name, report, evaluator)
        self._measured |= measured

    def _collect(self, plugin: Any) -> tuple[list[MixerPlugin[Any]], list[type[Any]], list[Any], dict[str, Measured]]:
        others = [other for other in self._manager.get_plugins() if other is not plugin]

        def call(hook: str, register: Any) -> None:
            self._manager.subset_hook_caller(hook, others)(register=register)

        written: list[MixerPlugin[Any]] = []
        tasks: list[type[Any]] = []
        evaluators: list[Any] = []
        call("register_mixers", written.append)
        call("register_tasks", tasks.append)
        call("register_metrics", evaluators.append)
        for mixer in written:
            check_mixer(mixer)
        for task in tasks:
            check_task(task)
        for evaluator in evaluators:
            check_evaluator(evaluator)
        names = [name for mixer in written for name in {mixer.name, *mixer.presets}]
        for taken in (names, [task.name for task in tasks], [evaluator.name for evaluator in evaluators]):
            twice = sorted({name for name in taken if taken.count(name) > 1})
            if twice:
                raise PluginError(f"registers {listing(twice)} twice")
        mixers = [adapted(mixer) for mixer in written]
        measured = Measuring(mixers)
        call("register_ops", measured.ops)
        call("register_kernels", measured.kernels)
        for mixer in mixers:
            if not holds_layers(mixer.options):
                check_options(mixer, self)
        return mixers, tasks, evaluators, measured.found

    def settle(self) -> None:
        """Checks the options that hold layers, once all the names are known that they may hold; a mixer of which they
        cannot be read is taken back, and its plugin reported as failed. Mixers that are made of it follow."""
        while (found := self._unsettled()) is not None:
            report, error = found
            self._take_back(report)
            report.status, report.error = "failed", _describe(error)

    def _unsettled(self) -> tuple[PluginReport, ArchsearchError] | None:
        for report in self._reports:
            for name in report.mixers if report.status == "ok" else ():
                mixer = self.mixer(name)
                try:
                    if holds_layers(mixer.options):
                        check_options(mixer, self)
                except ArchsearchError as error:
                    return report, error
        return None

    def _take_back(self, report: PluginReport) -> None:
        """Frees every name that a plugin holds."""
        for table in (self._names, self._tasks, self._evaluators):
            for name in list(table):
                table[name] = [claim for claim in table[name] if claim.owner is not report]
                if not table[name]:
                    del table[name]
        report.mixers, report.presets, report.tasks, report.evaluators = [], [], [], []

    def _claim(self, table: dict[str, list[_Claim]], name: str, owner: PluginReport, value: Any) -> None:
        claims = table.setdefault(name, [])
        claims.append(_Claim(owner=owner, value=value))
        if len(claims) > 1:
            for claim in claims:
                claim.owner.status = "conflict"
                claim.owner.error = _conflict_text(name, claims)

    # -- asking ----------------------------------------------------------------------------------------------

    def resolve(self, name: str) -> Resolved:
        """The plugin and preset options that `name` stands for; `UnknownNameError` or `ConflictError`."""
        resolved: Resolved = self._owned(self._names, "mixer", name)
        if resolved.plugin.name != name:
            self._owned(self._names, "mixer", resolved.plugin.name)
        return resolved

    def mixer(self, name: str) -> MixerPlugin[Any]:
        """The mixer of that name; a preset's name is not one."""
        resolved = self.resolve(name)
        if resolved.plugin.name != name:
            raise UnknownNameError(f'"{name}" is a preset of the mixer "{resolved.plugin.name}": name the mixer here')
        return resolved.plugin

    def layer(self, text: str) -> LayerSpec:
        """The layer that notation such as ``"sliding(window=64)"`` writes; raises `NotationError`."""
        return parse_layer(text, self)

    def measured(self, mixer: str) -> Measured:
        """The pure ops and the kernels of a mixer, as hooks registered them."""
        return self._measured[self.mixer(mixer).name]

    def presets_of(self, mixer: str) -> Mapping[str, Mapping[str, Any]]:
        """The presets of a mixer whose names are its own."""
        presets = self.mixer(mixer).presets
        return {name: values for name, values in presets.items() if len(self._names.get(name, ())) == 1}

    def task(self, name: str) -> type[Any]:
        """The task class of that name."""
        task: type[Any] = self._owned(self._tasks, "task", name)
        return task

    def evaluator(self, name: str) -> Evaluator:
        """The evaluator of that name."""
        evaluator: Evaluator = self._owned(self._evaluators, "evaluator", name)
        return evaluator

    def mixers(self) -> list[MixerPlugin[Any]]:
        """Every mixer that can be used, by name."""
        owned = [
            claims[0].value.plugin
            for name, claims in sorted(self._names.items())
            if len(claims) == 1 and claims[0].value.plugin.name == name
        ]
        return owned

    def tasks(self) -> list[type[Any]]:
        """Every task that can be used, by name."""
        return [claims[0].value for _, claims in sorted(self._tasks.items()) if len(claims) == 1]

    def evaluators(self) -> list[Evaluator]:
        """Every evaluator that can be used, by name."""
        return [claims[0].value for _, claims in sorted(self._evaluators.items()) if len(claims) == 1]

    def reports(self) -> list[PluginReport]:
        """One line a plugin, in the order of loading."""
        return list(self._reports)

    def sendable(self) -> list[Unpackaged]:
        """The plugins that came by `add`, which can travel to a worker only as objects, with the names and the digests
        that it needs to register them alike."""
        return [
            Unpackaged(name=report.name, plugin=plugin, sources=self._digests_of(report))
            for report, plugin in self._unpackaged
            if report.status == "ok"
        ]

    def source_of(self, mixer: str) -> str:
        """16 hexadecimal digits of all that computes a mixer's results, beside the core: of its class, of what that
        reaches by imports, and of its own attributes. "unknown-" and a token for what cannot be told: see `Sources`.
        """
        self.mixer(mixer)
        return self._digest(f"mixer:{mixer}")

    def task_source_of(self, task: str) -> str:
        """`source_of` a task."""
        self.task(task)
        return self._digest(f"task:{task}")

    def evaluator_source_of(self, evaluator: str) -> str:
        """`source_of` an evaluator."""
        self.evaluator(evaluator)
        return self._digest(f"evaluator:{evaluator}")

    def parts(self, mixers: Iterable[str], tasks: Iterable[str], evaluators: Iterable[str] = ()) -> tuple[Part, ...]:
        """What results of these mixers, tasks and evaluators are made of, the core among it, by name."""
        from archsearch.version import __version__

        found = {"core": (f"archsearch {__version__}", core_digest())}
        for name in mixers:
            found[f"mixer:{name}"] = self.version_of(name), self.source_of(name)
        for name in tasks:
            found[f"task:{name}"] = self.task_version_of(name), self.task_source_of(name)
        for name in evaluators:
            found[f"evaluator:{name}"] = self.evaluator_version_of(name), self.evaluator_source_of(name)
        return tuple(
            Part(name=name, version=version, digest=digest) for name, (version, digest) in sorted(found.items())
        )

    def parts_named(self, names: Iterable[str]) -> tuple[Part, ...]:
        """The parts of these names, such as "mixer:linear"; raises `UnknownNameError` for one that there is not."""
        kinds: dict[str, list[str]] = {"mixer": [], "task": [], "evaluator": []}
        wanted = list(names)
        for part in wanted:
            kind, _, name = part.partition(":")
            kinds.setdefault(kind, []).append(name)
        found = self.parts(kinds["mixer"], kinds["task"], kinds["evaluator"])
        return tuple(part for part in found if part.name in wanted)

    def _digests_of(self, report: PluginReport) -> dict[str, str]:
        return {part: self._digest(part) for part in _parts_of(report)}

    def _digest(self, part: str) -> str:
        if part not in self._digests:
            kind, _, name = part.partition(":")
            self._digests[part] = self._computed(kind, name)
        return self._digests[part]

    def _computed(self, kind: str, name: str) -> str:
        if kind == "mixer":
            return self._sources.of_plugin(original(self.mixer(name)))
        if kind == "task":
            return self._sources.of_task(self.task(name))
        return self._sources.of_evaluator(self.evaluator(name))

    # -- copying ---------------------------------------------------------------------------------------------

    def __copy__(self) -> Registry:
        """Itself: what is registered is the process's, and a copied model asks the same registry."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Registry:
        """Itself, as `copy.copy`."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by names: elsewhere it loads what is installed there, and brings what no distribution installs."""
        loaded = [report.key for report in self._reports if report.distribution != UNPACKAGED]
        blocked = [report.key for report in self._reports if report.status == "blocked"]
        return _restored, (frozenset(loaded) - frozenset(blocked), self.sendable())

    # -- versions --------------------------------------------------------------------------------------------

    def fingerprint(self) -> list[tuple[str, str]]:
        """(plugin, version) of all that is usable; equal on a driver and its workers, or results do not mix."""
        return sorted((report.key, report.version) for report in self._reports if report.status == "ok")

    def version_of(self, mixer: str) -> str:
        """Distribution version and result version of a mixer, as recorded beside a measurement."""
        return self._version(self._names, "mixer", mixer, self.mixer(mixer).version)

    def task_version_of(self, task: str) -> str:
        """Distribution version and result version of a task, as recorded beside a measurement."""
        return self._version(self._tasks, "task", task, self.task(task).version)

    def evaluator_version_of(self, evaluator: str) -> str:
        """Distribution version and result version of an evaluator, as recorded beside a measurement."""
        return self._version(self._evaluators, "evaluator", evaluator, self.evaluator(evaluator).version)

    def _version(self, table: dict[str, list[_Claim]], kind: str, name: str, revision: int) -> str:
        self._owned(table, kind, name)
        owner = table[name][0].owner
        return f"{owner.distribution} {owner.version} r{revision}"

    def _owned(self, table: dict[str, list[_Claim]], kind: str, name: str) -> Any:
        claims = table.get(name)
        if claims is None:
            raise UnknownNameError(
                f'unknown {kind} "{name}"{nearest(name, table)}: known are {listing(table)}{self._failed()}'
            )
        if len(claims) > 1:
            raise ConflictError(_conflict_text(name, claims))
        return claims[0].value

    def _failed(self) -> str:
        failed = [report.name for report in self._reports if report.status == "failed"]
        return f'; plugins that failed to load: {listing(failed)} (see "archsearch plugins")' if failed else ""


def _hooks_of(plugin: Any) -> Any:
    """The hooks of what was added: its own, or those that register it alone."""
    if isinstance(plugin, MixerPlugin):
        return _SingleMixer(plugin)
    return _SingleEvaluator(plugin) if isinstance(plugin, Evaluator) else plugin


class _SingleEvaluator:
    """Hooks of an evaluator that is registered by itself."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator

    @hookspecs.hookimpl
    def register_metrics(self, register: Any) -> None:
        register(self._evaluator)


class _SingleMixer:
    """Hooks of a mixer that is registered by itself."""

    def __init__(self, mixer: MixerPlugin[Any]) -> None:
        self._mixer = mixer

    @hookspecs.hookimpl
    def register_mixers(self, register: Any) -> None:
        register(self._mixer)


def load_registry(extra: Iterable[Any] = (), *, environ: Mapping[str, str] | None = None) -> Registry:
    """A registry of every installed plugin, loaded one by one in sorted order, then of `extra` ones.

    ``ARCHSEARCH_BLOCK_PLUGINS`` names plugins that are never imported, ``ARCHSEARCH_LOAD_PLUGINS`` the only ones
    that are; both are separated by commas and hold entry-point names, or ``distribution/name``.
    """
    environ = os.environ if environ is None else environ
    blocked, allowed = _names(environ.get(BLOCK_VARIABLE)), _names(environ.get(LOAD_VARIABLE))
    registry = Registry()
    for entry in _sorted_entry_points():
        spellings = {entry.name, f"{entry.dist.name if entry.dist else 'unknown'}/{entry.name}"}
        if spellings & blocked:
            registry.block(entry, f"named in {BLOCK_VARIABLE}")
        elif allowed and not spellings & allowed:
            registry.block(entry, f"not named in {LOAD_VARIABLE}")
        else:
            registry.add_entry_point(entry)
    registry.settle()
    for plugin in extra:
        registry.add(plugin)
    return registry


def _restored(loaded: frozenset[str], sent: Iterable[Unpackaged]) -> Registry:
    """A registry that was pickled: of the same entry points, as far as they are installed here."""
    registry = Registry()
    for entry in _sorted_entry_points():
        if f"{entry.dist.name if entry.dist else 'unknown'}/{entry.name}" in loaded:
            registry.add_entry_point(entry)
        else:
            registry.block(entry, "not loaded where the registry was copied from")
    registry.settle()
    for plugin in sent:
        registry.add(plugin.plugin, name=plugin.name, source=plugin.sources)
    return registry


def _sorted_entry_points() -> list[EntryPoint]:
    found = {
        (entry.dist.name if entry.dist else "", entry.name, entry.value): entry for entry in entry_points(group=GROUP)
    }
    return [found[key] for key in sorted(found)]


def _names(value: str | None) -> set[str]:
    return {part.strip() for part in (value or "").split(",") if part.strip()}


def _parts_of(report: PluginReport) -> list[str]:
    named = {"mixer": report.mixers, "task": report.tasks, "evaluator": report.evaluators}
    return [f"{kind}:{name}" for kind, names in named.items() for name in names]


def _describe(error: BaseException) -> str:
    if isinstance(error, ArchsearchError):
        return str(error)
    where = error.__traceback__
    while where and where.tb_next:
        where = where.tb_next
    place = f" ({where.tb_frame.f_code.co_filename}:{where.tb_lineno})" if where else ""
    return f"{type(error).__name__}: {said(error)}{place}"


def _conflict_text(name: str, claims: list[_Claim]) -> str:
    owners = " and ".join(f"{claim.owner.name} ({claim.owner.distribution} {claim.owner.version})" for claim in claims)
    return f'"{name}" is claimed by {owners}, so it belongs to neither: uninstall one, or name one in {BLOCK_VARIABLE}'
