"""Costs of a plugin in a process of its own, to see whether they load torch: run as a module, JSON in and out."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

CHILD = "ARCHSEARCH_COSTED_ALONE"
"""Set in the process's environment: a script that is loaded here must not begin anew."""


def main() -> None:
    """Reads what to load and cost from stdin (see `archsearch.testing.laws.torch_free`), and prints how it came out:
    ``{"outcome": "costed" | "not loaded" | "not costed", "text": ..., "torch": ..., "tests": ...}``, where ``tests`` is
    whether what was loaded is test code itself."""
    request = json.loads(sys.stdin.read())
    try:
        plugin, resolver = _loaded(request)
    except (Exception, SystemExit) as error:  # the plugin boundary: anything may come out of foreign code
        _say("not loaded", error)
        return
    try:
        _cost(plugin, resolver, request)
    except (Exception, SystemExit) as error:  # the plugin boundary: anything may come out of foreign code
        _say("not costed", error)
        return
    _say("costed", None)


def _say(outcome: str, error: BaseException | None) -> None:
    text = "" if error is None else f"{type(error).__name__}: {error}"
    tests = "pytest" in sys.modules or "archsearch.testing.case" in sys.modules
    print(json.dumps({"outcome": outcome, "text": text, "torch": "torch" in sys.modules, "tests": tests}))


def _loaded(request: dict[str, Any]) -> tuple[Any, Any]:
    plugin = getattr(_module(request["module"], request["file"]), request["name"])()
    if not request["resolver"]:
        return plugin, None
    from archsearch.registry import load_registry

    registry = load_registry()
    if plugin.name not in [mixer.name for mixer in registry.mixers()]:
        registry.add(plugin)
    return plugin, registry


def _module(name: str, file: str | None) -> Any:
    if name != "__main__":
        try:
            return import_module(name)
        except ImportError:
            if file is None:
                raise
    spec = spec_from_file_location("costed_alone" if name == "__main__" else name, file or "")
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be loaded")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _cost(plugin: Any, resolver: Any, request: dict[str, Any]) -> None:
    from archsearch.figures import Figures
    from archsearch.layer import LayerInfo, LayerSpec
    from archsearch.shapes import ModelShape

    for values in request["values"]:
        options = plugin.parse_options(values, resolver)
        own = LayerSpec(mixer=plugin.name, options=options)
        layer = LayerInfo(**request["layer"], resolver=resolver, pattern=(own,) * request["layer"]["depth"])
        figures = Figures(plugin, options, ModelShape(**request["shape"]), layer)
        figures.params(), figures.active_params(), figures.state(), figures.traffic(context=100)
        figures.dense_up_to(), figures.refusal()
        figures.flops(phase="train", context=100), figures.flops(phase="prefill", context=100)
        figures.flops(phase="decode", context=100)


if __name__ == "__main__":
    main()
