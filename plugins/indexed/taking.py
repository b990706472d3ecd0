"""Layers that take what an earlier layer chose, or keeps."""

from __future__ import annotations

from typing import Any

from archsearch.mixer import LayerInfo, MixerPlugin, ModelShape
from archsearch.model import Context
from archsearch.ops.rotary import Rotary

from .latents import IndexedLatents
from .layer import LESSONS, NAME, TURNS, Indexed, IndexedAttention
from .made import Handed, Lessons
from .options import IndexedOptions
from .scorers import Asker, scorer_of
from .sharing import SharedIndexOptions, base_of, source_of, taught_from


class _Takes(Indexed):
    """IndexCache's Shared layer (arXiv 2603.12201, section 3): no index of its own; DeepSeek-V4.1's modes Reuse and
    Reindex: no latents, or small heads that ask index keys of another layer; and Mistral-Large-4's index over another
    layer's latents."""

    source: int
    what: SharedIndexOptions

    def take(self, options: SharedIndexOptions, base: IndexedOptions) -> None:
        """Says what is taken, of the nearest layer that has it."""
        self.options = self.what = options
        self.source = source_of(self.layer)
        self.takes = ((self.source, NAME),)
        self.turned_alike = base.rope_learned and options.latents == "shared"
        if base.rope_learned:
            self.takes += ((self.source, TURNS),)
        if options.teach:
            self.takes += ((taught_from(self.layer), LESSONS),)
        asker = (scorer_of if options.indexes else Asker)(base, self.shape) if options.choice == "own" else None
        self.choose_by(asker, base)

    def turned_by(self, ctx: Context) -> Rotary:
        """By what turned the latents."""
        rotary: Rotary = ctx.shared_by(self.source, TURNS) if self.turned_alike else self.rotary
        return rotary

    def taught(self, ctx: Context) -> Lessons | None:
        if not self.what.teach:
            return None
        lessons: Lessons | None = ctx.shared_by(taught_from(self.layer), LESSONS)
        return lessons

    def given(self, ctx: Context, at: int) -> Handed:
        handed: Handed = ctx.shared_by(self.source, NAME)[at]
        return Handed(
            choice=handed.choice if self.what.choice == "shared" else None,
            rows=handed.rows if self.what.latents == "shared" else None,
            units=None if self.what.indexes else handed.units,
        )


class TakesOfHeads(_Takes, IndexedAttention):
    """With keys and values of its own heads."""

    def __init__(
        self, plugin: MixerPlugin[Any], options: SharedIndexOptions, shape: ModelShape, layer: LayerInfo
    ) -> None:
        base = base_of(layer)
        assert base is not None, "check() refuses a layer without a source"
        IndexedAttention.__init__(self, plugin, base, shape, layer)
        self.take(options, base)


class TakesOfLatents(_Takes, IndexedLatents):
    """With latents, of its own or of the layer that it takes from."""

    def __init__(
        self, plugin: MixerPlugin[Any], options: SharedIndexOptions, shape: ModelShape, layer: LayerInfo
    ) -> None:
        base = base_of(layer)
        assert base is not None, "check() refuses a layer without a source"
        IndexedLatents.__init__(self, plugin, base, shape, layer, keeps=options.latents == "own")
        self.take(options, base)
