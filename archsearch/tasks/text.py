"""text: next-byte prediction on files that the user names, in bits per byte."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from math import log
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from archsearch.tasks.base import MAX_LENGTH, Task, TaskOptions, at_label, share, times
from archsearch.tasks.batch import Batch
from archsearch.tasks.corpus import Corpus, CorpusPaths, load_corpus
from archsearch.tasks.debian import Debian
from archsearch.tasks.splits import Split

_FIRST_BUCKET = 32


class TextOptions(TaskOptions):
    """Length of a sequence, and what is read.

    ``seq_len``: bytes of a sequence.
    ``corpus``: what is read where there are no paths: "stdlib", the Python standard library's own sources; or a text
    that a Debian package of that name installs, "anarchism" (11.7 MB of essays) or "bible-kjv-text" (4.4 MB), prose for
    long contexts on machines without a network.
    ``paths``: files and folders that are read in its place.
    ``max_bytes``: the most that is read of them.
    """

    seq_len: int = Field(default=128, ge=2, le=MAX_LENGTH)
    corpus: Literal["stdlib", "anarchism", "bible-kjv-text"] = "stdlib"
    paths: CorpusPaths = ()
    max_bytes: int = Field(default=32 * 2**20, ge=1, le=2**40)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.paths and self.corpus != "stdlib":
            raise ValueError(f"corpus = {self.corpus} and paths name two things to read: drop one")
        return self

    @property
    def package(self) -> Debian | None:
        """The Debian package that is read, None for none."""
        return None if self.corpus == "stdlib" else self.corpus


class Text(Task):
    """Bytes of real files. A token is a byte, the target of a position the byte that follows.

    Files are dealt whole to the splits, and a window that occurs in several (a licence, a header) is kept in one
    alone. The set "2x" has windows of twice the trained length.
    """

    name: ClassVar[str] = "text"
    summary: ClassVar[str] = "next byte of real files, in bits per byte"
    options_type: ClassVar[type[TaskOptions]] = TextOptions
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "short": {},
        "medium": {"seq_len": 512},
        "long": {"seq_len": 2048},
    }
    default_setting: ClassVar[str] = "short"
    metric: ClassVar[str] = "bits_per_byte"
    direction: ClassVar[Literal["maximize", "minimize"]] = "minimize"
    recall: ClassVar[bool] = False
    evaluation_rows: ClassVar[Mapping[Literal["validation", "test"], int]] = {"validation": 256, "test": 512}
    evaluation_labels: ClassVar[tuple[str, ...]] = ("", "2x")

    options: TextOptions

    @property
    def vocab_size(self) -> int:
        return 256

    @property
    def seq_len(self) -> int:
        return self.options.seq_len

    @property
    def chance(self) -> float:
        return 8.0

    @property
    def corpus(self) -> Corpus:
        """The files' bytes, read when first asked for."""
        return load_corpus(self.options.paths, self.options.max_bytes, self.options.package)

    @property
    def data_digest(self) -> str:
        return self.corpus.digest

    def draw(self, rng: np.random.Generator, count: int, *, split: Split, label: str) -> Batch:
        windows = self.corpus.windows(rng, count, self.seq_len * times(label) + 1, split=split)
        return Batch(windows[:, :-1], windows[:, 1:])

    def metrics(
        self, label: str, batch: Batch, *, nll: NDArray[np.floating[Any]], predictions: NDArray[np.int64]
    ) -> dict[str, float]:
        """``bits_per_byte``, the same by bucket of positions (``bits_per_byte[32-64]``), and ``accuracy``."""
        bits = np.asarray(nll, dtype=np.float64).mean(axis=0) / log(2)
        found = {"bits_per_byte": float(bits.mean()), "accuracy": share(batch, predictions)}
        for start, end in _buckets(len(bits)):
            found[f"bits_per_byte[{start}-{end}]"] = float(bits[start:end].mean())
        return {at_label(name, label): value for name, value in found.items()}


def _buckets(length: int) -> list[tuple[int, int]]:
    """Ranges of positions that double: 0-32, 32-64, 64-128 ..., the last cut at `length`."""
    edges = [0, _FIRST_BUCKET]
    while edges[-1] < length:
        edges.append(2 * edges[-1])
    return [(start, min(end, length)) for start, end in pairwise(edges) if start < length]
