"""What the launch of window attention compiles, for compilation ahead of time."""

from __future__ import annotations

from collections.abc import Iterator

from archsearch.kernels import Build, Key
from archsearch.ops.triton.step import step_builds

from .backward import KEYS_SIZES, keys_backward, queries_backward
from .forward import SIZES, attention_forward
from .table import TABLE

_READ = ("q", "k", "v")
_KERNELS = {
    "forward": (attention_forward, (*_READ, "o", "lse", "starts", "lengths"), SIZES),
    "queries": (queries_backward, (*_READ, "o", "lse", "starts", "lengths", "do", "delta", "dq"), SIZES),
    "keys": (keys_backward, (*_READ, "lse", "starts", "ends", "lengths", "do", "delta", "dk", "dv"), KEYS_SIZES),
}
_PARTS, _LENGTHS = {"dk": "*fp32", "dv": "*fp32"}, {"lengths": "*i64"}
_VARIANTS: dict[str, dict[str, str]] = {
    "": {},
    "packed": {"starts": "*i32", "ends": "*i32"},
    "ragged": _LENGTHS,
    "parts": _PARTS,
    "ragged-parts": {**_LENGTHS, **_PARTS},
}


def builds(arch: str) -> Iterator[Build]:
    """Every kernel of every row of an architecture in bfloat16: for one sequence a row, for packed ones, for those that
    have filled a part of their rows, and, where there are sinks, for the gradient of theirs in parts."""
    for key in TABLE.rows:
        if key[0] == arch:
            for name in _KERNELS:
                for variant in _VARIANTS:
                    if name == "keys" or "parts" not in variant:
                        yield _build(key, name, variant)
            yield from step_builds(TABLE, key)


def _build(key: Key, name: str, variant: str) -> Build:
    fn, pointers, sizes = _KERNELS[name]
    width, config = key[1], TABLE.row(key)[name]
    types = {"lse": "*fp32", "delta": "*fp32", **_VARIANTS[variant]}
    return Build(
        op=TABLE.op,
        name=name,
        fn=fn,
        head_dim=width,
        config=config,
        variant=variant,
        signature={
            **{pointer: types.get(pointer, "*bf16") for pointer in pointers},
            "scale": "fp32",
            **dict.fromkeys(sizes, "i32"),
        },
        constexprs={
            "D": width,
            "DV": width,
            "BLOCK_D": width,
            **config.tiles,
            "PACKED": variant == "packed",
            "RAGGED": variant.startswith("ragged"),
            "PRECISION": "tf32",
        },
    )
