"""The machine code of the step kernel: what `launch_step` launches in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from archsearch.kernels import Build, Config

from .step import step_kernel
from .table_step import OP, TABLE

_SIZES = (
    "heads",
    "value_heads",
    "key_dim",
    "value_dim",
    "q_row",
    "k_row",
    "v_row",
    "decay_row",
    "beta_row",
)
_SIGNATURE = {
    **dict.fromkeys(("q", "k", "v"), "*bf16"),
    **dict.fromkeys(("log_decay", "beta", "state", "after"), "*fp32"),
    "o": "*bf16",
    "scale": "fp32",
    **dict.fromkeys(_SIZES, "i32"),
}


def step_builds(arch: str) -> Iterator[Build]:
    """Every rule and decay in every row of `arch`; and, for value dims that are no multiple of 4, the delta rule with
    a decay by channel."""
    for (row_arch, key_dim, _), row in TABLE.rows.items():
        if row_arch != arch:
            continue
        for name, config in row.items():
            for rule, decay in product(("hebbian", "delta"), ("none", "constant", "head", "channel")):
                yield _build(name, config, key_dim, rule, decay, aligned=True)
            yield _build(name, config, key_dim, "delta", "channel", aligned=False)


def _build(name: str, config: Config, key_dim: int, rule: str, decay: str, *, aligned: bool) -> Build:
    constexprs = {
        "DELTA": rule == "delta",
        "DECAY": decay,
        "ALIGNED": aligned,
        "BLOCK_K": key_dim,
        "BLOCK_V": config.tiles["V"],
    }
    variant = f"{rule}-{decay}" + ("" if aligned else "-odd")
    signature = dict(_SIGNATURE)
    if rule == "hebbian":
        signature["beta"] = "*bf16"  # stands in: the kernel reads none
    if decay == "none":
        signature["log_decay"] = "*bf16"
    return Build(
        op=OP,
        name=name,
        fn=step_kernel,
        signature=signature,
        constexprs=constexprs,
        config=config,
        head_dim=key_dim,
        variant=variant,
    )
