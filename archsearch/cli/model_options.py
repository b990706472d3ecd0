"""Options of commands that take a backbone on the command line."""

from __future__ import annotations

from typing import Annotated

import typer

DModel = Annotated[int, typer.Option("--d-model", help="Width of the model.")]
Heads = Annotated[int, typer.Option("--heads", help="Query heads.")]
HeadDim = Annotated[int, typer.Option("--head-dim", help="Width of a head; 0: d_model / heads.")]
KvHeads = Annotated[int, typer.Option("--kv-heads", help="Key and value heads; 0: as many as query heads.")]
DtypeName = Annotated[str, typer.Option("--dtype", help="Dtype that caches and weights are counted in.")]
ChannelMixer = Annotated[str, typer.Option("--channel-mixer", help="none, swiglu or moe.")]
VocabSize = Annotated[int, typer.Option("--vocab-size", help="Tokens of the vocabulary, for embedding and head.")]
ShortConv = Annotated[
    int, typer.Option("--short-conv", help="Width of a causal convolution in front of every token mixer; 0: none.")
]
ValueResidual = Annotated[
    str,
    typer.Option(
        "--value-residual", help="How later layers mix in the first layer's values: none, identity or learned."
    ),
]
MetaTokens = Annotated[
    int, typer.Option("--meta-tokens", help="Learned tokens of the backbone in front of every sequence.")
]
