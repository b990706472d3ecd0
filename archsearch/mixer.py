"""The contract of a token mixer, without torch: what a plugin says of itself, its costs, its state, and its layer.

A *mixer* stands where softmax attention stands in a Transformer block. A plugin author subclasses
`MixerOptions` and `MixerPlugin`; the torch half of the contract is `archsearch.model.Mixer`.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import ValidationError

from archsearch.amounts import Flops, Traffic
from archsearch.errors import OptionsError, foreign_code, listing, nearest
from archsearch.layer import Layer, LayerInfo, LayerSpec, Resolved, Resolver, layers_in
from archsearch.options import MixerOptions, Tunable, unread_of
from archsearch.shapes import DTYPE_BYTES, Dtype, ModelShape, StateTensor
from archsearch.systems import System

if TYPE_CHECKING:
    from archsearch.model import Mixer

__all__ = [
    "API_VERSION",
    "DTYPE_BYTES",
    "Dtype",
    "Family",
    "Flops",
    "Law",
    "Layer",
    "LayerInfo",
    "LayerSpec",
    "MixerOptions",
    "MixerPlugin",
    "ModelShape",
    "Phase",
    "Resolved",
    "Resolver",
    "StateTensor",
    "System",
    "Traffic",
    "Tunable",
]

API_VERSION = 2
"""Version of the contract that this core speaks; a plugin of version 1 is taken through `archsearch.version1`."""

MOST_CHOICES = 100_000
"""Combinations of tunable options that `MixerPlugin.choices` goes through at most."""

Phase = Literal["train", "prefill", "decode"]
Family = Literal["full", "sliding", "linear", "sparse", "memory", "hybrid", "other"]
Law = Literal["step", "split", "causal", "packed", "positions"]
"""Laws of every mixer that a plugin may declare broken: forward = repeated step; = prefill then decode; sees no future;
packed = each sequence apart; the order of tokens is not read from their positions."""

OptionsT = TypeVar("OptionsT", bound=MixerOptions)


class MixerPlugin(ABC, Generic[OptionsT]):
    """A token mixer as the registry knows it: its options, presets, costs, states, and the builder of its layer.

    Importing and costing a plugin must not import torch; only `build` may. Every method is told the parsed options; the
    sizes of the backbone; and the layer, where the mixer stands.

    - ``api_version``: the contract that the plugin is written for, 2 today; who says nothing speaks version 1.
    - ``version`` is raised whenever results of the same options change, so that stored measurements of the old code are
      not taken for the new one's.
    - ``family`` groups mixers on pages, and names the costly ones of a pattern of ratios (those of "full").
    - ``systems``: what the field published, by the name of the preset that stands for it, or the mixer's own.
    - ``broken_laws``: laws that the mixer breaks by design, each with the reason.
    - ``short_conv``: the backbone's short convolution, where it has one, stands in front of the mixer.
    - ``reads_pattern``: the plugin asks `LayerInfo.pattern` for the layers around its own.
    - ``conformance``: knobs of the suite that the mixer needs, by the names of `archsearch.testing.MixerConformance`,
      such as ``{"traffic_slack": 0.05}``; ``cases`` are more options that it is tried with.
    """

    name: ClassVar[str]
    family: ClassVar[Family]
    summary: ClassVar[str]
    options: ClassVar[type[MixerOptions]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    systems: ClassVar[Mapping[str, System]] = {}
    broken_laws: ClassVar[Mapping[Law, str]] = {}
    short_conv: ClassVar[bool] = True
    reads_pattern: ClassVar[bool] = False
    conformance: ClassVar[Mapping[str, Any]] = {}
    api_version: ClassVar[int] = 1
    version: ClassVar[int] = 1

    @abstractmethod
    def params(self, options: OptionsT, shape: ModelShape, layer: LayerInfo) -> int:
        """Number of trained parameters of the layer."""

    @abstractmethod
    def flops(self, options: OptionsT, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        """Operations of the forward pass: over a sequence of `context` tokens ("train", "prefill"), or of one token
        decoded when `context` tokens, itself included, are in the state ("decode"). Causal work counts the half
        that is needed. Core multiplies "train" by three."""

    @abstractmethod
    def traffic(self, options: OptionsT, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        """Bytes of state read and written by one token decoded when `context` tokens, itself included, are in it."""

    @abstractmethod
    def state(self, options: OptionsT, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        """What decoding keeps for one sequence: core counts bytes from it and allocates by it."""

    @abstractmethod
    def build(self, options: OptionsT, shape: ModelShape, layer: LayerInfo) -> Mixer:
        """The torch layer."""

    def active_params(self, options: OptionsT, shape: ModelShape, layer: LayerInfo) -> int:
        """Parameters that one token meets, fewer than `params` where tokens are routed."""
        return self.params(options, shape, layer)

    def check(self, options: OptionsT, shape: ModelShape, layer: LayerInfo) -> str | None:
        """Why the layer cannot stand where it does, None where it can. A search counts such a candidate as infeasible,
        with this reason, and never builds it."""
        return None

    def parts(self, options: OptionsT) -> tuple[LayerSpec, ...]:
        """The mixers that this one is made of; by default those that its options hold."""
        return tuple(layers_in(options))

    def values(self, options: OptionsT, shape: ModelShape) -> tuple[int, int] | None:
        """Heads of values, and the width of one, that the layer hands to `archsearch.model.Mixer.mix_values`, so that
        the backbone's value residual can reach them; None for a mixer without values of heads."""
        return None

    def hands_out(self, options: OptionsT, shape: ModelShape) -> int | None:
        """Channels that the layer's last projection reads, a linear map without a bias, where
        `archsearch.model.Mixer.hand_out` may leave it out so that mixers share one; None where a layer ends otherwise.
        """
        return None

    def part_shape(self, options: OptionsT, shape: ModelShape, index: int) -> ModelShape:
        """The sizes that part `index` is built for: the layer's own, unless parts share out its heads."""
        return shape

    def dense_up_to(self, options: OptionsT, layer: LayerInfo) -> int:
        """The longest sequence on which the mixer's own sparsity drops nothing, 0 when it always acts or has none.

        A window of 64 sees everything on 64 tokens: measured there, it would pass for full attention. Of the mixers
        that it is made of, core asks each.
        """
        return 0

    def parse_options(self, values: Mapping[str, Any], resolver: Resolver | None = None) -> OptionsT:
        """Options from plain values; raises `OptionsError` that names the option, the value and what is allowed.

        `resolver` knows the names of layers that options hold.
        """
        with foreign_code(f'mixer "{self.name}"', "the validation of its options"):
            try:
                options = self.options.model_validate(dict(values), context={"resolver": resolver})
            except ValidationError as error:
                raise OptionsError(self._explain(error), unread=unread_of(error)) from None
        return options  # type: ignore[return-value]

    def _explain(self, error: ValidationError) -> str:
        errors = error.errors()  # a key that is not known comes first, as in `archsearch.arch.explain`
        first = next((found for found in errors if found["type"] == "extra_forbidden"), errors[0])
        key = ".".join(str(part) for part in first["loc"])
        known = list(self.options.model_fields)
        if first["type"] == "extra_forbidden":
            return f'{self.name} has no option "{key}"{nearest(key, known)}: its options are {listing(known)}'
        if not key:
            return f"{self.name}: {first['msg'].removeprefix('Value error, ')}"
        return f"{self.name}({key}={first['input']!r}): {first['msg'].removeprefix('Value error, ')}"

    def choices(
        self, narrowed: Mapping[str, tuple[Any, ...]] | None = None, resolver: Resolver | None = None
    ) -> Iterator[OptionsT]:
        """Every valid combination of the tunable options (or of `narrowed`), the others at their defaults.

        Raises `OptionsError` where there are more than `MOST_CHOICES` to try.
        """
        tunables = {**self.options.tunables(), **(narrowed or {})}
        count = math.prod(len(choices) for choices in tunables.values())
        if count > MOST_CHOICES:
            raise OptionsError(
                f"{self.name}: its tunable options have {count} combinations, more than {MOST_CHOICES}: narrow them"
            )
        for values in itertools.product(*tunables.values()):
            try:
                yield self.parse_options(dict(zip(tunables, values, strict=True)), resolver)
            except OptionsError:
                continue
