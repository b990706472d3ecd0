"""What a layer takes of an earlier layer under an index: its options, its source, and where it may stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from archsearch.mixer import LayerInfo, MixerOptions, Tunable

from .options import IndexedOptions

OWNER, TAKER = "indexed", "shared-index"
"""Names of the mixer that has an index of its own, and of the one that takes from an earlier layer."""

Whose = Literal["shared", "own"]


class SharedIndexOptions(MixerOptions):
    """Options of the mixer `shared-index`; all others are those of the nearest `indexed` before it.

    ``choice``: the chosen blocks are those of the nearest earlier layer that chooses, or made by small heads of its own
    that ask that layer's index keys.
    ``latents``: what is attended to is the cache of the nearest earlier layer that keeps one, or its own.
    ``teach``: the index whose choice it takes learns by its attention too: by the mean over its own layer and all that
    say so (IndexCache).
    ``index_keys``: those that small heads of its own ask, of the nearest earlier layer that has such, or its own.
    """

    later: ClassVar[tuple[str, ...]] = ("index_keys", "teach")

    choice: Annotated[Whose, Tunable("shared", "own")] = "shared"
    latents: Annotated[Whose, Tunable("own", "shared")] = "own"
    index_keys: Whose = "shared"
    teach: bool = False

    def unread(self) -> Mapping[str, str]:
        if self.choice == "own":
            return {"teach": 'choice="own", whose index its own attention teaches: use choice="shared"'}
        return {"index_keys": 'choice="shared": use choice="own"'}

    @property
    def indexes(self) -> bool:
        """Whether it has an index of its own, keys included."""
        return self.choice == self.index_keys == "own"


def base_of(layer: LayerInfo) -> IndexedOptions | None:
    """Options of the nearest `indexed` before a layer, None where there is none."""
    found = [one.options for one in layer.earlier if one.mixer == OWNER]
    return found[-1] if found and isinstance(found[-1], IndexedOptions) else None


def source_of(layer: LayerInfo) -> int:
    """Index of the nearest earlier layer that has a choice, keys of an index and a cache, of its own or handed on."""
    return max(index for index, one in enumerate(layer.earlier) if one.mixer in (OWNER, TAKER))


def taught_from(layer: LayerInfo) -> int:
    """Index of the nearest earlier layer that has the index which the layer's choice is of, or teaches it too."""
    taught = (
        index
        for index, one in enumerate(layer.earlier)
        if one.mixer == OWNER
        or (isinstance(one.options, SharedIndexOptions) and (one.options.choice == "own" or one.options.teach))
    )
    return max(taught)


def misplaced(options: SharedIndexOptions, layer: LayerInfo) -> str | None:
    """Why such a layer cannot stand where it does, with the remedy; None where it can."""
    if layer.part:
        return "it takes what a whole layer made, so it stands by itself: take it out of the other mixer"
    base = base_of(layer)
    if base is None:
        return f'it takes the choice of an "{OWNER}" before it, and there is none: put dsa-mla in an earlier layer'
    before = f'the "{OWNER}" before it has'
    if base.learn == "gates":
        return f'{before} learn="gates", whose choice acts by its scores too: give that layer learn="distilled"'
    if base.far:
        return f"{before} far={base.far}, whose keys are kept as its own window meets them: give that layer far=0"
    if options.teach and base.learn != "distilled":
        return f'{before} learn="{base.learn}", an index that no attention teaches: put dsa-mla there, or teach=false'
    if options.latents == "shared" and not base.kv_rank:
        return f"{before} kv_rank=0, so there are no latents to share: put dsa-mla there, or write latents=own"
    if options.choice == "own" and not base.indexes:
        return f'{before} scorer="{base.scorer}", without index keys to ask: put dsa-mla there, or write choice=shared'
    if base.rope_learned and options.choice == "own" and not options.indexes:
        return (
            f"{before} rope_learned=true, by which its index keys were turned: write index_keys=own beside choice=own"
        )
    if options.choice == options.latents == "own":
        but = "all" if options.indexes else "all but index keys"
        return f'with choice=own and latents=own it has {but} of its own: write "dsa-mla" instead'
    return None
