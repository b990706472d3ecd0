"""Options of the state space mixers: the rule, its sizes, and what is around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from archsearch.mixer import MixerOptions, ModelShape, Tunable

Rule = Literal["selective", "fixed", "trapezoidal"]
Start = Literal["real", "lin", "inv"]

_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "selective": {"state_dim": 16, "expand": 2, "conv": 4, "start": "real"},
    "fixed": {"state_dim": 64, "expand": 1, "conv": 0, "start": "lin"},
    "trapezoidal": {"state_dim": 64, "expand": 2, "conv": 0, "start": "real"},
}


class SsmOptions(MixerOptions):
    """Options of the `ssm` mixer; its README has the maths. Those left out follow from ``rule``.

    ``rule``: selective: steps, writes and reads follow the token (Mamba-1); fixed: they do not (S4D); trapezoidal:
    heads with one decay each, turned as the token says, with writes in two parts (Mamba-3).
    ``state_dim``: real numbers kept for each channel.
    ``rank``: inputs and outputs of a head of trapezoidal, which write to one state and read of it; 1 for one (SISO).
    ``expand``: inner channels a channel of the model; 1 for fixed, which runs on the model's own.
    ``dt_rank``: width of the map to the step sizes of selective; 0 for a 16th of the model's channels.
    ``conv``: width of the causal depthwise convolution before selective; 0 for none.
    ``output_norm``: RMSNorm of what each head of trapezoidal gives, in front of the gate.
    ``start``: first rates: real -(n + 1); for fixed also the complex lin -1/2 + i pi n, or inv.
    """

    later: ClassVar[tuple[str, ...]] = ("rank", "output_norm")

    rule: Annotated[Rule, Tunable("selective", "fixed", "trapezoidal")] = "selective"
    state_dim: Annotated[int, Field(ge=1, le=2**12), Tunable(16, 64)] = 16
    expand: Annotated[int, Field(ge=1, le=64)] = 2
    dt_rank: Annotated[int, Field(ge=0, le=2**16)] = 0
    conv: Annotated[int, Field(ge=0, le=16)] = 4
    start: Start = "real"
    rank: Annotated[int, Field(ge=1, le=64)] = 1
    output_norm: bool = False

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        rule = values.get("rule", "selective")
        return {**_DEFAULTS.get(rule, {}), **values} if isinstance(rule, str) else values

    @model_validator(mode="after")
    def _check(self) -> SsmOptions:
        if self.rank > 1 and self.rule != "trapezoidal":
            raise ValueError(f"rank = {self.rank} with rule = {self.rule}: set rule = trapezoidal, or leave rank out")
        if self.output_norm and self.rule != "trapezoidal":
            raise ValueError(
                f"output_norm = true with rule = {self.rule}: set rule = trapezoidal, or leave output_norm out"
            )
        if self.rule == "selective":
            if self.start != "real":
                raise ValueError(f"start = {self.start} with rule = selective: its rates are real, set start = real")
            return self
        taken = {"dt_rank": 0, "conv": 0, **({"expand": 1} if self.rule == "fixed" else {"start": "real"})}
        for name, value in taken.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"{name} = {getattr(self, name)} with rule = {self.rule}, which has none: leave {name} out"
                )
        if self.rule == "trapezoidal" and self.state_dim % 4:
            raise ValueError(
                f"state_dim = {self.state_dim} with rule = trapezoidal: half of it is turned in pairs, "
                "choose a multiple of 4"
            )
        if self.start != "real" and self.state_dim % 2:
            raise ValueError(
                f"state_dim = {self.state_dim} with start = {self.start}: complex states are pairs of numbers, "
                "choose an even one"
            )
        return self

    @property
    def complex(self) -> bool:
        """Whether states are pairs of a real and an imaginary part."""
        return self.start != "real"

    def inner(self, shape: ModelShape) -> int:
        """Channels of the recurrence."""
        return self.expand * shape.d_model

    def heads(self, shape: ModelShape) -> int:
        """Heads of the trapezoidal rule, as wide as the backbone's."""
        return self.inner(shape) // shape.head_dim

    @property
    def angles(self) -> int:
        """Pairs of states that the trapezoidal rule turns: half of them."""
        return self.state_dim // 4

    def steps_rank(self, shape: ModelShape) -> int:
        """Width of the map to the step sizes."""
        return self.dt_rank or -(-shape.d_model // 16)


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "mamba1": {"rule": "selective"},
    "mamba3": {"rule": "trapezoidal"},
    "s4d": {"rule": "fixed"},
    "s4d-real": {"rule": "fixed", "start": "real"},
}
