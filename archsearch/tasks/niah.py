"""niah: needles in a haystack: pass-keys in noise, numbers in real text, uuids in real text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from archsearch.tasks.base import MAX_LENGTH, MAX_WORDS, Task, TaskOptions, at_label, share_by, times
from archsearch.tasks.batch import IGNORE, Batch
from archsearch.tasks.corpus import CorpusPaths, load_corpus
from archsearch.tasks.sampling import Ints, distinct, shuffled, starts
from archsearch.tasks.splits import Split

_BUCKETS = 4


class NiahOptions(TaskOptions):
    """Sizes of a sequence. A needle is a mark, a name and an answer.

    ``seq_len``: tokens of a sequence.
    ``needles``: needles that lie in the haystack, each of which is asked.
    ``haystack``: what they lie in: noise, or the bytes of real files.
    ``answer_len``: symbols of an answer.
    ``symbols``: kinds of symbols.
    ``names``: kinds of names.
    ``noise_tokens``: kinds of noise in a haystack of noise.
    ``depth_min``: the least depth of a needle: 0 is the start of the haystack, 1 its end.
    ``depth_max``: the greatest depth of a needle.
    ``paths``: files and folders that are read; none for the Python standard library's own sources.
    ``max_bytes``: the most that is read of them.
    """

    seq_len: int = Field(default=128, ge=8, le=MAX_LENGTH)
    needles: int = Field(default=4, ge=1, le=MAX_LENGTH)
    haystack: Literal["noise", "text"] = "noise"
    answer_len: int = Field(default=1, ge=1, le=MAX_LENGTH)
    symbols: int = Field(default=64, ge=2, le=MAX_WORDS)
    names: int = Field(default=32, ge=1, le=MAX_WORDS)
    noise_tokens: int = Field(default=128, ge=1, le=MAX_WORDS)
    depth_min: float = Field(default=0.0, ge=0.0, le=1.0)
    depth_max: float = Field(default=1.0, ge=0.0, le=1.0)
    paths: CorpusPaths = ()
    max_bytes: int = Field(default=32 * 2**20, ge=1, le=2**40)

    @property
    def needle_len(self) -> int:
        """Tokens of a needle."""
        return 2 + self.answer_len

    @property
    def question_len(self) -> int:
        """Tokens of a question: a mark, a name, and the answer but its last symbol."""
        return 1 + self.answer_len

    def hay(self, length: int) -> int:
        """Tokens of the haystack, needles included, in a sequence of `length`."""
        return length - self.needles * self.question_len

    def span(self, length: int) -> tuple[int, int]:
        """The positions between which needles lie in a sequence of `length`."""
        hay = max(0, self.hay(length))
        return int(hay * self.depth_min), int(hay * self.depth_max)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.needles > self.names:
            raise ValueError(f"needles = {self.needles} needs as many names, and names = {self.names}: raise names")
        start, end = self.span(self.seq_len)
        if self.needles * self.needle_len > end - start:
            raise ValueError(
                f"{self.needles} needles of {self.needle_len} tokens do not fit in the {max(0, end - start)} positions "
                f"from depth {self.depth_min} to {self.depth_max} of seq_len = {self.seq_len} less its questions: "
                "raise seq_len or widen the depths"
            )
        return self


class Niah(Task):
    """Needles lie in a haystack; then all are asked, in random order, and the answers are spelt symbol by symbol.

    Tokens: the haystack's (bytes, or noise), a mark before a needle, a mark before a question, names, symbols. While
    an answer is spelt, its earlier symbols are given. ``exact`` is the share of needles whose every symbol was
    predicted. The set "2x" has a sequence twice as long, with as many needles. The three needles are those of RULER
    (Hsieh et al. 2024, arXiv 2404.06654, section 3.1), with tokens of their own for marks, names and symbols.
    """

    name: ClassVar[str] = "niah"
    summary: ClassVar[str] = "needles in a haystack of noise or real text"
    options_type: ClassVar[type[TaskOptions]] = NiahOptions
    settings: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "passkey": {},
        "number": {"haystack": "text", "seq_len": 256, "answer_len": 4, "symbols": 10},
        "uuid": {"haystack": "text", "seq_len": 256, "answer_len": 8, "symbols": 16},
    }
    default_setting: ClassVar[str] = "passkey"
    evaluation_rows: ClassVar[Mapping[Literal["validation", "test"], int]] = {"validation": 256, "test": 512}
    evaluation_labels: ClassVar[tuple[str, ...]] = ("", "2x")

    options: NiahOptions

    @property
    def _words(self) -> int:
        """Tokens of the haystack's vocabulary; the first special token."""
        return 256 if self.options.haystack == "text" else self.options.noise_tokens

    @property
    def needle_mark(self) -> int:
        """The token before a needle."""
        return self._words

    @property
    def question_mark(self) -> int:
        """The token before a question."""
        return self._words + 1

    @property
    def vocab_size(self) -> int:
        return self._words + 2 + self.options.names + self.options.symbols

    @property
    def seq_len(self) -> int:
        return self.options.seq_len

    @property
    def chance(self) -> float:
        return 1 / self.options.symbols

    @property
    def data_digest(self) -> str | None:
        if self.options.haystack == "noise":
            return None
        return load_corpus(self.options.paths, self.options.max_bytes).digest

    def draw(self, rng: np.random.Generator, count: int, *, split: Split, label: str) -> Batch:
        size, length = self.options, self.seq_len * times(label)
        names = self._words + 2 + distinct(rng, count, size.names, size.needles)
        symbols = rng.integers(size.symbols, size=(count, size.needles, size.answer_len))
        answers = self._words + 2 + size.names + symbols
        tokens = self._haystack(rng, count, length, split)
        targets = np.full_like(tokens, IGNORE)
        start, end = size.span(length)
        places = start + shuffled(rng, starts(rng, count, end - start, size.needles, size.needle_len))
        _write(tokens, places, np.concatenate([_first(names, self.needle_mark), answers], axis=2))
        asked = size.hay(length) + size.question_len * shuffled(
            rng, np.broadcast_to(np.arange(size.needles), (count, size.needles))
        )
        _write(tokens, asked, np.concatenate([_first(names, self.question_mark), answers[..., :-1]], axis=2))
        _write(targets, asked + 1, answers)
        return Batch(tokens, targets)

    def _haystack(self, rng: np.random.Generator, count: int, length: int, split: Split) -> Ints:
        if self.options.haystack == "noise":
            return rng.integers(self.options.noise_tokens, size=(count, length))
        return load_corpus(self.options.paths, self.options.max_bytes).windows(rng, count, length, split=split)

    def metrics(
        self, label: str, batch: Batch, *, nll: NDArray[np.floating[Any]], predictions: NDArray[np.int64]
    ) -> dict[str, float]:
        """``accuracy`` of symbols, also by depth of the needle (``accuracy[depth 25-50%]``), and ``exact``."""
        right = (predictions == batch.targets)[batch.scored].reshape(-1, self.options.answer_len).all(axis=1)
        found = super().metrics(label, batch, nll=nll, predictions=predictions)
        return {**found, at_label("exact", label): float(right.mean())}

    def breakdown(self, batch: Batch, predictions: NDArray[np.int64]) -> dict[str, float]:
        """``accuracy[depth 0-25%]`` and so on, by where in the haystack the needle began."""
        bucket = _BUCKETS * self._depths(batch) // self.options.hay(batch.tokens.shape[1])
        edges = [100 * number // _BUCKETS for number in range(_BUCKETS + 1)]
        kinds = {f"depth {edges[number]}-{edges[number + 1]}%": bucket == number for number in range(_BUCKETS)}
        return share_by(batch, predictions, kinds)

    def _depths(self, batch: Batch) -> Ints:
        """At each scored position the place of the needle that is asked for, -1 elsewhere: [B, T]."""
        size, rows = self.options, np.arange(len(batch.tokens))[:, None]
        shape = (len(batch.tokens), size.needles)
        needles = np.nonzero(batch.tokens == self.needle_mark)[1].reshape(shape)
        asked = np.nonzero(batch.tokens == self.question_mark)[1].reshape(shape)
        same = batch.tokens[rows, asked + 1][:, :, None] == batch.tokens[rows, needles + 1][:, None, :]
        found = np.take_along_axis(needles, same.argmax(axis=2), axis=1)
        depths = np.full_like(batch.tokens, -1)
        _write(depths, asked + 1, np.repeat(found[..., None], size.answer_len, axis=2))
        return depths


def _first(names: Ints, mark: int) -> Ints:
    """A mark and a name for each of `names` [B, N]: [B, N, 2]."""
    return np.stack([np.full_like(names, mark), names], axis=2)


def _write(tokens: Ints, places: Ints, runs: Ints) -> None:
    """Puts `runs` [B, N, L] at the positions `places` [B, N] of `tokens` [B, T]."""
    rows = np.arange(len(tokens))[:, None, None]
    tokens[rows, places[..., None] + np.arange(runs.shape[2])] = runs
