"""Tasks, as plugins registered them."""

from __future__ import annotations

from typing import Any

from reference.fields import fields_of, number
from reference.registered import registry
from reference.texts import code, plain, settings, table


def tasks_overview() -> str:
    """One row a task."""
    rows = (
        [
            f"[`{task.name}`](#{task.name})",
            plain(task.summary),
            f"{code(task.metric)}, to {task.direction}",
            _counts(task),
        ]
        for task in registry().tasks()
    )
    return table(["task", "what it is", "primary metric", "in the objective `recall`"], rows)


def tasks_reference() -> str:
    """Every task: what it asks, its settings and its options."""
    return "\n\n".join(map(_section, registry().tasks()))


def _counts(task: Any) -> str:
    return "yes" if task.recall else "no"


def _section(task: Any) -> str:
    parts = [f"## {task.name}", plain(task.__doc__ or task.summary), "**Settings**", _settings(task)]
    rows = ([code(field.name), field.type, field.default, field.text] for field in fields_of(task.options_type))
    return "\n\n".join([*parts, "**Options**", table(["option", "value", "default", "meaning"], rows)])


def _settings(task: Any) -> str:
    """The named settings, with what a model meets in each."""
    rows = []
    for name, values in task.settings.items():
        made = task.make(name)
        shown = f"{code(name)} (default)" if name == task.default_setting else code(name)
        rows.append([shown, settings(values), number(made.seq_len), number(made.vocab_size), f"{made.chance:.3g}"])
    return table(["setting", "fixes", "tokens of a sequence", "vocabulary", "chance"], rows)
