"""Options of attention over what an index chooses, and the rule of a choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from archsearch import MixerOptions, Tunable
from archsearch.rotation import stretch_refusal, unread_rotation

Scorer = Literal["attention", "relu", "relu-sum", "group"]
Summary = Literal["none", "mean", "gated", "minmax", "softmax", "representative"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Which blocks of ``block_size`` tokens a token sees: those that are always in, and the ``top_k`` best of the rest.

    Always in are the ``first`` blocks of the sequence, the token's own block with ``local`` blocks before it, and of a
    ``tail`` the own block only while it is incomplete.
    """

    block_size: int
    top_k: int
    tail: bool
    local: int
    first: int

    def edge(self, position: int) -> int:
        """Blocks before those that are always in at the end, for the token at `position`; candidates are among them."""
        return max(0, (position + self.tail) // self.block_size - self.local)

    @property
    def most(self) -> int:
        """Blocks before those at the end of which none is dropped."""
        return self.first + self.top_k


class IndexedOptions(MixerOptions):
    """Options of the mixer `indexed`.

    ``block_size``: tokens of a block, the unit that is chosen; 1 chooses tokens.
    ``top_k``: blocks that are chosen by score, beside those that are always in.
    ``own``: "block": a token's own block is always in; "tail": only while it is incomplete, then it must be chosen.
    ``local``: blocks before the own one that are always in.
    ``first``: blocks at the start of the sequence that are always in.
    ``scorer``: "attention": each query head by its own products with the keys; "relu": small heads, rectified and
    summed with weights; "relu-sum": summed without; "group": one small head for each key head.
    ``index_heads``: small heads of "relu" and "relu-sum".
    ``index_dim``: channels of a small head and of the one index key that they share.
    ``summary``: what stands for the keys of a block: "none": each key, the best counts; "mean"; "gated": index keys
    weighted by channel; "minmax": the least and greatest of each channel; "softmax": a mean with learned weights;
    "representative": the keys that the next block asked most for.
    ``representatives``: how many representatives a block has.
    ``counted``: how many tokens after a key say, by the mean of their queries, how much it was asked for; 0: those of
    the next block together.
    ``choose``: query heads that score by themselves choose "apart", or "together" by the sum of their scores.
    ``far``: the distance at which keys before the window are met, whatever their own; 0: their own.
    ``learn``: how a scorer learns: "distilled" from attention; "gates": the logits of a chosen block get the logarithm
    of the sigmoid of its score; "none".
    ``learn_over``: what a distilled scorer learns over: all "candidates", or, but for the dense stage, those "chosen".
    ``rope``: share of a head's channels that are rotated by their position, of small heads too.
    ``rope_base``: base of the rotation's frequencies.
    ``qk_norm``: RMSNorm of each head of attention's q and k, before the rotation.
    ``output_gate``: each channel of each head times a sigmoid made from the token.
    ``kv_rank``: numbers of the latent that keys and values of all heads are made from; 0 for keys and values of heads.
    ``shared_dim``: channels of the key that all heads share beside a latent, all rotated unless rope is 0.
    ``q_rank``: numbers that queries beside latents are made from, those of small heads too; 0 for the token itself.
    ``query_scale``: queries, those of small heads too, times s log(t + 1) + b at position t, learned for each head.
    ``rope_factor``: how many times the positions it was trained on the rotation is stretched to (YaRN); 1 for none.
    ``rope_trained``: the positions that it was trained on, where it is stretched.
    ``rope_learned``: each frequency of the rotation times exp(a), a learned from 0 on.
    ``index_norm``: LayerNorm of what the queries of small heads are made from.
    """

    later: ClassVar[tuple[str, ...]] = (
        "learn_over",
        "query_scale",
        "rope_factor",
        "rope_trained",
        "rope_learned",
        "index_norm",
        "counted",
        "choose",
        "far",
    )

    block_size: Annotated[int, Field(ge=1, le=2**24), Tunable(1, 8, 16)] = 1
    top_k: Annotated[int, Field(ge=1, le=2**24), Tunable(8, 16, 32)] = 32
    own: Literal["block", "tail"] = "tail"
    local: int = Field(default=0, ge=0, le=2**16)
    first: int = Field(default=0, ge=0, le=2**16)
    scorer: Scorer = "relu"
    index_heads: Annotated[int, Field(ge=1, le=2**10), Tunable(2, 4)] = 4
    index_dim: Annotated[int, Field(ge=1, le=2**16), Tunable(16, 32)] = 16
    summary: Summary = "none"
    representatives: int = Field(default=2, ge=1, le=2**16)
    learn: Literal["none", "gates", "distilled"] = "distilled"
    rope: Annotated[float, Field(ge=0, le=1), Tunable(0.0, 1.0)] = 1.0
    rope_base: float = Field(default=10000.0, gt=1, le=1e12)
    qk_norm: bool = False
    output_gate: bool = False
    kv_rank: int = Field(default=0, ge=0, le=2**16)
    shared_dim: int = Field(default=0, ge=0, le=2**16)
    q_rank: int = Field(default=0, ge=0, le=2**16)
    learn_over: Literal["candidates", "chosen"] = "candidates"
    query_scale: bool = False
    rope_factor: float = Field(default=1.0, ge=1, le=1e6)
    rope_trained: int = Field(default=0, ge=0, le=2**30)
    rope_learned: bool = False
    index_norm: bool = False
    counted: int = Field(default=0, ge=0, le=2**24)
    choose: Literal["apart", "together"] = "apart"
    far: int = Field(default=0, ge=0, le=2**24)

    @property
    def rule(self) -> Rule:
        """The rule of the choice."""
        return Rule(
            block_size=self.block_size,
            top_k=self.top_k,
            tail=self.own == "tail",
            local=self.local,
            first=self.first,
        )

    @property
    def indexes(self) -> bool:
        """Whether small heads score, by keys of their own."""
        return self.scorer != "attention"

    @property
    def shared_rope(self) -> float:
        """Share of the shared key's channels that are rotated."""
        return 1.0 if self.rope else 0.0

    @property
    def window(self) -> int:
        """Tokens that a token's own block and those before it which are always in have at most, itself included."""
        return (self.local + 1) * self.block_size

    @property
    def trains(self) -> bool:
        """Whether training needs every score, for a loss or a gate."""
        return self.learn != "none"

    def unread(self) -> Mapping[str, str]:
        found, given = dict[str, str](), f'scorer="{self.scorer}": use scorer="relu"'
        if self.scorer in ("attention", "group"):
            found["index_heads"] = given
        if not self.indexes:
            found |= dict.fromkeys(("index_dim", "index_norm"), given)
        if self.indexes:
            found |= dict.fromkeys(("choose", "far"), f'scorer="{self.scorer}": use scorer="attention"')
        if self.summary != "representative":
            said = f'summary="{self.summary}": use summary="representative"'
            found |= dict.fromkeys(("representatives", "counted"), said)
        if self.learn != "distilled":
            found["learn_over"] = f'learn="{self.learn}": use learn="distilled"'
        return found | unread_rotation(self, "rope_learned", "far")

    @model_validator(mode="after")
    def _fit_rows(self) -> IndexedOptions:
        """Refuses options of what is attended to that make no sense together, with the remedy."""
        unstretched = stretch_refusal(self)
        for wrong, why in (
            (
                self.kv_rank > 0 and self.scorer not in ("relu", "relu-sum"),
                f'scorer="{self.scorer}" needs keys of heads, and latents have none: use scorer="relu", or kv_rank=0',
            ),
            (
                self.shared_dim > 0 and not self.kv_rank,
                "shared_dim is of a key beside latents: use kv_rank above 0, or shared_dim=0",
            ),
            (
                self.q_rank > 0 and not self.kv_rank,
                f"q_rank={self.q_rank} is of queries beside latents: use kv_rank above 0, or q_rank=0",
            ),
            (unstretched is not None, unstretched),
            (
                self.kv_rank > 0 and (self.qk_norm or self.output_gate),
                "qk_norm and output_gate are of heads with keys of their own: use false, or kv_rank=0",
            ),
        ):
            if wrong:
                raise ValueError(why)
        return self

    @model_validator(mode="after")
    def _fit(self) -> IndexedOptions:
        """Refuses options of the choice that make no sense together, with the remedy."""
        learned = self.indexes or self.summary == "softmax"
        for wrong, why in (
            (
                self.scorer == "relu" and self.index_dim == 1,
                "index_dim = 1 under the LayerNorm of index keys makes all of them equal: use index_dim = 2 or more",
            ),
            (
                self.block_size == 1 and self.summary != "none",
                f'summary="{self.summary}" of blocks of one token: use summary="none", or block_size above 1',
            ),
            (
                self.indexes and self.summary not in ("none", "mean", "gated"),
                f'summary="{self.summary}" is of keys of attention: use scorer="attention", or summary="mean"',
            ),
            (
                self.summary == "gated" and (not self.indexes or self.rope > 0),
                'summary="gated" is of index keys without positions: use scorer="relu" and rope=0',
            ),
            (
                not self.indexes and self.block_size > 1 and self.own == "tail",
                'own="tail" of blocks needs the keys of an index: use own="block", or block_size=1',
            ),
            (
                self.summary == "representative" and (self.local < 1 or self.representatives > self.block_size),
                f'summary="representative" with local={self.local}, representatives={self.representatives} of blocks '
                f"of {self.block_size}: use local of 1 at least, and no more representatives than block_size",
            ),
            (
                learned and self.learn == "none",
                'learn="none" leaves the weights of the scorer as they were drawn: use learn="distilled" or "gates"',
            ),
            (
                not self.indexes and self.learn == "distilled",
                'learn="distilled" needs a scorer with weights of its own: use learn="none", or scorer="relu"',
            ),
            (
                self.learn == "gates" and self.summary in ("minmax", "representative"),
                f'learn="gates" with summary="{self.summary}", whose scores are no logits: use learn="none"',
            ),
        ):
            if wrong:
                raise ValueError(why)
        return self

    @model_validator(mode="after")
    def _fit_window(self) -> IndexedOptions:
        """Refuses options of what is counted of a key, and how it is met, that make no sense, with the remedy."""
        for wrong, why in (
            (
                self.counted > self.local * self.block_size or self.counted % self.block_size > 0,
                f"counted={self.counted} of local={self.local} blocks of {self.block_size}: use a multiple of "
                f"block_size, up to {self.local * self.block_size}, as later queries come when the block may be chosen",
            ),
            (
                self.choose == "together" and self.summary == "minmax",
                'choose="together" with summary="minmax", which bounds the products of one head: use choose="apart"',
            ),
            (
                self.far > 0 and self.own == "tail",
                f'far={self.far} is of keys before a window that is always in: use own="block", or far=0',
            ),
            (
                self.far > 0 and self.learn == "gates",
                f'learn="gates" beside far={self.far} is not made: use learn="none", or far=0',
            ),
            (
                self.far > 0 and self.window == 1,
                f"far={self.far} leaves no window of tokens at their own places: use local of 1 at least, or far=0",
            ),
        ):
            if wrong:
                raise ValueError(why)
        return self
