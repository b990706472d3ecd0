"""The spec of a search: what a TOML file may say, checked key by key; plain data both ways."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from archsearch.arch import DERIVED, explain
from archsearch.errors import SpecError
from archsearch.numbers import Whole
from archsearch.recipe import Recipe
from archsearch.search.tables.backbone import BackboneTable
from archsearch.search.tables.compare import CompareTable
from archsearch.search.tables.ladder import MAX_RUNGS, ClimbedTable, LadderTable, RungTable
from archsearch.search.tables.objectives import MetricsTable, ObjectivesTable, TaskTable
from archsearch.search.tables.resources import ResourcesTable
from archsearch.search.tables.search import SearchTable
from archsearch.search.tables.space import SpaceTable
from archsearch.search.tables.table import MAX_CHOICES, Table

MAX_SEED = 1_000_000
"""Seeds of a search are below it; those that confirm its front lie above, so that they are always fresh."""

MAX_LADDER_NAME = 90
"""Letters of the name of a search with rungs, whose searches are called after it."""

MAX_FILE_BYTES = 2**20


class StorageTable(Table):
    """The database, unless the command line or `ARCHSEARCH_STORAGE` names another.

    ``url``: a database URL, such as "sqlite:///archsearch.db"; it is not stored, as it may hold a password.
    """

    url: str | None = None


class SearchSpec(Table):
    """A whole search; read it with `load` or `from_dict`. What it names, `Problem.of` finds and checks.

    ``name``: the search's name, which is unique in a database.
    ``seed``: the first seed of trainings, and that of the sampler.
    ``budget``: upper limits on costs, each "COST" or "COST@CONTEXT" with a number or a text such as "18 MiB".
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    seed: Whole = Field(default=0, ge=0, lt=MAX_SEED)
    model: BackboneTable
    space: SpaceTable
    tasks: tuple[TaskTable, ...] = Field(min_length=1, max_length=MAX_CHOICES)
    metrics: tuple[MetricsTable, ...] = Field(default=(), max_length=MAX_CHOICES)
    recipe: Recipe = Recipe()
    objectives: ObjectivesTable
    budget: Mapping[str, Any] = {}  # read by `Budget.parse`: here a `true` would become 1
    search: SearchTable = SearchTable()
    compare: CompareTable | None = None
    rung: tuple[RungTable, ...] = Field(default=(), max_length=MAX_RUNGS)
    ladder: LadderTable = LadderTable()
    climbed: ClimbedTable | None = None
    resources: ResourcesTable = ResourcesTable()
    storage: StorageTable = StorageTable()

    @model_validator(mode="before")
    @classmethod
    def _of_a_list(cls, values: Any) -> Any:
        """What follows for ``[search]`` from a list of architectures, where the file does not say otherwise."""
        if not isinstance(values, Mapping) or not isinstance(space := values.get("space"), Mapping):
            return values
        listed, search = space.get("architectures"), values.get("search", {})
        if space.get("pattern") != "listed" or not isinstance(listed, list | tuple) or not isinstance(search, Mapping):
            return values
        follows: dict[str, Any] = {"trials": max(1, len(listed)), "references": False, "second_seeds": 0.0}
        if "compare" in values:
            follows["confirm_seeds"] = 0
        return {**values, "search": {**follows, **search}}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.compare is not None and self.space.pattern != "listed":
            raise SpecError(
                f'[compare] goes with space.pattern = "listed", not "{self.space.pattern}": list the architectures in '
                "space.architectures, or drop [compare]"
            )
        if self.compare is not None and self.space.backbones:
            raise SpecError(
                "space.backbones goes with searches, not [compare], which is of one backbone: drop one of them"
            )
        if self.compare is not None and self.search.early_stop is not None:
            raise SpecError(
                "search.early_stop goes with searches, not [compare], which trains every architecture to the end: drop "
                "one of them"
            )
        if self.compare is not None and self.search.trials < len(self.space.architectures):
            raise SpecError(
                f"search.trials = {self.search.trials} would leave out some of the {len(self.space.architectures)} "
                "architectures that [compare] holds against each other: drop it"
            )
        if self.space.pattern == "listed" and self.search.second_seeds:
            raise SpecError(
                f"search.second_seeds = {self.search.second_seeds:g} takes trials from a list of architectures, some "
                "of which would not be trained: drop it, and set recipe.seeds or search.confirm_seeds"
            )
        if self.resources.gpu and self.recipe.device == "cpu":
            raise SpecError(
                f'resources.gpu = {self.resources.gpu:g} goes with recipe.device = "cuda" or "auto", not "cpu": drop it'
            )
        self.recipe.for_workers(self.resources.workers)
        self._check_ladder()
        return self

    def _check_ladder(self) -> None:
        if not self.rung:
            if self.ladder != LadderTable():
                raise SpecError("[ladder] goes with [[rung]]: add a rung, or drop [ladder]")
            return
        if self.compare is not None or self.climbed is not None:
            other = "[compare]" if self.compare is not None else "[climbed]"
            raise SpecError(f"[[rung]] goes with a search, not with {other}: drop one of them")
        if len(self.name) > MAX_LADDER_NAME:
            raise SpecError(
                f"name: the searches of the rungs add to it, so that it has at most {MAX_LADDER_NAME} letters"
            )
        for index, (below, above) in enumerate(pairwise(self.rung), start=1):
            if above.keep > below.most:
                raise SpecError(
                    f"rung[{index}].keep = {above.keep}, and the rung below has {below.most} at most: lower it"
                )

    @property
    def training(self) -> Recipe:
        """The recipe as a trial is trained by it, whose batch is split between the processes of a trial."""
        return self.recipe.for_workers(self.resources.workers)

    @classmethod
    def load(cls, path: str | Path) -> SearchSpec:
        """From a TOML file; raises `SpecError` that names the file, the key, the value and the remedy."""
        path = Path(path)
        try:
            values = tomllib.loads(_read_text(path))
        except OSError as error:
            raise SpecError(f"cannot read the spec {path}: {error.strerror or error}") from None
        except RecursionError:
            raise SpecError(f"{path} is nested too deeply to be read: a spec has tables of lists of values") from None
        except ValueError as error:  # a TOMLDecodeError, text that is no UTF-8, a number of thousands of digits
            raise SpecError(f"{path} is no TOML file: {error}") from None
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SearchSpec:
        """From plain data of the file's form; raises `SpecError`."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise SpecError(explain(error, cls, "")) from None

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_dict` reads back to an equal spec; the storage URL is left out, as it may hold a
        password."""
        absent = {key for key in ("compare", "climbed", "metrics") if not getattr(self, key)}
        if not self.rung:
            absent |= {"rung", "ladder"}
        data = self.model_dump(mode="json", exclude={"space", "storage"} | absent)
        unsaid = {"vocab_size"} | (
            DERIVED if self.space.backbone.listed or self.space.backbones or self.rung else set()
        )
        for key in unsaid - self.model.model_fields_set:
            del data["model"][key]
        return {**data, "space": self.space.to_json()}


def _read_text(path: Path) -> str:
    """A spec's text, without the mark that some editors put before it; raises `SpecError` for a file beyond reason."""
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise SpecError(f"{path} has more than {MAX_FILE_BYTES} bytes: that is no spec")
    return content.decode("utf-8-sig")
