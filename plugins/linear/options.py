"""Options of the linear mixers: update rule, decay and its form, sizes, and what is around the recurrence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from archsearch.errors import listing
from archsearch.mixer import MixerOptions, ModelShape, Tunable

from .decays import FORMS, Decay, DecayForm, Dims, Update, default_form, forms_of
from .removals import REMOVALS, RemovalForm

if TYPE_CHECKING:
    FormName = str
    RemovalName = str
else:
    FormName = Literal[tuple(FORMS)]
    RemovalName = Literal[tuple(REMOVALS)]
"""Of the forms that there are."""


class LinearOptions(MixerOptions):
    """Options of the `linear` mixer; its README has the maths and what each preset takes from its paper.

    ``update``: how a token writes to the state: hebbian adds, delta replaces what the key recalls.
    ``decay``: what forgets: nothing, a constant, a gate a token and head, or a gate a token and key channel.
    ``decay_form``: how the decay is parametrised; left out, it follows from ``decay`` and ``update``.
    ``key_dim``: key width of a head; 0 for the backbone's head_dim.
    ``value_dim``: value width of a head; 0 for the backbone's head_dim.
    ``activation``: of q and k.
    ``norm``: of q and k; l2 makes them of length 1, which the delta rule needs.
    ``value_activation``: of v.
    ``conv``: width of the causal depthwise convolution of q, k and v; 0 for none.
    ``write``: dt scales what is written by the step size of the mamba2 decay.
    ``output_norm``: of each head's output, its weight shared by the heads.
    ``output_gate``: activation of a projection that multiplies the normed output.
    ``low_rank_gate``: passes the output gate through value_dim features.
    ``skip``: adds each head's value, by a learned factor.
    ``removal``: what the delta rule takes away before it writes.
    ``beta_range``: what the strength of the delta rule stays below; above 1 eigenvalues may be negative.
    ``steps``: delta steps a token, each with a key and a value of its own; the decay is of the first.
    ``static_shift``: mixes each token with the one before it, by learned shares, in front of the projections.
    ``output_bonus``: adds each head's value to the normed output, weighed by query and written key.
    ``initial_state``: what a sequence starts with: zeros, or a learned state a head.
    """

    update: Annotated[Update, Tunable("hebbian", "delta")] = "hebbian"
    decay: Annotated[Decay, Tunable("none", "constant", "head", "channel")] = "none"
    decay_form: FormName = "none"
    key_dim: Annotated[int, Field(ge=0, le=2**16), Tunable(0, 16, 32, 64, 128)] = 0
    value_dim: Annotated[int, Field(ge=0, le=2**16), Tunable(0, 64, 128)] = 0
    activation: Literal["none", "silu", "relu", "elu1"] = "silu"
    norm: Literal["none", "l2"] = "l2"
    value_activation: Literal["none", "silu"] = "silu"
    conv: Annotated[int, Field(ge=0, le=16)] = 4
    write: Literal["plain", "dt"] = "plain"
    output_norm: Literal["none", "rms"] = "rms"
    output_gate: Literal["none", "silu", "sigmoid"] = "silu"
    low_rank_gate: bool = False
    skip: bool = False
    removal: RemovalName = "key"
    beta_range: Literal[1, 2] = 1
    steps: Annotated[int, Field(ge=1, le=8)] = 1
    static_shift: bool = False
    output_bonus: bool = False
    initial_state: Literal["zero", "learned"] = "zero"

    @model_validator(mode="before")
    @classmethod
    def _derive_form(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or "decay_form" in values:
            return values
        update, decay = values.get("update", "hebbian"), values.get("decay", "none")
        form = default_form(update, decay) if isinstance(decay, str) else None
        return values if form is None else {**values, "decay_form": form}

    @model_validator(mode="after")
    def _check(self) -> LinearOptions:
        forms = [form.name for form in forms_of(self.decay)]
        if self.decay_form not in forms:
            raise ValueError(
                f"decay_form = {self.decay_form} is no form of decay = {self.decay}: choose {listing(forms)}"
            )
        if self.update == "delta" and self.norm != "l2" and self.removal != "rate":
            raise ValueError(
                f"update = delta with norm = {self.norm}: the delta rule is unstable unless keys have length 1, "
                "set norm = l2"
            )
        if self.write == "dt" and not self.form.has_step:
            stepping = listing([form.name for form in FORMS.values() if form.has_step])
            raise ValueError(f"write = dt needs decay_form = {stepping}, whose step size it is, not {self.decay_form}")
        if self.low_rank_gate and self.output_gate == "none":
            raise ValueError("low_rank_gate = true needs an output_gate: silu or sigmoid")
        return self

    @model_validator(mode="after")
    def _check_delta(self) -> LinearOptions:
        """The options of the delta rules."""
        for name, plain in (("removal", "key"), ("beta_range", 1), ("steps", 1)):
            given = getattr(self, name)
            if self.update != "delta" and given != plain:
                raise ValueError(
                    f"{name} = {given} with update = {self.update}, which removes nothing: set update = delta"
                )
        if self.beta_range == 2 and not self.rule.ranges:
            ranging = listing([form.name for form in REMOVALS.values() if form.ranges])
            raise ValueError(f"beta_range = 2 with removal = {self.removal} is not stable: choose removal = {ranging}")
        if self.steps > 1:
            taken = {"removal": "key", "write": "plain", "skip": False, "output_bonus": False}
            for name, value in taken.items():
                if getattr(self, name) != value:
                    raise ValueError(
                        f"steps = {self.steps} with {name} = {getattr(self, name)}: of several steps a token only "
                        f"{name} = {value} is known, or set steps = 1"
                    )
        return self

    @property
    def rule(self) -> RemovalForm:
        """What the delta rule takes away."""
        return REMOVALS[self.removal]

    @property
    def form(self) -> DecayForm:
        """How the log decays are made."""
        return FORMS[self.decay_form]

    def dims(self, shape: ModelShape) -> Dims:
        """Heads, key dim and value dim of one head in a model of `shape`."""
        return Dims(shape.n_heads, self.key_dim or shape.head_dim, self.value_dim or shape.head_dim)


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "linear": {},
    "retnet": {
        "decay": "constant",
        "activation": "none",
        "norm": "none",
        "value_activation": "none",
        "conv": 0,
    },
    "lightning": {"decay": "constant", "decay_form": "lightning", "norm": "none", "conv": 0, "output_gate": "sigmoid"},
    "mamba2": {"decay": "head", "norm": "none", "write": "dt"},
    "gla": {"decay": "channel", "activation": "none", "norm": "none", "value_activation": "none", "conv": 0},
    "deltanet": {"update": "delta", "output_gate": "none"},
    "gated-deltanet": {"update": "delta", "decay": "head"},
    "kda": {"update": "delta", "decay": "channel", "output_gate": "sigmoid", "low_rank_gate": True},
    "kda-bounded": {
        "update": "delta",
        "decay": "channel",
        "decay_form": "bounded",
        "output_gate": "sigmoid",
        "low_rank_gate": True,
    },
    "olmo-hybrid": {"update": "delta", "decay": "head", "beta_range": 2},
    "gated-deltaproduct": {"update": "delta", "decay": "head", "beta_range": 2, "steps": 2},
    "gated-deltanet-2": {
        "update": "delta",
        "decay": "channel",
        "removal": "channel",
        "output_gate": "sigmoid",
        "low_rank_gate": True,
    },
    "comba": {"update": "delta", "decay": "head", "removal": "feedback", "output_gate": "sigmoid"},
    "rwkv7": {
        "update": "delta",
        "decay": "channel",
        "decay_form": "rwkv7",
        "removal": "rate",
        "activation": "none",
        "norm": "none",
        "value_activation": "none",
        "conv": 0,
        "output_gate": "sigmoid",
        "low_rank_gate": True,
        "static_shift": True,
        "output_bonus": True,
    },
}
"""Named points of the table of update rule by decay, each with the projections, gates and norms of its paper."""
