"""Options of the linear mixers: update rule, decay and its form, sizes, and what is around the recurrence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from archsearch.errors import listing
from archsearch.mixer import MixerOptions, ModelShape, Tunable

from .additive.rules import check_additive
from .decays import FORMS, Decay, DecayForm, Dims, Update, default_form, forms_of
from .removals import REMOVALS, RemovalForm, check_delta, check_key_heads, check_start
from .rotated import check_rotation

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
    ``activation``: activation of q and k.
    ``norm``: norm of q and k; l2 makes them of length 1, which the delta rule needs.
    ``value_activation``: activation of v.
    ``conv``: width of the causal depthwise convolution of q, k and v; 0 for none.
    ``conv_bias``: adds a learned bias of each channel after that convolution.
    ``write``: dt scales what is written by the step size of the mamba2 decay, exp by the exponential of a gate a head,
    stabilised.
    ``output_norm``: rms: of each head's output, its weight shared by the heads; joint: of all heads' outputs together;
    gated: joint, after the output gate; layer: of each head's output, its mean taken out, without a weight; group: the
    same with a weight and a bias of each channel.
    ``norm_eps``: what the output norm adds to the mean square, or to the variance.
    ``output_gate``: activation of a projection that multiplies the normed output.
    ``low_rank_gate``: passes the output gate through value_dim features.
    ``gate_rank``: features of a low-rank output gate; 0 for value_dim.
    ``inner_gate``: the activation of a low-rank gate stands between its two maps, and the second has no bias.
    ``skip``: adds each head's value, by a learned factor.
    ``key``: a projection, or what the forget gate of a channel leaves: 1 - exp(log decay).
    ``bonus``: a token reads the state before its own write, and its own value by a learned weight a key channel.
    ``token_shift``: every projection reads a mixture of a token and the one before, which both decide.
    ``normalizer``: divides what is read: sum by what the same query reads of ones, max by that or by 1, whichever is
    more.
    ``feature_map``: favor makes positive random features of q and k, whose products estimate exp(q . k / sqrt(K)).
    ``features``: number of random features; 0 for 4 key_dim.
    ``levels``: weights of a hierarchy of states, each of a power of 2 tokens; 0 for one state of all.
    ``level_weights``: what a token says weighs them by softplus of it and a bias of each, or of it times a factor.
    ``memories``: states among which tokens are routed, each written by keys and values of its own; 0 for one of all.
    ``memories_used``: how many memories a token writes and reads; 0 where there are none.
    ``shared_memory``: one more memory, that every token writes and reads.
    ``removal``: what the delta rule takes away before it writes.
    ``beta_range``: what the strength of the delta rule stays below; above 1 eigenvalues may be negative.
    ``steps``: delta steps a token, each with a key and a value of its own; the decay is of the first.
    ``static_shift``: mixes each token with the one before it, by learned shares, in front of the projections.
    ``output_bonus``: adds each head's value to the normed output, weighed by query and written key.
    ``initial_state``: what a sequence starts with: zeros, or a learned state a head.
    ``rope``: share of a key's channels that q and k are rotated in by their position; 0 carries no position at all.
    ``rope_base``: base of the rotation's frequencies.
    ``first_values``: mixes the values of the first such layer into those of later ones, by a gate of each channel.
    ``draws``: how A and dt are drawn at the start: even, each head of a part of the range of its own, or plain;
    published, all that trains as RWKV-7's code starts it, by the layer's place.
    ``key_heads``: heads of q and k, each for as many heads of values in turn; 0 for as many as of values.
    """

    later: ClassVar[tuple[str, ...]] = (
        "rope",
        "rope_base",
        "first_values",
        "gate_rank",
        "inner_gate",
        "key_heads",
        "draws",
        "level_weights",
    )

    update: Annotated[Update, Tunable("hebbian", "delta")] = "hebbian"
    decay: Annotated[Decay, Tunable("none", "constant", "head", "channel")] = "none"
    decay_form: FormName = "none"
    key_dim: Annotated[int, Field(ge=0, le=2**16), Tunable(0, 16, 32, 64, 128)] = 0
    value_dim: Annotated[int, Field(ge=0, le=2**16), Tunable(0, 64, 128)] = 0
    activation: Literal["none", "silu", "relu", "elu1"] = "silu"
    norm: Literal["none", "l2"] = "l2"
    value_activation: Literal["none", "silu"] = "silu"
    conv: Annotated[int, Field(ge=0, le=16)] = 4
    conv_bias: bool = False
    write: Literal["plain", "dt", "exp"] = "plain"
    output_norm: Literal["none", "rms", "joint", "gated", "layer", "group"] = "rms"
    norm_eps: Annotated[float, Field(gt=0, le=1)] = 1e-6
    output_gate: Literal["none", "silu", "sigmoid"] = "silu"
    low_rank_gate: bool = False
    skip: bool = False
    key: Literal["projected", "forget"] = "projected"
    bonus: bool = False
    token_shift: bool = False
    normalizer: Literal["none", "sum", "max"] = "none"
    feature_map: Literal["none", "favor"] = "none"
    features: Annotated[int, Field(ge=0, le=2**16)] = 0
    levels: Annotated[int, Field(ge=0, le=40)] = 0
    memories: Annotated[int, Field(ge=0, le=256)] = 0
    memories_used: Annotated[int, Field(ge=0, le=256)] = 0
    shared_memory: bool = False
    removal: RemovalName = "key"
    beta_range: Literal[1, 2] = 1
    steps: Annotated[int, Field(ge=1, le=8)] = 1
    static_shift: bool = False
    output_bonus: bool = False
    initial_state: Literal["zero", "learned"] = "zero"
    rope: Annotated[float, Field(ge=0, le=1)] = 0.0
    rope_base: Annotated[float, Field(gt=1, le=1e12)] = 10000.0
    first_values: bool = False
    gate_rank: Annotated[int, Field(ge=0, le=2**16)] = 0
    inner_gate: bool = False
    key_heads: Annotated[int, Field(ge=0, le=2**16)] = 0
    draws: Literal["even", "plain", "published"] = "even"
    level_weights: Literal["bias", "factor"] = "bias"

    def unread(self) -> Mapping[str, str]:
        found = {} if self.output_norm != "none" else {"norm_eps": 'output_norm="none": use output_norm="rms"'}
        if not self.rope:
            found["rope_base"] = "rope=0: use rope above 0"
        if not self.levels:
            found["level_weights"] = "levels=0: use levels above 0"
        if not self.form.draws:
            drawing = listing(name for name, form in FORMS.items() if form.draws)
            found["draws"] = f'decay_form="{self.decay_form}": use decay_form={drawing}'
        if not self.low_rank_gate:
            said = "low_rank_gate=false: use low_rank_gate=true"
            found |= {"gate_rank": said, "inner_gate": said}
        return found

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
        if self.output_norm == "gated" and self.output_gate == "none":
            raise ValueError("output_norm = gated needs an output_gate: silu or sigmoid, or set output_norm = joint")
        if self.conv_bias and not self.conv:
            raise ValueError("conv_bias = true needs a convolution: set conv to its width, such as 4")
        check_additive(dict(self))
        check_delta(dict(self))
        check_rotation(dict(self))
        check_key_heads(dict(self))
        check_start(dict(self))
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

    def query_heads(self, shape: ModelShape) -> int:
        """Heads of q, and of k of each step."""
        return self.key_heads or shape.n_heads

    def norm_width(self, shape: ModelShape) -> int:
        """Outputs that are normed together: those of one head, or of all; 0 for none."""
        heads, _, value_dim = self.dims(shape)
        by_head = dict.fromkeys(("rms", "layer", "group"), value_dim)
        return {"none": 0, **by_head}.get(self.output_norm, heads * value_dim)

    def gate_features(self, shape: ModelShape) -> int:
        """Numbers that the layer's projection makes of a token for the output gate; 0 for none."""
        heads, _, value_dim = self.dims(shape)
        if self.output_gate == "none":
            return 0
        return (self.gate_rank or value_dim) if self.low_rank_gate else heads * value_dim

    def state_dims(self, shape: ModelShape) -> Dims:
        """Heads, and rows and columns of the state of one: features of keys, values and the normaliser's ones."""
        heads, key_dim, value_dim = self.dims(shape)
        rows = key_dim if self.feature_map == "none" else self.features or 4 * key_dim
        return Dims(heads, rows, value_dim + (self.normalizer != "none"))
