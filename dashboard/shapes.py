"""Shapes: what pages read of specs, objectives, architectures and measurements, whatever a database holds of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, model_validator

from archsearch.analysis.objectives import Objective
from archsearch.analysis.points import COLUMNS

from .foreign import Count, Label, Number, Scalar, Shape
from .text import SENTENCE, shortened

MOST_LAYERS = 1_000
UNREAD: Mapping[str, Any] = {"model": {}, "layers": []}
"""Stands for an architecture that cannot be read: half of one would be another."""

_TAKEN = {
    *COLUMNS,
    "search",
    "on_front",
    "valid_for",
    "rank",
    "place",
    "reference",
    "goodness",
    "reason",
    "violations",
    "unexercised",
    "created_at",
    "finished_at",
    "number",
    "no.",
    "#",
    "remark",
}
"""Columns that stand beside those of the objectives."""

Long = Annotated[str, AfterValidator(lambda text: shortened(text, SENTENCE))]
Numbers = dict[Label, Number | None]


class ObjectiveShape(Shape):
    """One objective; a cost says at which context."""

    name: Annotated[Label, Field(min_length=1)]
    direction: Literal["minimize", "maximize"]
    unit: Label | None = None
    metric: Label | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        found = Objective.from_json(self.model_dump())
        if found.is_cost and found.context is None:
            raise ValueError("a cost without a context")
        if self.name in _TAKEN or self.metric in _TAKEN:
            raise ValueError("the name of another column")
        return self


class ObjectivesShape(Shape):
    """The objectives of a search."""

    objectives: list[ObjectiveShape] = Field(default_factory=list)


class TaskShape(Shape):
    """One task of a spec."""

    name: Label
    setting: Label | None = None
    options: dict[Label, JsonValue] = Field(default_factory=dict)


class RecipeShape(Shape):
    """What pages themselves read of a recipe; `Recipe.read` judges the rest."""

    learning_rates: list[Number]
    seeds: Count | None = None
    batch_size: Count | None = None


class ContextShape(Shape):
    """The objectives of a spec: pages read the context that costs are taken at."""

    context: Annotated[Count, Field(ge=1)] | None = None


class TrialsShape(Shape):
    """How a spec searches: pages read how many candidates it asks for."""

    trials: Count | None = None


class CompareShape(Shape):
    """What a spec holds its architectures against."""

    baseline: Label | None = None


class SpecShape(Shape):
    """The spec of a search; a part that cannot be read is taken as not given."""

    seed: Count = 0
    model: dict[Label, Scalar] = Field(default_factory=dict)
    tasks: list[TaskShape] = Field(default_factory=list)
    recipe: RecipeShape | None = None
    budget: dict[Label, Label | Count | Number] | None = None
    objectives: ContextShape = ContextShape()
    search: TrialsShape = TrialsShape()
    compare: CompareShape | None = None


class LayerShape(Shape):
    """One stored layer."""

    mixer: Label
    options: dict[Label, JsonValue] = Field(default_factory=dict)
    ffn_dim: Count | None = None


class ArchShape(Shape):
    """A stored architecture."""

    model: dict[Label, Scalar] = Field(default_factory=dict)
    layers: Annotated[list[LayerShape], Field(min_length=1, max_length=MOST_LAYERS)]


class TrialShape(Shape):
    """What is stored as JSON with a trial, beside its architecture."""

    params: dict[str, Scalar] = Field(default_factory=dict)
    seeds: list[Count] = Field(default_factory=list)
    violations: dict[Label, Number] = Field(default_factory=dict)
    costs: dict[Label, float] = Field(default_factory=dict)


class SweepShape(Shape):
    """One learning rate that was tried."""

    learning_rate: Number
    status: Label = ""
    validation: Numbers = Field(default_factory=dict)
    steps: Count | None = None
    reason: Long | None = None


def _whole(step: Any) -> Any:
    """A curve's numbers are all written as floats, its steps too."""
    return int(step) if isinstance(step, float) and step.is_integer() else step


class CurveShape(Shape):
    """A step of a learning curve, and the numbers that were logged there."""

    __pydantic_extra__: dict[str, Number | None]
    step: Annotated[Count, BeforeValidator(_whole)]


ALWAYS_WRITTEN = ("test", "validation", "chance", "learning_rate", "sweep", "curve", "versions")
"""Parts of a measurement that have a default and are missed all the same where they are not there."""


class PayloadShape(Shape):
    """A measurement. One without its task, metric, recipe and length is no evidence: nobody knows what it is of."""

    task: Label
    metric: Label
    recipe: RecipeShape
    seq_len: Annotated[Count, Field(ge=1)]
    test: Numbers = Field(default_factory=dict)
    validation: Numbers = Field(default_factory=dict)
    chance: Number | None = None
    direction: Literal["minimize", "maximize"] | None = None
    status: Label | None = None
    seed: Count | None = None
    task_options: dict[Label, JsonValue] | None = None
    learning_rate: Number | None = None
    steps: Count | None = None
    solved_at: Count | None = None
    train_seconds: Number | None = None
    reason: Long | None = None
    judged: Label | None = None
    sweep: list[SweepShape] = Field(default_factory=list)
    curve: list[CurveShape] = Field(default_factory=list)
    versions: dict[Label, Label] = Field(default_factory=dict)
