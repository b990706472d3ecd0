"""Whether the sparsity of an architecture can act at the length that it is measured at."""

from __future__ import annotations

from archsearch.arch import ArchSpec
from archsearch.mixer import Resolver
from archsearch.notation import format_layer


def unexercised_layers(arch: ArchSpec, seq_len: int, resolver: Resolver) -> tuple[str, ...]:
    """The distinct mixers of `arch` that drop nothing on `seq_len` tokens although they would on longer ones.

    Measured there, a window of 64 on 64 tokens would look like full attention at the cost of none.
    """
    found = []
    for layer in dict.fromkeys(arch.layers):
        dense = resolver.resolve(layer.mixer).plugin.dense_up_to(layer.options)
        if dense >= seq_len:
            found.append(f"{format_layer(layer, resolver)} sees all of up to {dense} tokens, measured on {seq_len}")
    return tuple(found)
