"""The machine code of the fused kernels: what the `launch_*` modules launch in bfloat16, with float32 parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from archsearch.kernels import Build, Config, Table
from archsearch.ops.triton.conv import conv_backward, conv_forward, conv_step
from archsearch.ops.triton.gates import gate_backward, gate_forward
from archsearch.ops.triton.norms import gated_backward, gated_forward, unit_backward, unit_forward
from archsearch.ops.triton.table import CONV, GATED, GATES, UNIT, recalls_outputs

_TILES = {"BLOCK_T": "R", "BLOCK_R": "R", "BLOCK_C": "C"}
"""Arguments of the kernels that are tiles of a configuration."""

_ROWS = (("*bf16", False), ("*bf16", True), ("*fp32", False), ("*fp32", True))
"""What rows of gates hold, and whether they are odd: read one number at a time, as gates of few heads are. In float32
are those that a layer makes so under autocast (mLSTM)."""


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One row of a table: its `size` (taps, or a head dim) and the configurations of its kernels."""

    op: str
    size: int
    configs: Mapping[str, Config]

    def build(
        self,
        name: str,
        fn: Any,
        pointers: Mapping[str, str],
        sizes: tuple[str, ...],
        flags: Mapping[str, Any],
        *,
        variant: str = "",
        scalars: tuple[str, ...] = (),
    ) -> Build:
        """The kernel `fn` in the configuration `name`."""
        config = self.configs[name]
        tiles = {argument: config.tiles[tile] for argument, tile in _TILES.items() if argument in fn.arg_names}
        return Build(
            op=self.op,
            name=name,
            fn=fn,
            signature={**pointers, **dict.fromkeys(sizes, "i32"), **dict.fromkeys(scalars, "fp32")},
            constexprs={**tiles, **flags},
            config=config,
            head_dim=self.size,
            variant=variant,
        )


_GATED = (("none", "*bf16"), ("silu", "*bf16"), ("sigmoid", "*bf16"), ("silu", "*fp32"))
"""Activations of a norm's gate, and what is normed: in float32 under autocast by MoM."""


def _rows(table: Table, arch: str) -> list[_Row]:
    return [_Row(op=table.op, size=key[1], configs=table.row(key)) for key in table.rows if key[0] == arch]


def builds(arch: str) -> Iterator[Build]:
    """Every kernel of every row of `arch`, in the variants that layers use."""
    yield from _conv_builds(arch)
    yield from _unit_builds(arch)
    yield from _gated_builds(arch)
    yield from _gate_builds(arch)


def _conv_builds(arch: str) -> Iterator[Build]:
    sizes = ("tokens", "channels", "width", "x_batch", "x_token", "position_batch")
    for row in _rows(CONV, arch):
        for activation, layout in product(("none", "silu"), ("", "-packed", "-odd")):
            packed = layout == "-packed"
            common = {"x": "*bf16", "weight": "*fp32", "positions": "*i64" if packed else "*bf16"}
            variant = activation + layout
            flags = {"ACTIVATION": activation, "PACKED": packed, "ALIGNED": layout != "-odd", "TAPS": row.size}
            yield row.build(
                "forward",
                conv_forward,
                {**common, "tail": "*fp32", "y": "*bf16"},
                sizes,
                {**flags, "TAIL": False},
                variant=variant,
            )
            if activation == "none" or not recalls_outputs(row.size):
                yield row.build(
                    "backward",
                    conv_backward,
                    {**common, "d_y": "*bf16", "d_x": "*bf16", "d_weight": "*fp32"},
                    sizes,
                    flags,
                    variant=variant,
                )
        for activation in ("none", "silu"):
            tail = {"x": "*bf16", "weight": "*fp32", "tail": "*bf16", "y": "*bf16"}
            flags = {"ACTIVATION": activation, "ALIGNED": True, "TAPS": row.size, "PACKED": False, "TAIL": True}
            yield row.build(
                "forward", conv_forward, {**tail, "positions": "*bf16"}, sizes, flags, variant=f"{activation}-tail"
            )
            yield row.build(
                "step",
                conv_step,
                {**tail, "after": "*bf16"},
                ("channels", "width", "x_batch"),
                {"ACTIVATION": activation, "TAPS": row.size},
                variant=activation,
            )


def _unit_builds(arch: str) -> Iterator[Build]:
    for row in _rows(UNIT, arch):
        yield row.build(
            "forward",
            unit_forward,
            {"x": "*bf16", "unit": "*bf16", "inverse": "*fp32"},
            ("rows", "heads", "dim", "x_token"),
            {"ALIGNED": True, "BLOCK_D": row.size},
            scalars=("eps",),
        )
        yield row.build(
            "backward",
            unit_backward,
            {"unit": "*bf16", "inverse": "*fp32", "d_unit": "*bf16", "d_x": "*bf16"},
            ("rows", "dim"),
            {"ALIGNED": True, "BLOCK_D": row.size},
        )


def _gated_builds(arch: str) -> Iterator[Build]:
    sizes = ("rows", "heads", "dim", "gate_token")
    for row, (activation, kind), odd in product(_rows(GATED, arch), _GATED, (False, True)):
        if odd and activation == "none":
            continue
        common = {"x": kind, "weight": "*fp32", "gate": "*bf16"}
        flags = {"ACTIVATION": activation, "ALIGNED": True, "ODD_GATE": odd, "BLOCK_D": row.size}
        variant = _variant(activation, kind, odd)
        yield row.build(
            "forward", gated_forward, {**common, "out": kind}, sizes, flags, variant=variant, scalars=("eps",)
        )
        grads = {"d_out": kind, "d_x": kind, "d_gate": "*bf16", "d_weight": "*fp32"}
        yield row.build(
            "backward", gated_backward, {**common, **grads}, sizes, flags, variant=variant, scalars=("eps",)
        )


def _gate_builds(arch: str) -> Iterator[Build]:
    sizes = ("rows", "columns", "group", "x_row")
    forms = (("rate", True), ("rate", False), ("logsigmoid", False), ("sigmoid", False))
    for row, (form, step), (kind, odd) in product(_rows(GATES, arch), forms, _ROWS):
        if kind == "*fp32" and form != "logsigmoid":
            continue
        parameter = "*fp32" if form == "rate" else kind
        common = {"x": kind, "bias": parameter, "rate": parameter}
        flags = {"FORM": form, "STEP": step, "ALIGNED": not odd}
        variant = _variant(form + ("-step" if step else ""), kind, odd)
        yield row.build(
            "forward",
            gate_forward,
            {**common, "out": "*fp32", "step": "*fp32"},
            sizes,
            flags,
            variant=variant,
            scalars=("temperature",),
        )
        grads = {"d_out": "*fp32", "d_step": "*fp32", "d_x": kind, "d_bias": "*fp32", "d_rate": "*fp32"}
        yield row.build(
            "backward",
            gate_backward,
            {**common, **grads},
            sizes,
            flags,
            variant=variant,
            scalars=("temperature",),
        )


def _variant(name: str, kind: str, odd: bool = False) -> str:
    return name + ("-float32" if kind == "*fp32" else "") + ("-odd" if odd else "")
