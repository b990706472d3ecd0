"""Options of the memory mixers: the network that is the state, how it learns, and what is around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from archsearch.mixer import MixerOptions, ModelShape, Tunable


class MemoryOptions(MixerOptions):
    """Options of the `memory` mixer; its README has the maths and what each preset takes from its paper.

    ``network``: what a head's state is: linear, a matrix; mlp, two with a GELU between.
    ``expand``: hidden channels of the mlp a channel of the head.
    ``mini_batch``: tokens whose gradients are taken at the same weights.
    ``rate``: the greatest inner learning rate; keys that are not of length 1 divide it by the head's width.
    ``momentum``: past gradients go on to count, as much as each token says.
    ``forget``: weights decay, as much as each token says.
    ``inner_norm``: LayerNorm of what the network gives, trained with the layer.
    ``residual``: the network adds to its input, and so learns the difference of value and key.
    ``bias``: biases of the network.
    ``average``: the update up to token t of a mini-batch is scaled by a trained factor that starts at 1 / t.
    ``norm``: norm of q and k; l2 makes them of length 1.
    ``activation``: activation of q, k and v.
    ``conv``: width of the causal depthwise convolution of q, k and v; 0 for none.
    ``shared_projection``: q and k are made of one projection, each by a convolution with a bias; v has none.
    ``rope``: fraction of each head that is turned by the token's place in its mini-batch.
    ``output_norm``: rms of each head, or layer over all channels, of what is read.
    ``output_gate``: activation of a projection that multiplies what is read.
    ``clip``: the greatest norm of a token's gradient, over all weights of a head's network; 0 for any.
    """

    later: ClassVar[tuple[str, ...]] = ("shared_projection", "clip")

    network: Annotated[Literal["linear", "mlp"], Tunable("linear", "mlp")] = "linear"
    expand: Annotated[int, Field(ge=1, le=64)] = 4
    mini_batch: Annotated[int, Field(ge=1, le=2**10), Tunable(8, 16, 32)] = 16
    rate: Annotated[float, Field(gt=0, le=100)] = 1.0
    momentum: Annotated[bool, Tunable(False, True)] = False
    forget: Annotated[bool, Tunable(False, True)] = False
    inner_norm: bool = True
    residual: bool = True
    bias: bool = True
    average: bool = False
    norm: Literal["none", "l2"] = "none"
    activation: Literal["none", "silu"] = "none"
    conv: Annotated[int, Field(ge=0, le=16)] = 0
    rope: Annotated[float, Field(ge=0, le=1)] = 0.0
    output_norm: Literal["none", "rms", "layer"] = "layer"
    output_gate: Literal["none", "silu", "sigmoid", "gelu"] = "none"
    shared_projection: bool = False
    clip: Annotated[float, Field(ge=0, le=1e4)] = 0.0

    def unread(self) -> Mapping[str, str]:
        return {} if self.network == "mlp" else {"expand": 'network="linear": use network="mlp"'}

    @model_validator(mode="after")
    def _check(self) -> MemoryOptions:
        gates = [name for name in ("momentum", "forget") if getattr(self, name)]
        if self.average and gates:
            raise ValueError(
                f"average = true with {gates[0]} = true: an average is of one mini-batch's gradients alone, "
                "leave one of the two out"
            )
        if 0 < self.clip < 1e-6:
            raise ValueError(f"clip = {self.clip:g} leaves nothing of a gradient: set 1e-6 or more, or 0 for none")
        if self.shared_projection and not self.conv:
            raise ValueError("shared_projection = true with conv = 0 makes q of k: set conv, such as 4")
        if self.output_gate == "gelu" and self.output_norm == "rms":
            raise ValueError(
                "output_gate = gelu with output_norm = rms: choose silu or sigmoid, or output_norm = layer"
            )
        return self

    @property
    def gates(self) -> int:
        """Numbers that each token makes for a head: rate, momentum, forgetting."""
        return 1 + self.momentum + self.forget

    @property
    def convolved(self) -> int:
        """Kinds of features that are convolved: q, k and v, or q and k of one projection."""
        return 2 if self.shared_projection else 3

    def layers(self, shape: ModelShape) -> tuple[tuple[int, int], ...]:
        """Rows and columns of each matrix of a head's network, with a row for the bias."""
        width, more = shape.head_dim, int(self.bias)
        if self.network == "linear":
            return ((width + more, width),)
        hidden = self.expand * width
        return (width + more, hidden), (hidden + more, width)


_TTT: Mapping[str, Any] = {"average": True, "rope": 1.0}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "ttt-linear": _TTT,
    "ttt-mlp": {**_TTT, "network": "mlp", "rate": 0.1},
    "titans": {
        "network": "mlp",
        "expand": 2,
        "rate": 0.1,
        "momentum": True,
        "forget": True,
        "inner_norm": False,
        "residual": False,
        "bias": False,
        "norm": "l2",
        "activation": "silu",
        "conv": 4,
        "output_norm": "rms",
        "output_gate": "silu",
    },
}
