"""The digest of a source changes with what computes a result, and with nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from archsearch import MixerPlugin
from archsearch.registry import Registry, load_registry
from archsearch.source import LEFT_OUT, Sources, core_digest, core_modules
from archsearch.source.closure import CORE, Closure, left_out
from archsearch.source.modules import Modules, read
from archsearch.source.owners import owners_of
from archsearch.testing.toy import ToyPlugin

PLUGIN = """
from archsearch import Flops, MixerOptions, MixerPlugin, Traffic
from .numbers import SCALE

class Options(MixerOptions):
    width: int = 1

class Plugin(MixerPlugin[Options]):
    name, family, summary, options = "mine", "other", "a stand-in", Options
    def params(self, options, shape, layer): return 0
    def flops(self, options, shape, layer, *, phase, context): return Flops()
    def traffic(self, options, shape, layer, *, context): return Traffic()
    def state(self, options, shape, layer): return ()
    def build(self, options, shape, layer):
        from .layer import Layer
        return Layer()
    def bench_ops(self):
        from . import bench
        return bench.ops()
"""
PACKAGE = {
    "mine/__init__.py": PLUGIN,
    "mine/numbers.py": "SCALE = 2\n",
    "mine/layer.py": "import importlib\nfrom sibling import helper\nimport loose_helper\n"
    "class Layer:\n    def forward(self, x):\n        return importlib.import_module('mine.deep.kernel').run(x)\n",
    "mine/deep/__init__.py": "DEEP = 1\n",
    "mine/deep/kernel.py": "def run(x):\n    return x\n",
    "mine/bench.py": "def ops():\n    return ()\n",
    "mine/unused.py": "X = 1\n",
    "sibling/__init__.py": "",
    "sibling/helper.py": "def help(x):\n    '''A docstring.'''\n    return x + 1\n",
    "loose_helper.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import mine.unused\nY = 1\n",
    "mine_task.py": "from archsearch.tasks import Task, TaskOptions\nfrom mine_words import WORDS\n"
    "class MyTask(Task):\n    name, settings, default_setting = 'mine-task', {'a': {}}, 'a'\n"
    "    options_type = TaskOptions\n",
    "mine_words.py": "WORDS = ('a',)\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Mapping[str, str]], Path]]:
    """Writes files into a folder of `sys.path`, and forgets what was imported of them."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(files: Mapping[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        forget()
        return tmp_path

    def forget() -> None:
        ours = {name.partition("/")[0].removesuffix(".py") for name in PACKAGE}
        for name in [name for name in sys.modules if name.partition(".")[0] in ours]:
            del sys.modules[name]

    yield write
    forget()


def digest_of_mine() -> str:
    """The digest of the package's plugin, as a registry of its own tells it."""
    import importlib

    importlib.invalidate_caches()
    return Sources().of_plugin(importlib.import_module("mine").Plugin())


EDITS = [
    pytest.param("mine/numbers.py", "SCALE = 3\n", True, id="helper"),
    pytest.param("mine/layer.py", PACKAGE["mine/layer.py"] + "Z = 1\n", True, id="imported-in-build"),
    pytest.param("mine/deep/kernel.py", "def run(x):\n    return -x\n", True, id="import-module"),
    pytest.param("mine/deep/__init__.py", "DEEP = 2\n", True, id="package-on-the-way"),
    pytest.param("sibling/helper.py", "def help(x):\n    return x + 2\n", True, id="sibling-package"),
    pytest.param("loose_helper.py", "Y = 2\n", True, id="loose-module"),
    pytest.param("sibling/helper.py", "# why\ndef help( x ):\n    return (x+1)\n", False, id="comment-and-format"),
    pytest.param("sibling/helper.py", "'''Doc.'''\n\n" + PACKAGE["sibling/helper.py"], False, id="docstring"),
    pytest.param("mine/unused.py", "X = 2\n", False, id="only-for-type-checking"),
    pytest.param("mine/bench.py", "def ops():\n    return [1]\n", False, id="only-for-benchmarks"),
    pytest.param("mine_task.py", "", False, id="not-reached"),
]


@pytest.mark.parametrize(("name", "text", "changes"), EDITS)
def test_a_plugin_is_what_its_modules_compute(
    package: Callable[..., Path], name: str, text: str, changes: bool
) -> None:
    package(PACKAGE)
    before = digest_of_mine()
    package({name: text})
    assert len(before) == 16
    assert (digest_of_mine() != before) is changes


def test_a_compiled_module_counts_by_its_bytes(package: Callable[..., Path]) -> None:
    from importlib.machinery import EXTENSION_SUFFIXES

    folder = package({**PACKAGE, "mine/layer.py": "from mine import fast\n"})
    compiled = folder / f"mine/fast{EXTENSION_SUFFIXES[0]}"
    compiled.write_bytes(b"\x7fELF one")
    before = digest_of_mine()
    compiled.write_bytes(b"\x7fELF two, longer")
    package({})
    assert digest_of_mine() != before


