"""``archsearch new-plugin``: a package of a mixer, a task or an evaluator of one's own, whose tests pass at once."""

from __future__ import annotations

import re
import tempfile
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Annotated

import typer

from archsearch.cli.output import write
from archsearch.errors import ConflictError, SpecError, UnknownNameError, listing, nearest

if TYPE_CHECKING:
    from archsearch.registry import Registry

KINDS = {
    "recurrent": "a fixed state that each token forgets in part and adds to",
    "cache": "softmax attention over a cache of keys and values",
    "sparse": "softmax attention over two blocks of tokens",
    "composite": "two mixers side by side",
    "task": "a task on which architectures are judged",
    "evaluator": "a metric of a trained model, which a search may ask for",
}
_COMMON, _SUFFIX = "common", ".tmpl"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*\Z")


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("new-plugin")(new_plugin)


def new_plugin(
    name: Annotated[str, typer.Argument(help="Name of the mixer, task or evaluator, and of its package.")],
    kind: Annotated[
        str, typer.Option("--kind", help="recurrent, cache, sparse, composite, task or evaluator.")
    ] = "recurrent",
    into: Annotated[
        Path, typer.Option("--into", metavar="FOLDER", help="Where the package's folder is made.")
    ] = Path(),
) -> None:
    """Writes a package with a plugin to build on: a mixer, task or evaluator that works, its tests, its entry point."""
    from archsearch.registry import load_registry

    if kind not in KINDS:
        raise SpecError(f'--kind "{kind}"{nearest(kind, KINDS)}: one of {listing(KINDS)}')
    _check_name(name, load_registry())
    folder = into / name
    if not into.is_dir():
        raise SpecError(f"--into {into}: there is no such folder: make it")
    if folder.exists():
        raise SpecError(f"{folder} is there already: choose another name, or another folder with --into")
    try:
        _write(folder, _words(name, kind), kind)
    except OSError as error:
        raise SpecError(f"{folder} cannot be written ({error.strerror}): choose another folder with --into") from None
    commands = (f"cd {folder}", "pip install -e .", "pytest", f"archsearch check {name}")
    write("\n".join([f"{folder}: {KINDS[kind]}. Next:", *(f"  {command}" for command in commands), ""]))


def _check_name(name: str, registry: Registry) -> None:
    if not _NAME.match(name):
        raise SpecError(f'"{name}" cannot be the name of a plugin: letters, digits, - and _, a letter first')
    module = _module_of(name)
    if iskeyword(module) or find_spec(module) is not None:
        raise SpecError(f'"{name}" would be the module {module}, which Python has already: choose another name')
    for what, asked in (("mixer", registry.resolve), ("task", registry.task), ("evaluator", registry.evaluator)):
        try:
            asked(name)
        except UnknownNameError:
            continue
        except ConflictError:
            pass
        raise SpecError(f'a {what} is called "{name}" already: choose another name')


def _module_of(name: str) -> str:
    return name.lower().replace("-", "_")


def _words(name: str, kind: str) -> dict[str, str]:
    """What stands in the place of each word of the templates."""
    titles = {"task": "A task", "evaluator": "An evaluator"}
    trials = {
        "task": f'archsearch evaluate "kda full" --task {name} --steps 100',
        "evaluator": f'archsearch evaluate "kda full" --task mqar --metric {name} --steps 100',
    }
    return {
        "name": name,
        "module": _module_of(name),
        "title": titles.get(kind, "A mixer"),
        "summary": KINDS[kind],
        "try_it": trials.get(kind, f'archsearch evaluate "{name} full" --task mqar --steps 100'),
    }


def _write(folder: Path, words: dict[str, str], kind: str) -> None:
    """Whole or not at all: beside the folder first."""
    templates = files("archsearch").joinpath("plugin-templates")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as made:
        whole = Path(made) / folder.name
        for source in (templates.joinpath(_COMMON), templates.joinpath(kind)):
            _render(source, whole, words)
        whole.rename(folder)


def _render(source: Traversable, target: Path, words: dict[str, str]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        renamed = {"package": words["module"], f"test_module.py{_SUFFIX}": f"test_{words['module']}.py"}
        place = target / renamed.get(path.name, path.name.removesuffix(_SUFFIX))
        if path.is_dir():
            _render(path, place, words)
        else:
            place.write_text(Template(path.read_text(encoding="utf-8")).substitute(words), encoding="utf-8")
