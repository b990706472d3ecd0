"""The backbone of a candidate, and what a search may choose of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from archsearch.arch import ChannelKind, ModelSpec, ResidualKind
from archsearch.notation import MAX_LAYERS
from archsearch.numbers import Whole
from archsearch.search.tables.table import MAX_CHOICES, Table
from archsearch.search.tables.values import choices, refuse_twice


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
            key: choices(f"space.backbone.{key}", given) if key in known else given for key, given in values.items()
        }

    @model_validator(mode="after")
    def _check(self) -> Self:
        for key, values in self.listed.items():
            refuse_twice(f"backbone.{key}", values)
        return self

    @property
    def listed(self) -> dict[str, tuple[Any, ...]]:
        """The keys that are listed, each with its values."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: values for name, values in found.items() if values}
