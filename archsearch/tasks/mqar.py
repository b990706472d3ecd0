"""mqar: multi-query associative recall, with noise between the pairs and keys that are written again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from archsearch.tasks.base import MAX_LENGTH, MAX_WORDS, Task, TaskOptions, share_by
from archsearch.tasks.batch import IGNORE, Batch
from archsearch.tasks.sampling import Ints, distinct, shuffled, starts
from archsearch.tasks.splits import Split

PAD = 0


class MqarOptions(TaskOptions):
    """Sizes of a sequence.

    ``seq_len``: tokens of a sequence.
    ``pairs``: pairs of key and value, each of which is asked once.
    ``rewrites``: pairs whose key is written a second time, with another value.
    ``keys``: kinds of keys.
    ``values``: kinds of values.
    ``noise_tokens``: kinds of noise. With any, the pairs are scattered and noise fills every gap; with none, the pairs
    stand together at the start and gaps hold token 0.
    ``write_share``: share of the sequence, at its start, over which pairs are scattered among noise.
    """

    seq_len: int = Field(default=64, ge=3, le=MAX_LENGTH)
    pairs: int = Field(default=8, ge=1, le=MAX_LENGTH)
    rewrites: int = Field(default=0, ge=0, le=MAX_LENGTH)
    keys: int = Field(default=63, ge=1, le=MAX_WORDS)
    values: int = Field(default=64, ge=2, le=MAX_WORDS)
    noise_tokens: int = Field(default=0, ge=0, le=MAX_WORDS)
    write_share: float = Field(default=0.625, gt=0.0, lt=1.0)

    @property
    def written(self) -> int:
        """Positions at the start in which pairs are written."""
        return int(self.seq_len * self.write_share) if self.noise_tokens else 2 * (self.pairs + self.rewrites)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.pairs > self.keys:
            raise ValueError(f"pairs = {self.pairs} needs as many keys, and keys = {self.keys}: raise keys")
        if self.rewrites > self.pairs:
            raise ValueError(f"rewrites = {self.rewrites} exceeds pairs = {self.pairs}: a key is rewritten once")
        needed = 2 * (self.pairs + self.rewrites)
        if needed > self.written:
            raise ValueError(
                f"{self.pairs} pairs and {self.rewrites} rewrites take {needed} positions, and {self.written} of "
                f"seq_len = {self.seq_len} are for writing: raise seq_len"
            )
        if self.pairs > self.seq_len - self.written:
            raise ValueError(
                f"{self.pairs} questions do not fit in the {max(0, self.seq_len - self.written)} positions that "
                f"seq_len = {self.seq_len} leaves after the pairs: raise seq_len"
            )
        return self


class Mqar(Task):
    """Key-value pairs are read, then every key is asked once, in random order: at the key's position the model must
    predict the value that was written last.

    Tokens: 0 is padding, then ``keys``, ``values`` and ``noise_tokens``. After Zoology (Arora et al. 2023,
    arXiv 2312.04927, section 4.1), whose sizes the settings ``zoology_*`` take; here questions are spread evenly.
    """

    name: ClassVar[str] = "mqar"
    summary: ClassVar[str] = "recall of values by key, among noise and with rewritten keys"
    options_type: ClassVar[type[TaskOptions]] = MqarOptions
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "easy": {},
        "compact": {"seq_len": 48, "pairs": 12, "keys": 16, "values": 16},
        "noisy_update": {"rewrites": 4, "noise_tokens": 128},
        "capacity": {"seq_len": 80, "pairs": 12, "rewrites": 4, "noise_tokens": 128},
        "zoology_64x4": {"seq_len": 64, "pairs": 4, "keys": 4095, "values": 4096},
        "zoology_128x8": {"seq_len": 128, "pairs": 8, "keys": 4095, "values": 4096},
        "zoology_256x16": {"seq_len": 256, "pairs": 16, "keys": 4095, "values": 4096},
        "zoology_256x64": {"seq_len": 256, "pairs": 64, "keys": 4095, "values": 4096},
        "zoology_512x128": {"seq_len": 512, "pairs": 128, "keys": 4095, "values": 4096},
        "zoology_1024x256": {"seq_len": 1024, "pairs": 256, "keys": 4095, "values": 4096},
    }
    default_setting: ClassVar[str] = "noisy_update"

    options: MqarOptions

    @property
    def vocab_size(self) -> int:
        return 1 + self.options.keys + self.options.values + self.options.noise_tokens

    @property
    def seq_len(self) -> int:
        return self.options.seq_len

    @property
    def chance(self) -> float:
        return 1 / self.options.values

    def draw(self, rng: np.random.Generator, count: int, *, split: Split, label: str) -> Batch:
        size = self.options
        keys = 1 + distinct(rng, count, size.keys, size.pairs)
        chosen = rng.integers(size.values, size=(count, size.pairs))
        values = 1 + size.keys + chosen
        tokens = self._background(rng, count)
        targets = np.full_like(tokens, IGNORE)
        rows = np.arange(count)[:, None]
        first, last, places = self._order(rng, count)
        if size.rewrites:
            stale = chosen[:, : size.rewrites] + rng.integers(1, size.values, size=(count, size.rewrites))
            tokens[rows, places[rows, first]] = keys[:, : size.rewrites]
            tokens[rows, places[rows, first] + 1] = 1 + size.keys + stale % size.values
        tokens[rows, places[rows, last]] = keys
        tokens[rows, places[rows, last] + 1] = values
        asked = size.written + shuffled(rng, starts(rng, count, size.seq_len - size.written, size.pairs, 1))
        tokens[rows, asked] = keys
        targets[rows, asked] = values
        return Batch(tokens=tokens, targets=targets)

    def _background(self, rng: np.random.Generator, count: int) -> Ints:
        size = self.options
        if not size.noise_tokens:
            return np.full((count, size.seq_len), PAD, dtype=np.int64)
        return 1 + size.keys + size.values + rng.integers(size.noise_tokens, size=(count, size.seq_len))

    def _order(self, rng: np.random.Generator, count: int) -> tuple[Ints, Ints, Ints]:
        """Which write comes when: the turn of the stale write of each rewritten key [B, rewrites], of the last
        write of each key [B, pairs], and the position of each turn [B, pairs + rewrites]."""
        size = self.options
        writes = size.pairs + size.rewrites
        turns = shuffled(rng, np.broadcast_to(np.arange(writes), (count, writes)))
        again, last = turns[:, size.pairs :], turns[:, : size.pairs].copy()
        first = np.minimum(again, last[:, : size.rewrites])
        last[:, : size.rewrites] = np.maximum(again, last[:, : size.rewrites])
        return first, last, starts(rng, count, size.written, writes, 2)

    def breakdown(self, batch: Batch, predictions: NDArray[np.int64]) -> dict[str, float]:
        """``accuracy[rewritten]`` and ``accuracy[once]``, by how often the key was written."""
        if not self.options.rewrites:
            return {}
        rewritten = _occurrences(batch.tokens, self.vocab_size) > 2
        return share_by(batch, predictions, {"rewritten": rewritten, "once": ~rewritten})


def _occurrences(tokens: Ints, vocab_size: int) -> Ints:
    """How often each token occurs in its row: [B, T]."""
    own = tokens + vocab_size * np.arange(len(tokens))[:, None]
    _, which, counts = np.unique(own, return_inverse=True, return_counts=True)
    occurrences: Ints = counts[which].reshape(tokens.shape)
    return occurrences
