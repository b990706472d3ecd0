"""What may run code as it is read: every call that could is named here, with the reason why it may."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache

from deploy_files import ROOT

MAY_UNPICKLE = {
    ("archsearch/search/actor.py", "cloudpickle.loads"): "plugins that the driver of this machine sent",
    ("archsearch/search/workers.py", "cloudpickle.loads"): "what a worker raised, from a folder of the driver's own",
}
UNPICKLERS = {"pickle", "cloudpickle", "_pickle", "dill", "joblib", "marshal", "shelve"}


@cache
def calls() -> list[tuple[str, str, ast.Call]]:
    """Every call in what is shipped, by the dotted name that is called."""
    return list(walked())


def walked() -> Iterator[tuple[str, str, ast.Call]]:
    for folder in ("archsearch", "dashboard", "plugins"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    yield str(path.relative_to(ROOT)), ast.unparse(node.func), node


def keyword(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(one.value) for one in call.keywords if one.arg == name), None)


def test_only_what_is_named_unpickles() -> None:
    found = {
        (path, name)
        for path, name, _ in calls()
        if name.split(".")[0] in UNPICKLERS and name.split(".")[-1] in ("load", "loads", "Unpickler", "open")
    }
    assert found == set(MAY_UNPICKLE)


def test_torch_reads_weights_only() -> None:
    loads = [(path, call) for path, name, call in calls() if name == "torch.load"]
    assert loads
    assert [path for path, call in loads if keyword(call, "weights_only") != "True"] == []


def test_arrays_are_read_without_pickles() -> None:
    loads = [(path, call) for path, name, call in calls() if name in ("np.load", "numpy.load")]
    assert [path for path, call in loads if keyword(call, "allow_pickle") == "True"] == []


def test_nothing_is_evaluated_and_no_yaml_is_read() -> None:
    found = [(path, name) for path, name, _ in calls() if name in ("eval", "exec") or name.startswith("yaml.")]
    assert found == []
