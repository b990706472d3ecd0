"""Registration: what a plugin must be before the registry takes it, said with the remedy where it is not."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, get_args

from pydantic import BaseModel, ValidationError

from archsearch.errors import OptionsError, PluginError, foreign_code, listing, nearest, said
from archsearch.evaluator import Evaluator, Metric
from archsearch.hookspecs import HOOKS, PROJECT
from archsearch.layer import Resolver
from archsearch.mixer import API_VERSION, Family, Law, MixerPlugin
from archsearch.options import MixerOptions
from archsearch.systems import System

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*\Z")
_REQUIRED = ("name", "family", "summary", "options")
_Bind: TypeAlias = Callable[[inspect.Signature], Any]
_CALLS: Mapping[str, _Bind] = {
    "params": lambda call: call.bind("options", "shape", "layer"),
    "active_params": lambda call: call.bind("options", "shape", "layer"),
    "flops": lambda call: call.bind("options", "shape", "layer", phase="train", context=1),
    "traffic": lambda call: call.bind("options", "shape", "layer", context=1),
    "state": lambda call: call.bind("options", "shape", "layer"),
    "build": lambda call: call.bind("options", "shape", "layer"),
    "check": lambda call: call.bind("options", "shape", "layer"),
    "parts": lambda call: call.bind("options"),
    "values": lambda call: call.bind("options", "shape"),
    "part_shape": lambda call: call.bind("options", "shape", 0),
    "dense_up_to": lambda call: call.bind("options", "layer"),
    "parse_options": lambda call: call.bind({}, None),
}
"""How the core calls the methods of a plugin."""

_CALLS_1: Mapping[str, _Bind] = {
    **{name: _CALLS[name] for name in ("params", "flops", "traffic", "state", "build")},
    "dense_up_to": lambda call: call.bind("options"),
    "parse_options": lambda call: call.bind({}),
}
"""How `archsearch.version1` calls those of a plugin of version 1."""

_NOW_HOOKS = {"bench_ops": "register_ops", "op_names": "register_ops", "kernels": "register_kernels"}
"""What version 1 had in the plugin, and the hook that says it now."""

_TASK_ATTRIBUTES = ("name", "version", "settings", "default_setting", "options_type", "metric", "direction", "draw")


def check_hooks(plugin: Any) -> None:
    """Raises `PluginError` for an object without a hook, and for a hook that is misspelt or not marked."""
    if isinstance(plugin, type):
        raise PluginError(f"{plugin.__name__} is a class: add an instance of it, or a module with hooks")
    mark = f"{PROJECT}_impl"
    members = {name: inspect.getattr_static(plugin, name, None) for name in dir(plugin)}
    marked = [name for name, member in members.items() if mark in getattr(member, "__dict__", {})]
    for name in marked:
        if name not in HOOKS:
            raise PluginError(f'has an unknown hook "{name}"{nearest(name, HOOKS)}: hooks are {listing(HOOKS)}')
    for name in HOOKS:
        if callable(members.get(name)) and name not in marked:
            raise PluginError(f"{name} is not marked as a hook: put @hookimpl (from archsearch import hookimpl) on it")
    for name in marked:
        _check_hook(name, getattr(plugin, name), getattr(plugin, name).__dict__[mark])
    if not marked:
        raise PluginError(f"has no hook: define {' or '.join(HOOKS)} and mark it with @hookimpl")


def _check_hook(name: str, hook: Any, options: Mapping[str, Any]) -> None:
    """Raises `PluginError` for a hook whose body would never run, or that has nothing to register with."""
    kinds = (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    if any(kind(hook) for kind in kinds) or options.get("wrapper") or options.get("hookwrapper"):
        raise PluginError(
            f"{name} is a generator, a coroutine or a wrapper: write a plain function that calls register"
        )
    if "register" not in inspect.signature(hook).parameters:
        raise PluginError(f"{name}{inspect.signature(hook)} takes no register: write {name}(register)")


def check_mixer(mixer: object) -> None:
    """Raises `PluginError`, or what its options raise, for a mixer that breaks the contract."""
    if isinstance(mixer, type) and issubclass(mixer, MixerPlugin):
        raise PluginError(f"register_mixers registered the class {mixer.__name__}: register {mixer.__name__}()")
    if not isinstance(mixer, MixerPlugin):
        raise PluginError(f"register_mixers registered {mixer!r}: it must be an instance of MixerPlugin")
    for attribute in _REQUIRED:
        if not hasattr(mixer, attribute):
            raise PluginError(f"{type(mixer).__name__} lacks the attribute {attribute}: state it in the class")
    _check_name(mixer.name, "mixer")
    what = f'mixer "{mixer.name}"'
    if not _whole(mixer.api_version) or not 1 <= mixer.api_version <= API_VERSION:
        raise PluginError(
            f"{what} speaks contract version {mixer.api_version!r}, this core 1 to {API_VERSION}: "
            "install a release of the plugin for this version"
        )
    _check_said(mixer, what)
    _check_calls(mixer, what)
    _check_options_type(mixer.options, MixerOptions, what, "options")


def _check_said(mixer: MixerPlugin[Any], what: str) -> None:
    """Attributes that say something: family, summary, version, laws, presets, names of ops."""
    families = get_args(Family)
    if mixer.family not in families:
        raise PluginError(
            f"{what}: family = {mixer.family!r}{_near(mixer.family, families)}: one of {listing(families)}"
        )
    _check(isinstance(mixer.summary, str), what, "summary", mixer.summary, "write one line of text")
    _check(_whole(mixer.version), what, "version", mixer.version, "write a whole number")
    laws = _mapping(mixer.broken_laws, what, "broken_laws")
    known = get_args(Law)
    for law, reason in laws.items():
        if law not in known:
            raise PluginError(f"{what}: broken_laws names {law!r}{_near(law, known)}: laws are {listing(known)}")
        _check(isinstance(reason, str), what, f'broken_laws["{law}"]', reason, "write the reason as text")
    for preset, values in _mapping(mixer.presets, what, "presets").items():
        _check_name(preset, "mixer")
        _mapping(values, what, f'presets["{preset}"]')
    _check_systems(mixer, what)
    for name in ("short_conv", "reads_pattern"):
        _check(isinstance(getattr(mixer, name), bool), what, name, getattr(mixer, name), "True or False")
    _check_measuring(mixer, what)


def _check_systems(mixer: MixerPlugin[Any], what: str) -> None:
    """Systems are told of names that there are, each in a line."""
    names = (mixer.name, *mixer.presets)
    for name, system in _mapping(mixer.systems, what, "systems").items():
        if name not in names:
            raise PluginError(
                f"{what}: systems names {name!r}{_near(name, names)}: name the mixer or a preset: {listing(names)}"
            )
        _check(isinstance(system, System), what, f'systems["{name}"]', system, "write System(rule=..., source=...)")
        for field in ("rule", "source"):
            text = getattr(system, field)
            sound = isinstance(text, str) and bool(text.strip()) and len(text.splitlines()) == 1
            _check(sound, what, f'systems["{name}"].{field}', text, "write one line of text")


def _check_measuring(mixer: MixerPlugin[Any], what: str) -> None:
    """What version 1 had in the plugin, and the hooks say now."""
    if mixer.api_version > 1:
        for name, hook in _NOW_HOOKS.items():
            if hasattr(mixer, name):
                raise PluginError(f"{what}: {name} is said by the hook {hook} since version 2: move it there")
        return
    names = getattr(mixer, "op_names", ())
    sound = isinstance(names, tuple) and all(isinstance(name, str) for name in names)
    _check(sound, what, "op_names", names, "write a tuple of names")


def _check_calls(mixer: MixerPlugin[Any], what: str) -> None:
    first = mixer.api_version == 1
    for name, bind in (_CALLS_1 if first else _CALLS).items():
        method = getattr(mixer, name, None)
        if not callable(method):
            raise PluginError(f"{what}: {name} = {method!r} cannot be called: it is a method of the contract")
        if not first or getattr(method, "__func__", None) is not getattr(MixerPlugin, name):
            _check_call(method, bind, what, name, mixer.api_version)


def _check_call(method: Callable[..., Any], bind: _Bind, what: str, name: str, version: int) -> None:
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):
        return  # written in C, where no signature can be read
    try:
        bind(signature)
    except TypeError as error:
        wanted = ", ".join(list(inspect.signature(getattr(MixerPlugin, name)).parameters)[1:])
        if version == 1 and name in ("dense_up_to", "parse_options"):
            wanted = wanted.partition(",")[0]
        raise PluginError(
            f"{what}: {name}{signature} cannot be called as {name}({wanted}): {error}{_of_version(version)}"
        ) from None


def _of_version(version: int) -> str:
    return "" if version == API_VERSION else f" (a plugin of version 1: say api_version = {API_VERSION} for today's)"


def check_options(mixer: MixerPlugin[Any], resolver: Resolver) -> None:
    """Raises `PluginError`, or what its options raise, for defaults, presets and choices that cannot be used.

    `resolver` knows the mixers that options may hold.
    """
    what = f'mixer "{mixer.name}"'
    _check_values(mixer.parse_options({}, resolver), f"{what}: the default options", resolver)
    for preset, values in mixer.presets.items():
        _check_values(mixer.parse_options(values, resolver), f'{what}: the options of the preset "{preset}"', resolver)
    for option, choices in mixer.options.tunables().items():
        _check(bool(choices), what, f"the Tunable of {option}", choices, "name its choices")
        for choice in choices:
            _check_choice(mixer, what, option, choice, resolver)


def _check_choice(mixer: MixerPlugin[Any], what: str, option: str, choice: object, resolver: Resolver) -> None:
    """A choice of the wrong type or beyond the option's limits. What a validator of the author's refuses may be
    allowed beside other options."""
    with foreign_code(what, f"the options' validation of {option} = {choice!r}"):
        try:
            mixer.options.model_validate({option: choice}, context={"resolver": resolver})
        except ValidationError as error:
            for found in error.errors():
                if found["loc"][:1] == (option,) and found["type"] not in ("value_error", "assertion_error"):
                    raise PluginError(
                        f"{what}: the Tunable of {option} offers {choice!r}, which the option refuses "
                        f"({found['msg']}): correct the choice or the limit"
                    ) from None


def _check_options_type(found: object, base: type[BaseModel], what: str, attribute: str) -> None:
    if not isinstance(found, type) or not issubclass(found, base):
        raise PluginError(f"{what}: {attribute} = {found!r}: it must be a subclass of {base.__name__}")
    for key, wanted in (("frozen", True), ("extra", "forbid")):
        if found.model_config.get(key) != wanted:
            raise PluginError(
                f"{what}: {found.__name__} sets {key} = {found.model_config.get(key)!r} in its model_config: "
                f"it must be {wanted!r}, for options are a key; drop that line"
            )


def _check_values(options: BaseModel, what: str, resolver: Resolver | None = None) -> None:
    """Options that are a key: plain data that reads back, and hashable."""
    try:
        plain = options.model_dump(mode="json")
        json.dumps(plain, allow_nan=False)
        back = type(options).model_validate(plain, context={"resolver": resolver})
    except Exception as error:  # the plugin boundary: validators and serializers are foreign code
        raise PluginError(
            f"{what} are no plain data that reads back ({type(error).__name__}: {said(error)}): "
            "use numbers, text, booleans and tuples of them"
        ) from None
    if back != options:
        raise PluginError(f"{what} change when they are written and read: {options!r} becomes {back!r}")
    try:
        hash(options)
    except TypeError as error:
        raise PluginError(f"{what} cannot be hashed ({error}): use a tuple in place of a list or dict") from None


def check_task(task: Any) -> None:
    """Raises `PluginError` for a task class that breaks the contract."""
    missing = [name for name in _TASK_ATTRIBUTES if not hasattr(task, name)]
    is_class = isinstance(task, type)
    if missing or not is_class:
        raise PluginError(
            f"register_tasks registered {task!r}: it must be a subclass of archsearch.tasks.Task"
            + (f"; it lacks {listing(missing)}" if is_class else "")
        )
    _check_name(task.name, "task")
    what = f'task "{task.name}"'
    abstract = getattr(task, "__abstractmethods__", None)
    if abstract:
        raise PluginError(f"{what}: {task.__name__} does not define {listing(abstract)}: write them")
    _check(_whole(task.version), what, "version", task.version, "write a whole number")
    _check(isinstance(task.metric, str) and bool(task.metric), what, "metric", task.metric, "name a metric")
    directions = ("maximize", "minimize")
    _check(task.direction in directions, what, "direction", task.direction, f"one of {listing(directions)}")
    _check_task_options(task, what)
    call = "draw(rng, count, *, split, label)"
    try:
        inspect.signature(task.draw).bind("self", "rng", 1, split="train", label="")
    except TypeError as error:
        raise PluginError(f"{what}: draw{inspect.signature(task.draw)} cannot be called as {call}: {error}") from None


def _check_task_options(task: Any, what: str) -> None:
    _check_options_type(task.options_type, BaseModel, what, "options_type")
    settings = _mapping(task.settings, what, "settings")
    if task.default_setting not in settings:
        raise PluginError(
            f"{what}: default_setting = {task.default_setting!r}{_near(task.default_setting, settings)} is no setting: "
            f"its settings are {listing(settings)}"
        )
    for setting, values in settings.items():
        where = f'{what}: the setting "{setting}"'
        _check_name(setting, "setting")
        with foreign_code(where, "the options' validation"):
            try:
                options = task.options_type.model_validate(dict(_mapping(values, what, f'settings["{setting}"]')))
            except ValidationError as error:
                first = error.errors()[0]
                key = ".".join(map(str, first["loc"]))
                raise OptionsError(f"{where} cannot be used: {key} = {first['input']!r}: {first['msg']}") from None
        _check_values(options, f"{where}: its options")


def check_evaluator(evaluator: Any) -> None:
    """Raises `PluginError` for an evaluator that breaks the contract."""
    if isinstance(evaluator, type) and issubclass(evaluator, Evaluator):
        raise PluginError(
            f"register_metrics registered the class {evaluator.__name__}: register {evaluator.__name__}()"
        )
    if not isinstance(evaluator, Evaluator):
        raise PluginError(
            f"register_metrics registered {evaluator!r}: it must be an instance of archsearch.evaluator.Evaluator"
        )
    for attribute in ("name", "metrics"):
        if not hasattr(evaluator, attribute):
            raise PluginError(f"{type(evaluator).__name__} lacks the attribute {attribute}: state it in the class")
    _check_name(evaluator.name, "evaluator")
    what = f'evaluator "{evaluator.name}"'
    _check(_whole(evaluator.version), what, "version", evaluator.version, "write a whole number")
    metrics = _mapping(evaluator.metrics, what, "metrics")
    _check(bool(metrics), what, "metrics", metrics, "name at least one")
    directions = ("maximize", "minimize")
    for name, metric in metrics.items():
        _check_name(name, "metric")
        _check(isinstance(metric, Metric), what, f'metrics["{name}"]', metric, "write Metric(direction=...)")
        where = f'metrics["{name}"].direction'
        _check(metric.direction in directions, what, where, metric.direction, f"one of {listing(directions)}")
    call = "evaluate(arch, model, task, trained)"
    try:
        inspect.signature(evaluator.evaluate).bind("arch", "model", "task", "trained")
    except TypeError as error:
        signature = inspect.signature(evaluator.evaluate)
        raise PluginError(f"{what}: evaluate{signature} cannot be called as {call}: {error}") from None


def _check(sound: bool, what: str, attribute: str, value: object, remedy: str) -> None:
    if not sound:
        raise PluginError(f"{what}: {attribute} = {value!r}: {remedy}")


def _check_name(name: object, kind: str) -> None:
    if not isinstance(name, str) or not _NAME.match(name):
        shown = f'"{name}"' if isinstance(name, str) else repr(name)
        article = "an" if kind.startswith("e") else "a"
        raise PluginError(f"{shown} cannot be {article} {kind} name: letters, digits, - and _, a letter first")


def _mapping(value: object, what: str, attribute: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise PluginError(f"{what}: {attribute} = {value!r}: write a dict by name")
    return value


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _near(name: object, known: Iterable[str]) -> str:
    return nearest(name, known) if isinstance(name, str) else ""
