"""Which of the things that layers share are read: told to the layers that share them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from archsearch.model.mixer import Mixer


def tell_taken(mixers: Sequence[nn.Module]) -> None:
    """Adds to `Mixer.taken` of the layers `mixers`, in their order, what each other one and its parts say that they
    take (`Mixer.takes`)."""
    for mixer in mixers:
        for part in mixer.modules():
            for index, name in part.takes if isinstance(part, Mixer) else ():
                source = mixers[index] if index < len(mixers) else None
                if isinstance(source, Mixer):
                    source.taken |= {name}