def test_another_distribution_counts_by_its_version(package: Callable[..., Path]) -> None:
    def install(version: str) -> Mapping[str, str]:
        info = "helplib-1.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: helplib\nVersion: {version}\n"
        return {f"{info}/METADATA": metadata, f"{info}/top_level.txt": "helplib\n"}

    package({**PACKAGE, "mine/numbers.py": "import helplib\nSCALE = 2\n", "helplib.py": "A = 1\n", **install("1.0")})
    before = digest_of_mine()
    package({"helplib.py": "A = 2\n"})
    assert digest_of_mine() == before
    package(install("1.1"))
    assert digest_of_mine() != before


def test_owners_are_those_of_today(package: Callable[..., Path]) -> None:
    from importlib.metadata import packages_distributions

    folder = package({"helplib/__init__.py": ""})
    assert owners_of("helplib") == frozenset()
    package({"a-1.dist-info/METADATA": "Name: a\nVersion: 1\n", "a-1.dist-info/RECORD": "helplib/__init__.py,,\n"})
    package({"b-1.dist-info/METADATA": "Name: b\nVersion: 1\n", "b-1.dist-info/top_level.txt": "other\nhelplib\n"})
    assert owners_of("helplib") == {"a", "b"}
    shutil.rmtree(folder / "a-1.dist-info")
    assert owners_of("helplib") == {"b"}
    listed = packages_distributions()
    assert {top: owners_of(top) for top in listed} == {top: set(names) for top, names in listed.items()}


def test_a_task_is_what_its_module_reaches(package: Callable[..., Path]) -> None:
    import importlib

    package(PACKAGE)
    importlib.invalidate_caches()
    task = importlib.import_module("mine_task").MyTask
    before = Sources().of_task(task)
    package({"mine_words.py": "WORDS = ('a', 'b')\n"})
    assert Sources().of_task(task) != before


NOTEBOOK = """
import functools
from typing import Annotated, Literal
from pydantic import AfterValidator, Field, field_validator
from archsearch import Flops, MixerOptions, MixerPlugin, Traffic, Tunable
SCALE = {scale}
@functools.cache
def cached(x):
    return {cached}
def helper(x):
    return cached(x) * SCALE
helper.attribute = {attribute}
class Options(MixerOptions):
    width: {annotation} = {width}
    other: int | None = None
    @field_validator("{checked}", mode="{mode}")
    @classmethod
    def check(cls, value): return value
def outer(bound):
    class Plugin(MixerPlugin[Options]):
        name, family, summary, options = "mine", "other", "a stand-in", Options
        def __init__(self): self.gate = {gate}
        def params(self, options, shape, layer): return {params}
        def flops(self, options, shape, layer, *, phase, context): return Flops()
        def traffic(self, options, shape, layer, *, context): return Traffic()
        def state(self, options, shape, layer): return ()
        def build(self, options, shape, layer):
            {build}
            return helper(bound)
    return Plugin
Plugin = outer({bound})
"""
PLAIN = {
    "cached": "x",
    "attribute": "1",
    "annotation": "int",
    "checked": "width",
    "mode": "after",
    "scale": "2",
    "width": "1",
    "gate": "None",
    "params": "0",
    "build": "'''Doc.'''",
    "bound": "1",
}


def notebook(**changed: str) -> Any:
    """A plugin of a class that was made by running text, as in a notebook, whose text is lost."""
    space: dict[str, Any] = {"__name__": "__main__"}
    text = NOTEBOOK.format(**{**PLAIN, **changed})
    exec(compile(text, "<cell>", "exec", dont_inherit=True), space)
    return space["Plugin"]()


@pytest.mark.parametrize(
    "changed",
    [
        {"scale": "3"},
        {"width": "2"},
        {"cached": "-x"},
        {"attribute": "2"},
        {"annotation": "float"},
        {"annotation": "Literal[1, 2]"},
        {"annotation": "Annotated[int, Field(ge=1)]"},
        {"annotation": "Annotated[int, Tunable(1, 2)]"},
        {"annotation": "Annotated[int, AfterValidator(lambda v: v + 0)]"},
        {"checked": "other"},
        {"mode": "before"},
        {"bound": "__import__('torch').float32"},
        {"bound": "__import__('torch').relu"},
        {"bound": "__import__('torch').nn.functional.silu"},
        {"bound": "__import__('torch').nn.Linear"},
        {"bound": "__import__('numpy').arange(3)"},
        {"bound": "functools.partial(helper, 2)"},
        {"gate": "lambda x: x"},
        {"params": "1"},
        {"build": "layer = shape"},
        {"build": "import wave"},
        {"bound": "(1, 2)"},
        {"bound": "{'a': [1.5]}"},
        {"bound": "MixerOptions"},
    ],
    ids=str,
)
def test_a_class_of_a_notebook_is_what_it_does_and_names(changed: dict[str, str]) -> None:
    digests = {Sources().of_plugin(notebook(**PLAIN)), Sources().of_plugin(notebook(**changed))}
    assert len(digests) == 2
    assert all(len(digest) == 16 for digest in digests)


