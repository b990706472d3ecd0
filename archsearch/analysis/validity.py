"""Validity: the scale, the context and the tasks for which a search's figures hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from archsearch.recipe import Recipe

if TYPE_CHECKING:
    from archsearch.storage import SearchRecord, TrialRecord


@dataclass(frozen=True, kw_only=True)
class TaskScale:
    """One task as it was trained: its full label, primary metric and chance level, tokens of a sequence, steps.

    What only a measurement tells is None before there is one.
    """

    name: str
    label: str
    metric: str | None = None
    chance: float | None = None
    seq_len: int | None = None
    steps: int | None = None


@dataclass(frozen=True, kw_only=True)
class Validity:
    """For what the figures of one search hold; `sentence` is to stand beside every answer."""

    spec: Mapping[str, Any]
    tasks: tuple[TaskScale, ...]

    @classmethod
    def of(cls, search: SearchRecord, measured: TrialRecord | None) -> Validity:
        """Of a search, one of whose trials `measured` is (None or one without measurements: what the spec says)."""
        payloads = {record.task: record.payload for record in measured.measurements} if measured else {}
        tasks = _measured_tasks(payloads) if payloads else _planned_tasks(search.spec)
        return cls(spec=search.spec, tasks=tuple(tasks))

    @property
    def context(self) -> int | None:
        """The context at which the spec takes costs, in tokens."""
        given = _table(self.spec, "objectives").get("context")
        return given if type(given) is int and given > 0 else None

    @property
    def scale(self) -> dict[str, Any]:
        """The sizes that the figures hold for; ``steps`` and ``seq_len`` are the largest over the tasks."""
        model, recipe = _table(self.spec, "model"), _table(self.spec, "recipe")
        return {
            "d_model": model.get("d_model"),
            "layers": model.get("n_layers"),
            "heads": _said(self.spec, "n_heads"),
            "channel_mixer": _said(self.spec, "channel_mixer"),
            "costs_in": model.get("dtype"),
            "steps": max((task.steps for task in self.tasks if task.steps), default=None),
            "batch_size": recipe.get("batch_size"),
            "learning_rates": recipe.get("learning_rates"),
            "seq_len": max((task.seq_len for task in self.tasks if task.seq_len), default=None),
        }

    @property
    def sentence(self) -> str:
        """For what this is valid, as one clause."""
        scale = self.scale
        trained = ", ".join(
            task.label + (f" ({task.seq_len} tokens, at most {task.steps} steps)" if task.seq_len else "")
            for task in self.tasks
        )
        costs = f"; costs at {self.context:,} tokens in {scale['costs_in']}" if self.context else ""
        return (
            f"valid for {scale['layers']} layers of d_model {scale['d_model']}, channel mixer "
            f"{scale['channel_mixer']}, trained on {trained} in batches of {scale['batch_size']}{costs}"
        )

    def to_json(self) -> dict[str, Any]:
        """``context``, ``tasks``, ``scale`` and the sentence as ``valid_for``."""
        return {
            "context": self.context,
            "tasks": [asdict(task) for task in self.tasks],
            "scale": self.scale,
            "valid_for": self.sentence,
        }


def _table(spec: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A table of a stored spec; where something else stands there, nothing is known of it."""
    found = spec.get(name)
    return found if isinstance(found, Mapping) else {}


def drawn_backbone(spec: Mapping[str, Any], arch: Mapping[str, Any]) -> dict[str, Any]:
    """What a search drew of the backbone of a stored architecture, by the keys that its spec lists; mostly nothing."""
    model = _table(arch, "model")
    return {key: model[key] for key in searched_keys(spec) if key in model}


def searched_keys(spec: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys of the backbone that a search draws, or in which the backbones of its list differ."""
    listed = (key for backbone in _listed_backbones(spec) for key in backbone)
    return tuple(dict.fromkeys([*_table(_table(spec, "space"), "backbone"), *listed]))


def on_backbone(pattern: str, drawn: Mapping[str, Any]) -> str:
    """A pattern with what was drawn of its backbone, by which it differs from the same pattern on another one."""
    return pattern + (f" on {', '.join(f'{key} = {value}' for key, value in drawn.items())}" if drawn else "")


def _listed_backbones(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = _table(spec, "space").get("backbones")
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list | tuple) else []


def _said(spec: Mapping[str, Any], key: str) -> Any:
    """A key of the backbone, or the values of which a candidate draws one."""
    listed, own = _table(_table(spec, "space"), "backbone").get(key), _table(spec, "model").get(key)
    if any(key in backbone for backbone in _listed_backbones(spec)):
        listed = list(dict.fromkeys(backbone.get(key, own) for backbone in _listed_backbones(spec)))
    return " or ".join(map(str, listed)) if isinstance(listed, list | tuple) else own


def _measured_tasks(payloads: Mapping[str, Mapping[str, Any]]) -> Iterator[TaskScale]:
    for name, payload in payloads.items():
        yield TaskScale(
            name=name,
            label=payload["task"],
            metric=payload["metric"],
            chance=payload["chance"],
            seq_len=payload["seq_len"],
            steps=_steps(payload["recipe"], payload["seq_len"]),
        )


def _planned_tasks(spec: Mapping[str, Any]) -> Iterator[TaskScale]:
    tasks = spec.get("tasks")
    for given in tasks if isinstance(tasks, list | tuple) else ():
        yield TaskScale(name=given["name"], label=planned_label(given))


def planned_label(task: Mapping[str, Any]) -> str:
    """A task of a spec as `archsearch evaluate --task` reads it."""
    setting = f":{task['setting']}" if task.get("setting") else ""
    options = ", ".join(f"{key}={value}" for key, value in task.get("options", {}).items())
    return f"{task['name']}{setting}" + (f"({options})" if options else "")


def _steps(recipe: Mapping[str, Any], seq_len: int) -> int:
    return Recipe.read(recipe).steps_for(seq_len)
