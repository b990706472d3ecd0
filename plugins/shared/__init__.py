"""A cache that several layers read: one layer writes keys and values, and later ones attend to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from archsearch import hookimpl
from archsearch.attention_cost import heads_refusal, kv_cache, kv_traffic
from archsearch.mixer import Flops, LayerInfo, MixerPlugin, ModelShape, Phase, StateTensor, Traffic

from .cost import (
    attention_flops,
    reader_params,
    reader_token,
    reader_traffic,
    rows,
    writer_params,
    writer_token,
)
from .options import SharedOptions
from .systems import READER_SYSTEMS, WRITER_SYSTEMS

if TYPE_CHECKING:
    from .layer import Reader, Writer

WRITER = "shared-kv"


class WriterPlugin(MixerPlugin[SharedOptions]):
    """Causal softmax attention, over all tokens or a window, whose cache later layers read too."""

    name = WRITER
    api_version = 2
    family = "full"
    summary = "softmax attention whose keys and values the layers after it read (YOCO, Gemma-3n)"
    options = SharedOptions
    systems = WRITER_SYSTEMS
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"yoco-kv": {}}
    conformance: ClassVar[Mapping[str, Any]] = {
        "cases": {
            "window-8": {"window": 8},
            "no-positions": {"rope": 0.0, "qk_norm": True},
            "normed": {"qk_norm": True, "v_norm": True, "kv_norm": True},
        }
    }

    def check(self, options: SharedOptions, shape: ModelShape, layer: LayerInfo) -> str | None:
        if layer.part:
            return "readers find its cache by its layer, so it stands by itself: take it out of the other mixer"
        return heads_refusal(shape, rope=options.rope)

    def params(self, options: SharedOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return writer_params(options, shape)

    def flops(
        self, options: SharedOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int
    ) -> Flops:
        return attention_flops(options, shape, writer_token(options, shape), phase, context)

    def traffic(self, options: SharedOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return kv_traffic(rows(options, context), shape)

    def state(self, options: SharedOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return kv_cache(shape, cap=options.window or None)

    def values(self, options: SharedOptions, shape: ModelShape) -> tuple[int, int]:
        return shape.n_kv_heads, shape.head_dim

    def build(self, options: SharedOptions, shape: ModelShape, layer: LayerInfo) -> Writer:
        from .layer import Writer

        return Writer(self, options, shape, layer)

    def dense_up_to(self, options: SharedOptions, layer: LayerInfo) -> int:
        return options.window


class ReaderPlugin(MixerPlugin[SharedOptions]):
    """Causal softmax attention over the cache of the nearest writer before it: it has neither keys, values nor state.

    YOCO, arXiv 2405.05254, section 2; with a window the shared local layers of Gemma-3n.
    """

    name = "shared"
    api_version = 2
    family = "full"
    summary = "softmax attention over the keys and values of an earlier layer, whose bytes count once"
    options = SharedOptions
    systems = READER_SYSTEMS
    reads_pattern = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"yoco": {}}
    conformance: ClassVar[Mapping[str, Any]] = {
        "pattern": f"{WRITER} {WRITER}(window=8) shared shared",
        "cases": {"window-8": {"window": 8}},
    }

    def check(self, options: SharedOptions, shape: ModelShape, layer: LayerInfo) -> str | None:
        if writer_before(options, layer) is not None:
            return None
        given = ", ".join(f"{name}={str(value).lower()}" for name, value in options.model_dump().items())
        return (
            f'it reads the cache of a "{WRITER}" of its own options before it, and there is none: '
            f"put {WRITER}({given}) in an earlier layer"
        )

    def params(self, options: SharedOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return reader_params(options, shape)

    def flops(
        self, options: SharedOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int
    ) -> Flops:
        return attention_flops(options, shape, reader_token(options, shape), phase, context)

    def traffic(self, options: SharedOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return reader_traffic(options, shape, context)

    def state(self, options: SharedOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return ()

    def build(self, options: SharedOptions, shape: ModelShape, layer: LayerInfo) -> Reader:
        from .layer import Reader

        return Reader(self, options, shape, layer, writer_before(options, layer))

    def dense_up_to(self, options: SharedOptions, layer: LayerInfo) -> int:
        return options.window


def writer_before(options: SharedOptions, layer: LayerInfo) -> int | None:
    """Index of the nearest writer of those options before a layer, None where there is none."""
    found = [index for index, one in enumerate(layer.earlier) if one.mixer == WRITER and one.options == options]
    return found[-1] if found else None


@hookimpl
def register_mixers(register: Callable[[MixerPlugin[Any]], None]) -> None:
    """Registers "shared-kv" and "shared"."""
    register(WriterPlugin())
    register(ReaderPlugin())
