"""The contract of a token mixer, without torch: shapes, options, states, costs, and who builds the layer.

A *mixer* stands where softmax attention stands in a Transformer block. A plugin author subclasses
`MixerOptions` and `MixerPlugin`; the torch half of the contract is `archsearch.model.Mixer`.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Protocol, TypeVar

from pydantic import ConfigDict, ValidationError

from archsearch.errors import OptionsError, foreign_code, listing, nearest
from archsearch.numbers import Numbers

if TYPE_CHECKING:
    from archsearch.bench.op import BenchOp
    from archsearch.kernels import Build
    from archsearch.model import Mixer

API_VERSION = 1
"""Version of the contract that this core speaks."""

MOST_CHOICES = 100_000
"""Combinations of tunable options that `MixerPlugin.choices` goes through at most."""

Dtype = Literal["float64", "float32", "bfloat16", "float16", "float8_e4m3fn", "int64", "int32", "int8"]
DTYPE_BYTES: Mapping[str, int] = {
    "float64": 8,
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "float8_e4m3fn": 1,
    "int64": 8,
    "int32": 4,
    "int8": 1,
}

Phase = Literal["train", "prefill", "decode"]
Family = Literal["full", "sliding", "linear", "sparse", "memory", "hybrid", "other"]
Law = Literal["step", "split", "causal", "packed"]
"""Laws of every mixer: forward = repeated step; = prefill then decode; sees no future; packed = each sequence apart."""


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Sizes that a mixer is built for. ``dtype`` is the dtype of activations and caches that costs are counted in."""

    d_model: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    dtype: Dtype = "bfloat16"

    def __post_init__(self) -> None:
        for name in ("d_model", "n_heads", "n_kv_heads", "head_dim"):
            if getattr(self, name) < 1:
                raise OptionsError(f"{name} = {getattr(self, name)}: must be at least 1")
        if self.n_heads % self.n_kv_heads:
            raise OptionsError(
                f"n_kv_heads = {self.n_kv_heads} does not divide n_heads = {self.n_heads}: choose a divisor"
            )
        if self.dtype not in DTYPE_BYTES:
            raise OptionsError(f'dtype = "{self.dtype}" is unknown: one of {listing(DTYPE_BYTES)}')

    @property
    def dtype_bytes(self) -> int:
        """Bytes of one element."""
        return DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """What a name in a pattern stands for: a plugin, and the options that a preset fixes (none for a mixer name)."""

    plugin: MixerPlugin[Any]
    preset: Mapping[str, Any]


class Resolver(Protocol):
    """Finds the mixer or preset of a name; the registry is one."""

    def resolve(self, name: str) -> Resolved:
        """Raises `UnknownNameError` or `ConflictError`."""
        ...

    def presets_of(self, mixer: str) -> Mapping[str, Mapping[str, Any]]:
        """The presets of a mixer that belong to it alone."""
        ...


@dataclass(frozen=True, kw_only=True)
class LayerInfo:
    """Where a mixer stands: layer ``index`` of ``depth``, and a resolver for mixers made of other mixers."""

    index: int = 0
    depth: int = 1
    resolver: Resolver | None = None


@dataclass(frozen=True)
class Tunable:
    """Search metadata of an option: ``Annotated[int, Tunable(64, 128, 256)]`` may be searched over these choices."""

    choices: tuple[Any, ...]

    def __init__(self, *choices: Any) -> None:
        object.__setattr__(self, "choices", choices)


