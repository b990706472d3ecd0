"""A rotation that is stretched for more positions than it was trained on, and one whose frequencies are learned."""

from __future__ import annotations

import math

import torch
from torch.testing import assert_close

from archsearch.ops.rotary import Rotary, stretched


def test_what_turns_slowly_is_stretched_and_what_turns_fast_is_not() -> None:
    """arXiv 2309.00071, section 3.2: by how often a channel turns within the trained positions."""
    base, factor, trained = 10000.0, 16.0, 4096
    frequencies = base ** -(torch.arange(0, 64, 2, dtype=torch.float64) / 64)
    found = stretched(frequencies, base, factor, trained)
    turns = trained * frequencies / (2 * math.pi)
    assert_close(found[turns > 40], frequencies[turns > 40])
    assert_close(found[turns < 0.7], frequencies[turns < 0.7] / factor)
    between = (turns > 2) & (turns < 20)
    assert between.any()
    assert (found < frequencies)[between].all()
    assert (found > frequencies / factor)[between].all()


def test_two_rotations_of_the_same_positions_are_apart() -> None:
    """Turns are kept for a pass by what makes them."""
    positions, heads = torch.arange(50)[None], torch.randn(1, 50, 2, 8)
    plain, slow = Rotary(8), Rotary(8, factor=4.0, trained=16)
    assert_close(plain(positions, heads), Rotary(8)(positions, heads))
    assert not torch.allclose(plain(positions, heads), slow(positions, heads))
    assert_close(slow(positions, slow(positions, heads), back=True), heads, rtol=1e-5, atol=1e-5)


def test_learned_frequencies_begin_as_they_are_and_learn() -> None:
    positions, heads = torch.arange(50)[None], torch.randn(1, 50, 2, 8)
    learned = Rotary(8, learned=True)
    turned = learned(positions, heads)
    assert_close(turned, Rotary(8)(positions, heads))
    turned.square().cumsum(-1).sum().backward()
    assert learned.alpha is not None
    assert learned.alpha.grad is not None
    assert learned.alpha.grad.abs().min() > 0
    with torch.no_grad():
        learned.alpha.fill_(math.log(2))
    assert_close(learned(positions, heads), Rotary(8)(2 * positions, heads), rtol=1e-4, atol=1e-5)