def test_two_lambdas_of_one_line_differ() -> None:
    pair = "(lambda x: x, lambda x: -x)"
    found = {Sources().of_plugin(notebook(gate=f"{pair}[{index}]")) for index in (0, 1, 1)}
    assert len(found) == 2


def test_comments_and_docstrings_of_a_notebook_do_not_count() -> None:
    told = notebook(build="'''Another text.'''  # and a comment")
    assert Sources().of_plugin(told) == Sources().of_plugin(notebook())


@pytest.mark.parametrize("bound", ["(i for i in [1])", "{object()}", "__import__('threading').Lock()"])
def test_what_cannot_be_told_is_never_used_again(bound: str) -> None:
    first, second = notebook(bound=bound), notebook(bound=bound)
    digests = [Sources().of_plugin(plugin) for plugin in (first, first, second)]
    assert digests[0].startswith("unknown-")
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("bound", ["iter([1])", "open", "type('T', (), {'a': 1})()", "__import__('re').compile('a')"])
def test_what_can_be_made_again_is_told_by_that(bound: str) -> None:
    digests = {Sources().of_plugin(notebook(bound=bound)) for _ in range(2)}
    assert len(digests) == 1
    assert not digests.pop().startswith("unknown-")


class _Scaled(ToyPlugin):
    def __init__(self, scale: object) -> None:
        self.scale = scale


def test_attributes_of_a_plugin_count() -> None:
    digests = {Sources().of_plugin(_Scaled(scale)) for scale in (1, 2, 1.0, "1", (1,), [1], None, True)}
    assert len(digests) == 8
    assert Sources().of_plugin(_Scaled({"a": 1})) == Sources().of_plugin(_Scaled({"a": 1}))


def test_a_class_in_a_function_is_told_by_its_closure() -> None:
    def made(factor: int) -> MixerPlugin[Any]:
        class Local(ToyPlugin):
            def params(self, options: Any, shape: Any, layer: Any) -> int:
                return factor

        return Local()

    assert Sources().of_plugin(made(1)) == Sources().of_plugin(made(1)) != Sources().of_plugin(made(2))


SHOWN = """
from archsearch.registry import load_registry
from archsearch.source import Sources, core_digest
import sys
sys.path.insert(0, {folder!r})
import mine
from archsearch.testing.toy import ToyPlugin
registry = load_registry(environ={{"ARCHSEARCH_LOAD_PLUGINS": "full,sliding,linear,moba,nsa,tasks"}})
space = {{"__name__": "__main__"}}
exec({notebook!r}, space)
print(core_digest(), *(registry.source_of(mixer.name) for mixer in registry.mixers()),
      *(registry.task_source_of(task.name) for task in registry.tasks()), Sources().of_plugin(mine.Plugin()),
      Sources().of_plugin(space["Plugin"]()))
"""


