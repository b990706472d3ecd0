"""Figures: what a plugin says of a layer's cost, checked where it enters, so that no other sum needs to doubt it."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, TypeVar, get_args, get_type_hints

from archsearch.amounts import Flops, Traffic
from archsearch.errors import PluginError, foreign_code
from archsearch.layer import LayerInfo, LayerSpec
from archsearch.mixer import MixerPlugin, Phase
from archsearch.options import MixerOptions
from archsearch.shapes import DTYPE_BYTES, ModelShape, StateTensor

_T = TypeVar("_T")
_ROLES = get_args(get_type_hints(StateTensor)["role"])
_OF_VALUES = ("its heads", "their width")
_MOST = 2**1000
"""No cost is larger: a sum of many still is a float."""


class Figures:
    """The figures of one mixer in one layer. Every method raises `PluginError` that names the mixer, the layer, the
    figure, its value and the context, and `ForeignCodeError` for what the plugin raises."""

    def __init__(self, plugin: MixerPlugin[Any], options: MixerOptions, shape: ModelShape, layer: LayerInfo) -> None:
        self._plugin, self._of = plugin, (options, shape, layer.told_to(plugin, options))
        self._what = f'mixer "{plugin.name}", layer {layer.index}'

    def params(self) -> int:
        """Parameters: a whole number, not negative."""
        call = "params()"
        return self._whole(call, call, self._called(call, lambda: self._plugin.params(*self._of)))

    def active_params(self) -> int:
        """Parameters that one token meets: a whole number, at most all of them."""
        call, most = "active_params()", self.params()
        found = self._whole(call, call, self._called(call, lambda: self._plugin.active_params(*self._of)))
        if found > most:
            raise self._refused(call, call, found, f"at most params(), which gave {most}")
        return found

    def refusal(self) -> str | None:
        """Why the layer cannot stand where it does: None, or a sentence."""
        call = "check()"
        found: object = self._called(call, lambda: self._plugin.check(*self._of))
        if found is not None and not (isinstance(found, str) and found.strip()):
            raise self._refused(call, call, found, "None, or the reason as text")
        return found

    def dense_up_to(self) -> int:
        """The longest sequence on which the mixer's own sparsity drops nothing: a whole number, not negative."""
        call, (options, _, layer) = "dense_up_to()", self._of
        return self._whole(call, call, self._called(call, lambda: self._plugin.dense_up_to(options, layer)))

    def values(self) -> tuple[int, int] | None:
        """Heads of values and their width: None, or two whole numbers of at least 1."""
        call, (options, shape, _) = "values()", self._of
        found: object = self._called(call, lambda: self._plugin.values(options, shape))
        if found is None:
            return None
        if not isinstance(found, tuple) or len(found) != 2:
            raise self._refused(call, call, found, "None, or the number of heads and their width")
        heads, width = (self._whole(call, figure, one, least=1) for figure, one in zip(_OF_VALUES, found, strict=True))
        return heads, width

    def hands_out(self) -> int | None:
        """Channels that the last projection reads: None, or a whole number of at least 1."""
        call, (options, shape, _) = "hands_out()", self._of
        found: object = self._called(call, lambda: self._plugin.hands_out(options, shape))
        return self._optional(call, call, found, least=1)

    def flops(self, *, phase: Phase, context: int) -> Flops:
        """Operations of each kind: finite and not negative."""
        call = f'flops(phase="{phase}", context={context})'
        found = self._called(call, lambda: self._plugin.flops(*self._of, phase=phase, context=context))
        self._is(call, found, Flops)
        kinds = {kind: self._amount(call, kind, getattr(found, kind)) for kind in ("matmul", "elementwise", "exp")}
        return Flops(**kinds)

    def traffic(self, *, context: int) -> Traffic:
        """Bytes read and written: finite and not negative, a peak no less than the mean."""
        call = f"traffic(context={context})"
        found = self._called(call, lambda: self._plugin.traffic(*self._of, context=context))
        self._is(call, found, Traffic)
        read, written = (self._amount(call, way, getattr(found, way)) for way in ("read_bytes", "written_bytes"))
        return Traffic(
            read_bytes=read,
            written_bytes=written,
            peak_read_bytes=self._peak(call, "peak_read_bytes", found.peak_read_bytes, read),
            peak_written_bytes=self._peak(call, "peak_written_bytes", found.peak_written_bytes, written),
        )

    def _peak(self, call: str, figure: str, value: object, mean: float) -> float | None:
        if value is None:
            return None
        peak = self._amount(call, figure, value)
        if peak < mean:
            raise self._refused(call, figure, value, f"no less than the mean, {mean:g}")
        return peak

    def state(self) -> tuple[StateTensor, ...]:
        """Tensors with names of their own, and rows of whole numbers."""
        call = "state()"
        found = self._called(call, lambda: self._plugin.state(*self._of))
        if not isinstance(found, tuple):
            raise self._refused(call, "the state", found, "a tuple of StateTensor")
        tensors = tuple(self._tensor(call, tensor) for tensor in found)
        names = [tensor.name for tensor in tensors]
        for name in names:
            if names.count(name) > 1:
                raise self._refused(call, "a name", name, "one tensor's alone")
        return tensors

    def _tensor(self, call: str, tensor: object) -> StateTensor:
        self._is(call, tensor, StateTensor)
        assert isinstance(tensor, StateTensor)
        if not isinstance(tensor.name, str) or not tensor.name:
            raise self._refused(call, "a tensor's name", tensor.name, "text")
        for field, known in (("dtype", tuple(DTYPE_BYTES)), ("role", _ROLES)):
            value = getattr(tensor, field)
            if not isinstance(value, str) or value not in known:
                raise self._refused(call, f"{field} of {tensor.name}", value, f"one of {', '.join(known)}")
        if not isinstance(tensor.row_shape, tuple):
            raise self._refused(call, f"row_shape of {tensor.name}", tensor.row_shape, "a tuple of whole numbers")
        extents = tuple(self._whole(call, f"row_shape of {tensor.name}", extent) for extent in tensor.row_shape)
        return StateTensor(
            name=tensor.name,
            row_shape=extents,
            dtype=tensor.dtype,
            role=tensor.role,
            base=self._whole(call, f"base of {tensor.name}", tensor.base),
            stride=self._optional(call, f"stride of {tensor.name}", tensor.stride, least=1),
            cap=self._optional(call, f"cap of {tensor.name}", tensor.cap),
            log2=self._log2(call, tensor),
        )

    def _log2(self, call: str, tensor: StateTensor) -> bool:
        if not isinstance(tensor.log2, bool):
            raise self._refused(call, f"log2 of {tensor.name}", tensor.log2, "True or False")
        if tensor.log2 and tensor.stride is not None:
            raise self._refused(call, f"stride of {tensor.name}", tensor.stride, "None beside log2=True")
        return tensor.log2

    def _optional(self, call: str, figure: str, value: object, *, least: int = 0) -> int | None:
        return None if value is None else self._whole(call, figure, value, least=least)

    def _called(self, call: str, made: Callable[[], _T]) -> _T:
        with foreign_code(self._what, call):
            return made()

    def _is(self, call: str, found: object, kind: type) -> None:
        if not isinstance(found, kind):
            raise self._refused(call, "its answer", found, f"of the type {kind.__name__}")

    def _whole(self, call: str, figure: str, value: object, *, least: int = 0) -> int:
        number = whole(value)
        if number is None or not least <= number <= _MOST:
            wanted = "a whole number" + (f" of at least {least}" if least else ", not negative")
            raise self._refused(call, figure, value, wanted)
        return number

    def _amount(self, call: str, figure: str, value: object) -> float:
        number = amount(value)
        if number is None or not 0 <= number <= _MOST:
            raise self._refused(call, figure, value, "finite and not negative")
        return number

    def _refused(self, call: str, figure: str, value: object, wanted: str) -> PluginError:
        gave = f"{call} gave {_shown(value)}" if figure == call else f"{call} gave {figure} = {_shown(value)}"
        return PluginError(f"{self._what}: {gave}: must be {wanted}")