class MixerOptions(Numbers):
    """Options of a mixer: frozen, every key known, every default stated, every number finite. Fields may carry
    `Tunable`."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    @classmethod
    def tunables(cls) -> dict[str, tuple[Any, ...]]:
        """The choices that a search may make, by option, in the order of declaration."""
        found = {}
        for name, field in cls.model_fields.items():
            for meta in field.metadata:
                if isinstance(meta, Tunable):
                    found[name] = meta.choices
        return found


OptionsT = TypeVar("OptionsT", bound=MixerOptions)


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Floating-point operations by kind: matrix products (2 a multiply-add), elementwise, exponentials."""

    matmul: float = 0.0
    elementwise: float = 0.0
    exp: float = 0.0

    @property
    def total(self) -> float:
        """All kinds together."""
        return self.matmul + self.elementwise + self.exp

    def __add__(self, other: Flops) -> Flops:
        return Flops(
            matmul=self.matmul + other.matmul,
            elementwise=self.elementwise + other.elementwise,
            exp=self.exp + other.exp,
        )

    def __mul__(self, factor: float) -> Flops:
        return Flops(matmul=self.matmul * factor, elementwise=self.elementwise * factor, exp=self.exp * factor)


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Bytes of state that one decoded token of one sequence reads and writes; weights are counted apart."""

    read_bytes: float = 0.0
    written_bytes: float = 0.0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            read_bytes=self.read_bytes + other.read_bytes,
            written_bytes=self.written_bytes + other.written_bytes,
        )


@dataclass(frozen=True, kw_only=True)
class StateTensor:
    """One tensor that decoding keeps for one sequence, ``rows(T)`` rows of ``row_shape``.

    ``rows(T) = base + min(cap, ceil(T / stride))``: a fixed state is ``base=1``; one row a token is
    ``stride=1``; a window is ``stride=1, cap=window``; one row a block is ``stride=block``.
    """

    name: str
    row_shape: tuple[int, ...]
    dtype: Dtype
    role: Literal["kv", "summary", "recurrent", "conv", "index"]
    base: int = 0
    stride: int | None = None
    cap: int | None = None

    @property
    def grows(self) -> bool:
        """Whether the tensor grows with tokens (a window included)."""
        return self.stride is not None

    def rows(self, context: int) -> int:
        """Rows held after `context` tokens."""
        if self.stride is None:
            return self.base
        grown = -(-context // self.stride)
        return self.base + (grown if self.cap is None else min(self.cap, grown))

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        size = DTYPE_BYTES[self.dtype]
        for extent in self.row_shape:
            size *= extent
        return size

    def nbytes(self, context: int) -> int:
        """Bytes held for one sequence after `context` tokens."""
        return self.rows(context) * self.row_bytes


class MixerPlugin(ABC, Generic[OptionsT]):
    """A token mixer as the registry knows it: its options, presets, costs, states, and the builder of its layer.

    Importing and costing a plugin must not import torch; only `build` may. ``version`` is raised whenever results
    of the same options change, so that stored measurements of the old code are not taken for the new one's.
    ``op_names`` are the names in `bench_ops` that are neither the mixer's nor a preset's.
    """

    name: ClassVar[str]
    family: ClassVar[Family]
    summary: ClassVar[str]
    options: ClassVar[type[MixerOptions]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    broken_laws: ClassVar[Mapping[Law, str]] = {}
    op_names: ClassVar[tuple[str, ...]] = ()
    api_version: ClassVar[int] = API_VERSION
    version: ClassVar[int] = 1

    @abstractmethod
    def params(self, options: OptionsT, shape: ModelShape, layer: LayerInfo) -> int:
        """Number of trained parameters of the layer."""

    @abstractmethod
    def flops(self, options: OptionsT, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        """Operations of the forward pass: over a sequence of `context` tokens ("train", "prefill"), or of one token
        decoded when `context` tokens, itself included, are in the state ("decode"). Causal work counts the half
        that is needed. Core multiplies "train" by three."""

    @abstractmethod
    def traffic(self, options: OptionsT, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        """Bytes of state read and written by one token decoded when `context` tokens, itself included, are in it."""

    @abstractmethod
    def state(self, options: OptionsT, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        """What decoding keeps for one sequence: core counts bytes from it and allocates by it."""

    @abstractmethod
    def build(self, options: OptionsT, shape: ModelShape, layer: LayerInfo) -> Mixer:
        """The torch layer."""

    def kernels(self, arch: str) -> Iterable[Build]:
        """The Triton kernels of the plugin's ops as they run on an architecture, for compilation ahead of time."""
        return ()

    def bench_ops(self) -> Iterable[BenchOp]:
        """The plugin's pure ops as ``archsearch bench kernels`` measures them."""
        return ()

    def dense_up_to(self, options: OptionsT) -> int:
        """The longest sequence on which the mixer's sparsity drops nothing, 0 when it always acts.

        A window of 64 sees everything on 64 tokens: measured there, it would pass for full attention.
        """
        return 0

    def parse_options(self, values: Mapping[str, Any]) -> OptionsT:
        """Options from plain values; raises `OptionsError` that names the option, the value and what is allowed."""
        with foreign_code(f'mixer "{self.name}"', "the validation of its options"):
            try:
                return self.options.model_validate(dict(values))  # type: ignore[return-value]
            except ValidationError as error:
                raise OptionsError(self._explain(error)) from None

    def _explain(self, error: ValidationError) -> str:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        known = list(self.options.model_fields)
        if first["type"] == "extra_forbidden":
            return f'{self.name} has no option "{key}"{nearest(key, known)}: its options are {listing(known)}'
        if not key:
            return f"{self.name}: {first['msg'].removeprefix('Value error, ')}"
        return f"{self.name}({key}={first['input']!r}): {first['msg'].removeprefix('Value error, ')}"

    def choices(self, narrowed: Mapping[str, tuple[Any, ...]] | None = None) -> Iterator[OptionsT]:
        """Every valid combination of the tunable options (or of `narrowed`), the others at their defaults.

        Raises `OptionsError` where there are more than `MOST_CHOICES` to try.
        """
        tunables = {**self.options.tunables(), **(narrowed or {})}
        count = math.prod(len(choices) for choices in tunables.values())
        if count > MOST_CHOICES:
            raise OptionsError(
                f"{self.name}: its tunable options have {count} combinations, more than {MOST_CHOICES}: narrow them"
            )
        for values in itertools.product(*tunables.values()):
            try:
                yield self.parse_options(dict(zip(tunables, values, strict=True)))
            except OptionsError:
                continue