def test_digests_are_the_same_in_every_process(package: Callable[..., Path]) -> None:
    folder = package(PACKAGE)
    text = SHOWN.format(folder=str(folder), notebook=NOTEBOOK.format(**{**PLAIN, "bound": "frozenset('abcdef')"}))
    found = {
        subprocess.run(
            [sys.executable, "-c", text],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
    digests = found.pop().split()
    assert len(set(digests)) == len(digests) == 16
    assert {len(digest) for digest in digests} == {16}


def test_built_in_parts_reach_what_they_are_made_of(registry: Registry) -> None:
    closure = Closure(Modules(), covered=core_modules())
    closure.add("archsearch_plugins.linear", frozenset({"LinearPlugin"}))
    reached = set(closure.digests)
    assert {
        f"archsearch_plugins.linear.{name}" for name in ("layer", "chunk.form", "triton.launch.sequences", "gates")
    } <= reached
    assert {"archsearch_plugins.linear.triton.scores", "archsearch.ops.gated_norm"} <= reached
    assert not {"archsearch_plugins.linear.bench", "archsearch_plugins.linear.triton.builds"} & reached
    assert not reached & core_modules()


@pytest.mark.parametrize(
    "name",
    [
        "model.lm",
        "model.mixer",
        "ops.short_conv",
        "training.fit",
        "training.evaluation",
        "recipe",
        "tasks.base",
        "tasks.splits",
        "arch",
        "mixer",
        "kernels.config",
        "kernels.device",
    ],
)
def test_the_core_covers_what_trains(name: str) -> None:
    assert f"archsearch.{name}" in core_modules()


def test_the_core_leaves_out_only_what_is_listed() -> None:
    modules, seen, waiting = Modules(), set(), list(CORE)
    while waiting:
        name = waiting.pop()
        if name in seen or name.partition(".")[0] != "archsearch":
            continue
        found = modules.find(name)
        if found is None:
            continue
        seen.add(name)
        if not left_out(name):
            waiting += [*read(found).imports, name.rpartition(".")[0]]
    assert {name for name in seen if not left_out(name)} == core_modules()
    assert {name for name in seen if left_out(name)} == {
        "archsearch",
        "archsearch.costs",
        "archsearch.errors",
        "archsearch.evidence.kept",
        "archsearch.evidence.proofs",
        "archsearch.exercise",
        "archsearch.figures",
        "archsearch.kernels.build",
        "archsearch.kernels.forms",
        "archsearch.measurement",
        "archsearch.notation",
        "archsearch.registry",
        "archsearch.tasks.resolve",
        "archsearch.training",
        "archsearch.training.blame",
        "archsearch.training.forms",
        "archsearch.training.key",
        "archsearch.training.memory",
        "archsearch.training.promises",
    }
    assert all(modules.find(name) is not None for name in LEFT_OUT), "a name that is left out is no module"


def test_the_core_changes_with_its_modules(tmp_path: Path) -> None:
    ours = Path(__file__).parents[2] / "archsearch"
    shutil.copytree(ours, tmp_path / "archsearch", ignore=shutil.ignore_patterns("__pycache__"))

    def digest() -> str:
        text = "from archsearch.source import core_digest; print(core_digest())"
        done = subprocess.run(
            [sys.executable, "-c", text],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
        )
        return done.stdout.strip()

    names = ("model/lm.py", "training/fit.py", "recipe.py", "ops/triton/conv.py")
    changed = [tmp_path / "archsearch" / name for name in names]
    for path in changed:
        path.write_text(path.read_text() + "\n# a comment\n")
    seen = [digest()]
    assert seen == [core_digest()]
    for path in changed:
        path.write_text(path.read_text() + "\n_CHANGED = 1\n")
        seen.append(digest())
    assert len(set(seen)) == len(seen)


def test_parts_name_the_core_and_are_sorted(registry: Registry) -> None:
    parts = registry.parts(["linear", "full", "linear"], ["mqar"])
    assert [part.name for part in parts] == ["core", "mixer:full", "mixer:linear", "task:mqar"]
    assert parts[2].version == registry.version_of("linear")
    assert parts[2].digest == registry.source_of("linear")
    assert parts[0].digest == core_digest()


def test_a_worker_takes_the_digest_of_its_driver() -> None:
    driver, worker = (load_registry(environ={"ARCHSEARCH_LOAD_PLUGINS": "tasks"}) for _ in range(2))
    driver.add(notebook())
    (sent,) = driver.sendable()
    worker.add(sent.plugin, name=sent.name, source=sent.sources)
    assert worker.source_of("mine") == driver.source_of("mine") == sent.sources["mixer:mine"]
    third = Registry()
    third.add(notebook(scale="9"), source="0123456789abcdef")
    assert third.source_of("mine") == "0123456789abcdef"


def test_an_import_computes_no_digest() -> None:
    text = "import archsearch.cli; from archsearch.source.closure import _core; print(_core.cache_info().currsize)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


def test_a_module_that_was_edited_after_it_was_loaded_has_no_digest(
    package: Callable[[Mapping[str, str]], Path], caplog: pytest.LogCaptureFixture
) -> None:
    import importlib

    folder = package(PACKAGE)
    plugin = importlib.import_module("mine").Plugin()
    first = Sources().of_plugin(plugin)

    (folder / "mine/numbers.py").write_text("SCALE = 345\n")

    assert Sources().of_plugin(plugin).startswith("unknown-")
    assert "mine.numbers changed since this process loaded it" in caplog.text
    importlib.reload(sys.modules["mine.numbers"])
    again = Sources().of_plugin(plugin)
    assert not again.startswith("unknown-")
    assert again != first


def test_a_module_that_is_not_loaded_may_be_edited(package: Callable[[Mapping[str, str]], Path]) -> None:
    import importlib

    folder = package(PACKAGE)
    plugin = importlib.import_module("mine").Plugin()
    first = Sources().of_plugin(plugin)

    (folder / "mine/deep/kernel.py").write_text("def run(x):\n    return 345 * x\n")

    again = Sources().of_plugin(plugin)
    assert not again.startswith("unknown-")
    assert again != first
