"""The law of what needs no torch: importing a plugin, and its costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from typing import Any

from archsearch.layer import holds_layers
from archsearch.testing.case import Case
from archsearch.testing.laws.law import LawBroken, NothingToTry, law
from archsearch.testing.torch_free import CHILD

TIMEOUT_S = 300


@law(
    "Importing the plugin and costing it loads no torch.",
    cause="an import of torch, of the layer or of archsearch.model beside the plugin's class: put it inside build()",
    runs_layer=False,
    once=True,
)
def import_and_costs_need_no_torch(case: Case) -> None:
    """The plugin's class, loaded by its module or its file in a process of its own, where it can be."""
    owner = type(case.plugin)
    if CHILD in os.environ:
        raise NothingToTry("the plugin is costed in a process of its own already")
    if "<locals>" in owner.__qualname__:
        raise NothingToTry(f"{owner.__qualname__} is a class inside of a function: no other process can load it")
    found = _costed_alone(_request(case, owner))
    if found["outcome"] == "not loaded":
        raise NothingToTry(f"{owner.__qualname__} cannot be loaded in another process: {found['text']}")
    if found["outcome"] == "not costed":
        raise LawBroken(f"in a process of its own the costs of {owner.__qualname__} raise {found['text']}")
    if found["torch"] and (found["tests"] or owner.__module__ == "__main__"):
        raise NothingToTry(f"{owner.__qualname__} stands in a script or among tests, which load torch themselves")
    if found["torch"]:
        raise LawBroken(f"importing and costing {owner.__qualname__} loads torch")


def _request(case: Case, owner: type) -> dict[str, Any]:
    """What the other process is told, as JSON."""
    tried = dict.fromkeys([case.options, *case.siblings])
    module = sys.modules.get(owner.__module__)
    return {
        "module": owner.__module__,
        "file": getattr(module, "__file__", None),
        "name": owner.__qualname__,
        "values": [options.model_dump(mode="json") for options in tried],
        "shape": asdict(case.shape),
        "layer": {"index": case.layer.index, "depth": case.layer.depth},
        "resolver": holds_layers(case.plugin.options) or any(case.plugin.parts(options) for options in tried),
    }


def _costed_alone(request: dict[str, Any]) -> dict[str, Any]:
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), CHILD: "1"}
    command = [sys.executable, "-m", "archsearch.testing.torch_free"]
    try:
        done = subprocess.run(
            command, input=json.dumps(request), env=environ, capture_output=True, text=True, timeout=TIMEOUT_S
        )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"outcome": "not loaded", "text": f"it took longer than {TIMEOUT_S} s"}
    except (ValueError, IndexError):  # what the file printed, or how it ended, is all there is
        return {"outcome": "not loaded", "text": " ".join(done.stderr.split())[-200:]}
    return found


LAWS = (import_and_costs_need_no_torch,)
