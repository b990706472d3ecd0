"""Named points of the options of the linear mixers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BARE = {"activation": "none", "norm": "none", "value_activation": "none", "conv": 0}
"""Nothing between the projections and the recurrence."""

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
    "gated-retention": {**_BARE, "decay": "head", "decay_form": "gated-retention"},
    "hgrn2": {
        **_BARE,
        "decay": "channel",
        "decay_form": "hgrn2-trained",
        "activation": "silu",
        "key": "forget",
        "output_gate": "none",
    },
    "rwkv6": {**_BARE, "decay": "channel", "decay_form": "rwkv6", "bonus": True, "token_shift": True},
    "mlstm": {
        **_BARE,
        "decay": "head",
        "decay_form": "mlstm",
        "write": "exp",
        "normalizer": "max",
        "output_gate": "sigmoid",
    },
    "performer": {
        **_BARE,
        "feature_map": "favor",
        "normalizer": "sum",
        "output_norm": "none",
        "output_gate": "none",
    },
    "log-linear-mamba2": {"decay": "head", "norm": "none", "write": "dt", "levels": 15},
    "deltanet": {"update": "delta", "output_gate": "none"},
    "gated-deltanet": {"update": "delta", "decay": "head"},
    "log-linear-gated-deltanet": {"update": "delta", "decay": "head", "levels": 15},
    "mom": {"update": "delta", "decay": "head", "memories": 4, "memories_used": 2, "shared_memory": True},
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

CASES: Mapping[str, Mapping[str, Any]] = {
    "other-sizes": {"key_dim": 5, "value_dim": 12, "decay": "head"},
    "delta-constant": {"update": "delta", "decay": "constant"},
    "published-mamba2": {
        "decay": "head",
        "norm": "none",
        "write": "dt",
        "conv_bias": True,
        "skip": True,
        "output_norm": "gated",
    },
    "published-lightning": {"decay": "constant", "norm": "none", "output_norm": "joint", "output_bonus": True},
    "published-retnet": {**PRESETS["retnet"], "rope": 1.0, "key_dim": 6, "value_dim": 12, "output_norm": "layer"},
    "published-rwkv7": {
        **PRESETS["rwkv7"],
        "first_values": True,
        "gate_rank": 12,
        "inner_gate": True,
        "output_norm": "group",
    },
    "published-xlstm": {**PRESETS["mlstm"], "decay_form": "xlstm-7b", "key_dim": 6, "output_norm": "group"},
    "factor-levels": {"decay": "head", "levels": 4, "level_weights": "factor"},
    "shared-keys": {"update": "delta", "decay": "head", "key_heads": 1},
    "rotated-delta": {"update": "delta", "decay": "head", "removal": "feedback", "rope": 0.5},
    "three-steps": {"update": "delta", "decay": "constant", "steps": 3, "conv": 2},
    "learned-shift": {"decay": "head", "initial_state": "learned", "static_shift": True, "output_bonus": True},
    "learned-rate": {"update": "delta", "initial_state": "learned", "removal": "rate", "conv": 0},
}
"""What the laws are tried on beside the presets."""
