"""Recipe: how every architecture of a comparison is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator

from archsearch.arch import explain
from archsearch.errors import SpecError
from archsearch.numbers import Numbers, Whole

MAX_STEPS = 100_000_000
"""The most optimiser steps of a run."""

_SAME_NUMBERS = ("checkpoint_activations",)
_SINCE_ADDED = ("accumulate", "compile", "teacher", "teacher_warmup")
"""Settings that a key names only where they are not the default."""

SELF = "self"
"""The teacher that each layer is of its own choice."""

_Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


class Recipe(Numbers):
    """Training settings, equal for all candidates.

    Every number has an upper bound, beyond which it can only be a slip of the pen.

    ``steps``: optimiser steps of a run.
    ``tokens``: tokens of a run, in place of ``steps``: as many steps are taken as they need.
    ``batch_size``: sequences of a step.
    ``learning_rates``: peak learning rates. All are tried, and the best on validation is reported on test.
    ``warmup``: share of the steps over which the rate rises in a line, before it falls as a cosine.
    ``final_learning_rate``: share of the peak that the rate ends at.
    ``betas``: of AdamW.
    ``weight_decay``: of AdamW, on matrices.
    ``clip``: the largest norm of the gradient; a larger one is scaled down to it.
    ``dtype``: of the products (autocast); parameters stay in float32.
    ``accumulate``: parts that the sequences of a step are split into, one after the other in memory; their gradients
    add up to those of the whole batch. Workers that train one trial together share the parts.
    ``compile``: compile each layer by `torch.compile`, for training; needs a C++ compiler on the CPU.
    ``checkpoint_activations``: keep the input of each layer alone, and compute the rest again for the backward pass.
    ``teacher``: what mixers with a learned choice (`dsa`) are distilled from, in two stages: "self", each layer's own
    dense attention, or a mixer such as "full", of which a model of the same backbone is trained first, by this recipe,
    once for each task and seed. Without one a choice learns from its own layer, which is sparse from the first step.
    ``teacher_warmup``: share of the steps, at the start, in which such layers attend to everything.
    ``stop_at``: a run ends early once the task's primary metric on validation reaches this (metrics to be maximised
    only); 0 for never.
    ``eval_every``: steps from one look at validation to the next.
    ``seeds``: seeds that each candidate is trained with.
    ``threads``: of the CPU. They are part of the result, since sums are taken in another order with another number.
    ``device``: what a trial trains on; "auto" takes CUDA where there is one.
    ``checkpoint_seconds``: from one checkpoint of a run to the next.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: Whole = Field(default=500, ge=1, le=MAX_STEPS)
    tokens: Whole | None = Field(default=None, ge=1, le=10**15)
    batch_size: Whole = Field(default=64, ge=1, le=2**20)
    learning_rates: tuple[float, ...] = Field(default=(1e-2,), min_length=1, max_length=1000)
    warmup: float = Field(default=0.1, ge=0.0, le=1.0)
    final_learning_rate: float = Field(default=0.0, ge=0.0, le=1.0)
    betas: tuple[_Beta, _Beta] = (0.9, 0.95)
    weight_decay: float = Field(default=0.1, ge=0.0)
    clip: float = Field(default=1.0, gt=0.0)
    dtype: Literal["float32", "bfloat16"] = "float32"
    accumulate: Whole = Field(default=1, ge=1, le=2**20)
    compile: bool = False
    checkpoint_activations: bool = False
    teacher: str | None = Field(default=None, min_length=1, max_length=1000)
    teacher_warmup: float = Field(default=0.25, ge=0.0, lt=1.0)
    stop_at: float = Field(default=0.995, ge=0.0)
    eval_every: Whole = Field(default=50, ge=1, le=MAX_STEPS)
    seeds: Whole = Field(default=1, ge=1, le=1000)
    threads: Whole = Field(default=1, ge=1, le=512)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    checkpoint_seconds: float = Field(default=30.0, gt=0.0, le=1e9)

    @model_validator(mode="after")
    def _check(self) -> Self:
        bad = [rate for rate in self.learning_rates if not rate > 0]
        if bad:
            raise ValueError(f"learning_rates: {bad[0]} is not above 0")
        if len(set(self.learning_rates)) < len(self.learning_rates):
            raise ValueError("learning_rates: a rate is given twice")
        if self.accumulate > self.batch_size:
            raise ValueError(f"accumulate: {self.accumulate} parts of batch_size = {self.batch_size} sequences")
        if self.teacher is None and self.teacher_warmup != type(self).model_fields["teacher_warmup"].default:
            raise ValueError(
                f'teacher_warmup: {self.teacher_warmup} without a teacher: give one, as teacher = "self" or "full", or '
                "leave teacher_warmup out"
            )
        if self.teacher is not None and self.compile:
            raise ValueError(
                f'teacher: "{self.teacher}" cannot be asked by compiled layers: leave compile out, or the teacher'
            )
        return self

    @property
    def untaught(self) -> Recipe:
        """The recipe without a teacher, by which the teacher is trained."""
        plain = type(self).model_fields["teacher_warmup"].default
        return self.model_copy(update={"teacher": None, "teacher_warmup": plain})

    @property
    def rows(self) -> int:
        """Sequences that go through a model at once: those of the largest part of a batch."""
        return -(-self.batch_size // self.accumulate)

    def for_workers(self, count: int) -> Recipe:
        """The recipe of a trial that `count` workers train together, each taking as many parts of a batch.

        A recipe that splits no batch is given a part for each. Raises `SpecError` where the parts cannot be shared.
        """
        if self.accumulate == 1 and count <= self.batch_size:
            return self.model_copy(update={"accumulate": count})
        self.check_workers(count)
        return self

    def check_workers(self, count: int) -> None:
        """Raises `SpecError` where `count` workers cannot take as many parts of a batch each."""
        if self.accumulate % count:
            raise SpecError(
                f"recipe.accumulate = {self.accumulate} parts of {self.batch_size} sequences cannot be shared by "
                f"{count} workers: make it a multiple of {count}, and batch_size at least that"
            )

    def steps_for(self, seq_len: int) -> int:
        """Optimiser steps on sequences of `seq_len` tokens; raises `SpecError` for more than `MAX_STEPS`."""
        if self.tokens is None:
            return self.steps
        steps = max(1, -(-self.tokens // (self.batch_size * seq_len)))
        if steps > MAX_STEPS:
            raise SpecError(
                f"recipe.tokens = {self.tokens} is {steps} steps of {self.batch_size} sequences of {seq_len} tokens, "
                f"and at most {MAX_STEPS} are taken: raise batch_size or lower tokens"
            )
        return steps

    def trained(self) -> dict[str, Any]:
        """The settings that a result depends on, as they stand in a measurement's key.

        Left out are the seeds, how often a checkpoint is written, and ``checkpoint_activations``, by which the same
        operations run again on the same numbers. ``accumulate`` is in: a loss that a mixer adds of a batch as a whole
        (the balance of experts) is taken of each part, and random numbers are drawn for each. So is ``compile``, which
        fuses operations and rounds otherwise, and the teacher. They are named only where they are not the default, so
        that keys of plain recipes are those of before there were any. How many workers shared the parts is in no key.
        """
        kept = self.model_dump(mode="json", exclude={"seeds", "device", "checkpoint_seconds", *_SAME_NUMBERS})
        plain = {name for name in _SINCE_ADDED if kept[name] == type(self).model_fields[name].default}
        return {name: value for name, value in kept.items() if name not in plain}

    @classmethod
    def read(cls, values: Mapping[str, Any], where: str = "recipe") -> Recipe:
        """From plain values; raises `SpecError` that names the key, the value and the remedy."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise SpecError(explain(error, cls, where)) from None
