"""The spec of a search: what a TOML file may say, checked key by key; plain data both ways."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    StrictStr,
    ValidationError,
    field_validator,
    model_validator,
)

from archsearch.arch import DERIVED, ChannelKind, ModelSpec, ResidualKind, explain
from archsearch.costs import parse_context
from archsearch.errors import SpecError, listing, nearest
from archsearch.layer import MAX_FFN_DIM
from archsearch.notation import MAX_LAYERS
from archsearch.numbers import Number, Whole
from archsearch.recipe import Recipe
from archsearch.search.ladder.tables import MAX_RUNGS, ClimbedTable, LadderTable, RungTable
from archsearch.search.tables import MAX_CHOICES, Table, TaskTable

MAX_SEED = 1_000_000
"""Seeds of a search are below it; those that confirm its front lie above, so that they are always fresh."""

MAX_LADDER_NAME = 90
"""Letters of the name of a search with rungs, whose searches are called after it."""

MAX_FILE_BYTES = 2**20
MAX_TRIALS = 1_000_000
MAX_SEEDS = 1_000
MAX_WORKERS = 4096
MAX_DRAWS = 1_000_000_000
MAX_CONTEXT = 2**50
MAX_RETRIES = 100
MAX_UNITS = 4096
MAX_WAIT = 366 * 86_400
MAX_URL = 2_000
MAX_PERIOD = 16
"""Counting the candidates of a periodic space takes time that doubles with each layer of the period."""

Pattern = Literal["free", "periodic", "ratio", "listed"]
SamplerName = Literal["ehvi", "nsga2", "nsga3", "tpe", "gp", "random"]
Match = Literal["tokens", "train_flops", "params", "state_read"]


class BackboneTable(ModelSpec):
    """The backbone of a candidate, all of it but what ``[space]`` draws, and how many layers are searched.

    ``n_layers``: layers of every candidate.
    ``d_model``: width of the residual stream.
    ``n_heads``: query heads of a token mixer.
    ``n_kv_heads``: key and value heads, a divisor of ``n_heads``; left out, as many as those.
    ``head_dim``: width of a head; left out, ``d_model / n_heads``.
    ``short_conv``: width of a causal convolution in front of every token mixer, 0 for none. Without one, small softmax
    layers cannot tell which token came before and do not learn recall in a short training, which would rank them by
    what is not theirs.
    ``meta_tokens``: learned tokens in front of every sequence; costs count them as tokens.
    ``value_residual``: mixes the values of the first layer into those of later ones that have the same heads and width:
    half of each, or by two learned weights a layer. Layers of other values are left without.
    ``channel_mixer``: what follows the token mixer in a layer: a gated feed-forward layer, experts of that kind, or
    nothing.
    ``ffn_dim``: hidden width of ``swiglu``; left out, 8/3 of ``d_model``, rounded up to 16.
    ``n_experts``: experts of ``moe`` that tokens are routed to.
    ``experts_per_token``: how many of them a token is sent to.
    ``shared_experts``: experts of ``moe`` that every token meets.
    ``expert_dim``: hidden width of an expert; left out, ``ffn_dim / experts_per_token``.
    ``dtype``: the dtype in which costs are counted, whatever a trial trains in.
    ``vocab_size``: the vocabulary with which costs are counted; left out, the largest one of the tasks.
    """

    n_layers: Whole = Field(ge=1, le=MAX_LAYERS)
    short_conv: Whole = Field(default=4, ge=0, le=16)

    def backbone(self, *, vocab_size: int) -> ModelSpec:
        """The backbone of the file; `vocab_size` is used where the file gives none."""
        values = self.given
        if "vocab_size" not in self.model_fields_set:
            values["vocab_size"] = vocab_size
        return ModelSpec(**values)


_Wholes = Annotated[tuple[Whole, ...], Field(max_length=MAX_CHOICES)]


class BackboneChoices(Table):
    """Values of keys of ``[model]`` of which a candidate draws one each; what is not listed is as ``[model]`` has it.

    A size that ``[model]`` leaves out follows from those that are drawn. What goes together is drawn alone: no
    ``n_kv_heads`` that does not divide the ``n_heads``, and no ``ffn_dim`` without a channel mixer.

    ``channel_mixer``: of "none", "swiglu" and "moe".
    ``n_heads``: query heads.
    ``n_kv_heads``: key and value heads.
    ``head_dim``: widths of a head.
    ``short_conv``: widths of the convolution in front of a token mixer, 0 for none.
    ``meta_tokens``: numbers of learned tokens in front of a sequence.
    ``value_residual``: of "none", "identity" and "learned"; a candidate in which it changes nothing is infeasible.
    ``ffn_dim``: hidden widths of ``swiglu``, the same in every layer; ``space.ffn_dim`` lists those of a layer.
    ``n_experts``: experts of ``moe`` that tokens are routed to.
    ``experts_per_token``: how many of them a token is sent to.
    ``shared_experts``: experts of ``moe`` that every token meets.
    ``expert_dim``: hidden widths of an expert.
    """

    channel_mixer: tuple[ChannelKind, ...] = ()
    n_heads: _Wholes = ()
    n_kv_heads: _Wholes = ()
    head_dim: _Wholes = ()
    short_conv: _Wholes = ()
    meta_tokens: _Wholes = ()
    value_residual: tuple[ResidualKind, ...] = ()
    ffn_dim: _Wholes = ()
    n_experts: _Wholes = ()
    experts_per_token: _Wholes = ()
    shared_experts: _Wholes = ()
    expert_dim: _Wholes = ()

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        known = cls.model_fields
        return {
            key: _choices(f"space.backbone.{key}", given) if key in known else given for key, given in values.items()
        }

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key, values in self.listed.items():
            _refuse_twice(f"backbone.{key}", values)
        return self

    @property
    def listed(self) -> dict[str, tuple[Any, ...]]:
        """The keys that are listed, each with its values."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: values for name, values in found.items() if values}


