"""Version 1 of the contract: a plugin that was written for it, as this core calls plugins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from archsearch.amounts import Flops, Traffic
from archsearch.layer import LayerInfo, Resolver
from archsearch.mixer import MixerPlugin, Phase
from archsearch.options import MixerOptions
from archsearch.shapes import ModelShape, StateTensor

if TYPE_CHECKING:
    from archsearch.bench.op import BenchOp
    from archsearch.kernels import Build
    from archsearch.model import Mixer


class Version1(MixerPlugin[Any]):
    """A plugin of version 1, called as it expects.

    There `dense_up_to` was told the options alone, `parse_options` knew no names of mixers, and `kernels`, `bench_ops`
    and `op_names` were the plugin's own, which are hooks now.
    """

    api_version = 2

    def __init__(self, plugin: MixerPlugin[Any]) -> None:
        self.plugin = plugin
        for name in ("name", "family", "summary", "options", "presets", "broken_laws", "version"):
            setattr(self, name, getattr(plugin, name))

    def params(self, options: MixerOptions, shape: ModelShape, layer: LayerInfo) -> int:
        return self.plugin.params(options, shape, layer)

    def flops(self, options: MixerOptions, shape: ModelShape, layer: LayerInfo, *, phase: Phase, context: int) -> Flops:
        return self.plugin.flops(options, shape, layer, phase=phase, context=context)

    def traffic(self, options: MixerOptions, shape: ModelShape, layer: LayerInfo, *, context: int) -> Traffic:
        return self.plugin.traffic(options, shape, layer, context=context)

    def state(self, options: MixerOptions, shape: ModelShape, layer: LayerInfo) -> tuple[StateTensor, ...]:
        return self.plugin.state(options, shape, layer)

    def build(self, options: MixerOptions, shape: ModelShape, layer: LayerInfo) -> Mixer:
        return self.plugin.build(options, shape, layer)

    def dense_up_to(self, options: MixerOptions, layer: LayerInfo) -> int:
        own: Any = self.plugin.dense_up_to
        takes_options_alone = type(self.plugin).dense_up_to is not MixerPlugin.dense_up_to
        found: int = own(options) if takes_options_alone else 0
        return found

    def parse_options(self, values: Mapping[str, Any], resolver: Resolver | None = None) -> Any:
        return self.plugin.parse_options(values)

    def ops(self) -> Iterable[BenchOp]:
        """What the plugin's `bench_ops` gives, nothing where it has none."""
        made: Any = getattr(self.plugin, "bench_ops", None)
        return made() if made is not None else ()

    def builds(self, arch: str) -> Iterable[Build]:
        """What the plugin's `kernels` gives, nothing where it has none."""
        made: Any = getattr(self.plugin, "kernels", None)
        return made(arch) if made is not None else ()

    @property
    def op_names(self) -> tuple[str, ...]:
        """The plugin's `op_names`."""
        names: tuple[str, ...] = getattr(self.plugin, "op_names", ())
        return names


def adapted(plugin: MixerPlugin[Any]) -> MixerPlugin[Any]:
    """`plugin` as this core calls it: one of version 1 by its adapter, any other as it is."""
    return Version1(plugin) if plugin.api_version == 1 else plugin


def original(plugin: MixerPlugin[Any]) -> MixerPlugin[Any]:
    """The plugin that its author wrote."""
    return plugin.plugin if isinstance(plugin, Version1) else plugin
