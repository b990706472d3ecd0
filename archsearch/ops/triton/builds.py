"""The machine code of the fused kernels: what `ops.triton.launch` launches in bfloat16, with float32 parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from archsearch.kernels import Build, Config, Table
from archsearch.ops.triton.conv import conv_backward, conv_forward, conv_step
from archsearch.ops.triton.gates import gate_backward, gate_forward
from archsearch.ops.triton.norms import gated_backward, gated_forward, unit_backward, unit_forward
from archsearch.ops.triton.table import CONV, GATED, GATES, UNIT


@dataclass(frozen=True, kw_only=True)
class _Kernel:
    """One kernel in what no row and no variant changes: its ``sizes`` are integers, its ``scalars`` float32, and
    ``tiles`` names the arguments for the configuration's tiles R and C, "" where it has none."""

    table: Table
    name: str
    fn: Any
    sizes: tuple[str, ...]
    tiles: tuple[str, str]
    scalars: tuple[str, ...] = ()

    def rows(self, arch: str) -> list[tuple[int, Mapping[str, Config]]]:
        """The rows of its table for an architecture, each with the size that keys it."""
        return [(size, row) for (row_arch, size, _), row in self.table.rows.items() if row_arch == arch]

    def build(
        self,
        row: Mapping[str, Config],
        size: int,
        pointers: Mapping[str, str],
        flags: Mapping[str, Any],
        variant: str = "",
    ) -> Build:
        """In the configuration of one row, with the types of its tensors and the constants of a variant."""
        config = row[self.name]
        blocks = {
            argument: config.tiles[tile] for argument, tile in zip(self.tiles, ("R", "C"), strict=True) if argument
        }
        return Build(
            op=self.table.op,
            name=self.name,
            fn=self.fn,
            signature={**pointers, **dict.fromkeys(self.sizes, "i32"), **dict.fromkeys(self.scalars, "fp32")},
            constexprs={**flags, **blocks},
            config=config,
            head_dim=size,
            variant=variant,
        )


_CONV_SIZES = ("tokens", "channels", "width", "x_batch", "x_token", "position_batch")
_CONV_FORWARD, _CONV_BACKWARD = (
    _Kernel(table=CONV, name=name, fn=fn, sizes=_CONV_SIZES, tiles=("BLOCK_T", "BLOCK_C"))
    for name, fn in (("forward", conv_forward), ("backward", conv_backward))
)
_CONV_STEP = _Kernel(
    table=CONV, name="step", fn=conv_step, sizes=("channels", "width", "x_batch"), tiles=("", "BLOCK_C")
)
_UNIT_FORWARD = _Kernel(
    table=UNIT,
    name="forward",
    fn=unit_forward,
    sizes=("rows", "heads", "dim", "x_token"),
    tiles=("BLOCK_R", ""),
    scalars=("eps",),
)
_UNIT_BACKWARD = _Kernel(table=UNIT, name="backward", fn=unit_backward, sizes=("rows", "dim"), tiles=("BLOCK_R", ""))
_GATED_FORWARD, _GATED_BACKWARD = (
    _Kernel(
        table=GATED,
        name=name,
        fn=fn,
        sizes=("rows", "heads", "dim", "gate_token"),
        tiles=("BLOCK_R", ""),
        scalars=("eps",),
    )
    for name, fn in (("forward", gated_forward), ("backward", gated_backward))
)
_GATE_FORWARD, _GATE_BACKWARD = (
    _Kernel(
        table=GATES,
        name=name,
        fn=fn,
        sizes=("rows", "columns", "group", "x_row"),
        tiles=("BLOCK_R", "BLOCK_C"),
        scalars=("temperature",),
    )
    for name, fn in (("forward", gate_forward), ("backward", gate_backward))
)


