"""The machine code of the fused kernels: what the `launch_*` modules launch in bfloat16, with float32 parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from archsearch.kernels import Build, Config, Table
from archsearch.ops.triton.conv import conv_backward, conv_forward, conv_step
from archsearch.ops.triton.gates import gate_backward, gate_forward
from archsearch.ops.triton.norms import gated_backward, gated_forward, unit_backward, unit_forward
from archsearch.ops.triton.table import CONV, GATED, GATES, UNIT


def builds(arch: str) -> Iterator[Build]:
    """Every kernel of every row of `arch`, in the variants that layers use."""
    yield from _conv_builds(arch)
    yield from _unit_builds(arch)
    yield from _gated_builds(arch)
    yield from _gate_builds(arch)


def _conv_builds(arch: str) -> Iterator[Build]:
    sizes = ("tokens", "channels", "width", "x_batch", "x_token", "position_batch")
    for taps, row in _rows(CONV, arch):
        for activation, packed in product(("none", "silu"), (False, True)):
            common = {"x": "*bf16", "weight": "*fp32", "positions": "*i64" if packed else "*bf16"}
            variant = activation + ("-packed" if packed else "")
            flags = {"ACTIVATION": activation, "PACKED": packed, "ALIGNED": True, "TAPS": taps}
            yield _build(
                CONV,
                "forward",
                conv_forward,
                row,
                taps,
                variant,
                {**common, "tail": "*fp32", "y": "*bf16"},
                sizes,
                {**flags, "TAIL": False},
                ("BLOCK_T", "BLOCK_C"),
            )
            yield _build(
                CONV,
                "backward",
                conv_backward,
                row,
                taps,
                variant,
                {**common, "d_y": "*bf16", "d_x": "*bf16", "d_weight": "*fp32"},
                sizes,
                flags,
                ("BLOCK_T", "BLOCK_C"),
            )
        for activation in ("none", "silu"):
            tail = {"x": "*bf16", "weight": "*fp32", "tail": "*bf16", "y": "*bf16"}
            flags = {"ACTIVATION": activation, "ALIGNED": True, "TAPS": taps, "PACKED": False, "TAIL": True}
            yield _build(
                CONV,
                "forward",
                conv_forward,
                row,
                taps,
                f"{activation}-tail",
                {**tail, "positions": "*bf16"},
                sizes,
                flags,
                ("BLOCK_T", "BLOCK_C"),
            )
            yield _build(
                CONV,
                "step",
                conv_step,
                row,
                taps,
                activation,
                {**tail, "after": "*bf16"},
                ("channels", "width", "x_batch"),
                {"ACTIVATION": activation, "TAPS": taps},
                ("", "BLOCK_C"),
            )


def _unit_builds(arch: str) -> Iterator[Build]:
    for dim, row in _rows(UNIT, arch):
        yield _build(
            UNIT,
            "forward",
            unit_forward,
            row,
            dim,
            "",
            {"x": "*bf16", "unit": "*bf16", "inverse": "*fp32"},
            ("rows", "heads", "dim", "x_token"),
            {"ALIGNED": True, "BLOCK_D": dim},
            ("BLOCK_R", ""),
            scalars=("eps",),
        )
        yield _build(
            UNIT,
            "backward",
            unit_backward,
            row,
            dim,
            "",
            {"unit": "*bf16", "inverse": "*fp32", "d_unit": "*bf16", "d_x": "*bf16"},
            ("rows", "dim"),
            {"ALIGNED": True, "BLOCK_D": dim},
            ("BLOCK_R", ""),
        )


def _gated_builds(arch: str) -> Iterator[Build]:
    sizes = ("rows", "heads", "dim", "gate_token")
    common = {"x": "*bf16", "weight": "*fp32", "gate": "*bf16"}
    for (dim, row), activation in product(_rows(GATED, arch), ("none", "silu", "sigmoid")):
        flags = {"ACTIVATION": activation, "ALIGNED": True, "BLOCK_D": dim}
        yield _build(
            GATED,
            "forward",
            gated_forward,
            row,
            dim,
            activation,
            {**common, "out": "*bf16"},
            sizes,
            flags,
            ("BLOCK_R", ""),
            scalars=("eps",),
        )
        grads = {"d_out": "*bf16", "d_x": "*bf16", "d_gate": "*bf16", "d_weight": "*fp32"}
        yield _build(
            GATED,
            "backward",
            gated_backward,
            row,
            dim,
            activation,
            {**common, **grads},
            sizes,
            flags,
            ("BLOCK_R", ""),
            scalars=("eps",),
        )


def _gate_builds(arch: str) -> Iterator[Build]:
    sizes = ("rows", "columns", "group", "x_row")
    for (dim, row), (form, step) in product(
        _rows(GATES, arch), (("rate", True), ("rate", False), ("logsigmoid", False), ("sigmoid", False))
    ):
        parameter = "*fp32" if form == "rate" else "*bf16"
        common = {"x": "*bf16", "bias": parameter, "rate": parameter}
        flags = {"FORM": form, "STEP": step, "ALIGNED": True}
        yield _build(
            GATES,
            "forward",
            gate_forward,
            row,
            dim,
            form + ("-step" if step else ""),
            {**common, "out": "*fp32", "step": "*fp32"},
            sizes,
            flags,
            ("BLOCK_R", "BLOCK_C"),
            scalars=("temperature",),
        )
        grads = {"d_out": "*fp32", "d_step": "*fp32", "d_x": "*bf16", "d_bias": "*fp32", "d_rate": "*fp32"}
        yield _build(
            GATES,
            "backward",
            gate_backward,
            row,
            dim,
            form + ("-step" if step else ""),
            {**common, **grads},
            sizes,
            flags,
            ("BLOCK_R", "BLOCK_C"),
            scalars=("temperature",),
        )


def _rows(table: Table, arch: str) -> list[tuple[int, Mapping[str, Config]]]:
    return [(dim, row) for (row_arch, dim, _), row in table.rows.items() if row_arch == arch]


def _build(
    table: Table,
    name: str,
    fn: Any,
    row: Mapping[str, Config],
    dim: int,
    variant: str,
    pointers: Mapping[str, str],
    sizes: tuple[str, ...],
    flags: Mapping[str, Any],
    tiles: tuple[str, str],
    *,
    scalars: tuple[str, ...] = (),
) -> Build:
    """`tiles` names the kernel's arguments for the configuration's tiles R and C, "" where it has none."""
    config = row[name]
    blocks = {argument: config.tiles[tile] for argument, tile in zip(tiles, ("R", "C"), strict=True) if argument}
    signature = {**pointers, **dict.fromkeys(sizes, "i32"), **dict.fromkeys(scalars, "fp32")}
    return Build(
        op=table.op,
        name=name,
        fn=fn,
        signature=signature,
        constexprs={**flags, **blocks},
        config=config,
        head_dim=dim,
        variant=variant,
    )
