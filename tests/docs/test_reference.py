"""The reference has every key, command, hook, mixer and task, and says something of each."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from doc_pages import GENERATED
from pydantic import BaseModel, Field
from reference import mixers
from reference.commands import commands, commands_reference, errors_by_code, exit_codes, exit_reference
from reference.fields import fields_of
from reference.hooks import hooks_reference
from reference.mixers import mixers_overview, mixers_reference
from reference.pages import DOCS, MAKERS, filled
from reference.registered import registry
from reference.results import fair_table
from reference.spec import cost_names, spec_reference, spec_tables
from reference.tasks import tasks_overview, tasks_reference
from reference.texts import prose_of, table, texts_of
from reference.written import PAGES, with_tables

from archsearch.costs import MEASURES
from archsearch.errors import UnknownNameError
from archsearch.hookspecs import HOOKS
from archsearch.registry import load_registry
from archsearch.search.problem import Problem
from archsearch.search.spec import SearchSpec
from archsearch.search.tables.backbone import BackboneChoices
from archsearch.testing.toy import ToyPlugin


class Base(BaseModel):
    """A base.

    ``first``: said in the base.
    """

    first: int = 1


class Table(Base):
    """What it is,
    in two lines.

    ``second``: said here, and goes on
    in the next line; ``not_a_field``: within a line.
    ``first``: said again.

    An afterthought.
    """

    second: Annotated[int, Field(ge=1, le=100_000)] = 2
    third: Literal["a", "b"] | None = Field(default=None, description="said in the field")
    silent: tuple[float, ...] = ()
    needed: bool


def test_a_field_is_told_by_its_description_or_by_its_line_in_a_docstring() -> None:
    assert texts_of(Table) == {
        "first": "said again.",
        "second": "said here, and goes on in the next line; `not_a_field`: within a line.",
        "third": "said in the field",
    }
    assert prose_of(Table) == "What it is, in two lines."


def test_types_bounds_and_defaults_are_said_in_words() -> None:
    told = {field.name: (field.type, field.default) for field in fields_of(Table)}
    assert told == {
        "first": ("whole number", "`1`"),
        "second": ("whole number from 1 to 100,000", "`2`"),
        "third": ('`"a"`, `"b"`', "left out"),
        "silent": ("list of number", "left out"),
        "needed": ("true or false", "required"),
    }


def test_a_cell_may_hold_bars_and_an_empty_column_is_left_out() -> None:
    assert table(["a", "b", "c"], [["x|y", "", "z\n z"]]) == "| a | c |\n| --- | --- |\n| x\\|y | z z |"


def test_every_key_of_a_spec_has_a_text() -> None:
    silent = [f"{name}.{field.name}" for name, fields in spec_tables().items() for field in fields if not field.text]
    assert silent == [], 'say each as a line "``key``: text" in the docstring of its table'


TABLES_WITHIN = (("space", "options"), ("space", "backbone"), ("search", "early_stop"))
"""Keys that are tables, with sections of their own."""


def test_the_page_of_the_spec_has_every_table_and_key() -> None:
    page = spec_reference()
    for name, field in SearchSpec.model_fields.items():
        assert f"`{name}`" in page or f"`[{name}]`" in page or f"### `[[{name}]]`" in page
        for model in [field.annotation, *getattr(field.annotation, "__args__", ())]:
            for key in getattr(model, "model_fields", {}):
                within = f"`[{name}.{key}]`" in page or f"`[[{name}.{key}]]`" in page
                assert f"| `{key}` |" in page or within or (name, key) in TABLES_WITHIN
    assert "| `[space.MIXER]` | table |" in page
    within = page.partition("### `[space.backbone]`")[2].partition("### ")[0]
    assert all(f"| `{key}` |" in within for key in BackboneChoices.model_fields)


def test_the_spec_that_the_page_shows_can_be_run() -> None:
    shown = (DOCS / "spec.md").read_text().split("```toml\n")[1].partition("```")[0]
    assert Problem.of(SearchSpec.from_dict(tomllib.loads(shown)), registry()).spec.name == "two-of-four"


def test_every_cost_that_a_budget_may_name_is_listed() -> None:
    assert [line.split("`")[1] for line in cost_names().splitlines()[2:]] == list(MEASURES)


def test_every_command_and_option_is_on_the_page() -> None:
    page = commands_reference()
    sections = dict(zip(*[iter(_split_by_heading(page))] * 2, strict=True))
    for words, command in commands():
        section = sections[" ".join(words)]
        assert (command.help or "").split("\n")[0].split()[0] in section
        for param in command.params:
            for name in param.opts if param.param_type_name == "option" else ():
                assert name in section, f"{' '.join(words)} {name}"
    assert {"archsearch run", "archsearch kernels compile", "archsearch db upgrade"} <= set(sections)


def _split_by_heading(page: str) -> list[str]:
    parts = [part.partition("\n") for part in f"\n{page}".replace("\n### ", "\n## ").split("\n## ")[1:]]
    return [half for heading, _, rest in parts for half in (heading, rest)]


def test_every_exit_code_has_a_meaning() -> None:
    assert set(errors_by_code()) <= set(exit_codes())
    assert {0, 6, 130} <= set(exit_codes())
    assert "| 4 | the database | `StorageError`, `TakenOverError` |" in exit_reference()


def test_every_hook_is_on_the_page() -> None:
    page = hooks_reference()
    for name in HOOKS:
        assert f"def {name}(register: " in page
    assert "def register(mixer: str, ops: Callable[[], Iterable[BenchOp]], *, names: tuple[str, ...] = ())" in page


def test_every_mixer_preset_and_option_is_on_the_page() -> None:
    page, overview = mixers_reference(), mixers_overview()
    for mixer in registry().mixers():
        assert f"## {mixer.name}\n" in page
        assert f"(#{mixer.name})" in overview
        for name in [*mixer.options.model_fields, *mixer.presets]:
            assert f"| `{name}` |" in page, f"{mixer.name} {name}"
        for choices in mixer.options.tunables().values():
            assert mixers.values_of(choices) in page


def test_every_option_of_a_mixer_and_of_a_task_has_a_text() -> None:
    types: dict[str, Any] = {f"mixer {mixer.name}": mixer.options for mixer in registry().mixers()}
    types |= {f"task {task.name}": task.options_type for task in registry().tasks()}
    silent = [f"{name}: {key}" for name, kind in types.items() for key in set(kind.model_fields) - set(texts_of(kind))]
    assert silent == [], 'say each as a line "``option``: text" in the docstring of its options'


def test_a_mixer_that_is_registered_appears_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = ToyPlugin()
    with_toy = load_registry([toy])
    monkeypatch.setattr(mixers, "registry", lambda: with_toy)
    page = mixers_reference()
    assert f"## {toy.name}\n" in page
    assert f"| `{toy.name}` | `" in page.partition(f"## {toy.name}\n")[2]


def test_every_task_setting_and_option_is_on_the_page() -> None:
    page, overview = tasks_reference(), tasks_overview()
    for task in registry().tasks():
        assert f"## {task.name}\n" in page
        assert f"(#{task.name})" in overview
        for name in [*task.settings, *task.options_type.model_fields]:
            assert f"| `{name}`" in page


def test_everything_that_can_be_made_stands_on_a_page() -> None:
    text = "\n".join(page.read_text() for page in GENERATED)
    assert {name for name in MAKERS if f"<!-- generated: {name} -->" in text} == set(MAKERS)


def test_a_mark_of_another_name_is_an_error() -> None:
    with pytest.raises(UnknownNameError, match=r'"mixer".*did you mean "mixers"'):
        filled("<!-- generated: mixer -->")


def test_pages_are_made_without_torch() -> None:
    code = "import sys\nfrom reference.pages import MAKERS\n[made() for made in MAKERS.values()]\n"
    code += "sys.exit(' '.join({'torch', 'ray', 'mkdocs'} & set(sys.modules)) or None)"
    subprocess.run([sys.executable, "-c", code], cwd=DOCS, check=True)


def test_every_preset_is_a_system_of_the_field() -> None:
    """A preset is a published mixer, and a mixer without presets is one itself."""
    for mixer in registry().mixers():
        missing = ({*mixer.presets} or {mixer.name}) - {*mixer.systems}
        assert not missing, f"{mixer.name}: systems says nothing of {sorted(missing)}"


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.stem)
def test_the_tables_that_stand_in_pages_are_todays(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert with_tables(text) == text, "run make tables"
    assert with_tables(text.replace("| linear |", "| linnear |")) == text


def fair_line(name: str, *, digest: str = "", task: str = "mqar:easy", seed: int = 0, value: float = 0.9) -> str:
    sweep = [{"learning_rate": 0.01, "validation": {"accuracy": value}}]
    run = {"name": name, "pattern": f"{name}*2", "digest": digest or name, "task": task, "seed": seed}
    told = {"metric": "accuracy", "direction": "maximize", "chance": 0.25, "status": "complete"}
    return json.dumps({**run, **told, "test": {"accuracy": value}, "sweep": sweep})


def fair_table_of(folder: Path, *lines: str) -> str:
    runs = folder / "fair.jsonl"
    runs.write_text("\n".join(lines), encoding="utf-8")
    return fair_table(runs)


def test_the_fair_table_does_not_mix_the_forms_that_a_system_had(tmp_path: Path) -> None:
    """Runs of an earlier digest stay in the file: they are not further seeds of today's."""
    old = [fair_line("full", digest="old", seed=seed, value=0.1) for seed in (0, 1)]
    told = fair_table_of(tmp_path, *old, fair_line("full", digest="new"))
    assert "| `mqar:easy` | accuracy, more is better | 0.250 | 1 of 1 | 1 of 3 |" in told
    assert "| 0.900 |" in told


def test_the_fair_table_says_what_it_lacks(tmp_path: Path) -> None:
    lines = [fair_line(name, seed=seed) for name in ("full", "kda") for seed in (0, 1)]
    lines += [fair_line("sliding"), fair_line("full", task="mqar:hard", value=0.5)]
    told = fair_table_of(tmp_path, *lines)
    assert told.startswith("3 of ")
    assert "| `mqar:easy` | accuracy, more is better | 0.250 | 3 of 3 | 2 of 3 |" in told
    assert "| 1 of 3: all but `kda`, `sliding` | 1 of 3 |" in told
    (sliding,) = [line for line in told.splitlines() if line.startswith("| `sliding`")]
    (full,) = [line for line in told.splitlines() if line.startswith("| `full`")]
    assert sliding.endswith("| 0.900 (1 seed) | not measured |")
    assert full.endswith("| 0.900 ± 0.000 | 0.500 |")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no table here", "no place for a table"),
        ("<!-- stems, written by make tables -->\n\n<!-- end of stems -->", 'nothing is written as "stems"'),
    ],
)
def test_a_page_without_a_place_for_a_table_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        with_tables(text)