def parts_of(plugin: MixerPlugin[Any], options: MixerOptions) -> tuple[LayerSpec, ...]:
    """`MixerPlugin.parts`, checked: a tuple of layers."""
    what = f'mixer "{plugin.name}"'
    with foreign_code(what, "parts()"):
        found: object = plugin.parts(options)
    if not isinstance(found, tuple) or not all(isinstance(part, LayerSpec) for part in found):
        raise PluginError(f"{what}: parts() gave {_shown(found)}: must be a tuple of LayerSpec")
    return found


def part_shape_of(plugin: MixerPlugin[Any], options: MixerOptions, shape: ModelShape, index: int) -> ModelShape:
    """`MixerPlugin.part_shape`, checked: a shape of the same width and dtype."""
    what = f'mixer "{plugin.name}"'
    with foreign_code(what, "part_shape()"):
        found: object = plugin.part_shape(options, shape, index)
    if not isinstance(found, ModelShape) or (found.d_model, found.dtype) != (shape.d_model, shape.dtype):
        raise PluginError(f"{what}: part_shape() gave {_shown(found)}: must be a ModelShape of d_model and dtype alike")
    return found


def whole(value: object) -> int | None:
    """An int, from numpy too; None for anything else, a bool among it."""
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def amount(value: object) -> float | None:
    """A finite float, from a whole number or from numpy too; None for anything else, a bool among it."""
    number: Any = value if isinstance(value, float) else whole(value)
    if number is None and getattr(getattr(value, "dtype", None), "kind", "") == "f" and getattr(value, "ndim", 1) == 0:
        number = value
    try:
        found = None if number is None else float(number)
    except (OverflowError, TypeError, ValueError):
        return None
    return found if found is not None and math.isfinite(found) else None


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except Exception as error:  # the plugin boundary: the value is foreign
        text = f"an object of {type(value).__qualname__} whose repr raised {type(error).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."