class SpaceTable(Table):
    """Which mixers may stand where, and how their options are narrowed.

    ``mixers``: mixers or presets. A preset keeps the options that it fixes; its other tunable ones are searched.
    ``pattern``: "free" takes each layer by itself; "periodic" repeats a unit of layers, cut at the last layer; "ratio"
    repeats r layers of a cheap mixer, then one of a costly mixer; "listed" takes the architectures of a list, in its
    order.
    ``architectures``: of a pattern "listed", in place of ``mixers``: patterns of whole models, where a single layer is
    repeated. Left out, ``search.trials`` is then their number, and there are no references beside them.
    ``backbones``: of a pattern "listed", a table for each architecture with what its backbone has of the keys of
    ``[space.backbone]``, where it is not as ``[model]`` has it. A ladder writes it of backbones that were drawn.
    ``period``: the longest unit of a periodic pattern, in layers.
    ``ratios``: the numbers r of a pattern of ratios.
    ``costly``: the costly mixers of a pattern of ratios, by default those of the family "full"; all others are cheap.
    ``ffn_dim``: widths of which each layer draws one for its own channel mixer, with its token mixer: 0 for none. A
    mixture of experts shares it out among the experts of a token. Left out, every layer has the backbone's.
    ``backbone``: a table of its own, ``[space.backbone]``, with values of keys of ``[model]`` to choose from.
    ``options``: a table named after an entry of ``mixers`` gives options and the values to choose from, one value or a
    list; a layer is written as notation, which fixes what it writes out and leaves the rest to the search.
    """

    mixers: tuple[str, ...] = Field(default=(), max_length=MAX_CHOICES)
    pattern: Pattern = "free"
    architectures: tuple[StrictStr, ...] = Field(default=(), max_length=MAX_CHOICES)
    backbones: tuple[Mapping[str, Any], ...] = Field(default=(), max_length=MAX_CHOICES)
    period: Whole | None = Field(default=None, ge=1, le=MAX_PERIOD)
    ratios: tuple[Annotated[Whole, Field(ge=1, le=MAX_LAYERS)], ...] = Field(default=(), max_length=MAX_LAYERS)
    costly: tuple[str, ...] = ()
    ffn_dim: tuple[Annotated[Whole, Field(ge=0, le=MAX_FFN_DIM)], ...] = Field(default=(), max_length=MAX_CHOICES)
    backbone: BackboneChoices = BackboneChoices()
    options: Mapping[str, Mapping[str, tuple[Any, ...]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        known = [name for name in cls.model_fields if name != "options"]
        own = {key: value for key, value in values.items() if key in known}
        mixers = _texts(own.get("mixers"))
        tables: dict[str, Any] = {}
        for key, value in values.items():
            if key in own:
                continue
            if not isinstance(value, Mapping):
                raise SpecError(f'unknown key "space.{key}"{nearest(key, known)}: known here are {listing(known)}')
            if key not in mixers:
                raise SpecError(
                    f"[space.{key}] narrows a mixer that space.mixers does not name{nearest(key, mixers)}: "
                    f"it names {listing(mixers)}"
                )
            tables[key] = {option: _choices(f"space.{key}.{option}", given) for option, given in value.items()}
        return {**own, "options": tables}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.pattern != "listed" and not self.mixers:
            raise SpecError('space.mixers is empty: name mixers or presets, as ["full", "kda"]')
        if self.pattern == "listed" and self.mixers:
            raise SpecError('space.mixers goes with patterns that are drawn, not "listed": drop one of them')
        for name in ("mixers", "ratios", "costly", "ffn_dim"):
            _refuse_twice(name, getattr(self, name))
        self._check_backbone()
        for name, pattern in (
            ("period", "periodic"),
            ("ratios", "ratio"),
            ("costly", "ratio"),
            ("architectures", "listed"),
            ("backbones", "listed"),
        ):
            if getattr(self, name) and self.pattern != pattern:
                raise SpecError(f'space.{name} goes with pattern = "{pattern}", not "{self.pattern}": drop one of them')
        for name, pattern in (("period", "periodic"), ("ratios", "ratio"), ("architectures", "listed")):
            if not getattr(self, name) and self.pattern == pattern:
                raise SpecError(f'space.pattern = "{pattern}" needs space.{name}: {_EXAMPLES[name]}')
        for name in self.costly:
            if name not in self.mixers:
                raise SpecError(f'space.costly names "{name}", which space.mixers does not{nearest(name, self.mixers)}')
        return self

    def _check_backbone(self) -> None:
        listed = self.backbone.listed
        if self.pattern == "listed":
            _check_backbones(self.backbones, len(self.architectures), BackboneChoices.model_fields)
        if self.pattern == "listed" and (listed or self.ffn_dim):
            raise SpecError(
                f'space.{"backbone" if listed else "ffn_dim"} goes with patterns that are drawn, not "listed": write '
                'widths into the architectures, as "full:ffn_dim=128", and other backbones into [model] of searches '
                "of their own"
            )
        both = sorted({"ffn_dim", "expert_dim"} & listed.keys()) if self.ffn_dim else []
        if both:
            raise SpecError(
                f"space.ffn_dim gives each layer its own width, and space.backbone.{both[0]} all layers one: drop one"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain data in the file's own form."""
        data = self.model_dump(mode="json", exclude={"options"}, exclude_defaults=True)
        options = {name: {key: list(given) for key, given in table.items()} for name, table in self.options.items()}
        return {**data, **options}


def _check_backbones(backbones: Sequence[Mapping[str, Any]], architectures: int, known: Collection[str]) -> None:
    """Raises `SpecError` unless each architecture of a list has one, whose keys are `known`."""
    if backbones and len(backbones) != architectures:
        raise SpecError(
            f"space.backbones has {len(backbones)} tables, and space.architectures {architectures} patterns: give one "
            "for each, {} where it is that of [model]"
        )
    for index, key in ((index, key) for index, table in enumerate(backbones) for key in table):
        if key not in known:
            raise SpecError(
                f'unknown key "space.backbones[{index}].{key}"{nearest(key, known)}: known here are {listing(known)}'
            )


def _refuse_twice(key: str, given: tuple[Any, ...]) -> None:
    twice = [value for value in given if given.count(value) > 1]
    if twice:
        raise SpecError(f"space.{key} names {twice[0]!r} twice: drop one")


def _read_text(path: Path) -> str:
    """A spec's text, without the mark that some editors put before it; raises `SpecError` for a file beyond reason."""
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise SpecError(f"{path} has more than {MAX_FILE_BYTES} bytes: that is no spec")
    return content.decode("utf-8-sig")


_EXAMPLES = {
    "period": "the longest unit, as 4",
    "ratios": "how many cheap layers to a costly one, as [1, 3, 7]",
    "architectures": 'patterns, as ["full", "[kda kda kda full]*2"]',
}


def _texts(given: Any) -> list[str]:
    """The texts of a list, of which something that is none is told by its own key."""
    return [value for value in given if isinstance(value, str)] if isinstance(given, list | tuple) else []


def _choices(key: str, given: Any) -> tuple[Any, ...]:
    values = given if isinstance(given, list | tuple) else (given,)
    if not values:
        raise SpecError(f"{key} = []: give at least one value, or leave the key out")
    if len(values) > MAX_CHOICES:
        raise SpecError(f"{key} has {len(values)} values: at most {MAX_CHOICES}")
    return tuple(_choice(key, value) for value in values)


def _choice(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        raise SpecError(f"{key} has a table among its values: write numbers, text, true or false, or lists of them")
    return tuple(_choice(key, part) for part in value) if isinstance(value, list | tuple) else value


class MetricsTable(Table):
    """An evaluator of a plugin, whose metrics are measured of every trained model and may be objectives.

    ``name``: an evaluator, as `archsearch plugins` lists them.
    ``tasks``: tasks, as objectives name them, whose models it is asked about; left out, all.
    """

    name: str
    tasks: tuple[StrictStr, ...] = Field(default=(), max_length=MAX_CHOICES)


class ObjectivesTable(Table):
    """What is traded off, and the context at which costs are taken.

    ``maximize``: objectives of which more is better: "recall", the minimum over the recall tasks; "mqar.accuracy", one
    metric of one task ("mqar:capacity.accuracy" where the search has two settings of it), an evaluator's among them; or
    a cost.
    ``minimize``: objectives of which less is better, as a rule costs: "state_bytes", at another context
    "state_bytes@131072". "mqar.tokens_to_half" and "mqar.tokens_to_95" are the tokens that a training reads until its
    primary metric has half, or 95%, of what full attention gains.
    ``context``: tokens at which costs are taken that name no context; text such as "128Ki" is read too.
    """

    maximize: tuple[str, ...] = ()
    minimize: tuple[str, ...] = ()
    context: Whole = Field(default=32768, ge=1, le=MAX_CONTEXT)

    @field_validator("context", mode="before")
    @classmethod
    def _tokens(cls, value: Any) -> Any:
        return parse_context(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = (*self.maximize, *self.minimize)
        if not names:
            raise SpecError('objectives: nothing to maximise or minimise: as maximize = ["recall"]')
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise SpecError(f'objectives names "{twice[0]}" twice: drop one')
        return self


class EarlyStopTable(Table):
    """When a candidate that is beyond hope of the front is stopped before its training has ended, and is then `pruned`.

    ``early_stop = true`` in ``[search]`` takes these numbers as they are; left out, or false, all are trained to the
    end.

    ``others``: how many trials must dominate it: no worse in any cost, and better in every measured objective, on the
    tasks and seeds that it was trained on so far.
    ``noise``: by how many standard errors they must be better, of the noise between seeds that the search has seen.
    ``margin``: by what share of the range of values they must be better while too few seeds were repeated to tell.
    ``grace``: the share of a training's steps before which nothing is concluded from it.
    ``confirmations``: whether the confirmations of the front may be stopped too.
    """

    others: Whole = Field(default=3, ge=1, le=MAX_TRIALS)
    noise: Number = Field(default=1.0, ge=0.0, le=100.0)
    margin: Number = Field(default=0.1, ge=0.0, le=1.0)
    grace: Number = Field(default=0.25, ge=0.0, le=1.0)
    confirmations: bool = False


class SearchTable(Table):
    """How many candidates are trained, who proposes them, and what is measured around them.

    ``trials``: candidates that are trained here; infeasible and repeated ones come on top.
    ``sampler``: who proposes candidates: "ehvi", which knows costs, models each metric over the layers and takes what
    is expected to add most to the hypervolume, or one of Optuna's.
    ``population``: candidates of a generation (nsga2, nsga3); left out, a quarter of ``trials``, at least 4 and at most
    50, so that a small search has generations at all.
    ``startup_trials``: candidates before the sampler learns, random ones (tpe, gp) or the cheapest and such as differ
    most (ehvi); left out, counted as ``population`` is, and a twelfth of ``trials`` for ehvi, from 4 to 12.
    ``references``: whether the mixer `full` in every layer and each pure mixer of the space are trained beside the
    candidates; a list of patterns names others, where a single layer is repeated.
    ``confirm_seeds``: fresh seeds that measure again what is on the front, on the test split; 0 for none.
    ``second_seeds``: the share of ``trials`` that train a point of the front so far with one more seed, each candidate
    once at most, in place of a new candidate: a front by means over two seeds is less of luck, and the sampler learns
    by the means too.
    ``concurrency``: trials at a time.
    ``max_draws``: draws in a row that gave nothing to train, after which the search ends early and says so.
    ``retries``: how often a trial is tried again whose worker was lost, ended by itself or ran out of memory; one that
    fails by an error of its own is not.
    ``early_stop``: whether candidates that others dominate beyond noise are stopped: true, or a table of its own,
    ``[search.early_stop]``.
    """

    trials: Whole = Field(default=32, ge=1, le=MAX_TRIALS)
    sampler: SamplerName = "ehvi"
    population: Whole | None = Field(default=None, ge=2, le=MAX_TRIALS)
    startup_trials: Whole | None = Field(default=None, ge=1, le=MAX_TRIALS)
    references: bool | Annotated[tuple[StrictStr, ...], Field(max_length=MAX_CHOICES)] = True
    confirm_seeds: Whole = Field(default=1, ge=0, le=MAX_SEEDS)
    second_seeds: Number = Field(default=0.0, ge=0.0, le=0.5)
    concurrency: Whole = Field(default=1, ge=1, le=MAX_WORKERS)
    max_draws: Whole = Field(default=2000, ge=1, le=MAX_DRAWS)
    retries: Whole = Field(default=1, ge=0, le=MAX_RETRIES)
    early_stop: EarlyStopTable | None = None

    @field_validator("early_stop", mode="before")
    @classmethod
    def _stops(cls, value: Any) -> Any:
        """`true` stands for the table's own numbers, `false` for none."""
        return ({} if value else None) if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        evolves = self.sampler in ("nsga2", "nsga3")
        if self.population is not None and not evolves:
            raise SpecError(f'search.population goes with the samplers nsga2 and nsga3, not "{self.sampler}": drop it')
        if self.startup_trials is not None and self.sampler not in ("ehvi", "tpe", "gp"):
            raise SpecError(
                f'search.startup_trials goes with the samplers ehvi, tpe and gp, not "{self.sampler}": drop it'
            )
        return self

    @property
    def first_random(self) -> int:
        """How many candidates are drawn at random before the sampler learns: its population or start-up."""
        given = self.population or self.startup_trials
        if self.sampler == "ehvi":
            return given or min(12, max(4, self.trials // 12))
        return given or min(50, max(4, self.trials // 4))


class ResourcesTable(Table):
    """What a trial may take of the machines; none of it is part of a measurement's key.

    ``cpu``: CPUs that are kept for each process of a trial; below 1, several trials share one.
    ``gpu``: GPUs of each process of a trial: a whole number, or a share below 1, as 0.25 for four trials on one card;
    left out, 1 where trials are trained on GPUs.
    ``workers``: processes that train one candidate together, each on its part of the batch.
    ``max_seconds``: seconds that a worker may take for a trial, 0 for any number.
    ``max_silence``: seconds that may pass without a step of a trial, 0 for any number; the first step, in which kernels
    are compiled, and the last test count as one.
    ``checkpoints``: a folder or a URL where trials keep their checkpoints, such as "file:///shared/checkpoints" or
    "s3://bucket/checkpoints", so that a trial whose machine was lost goes on elsewhere; left out, a folder in the home
    of each machine. A URL of a store needs its package of fsspec.
    """

    cpu: Number = Field(default=1.0, ge=0.01, le=MAX_UNITS)
    gpu: Number | None = Field(default=None, ge=0.0, le=MAX_UNITS)
    workers: Whole = Field(default=1, ge=1, le=MAX_WORKERS)
    max_seconds: Number = Field(default=0.0, ge=0.0, le=MAX_WAIT)
    max_silence: Number = Field(default=1800.0, ge=0.0, le=MAX_WAIT)
    checkpoints: StrictStr | None = Field(default=None, min_length=1, max_length=MAX_URL)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.gpu is not None and self.gpu > 1 and self.gpu != int(self.gpu):
            raise SpecError(f"resources.gpu = {self.gpu:g}: a share of a GPU is below 1, and more is a whole number")
        check_place(self.checkpoints)
        return self


def check_place(checkpoints: str | None) -> None:
    """Raises `SpecError` for a place of checkpoints that is relative, or has a password, as specs are stored."""
    if checkpoints is None:
        return
    protocol, there, rest = checkpoints.partition("://")
    if there and "@" in rest.partition("/")[0]:
        raise SpecError(
            "resources.checkpoints has a user or a password in it, and specs are stored: leave them to the environment "
            "of the workers"
        )
    if not there and not protocol.startswith(("/", "~")):
        raise SpecError(
            f'resources.checkpoints = "{checkpoints}": give a whole path, as "/shared/checkpoints", or a URL, as '
            '"s3://bucket/checkpoints"'
        )


class CompareTable(Table):
    """A comparison: every architecture of a space "listed" is held against one of them.

    Candidates are then not confirmed unless ``search.confirm_seeds`` says so, as ``recipe.seeds`` are trained of all.
    What ``[objectives]`` names of a task beside its primary metric is compared too.

    ``baseline``: the one that the others are held against; left out, the first of ``space.architectures``.
    ``match``: what the others are given as much of as the baseline has: "tokens" of training, which the recipe says;
    "train_flops": each is trained for the steps that take as many FLOPs; "params": each has the width of channel mixer
    that makes the parameters equal; "state_read": an option that sizes the state, as a window or a key width, those of
    mixers side by side too, is chosen so that one decoded token reads as many bytes of state at ``objectives.context``.
    What a pattern writes out stays.
    """

    baseline: StrictStr | None = None
    match: Match = "tokens"


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