def builds(arch: str) -> Iterator[Build]:
    """Every kernel of every row of `arch`, in the variants that layers use."""
    for taps, row in _CONV_FORWARD.rows(arch):
        yield from _conv_builds(row, taps)
        yield from _conv_tail_builds(row, taps)
    for dim, row in _UNIT_FORWARD.rows(arch):
        yield from _unit_builds(row, dim)
    for dim, row in _GATED_FORWARD.rows(arch):
        yield from _gated_builds(row, dim)
    for dim, row in _GATE_FORWARD.rows(arch):
        yield from _gate_builds(row, dim)


def _conv_builds(row: Mapping[str, Config], taps: int) -> Iterator[Build]:
    for activation, packed in product(("none", "silu"), (False, True)):
        common = {"x": "*bf16", "weight": "*fp32", "positions": "*i64" if packed else "*bf16"}
        flags = {"ACTIVATION": activation, "PACKED": packed, "ALIGNED": True, "TAPS": taps}
        variant = activation + ("-packed" if packed else "")
        pointers = {**common, "tail": "*fp32", "y": "*bf16"}
        yield _CONV_FORWARD.build(row, taps, pointers, {**flags, "TAIL": False}, variant)
        grads = {"d_y": "*bf16", "d_x": "*bf16", "d_weight": "*fp32"}
        yield _CONV_BACKWARD.build(row, taps, {**common, **grads}, flags, variant)


def _conv_tail_builds(row: Mapping[str, Config], taps: int) -> Iterator[Build]:
    """After the last tokens of what came before, as in a prompt that is read in parts, and for one token."""
    tail = {"x": "*bf16", "weight": "*fp32", "tail": "*bf16", "y": "*bf16"}
    for activation in ("none", "silu"):
        flags = {"ACTIVATION": activation, "ALIGNED": True, "TAPS": taps, "PACKED": False, "TAIL": True}
        yield _CONV_FORWARD.build(row, taps, {**tail, "positions": "*bf16"}, flags, f"{activation}-tail")
        step_flags = {"ACTIVATION": activation, "TAPS": taps}
        yield _CONV_STEP.build(row, taps, {**tail, "after": "*bf16"}, step_flags, activation)


def _unit_builds(row: Mapping[str, Config], dim: int) -> Iterator[Build]:
    flags = {"ALIGNED": True, "BLOCK_D": dim}
    yield _UNIT_FORWARD.build(row, dim, {"x": "*bf16", "unit": "*bf16", "inverse": "*fp32"}, flags)
    grads = {"unit": "*bf16", "inverse": "*fp32", "d_unit": "*bf16", "d_x": "*bf16"}
    yield _UNIT_BACKWARD.build(row, dim, grads, flags)


def _gated_builds(row: Mapping[str, Config], dim: int) -> Iterator[Build]:
    common = {"x": "*bf16", "weight": "*fp32", "gate": "*bf16"}
    grads = {"d_out": "*bf16", "d_x": "*bf16", "d_gate": "*bf16", "d_weight": "*fp32"}
    for activation in ("none", "silu", "sigmoid"):
        flags = {"ACTIVATION": activation, "ALIGNED": True, "BLOCK_D": dim}
        yield _GATED_FORWARD.build(row, dim, {**common, "out": "*bf16"}, flags, activation)
        yield _GATED_BACKWARD.build(row, dim, {**common, **grads}, flags, activation)


def _gate_builds(row: Mapping[str, Config], group: int) -> Iterator[Build]:
    for form, step in (("rate", True), ("rate", False), ("logsigmoid", False), ("sigmoid", False)):
        parameter = "*fp32" if form == "rate" else "*bf16"
        common = {"x": "*bf16", "bias": parameter, "rate": parameter}
        flags = {"FORM": form, "STEP": step, "ALIGNED": True}
        variant = form + ("-step" if step else "")
        yield _GATE_FORWARD.build(row, group, {**common, "out": "*fp32", "step": "*fp32"}, flags, variant)
        grads = {"d_out": "*fp32", "d_step": "*fp32", "d_x": "*bf16", "d_bias": "*fp32", "d_rate": "*fp32"}
        yield _GATE_BACKWARD.build(row, group, {**common, **grads}, flags, variant)
