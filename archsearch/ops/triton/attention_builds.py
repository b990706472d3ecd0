"""Builds of the kernels for ranges and chosen blocks, as `attention_launch` launches them in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from archsearch.kernels import Build, Config, Table

_TYPES = {
    "q": "*bf16",
    "k": "*bf16",
    "v": "*bf16",
    "o": "*bf16",
    "g": "*bf16",
    "x": "*bf16",
    "means": "*bf16",
    "parts": "*bf16",
    "dq": "*bf16",
    "norms": "*fp32",
    "part_norms": "*fp32",
    "inners": "*fp32",
    "dk": "*fp32",
    "dv": "*fp32",
    "lows": "*i32",
    "highs": "*i32",
    "begins": "*i32",
    "ends": "*i32",
    "order": "*i32",
    "bounds": "*i32",
    "tile_lane": "*i32",
    "tile_first": "*i32",
    "starts": "*i32",
    "stops": "*i32",
    "firsts": "*i32",
    "owns": "*i32",
    "chosen": "*i32",
    "ats": "*i32",
    "lengths": "*i64",
    "scale": "fp32",
    "grad_scale": "fp32",
}


@dataclass(frozen=True, kw_only=True)
class Builder:
    """Builds of one row of a table, for models of `heads` query heads and `key_heads` key heads."""

    op: str
    head_dim: int
    row: Mapping[str, Config]
    heads: int
    key_heads: int

    def build(
        self, name: str, fn: Any, *, variant: str = "", types: Mapping[str, str] | None = None, **extra: Any
    ) -> Build:
        """The kernel `fn` in the configuration `name`; `extra` are its constants beside those of every kernel, and
        `types` says which arguments differ from what their names stand for."""
        config = self.row[name]
        known: dict[str, Any] = {
            "HEADS": self.heads,
            "GROUP": self.heads // self.key_heads,
            "KV_HEADS": self.key_heads,
            "D": self.head_dim,
            "WIDTH": self.head_dim,
            "PRECISION": "tf32",
            **config.tiles,
            **extra,
        }
        constants = {name: known[name] for name in fn.arg_names if name in known}
        signature = {
            name: {**_TYPES, **(types or {})}.get(name, "i32") for name in fn.arg_names if name not in constants
        }
        return Build(
            op=self.op,
            name=name,
            fn=fn,
            signature=signature,
            constexprs=constants,
            config=config,
            head_dim=self.head_dim,
            variant=variant,
        )


def builders(table: Table, arch: str, *, heads: int, key_heads: int) -> Iterator[Builder]:
    """One for each row of a table on an architecture."""
    for key in table.rows:
        if key[0] == arch:
            row = table.row(key)
            yield Builder(op=table.op, head_dim=key[1], row=row, heads=heads, key_heads=key_heads)
