"""flash-linear-attention as a peer: which of its functions computes which preset, called by keyword."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import Tensor

from archsearch.bench.op import Inputs, Outputs, Peer
from archsearch.errors import KernelUnavailableError

NAME = "flash-linear-attention"

SEQUENCES = {
    "kda": ("fla.ops.kda", "chunk_kda", {"log_decay": "g", "beta": "beta"}, {}),
    "gated-deltanet": ("fla.ops.gated_delta_rule", "chunk_gated_delta_rule", {"log_decay": "g", "beta": "beta"}, {}),
    "deltanet": ("fla.ops.delta_rule", "chunk_delta_rule", {"beta": "beta"}, {}),
    "mamba2": ("fla.ops.simple_gla", "chunk_simple_gla", {"log_decay": "g"}, {}),
    "retnet": ("fla.ops.simple_gla", "chunk_simple_gla", {"log_decay": "g_gamma"}, {}),
    "gla": ("fla.ops.gla", "chunk_gla", {"log_decay": "g"}, {}),
    "linear": ("fla.ops.linear_attn", "chunk_linear_attn", {}, {"normalize": False}),
}
"""By preset: module, function, its names of our gates, what else it must be told."""

STEPS = {
    "kda": ("fla.ops.kda", "fused_recurrent_kda", {"log_decay": "g", "beta": "beta"}),
    "gated-deltanet": (
        "fla.ops.gated_delta_rule",
        "fused_recurrent_gated_delta_rule",
        {"log_decay": "g", "beta": "beta"},
    ),
    "mamba2": ("fla.ops.simple_gla", "fused_recurrent_simple_gla", {"log_decay": "g"}),
}
"""The same for one token."""


def sequence_peer(preset: str) -> Peer:
    """The peer's chunkwise form of a preset."""
    return Peer(name=NAME, prepare=partial(_prepare_sequence, preset))


def step_peer(preset: str) -> Peer:
    """The peer's recurrent form on one token, which writes a new state."""
    return Peer(name=NAME, prepare=partial(_prepare_step, preset))


def _prepare_sequence(preset: str, inputs: Inputs) -> tuple[str, Callable[[Inputs], Outputs]]:
    module, name, gates, others = SEQUENCES[preset]
    function = _function(module, name, inputs)

    def run(inputs: Inputs) -> Outputs:
        given = {theirs: inputs[ours] for ours, theirs in gates.items()}
        q, k, v = inputs["q"], inputs["k"], inputs["v"]
        return (function(q=q, k=k, v=v, scale=q.shape[-1] ** -0.5, **given, **others)[0],)

    return _label(name), run


def _prepare_step(preset: str, inputs: Inputs) -> tuple[str, Callable[[Inputs], Outputs]]:
    module, name, gates = STEPS[preset]
    function = _function(module, name, inputs)

    def run(inputs: Inputs) -> Outputs:
        def token(ours: str) -> Tensor:
            return inputs[ours][:, None]

        given = {theirs: token(ours) for ours, theirs in gates.items()}
        o, state = function(
            q=token("q"),
            k=token("k"),
            v=token("v"),
            scale=inputs["q"].shape[-1] ** -0.5,
            initial_state=inputs["state"],
            output_final_state=True,
            **given,
        )
        return o[:, 0], state

    return _label(name), run


def _function(module: str, name: str, inputs: Inputs) -> Callable[..., Any]:
    if inputs["q"].device.type != "cuda":
        raise KernelUnavailableError(f"{NAME} is measured on a CUDA device")
    _label(name)
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


def _label(name: str) -> str:
    """The function and the version of its package."""
    try:
        return f"fla-core {version('fla-core')} {name}"
    except PackageNotFoundError:
        raise KernelUnavailableError(f"{NAME} is not installed (pip install --no-deps fla-core einops)") from None
