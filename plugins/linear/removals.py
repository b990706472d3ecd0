"""Removals of the delta rules, one record each: what is taken away of the state before a token writes, and its costs.

To add one is to add a record to `REMOVALS` and its layer to `writes`; options, costs and the layer read it there. No
torch is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from archsearch.amounts import SIGMOID
from archsearch.errors import listing
from archsearch.mixer import Flops
from archsearch.notation import format_value

from .decays import Dims, rwkv_rank


@dataclass(frozen=True, kw_only=True)
class RemovalForm:
    """A published delta rule. ``early``: it reads the state before the token's decay; ``apart``: it takes away along
    another vector than the written key. ``features`` are the numbers a token that the layer's projection makes for it,
    which pass a low-rank map of width ``rank`` where it has one; beside both ``params`` are trained, and ``flops`` done
    for a token. ``ranges``: beta may reach 2, by which twice what is read is taken away."""

    name: str
    paper: str
    features: Callable[[Dims], int]
    params: Callable[[Dims], int]
    flops: Callable[[Dims], Flops]
    rank: Callable[[Dims], int] = lambda dims: 0
    early: bool = False
    apart: bool = False
    ranges: bool = False


KEY = RemovalForm(
    name="key",
    paper="beta of what the written key recalls (DeltaNet, arXiv 2406.06484, equation 1)",
    features=lambda dims: dims.heads,
    params=lambda dims: 0,
    flops=lambda dims: SIGMOID * float(dims.heads),
    ranges=True,
)

CHANNEL = RemovalForm(
    name="channel",
    paper="what b * k recalls, with an erase gate b a key channel; w * v is written, w a gate a value channel (Gated "
    "DeltaNet-2, arXiv 2605.22791)",
    features=lambda dims: dims.heads * (dims.key_dim + dims.value_dim),
    params=lambda dims: 0,
    flops=lambda dims: (SIGMOID + Flops(elementwise=1)) * float(dims.heads * (dims.key_dim + dims.value_dim)),
    ranges=True,
)

FEEDBACK = RemovalForm(
    name="feedback",
    paper="beta b of what the key recalls before the decay, b of a head; reads by q - d k (Comba, arXiv 2506.02475)",
    features=lambda dims: dims.heads,
    params=lambda dims: 2 * dims.heads,
    flops=lambda dims: SIGMOID * float(dims.heads) + Flops(elementwise=3 * dims.heads * dims.key_dim),
    early=True,
)

RATE = RemovalForm(
    name="rate",
    paper="what the unit vector kappa of xi * k recalls before the decay, along a * kappa, a a rate a channel; written "
    "is (1 + (a - 1) alpha) * k (RWKV-7, arXiv 2503.14456, section 4)",
    features=rwkv_rank,
    params=lambda dims: 3 * dims.heads * dims.key_dim,
    flops=lambda dims: (SIGMOID + Flops(elementwise=10)) * float(dims.heads * dims.key_dim),
    rank=rwkv_rank,
    early=True,
    apart=True,
)

REMOVALS: Mapping[str, RemovalForm] = {form.name: form for form in (KEY, CHANNEL, FEEDBACK, RATE)}


def check_delta(options: Mapping[str, Any]) -> None:
    """Raises `ValueError` where options of the delta rules do not go together, with the remedy."""
    for name, plain in (("removal", "key"), ("beta_range", 1), ("steps", 1)):
        if options["update"] != "delta" and options[name] != plain:
            raise ValueError(
                f"{name} = {options[name]} with update = {options['update']}, which removes nothing: set update = delta"
            )
    rule = options["removal"]
    if options["beta_range"] == 2 and not REMOVALS[rule].ranges:
        ranging = listing([form.name for form in REMOVALS.values() if form.ranges])
        raise ValueError(f"beta_range = 2 with removal = {rule} is not stable: choose removal = {ranging}")
    if options["steps"] > 1:
        taken = {"removal": "key", "write": "plain", "skip": False, "output_bonus": False, "levels": 0, "memories": 0}
        taken |= {"first_values": False}
        _alone(options, "steps", 1, taken)
    if rule != "key":
        _alone(options, "removal", "key", {"levels": 0, "memories": 0})
    if options["initial_state"] == "learned":
        taken = {"levels": 0, "memories": 0, "bonus": False, "normalizer": "none", "feature_map": "none"}
        _alone(options, "initial_state", "zero", taken)
    if options["static_shift"]:
        _alone(options, "static_shift", False, {"token_shift": False, "memories": 0})
    if options["output_bonus"]:
        _alone(options, "output_bonus", False, {"memories": 0, "feature_map": "none"})


def check_key_heads(options: Mapping[str, Any]) -> None:
    """Raises `ValueError` where heads of keys that several of values share do not go with the rest."""
    if options["key_heads"]:
        taken = {"key": "projected", "removal": "key", "feature_map": "none", "memories": 0}
        _alone(options, "key_heads", 0, taken | {"bonus": False, "output_bonus": False})


def check_start(options: Mapping[str, Any]) -> None:
    """Raises `ValueError` where a published start is not that of the layer."""
    if options["draws"] == "published":
        given = {"static_shift": True, "low_rank_gate": True, "output_bonus": True}
        _alone(options, "draws", "even", {"decay_form": "rwkv7", "removal": "rate", **given})


def _alone(options: Mapping[str, Any], name: str, plain: object, taken: Mapping[str, object]) -> None:
    """Raises `ValueError` unless the others have the values that stand beside the option `name`."""
    for other, value in taken.items():
        if options[other] != value:
            raise ValueError(
                f"{name} = {format_value(options[name])} with {other} = {format_value(options[other])}: beside {name} "
                f"only {other} = {format_value(value)} is known, or set {name} = {format_value(plain)}"
            )
