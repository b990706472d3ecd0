"""A layer that does not fit the backbone is refused with the number and what would fit; costs need no torch for it."""

from __future__ import annotations

import pytest

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.composition import refusal
from archsearch.errors import SpecError
from archsearch.registry import Registry

TURNS_NOTHING = "turns no pair of channels: choose"
SHAPES = {
    "full(n_kv_heads=3)": (8, "n_kv_heads = 3 does not divide n_heads = 4: choose a divisor, or 0 for the backbone's"),
    "kda sliding(n_kv_heads=8)": (8, 'mixer "sliding", layer 1: n_kv_heads = 8 does not divide n_heads = 4'),
    "parallel(a=full(n_kv_heads=2), b=retnet, share=0.25)": (8, "n_kv_heads = 2 does not divide n_heads = 1"),
    "parallel(a=full, b=retnet, share=0.3)": (8, "share = 0.3 of n_heads = 4 between 2 mixers leaves 1.2 for one"),
    "qwen3-next-full": (4, f"rope = 0.25 of head_dim = 4 {TURNS_NOTHING} rope = 0.5 at least, or 0"),
    "full(rope=0.25)": (6, f"rope = 0.25 of head_dim = 6 {TURNS_NOTHING} rope = 0.34 at least, or 0"),
    "sliding": (1, f"rope = 1 of head_dim = 1 {TURNS_NOTHING} rope = 0 for no position at all"),
    "moba(rope=0.25)": (4, f"rope = 0.25 of head_dim = 4 {TURNS_NOTHING}"),
    "nsa(rope=0.25)": (4, f"rope = 0.25 of head_dim = 4 {TURNS_NOTHING}"),
    "h2o": (1, f"rope = 1 of head_dim = 1 {TURNS_NOTHING}"),
    "bigbird": (1, f"rope = 1 of head_dim = 1 {TURNS_NOTHING}"),
    "ttt-mlp": (1, f"rope = 1 of head_dim = 1 {TURNS_NOTHING}"),
    "yoco-kv(rope=0.25)": (4, f"rope = 0.25 of head_dim = 4 {TURNS_NOTHING}"),
    "dsa": (3, f"rope = 0.5 of head_dim = 3 {TURNS_NOTHING} rope = 0.67 at least, or 0"),
    "dsa(index_dim=2)": (8, f"rope = 0.5 of index_dim = 2 {TURNS_NOTHING} rope = 1 at least, or 0"),
    "dsa-mla(index_dim=2)": (8, f"rope = 0.5 of index_dim = 2 {TURNS_NOTHING}"),
    "dsa-mla(shared_dim=1)": (8, f"rope = 1 of shared_dim = 1 {TURNS_NOTHING} rope = 0 for"),
    "mla(shared_dim=1)": (8, f"rope = 1 of shared_dim = 1 {TURNS_NOTHING} rope = 0 for"),
    "hca(rope=0.1)": (8, f"rope = 0.1 of head_dim = 8 {TURNS_NOTHING} rope = 0.25 at least, or 0"),
    "csa(index_dim=3)": (8, f"rope = 0.5 of index_dim = 3 {TURNS_NOTHING} rope = 0.67 at least, or 0"),
    "mamba3": (
        7,
        "expand * d_model = 48 channels are no whole heads of head_dim = 7: choose another expand or head_dim",
    ),
}
"""Patterns, the width of their heads, and what is said of them."""

FIT = {
    "full(rope=0.34)": 6,
    "full(rope=0.5)": 4,
    "qwen3-next-full": 8,
    "dsa(rope=0.67, index_dim=3)": 3,
    "csa(index_dim=4)": 4,
    "dsa-mla(shared_dim=2)": 1,
    "mla-nope(shared_dim=1)": 1,
    "sliding(rope=0)": 1,
    "glm5-next": 1,
}
"""Those of the numbers that refusals say would fit, and layers that turn nothing."""


def said_of(pattern: str, head_dim: int, registry: Registry) -> str | None:
    model = ModelSpec(d_model=24, n_heads=4, n_kv_heads=4, head_dim=head_dim)
    return refusal(ArchSpec.parse(pattern, registry, model), registry)


@pytest.mark.parametrize("pattern", SHAPES)
def test_a_shape_that_does_not_fit_is_refused_with_the_number_and_what_would(pattern: str, installed: Registry) -> None:
    head_dim, said = SHAPES[pattern]
    assert said in str(said_of(pattern, head_dim, installed))


@pytest.mark.parametrize("pattern", FIT)
def test_what_a_refusal_says_would_fit_does(pattern: str, installed: Registry) -> None:
    assert said_of(pattern, FIT[pattern], installed) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mom(skip=true)", "linear: memories = 4, skip = true: memories have keys, values and reads of their own"),
        (
            "gated-deltaproduct(output_bonus=true)",
            "output_bonus = true: beside steps only output_bonus = false is known",
        ),
        (
            "performer(output_bonus=true)",
            "beside output_bonus only feature_map = none is known, or set output_bonus = false",
        ),
        ("infllm(local=0)", "with local=0, representatives=2 of blocks of 8: use local of 1 at least"),
        ("infllm(representatives=9)", "with local=1, representatives=9 of blocks of 8: use local of 1 at least"),
    ],
)
def test_options_that_make_no_sense_together_are_named_as_patterns_have_them(
    text: str, said: str, installed: Registry
) -> None:
    with pytest.raises(SpecError) as refused:
        installed.layer(text)
    assert said in str(refused.value)
