"""Which kernels a trial takes: proven before it, fixed while it lasts, part of its record and its key.

The interpreter plays the card; a stand-in for the child answers that every row passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from archsearch_plugins.sliding.triton.table import TABLE

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.evidence.kept import keep, kept, kept_path
from archsearch.kernels import device as devices
from archsearch.kernels import forms
from archsearch.kernels.prove import Prover
from archsearch.ops.impl import Served, choose_impl
from archsearch.recipe import Recipe
from archsearch.registry import Registry
from archsearch.tasks import resolve_task
from archsearch.training import Evaluation
from archsearch.training.forms import of_arch

PASSED = """print('{"cases": 1, "error": 0.0, "fault": ""}')"""
TAKEN = "window_attention sm_90 D=16 float32"
Begin = Callable[[], Evaluation]


@pytest.fixture
def begin(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """Begins a small trial on what passes for a card."""
    monkeypatch.setenv("ARCHSEARCH_CACHE", str(tmp_path))
    monkeypatch.delenv("ARCHSEARCH_IMPL", raising=False)
    monkeypatch.setattr(devices, "takes_kernels", lambda device: True)
    monkeypatch.setattr(forms, "prover", Prover(command=("-c", PASSED)))
    forms.forget()
    model = ModelSpec.read({"d_model": 16, "n_heads": 1, "head_dim": 16, "channel_mixer": "none"})
    arch = ArchSpec.parse("sliding(window=4)", registry, model)
    task = resolve_task("mqar", registry, options={"seq_len": 16, "pairs": 2, "rewrites": 0})
    recipe = Recipe.read({"steps": 1, "batch_size": 2, "device": "cpu", "learning_rates": [0.01]})
    yield lambda: Evaluation(arch, task, recipe, 0, registry=registry)
    forms.forget()


def met(evaluation: Evaluation) -> tuple[str, str]:
    """The key, and what the record says of the kernels once a layer has asked for its own."""
    served = Served(table=TABLE, device=torch.device("cpu"), dtype=torch.float32, head_dim=16)
    with evaluation._settings():
        choose_impl(TABLE.op, "auto", served=served)
    return evaluation.key, evaluation._runtime()["kernels"]


def test_the_first_trial_proves_what_it_meets_and_says_what_it_took(begin: Begin) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    trial = begin()
    assert torch.equal(torch.get_rng_state(), before)
    assert [(proof.op, proof.key, proof.dtype) for proof in kept()] == [
        ("window_attention", ("sm_90", 16, 0), "float32")
    ]
    first = met(trial)
    assert first[1] == TAKEN
    assert met(begin()) == first


def test_a_proof_that_lands_while_a_trial_runs_changes_nothing_of_it(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin()
    (proof,) = kept()
    kept_path().unlink()
    monkeypatch.setenv("ARCHSEARCH_PROVE", "listed")
    trial = begin()
    keep([proof])
    before, after = met(trial), met(begin())
    assert (before[1], after[1]) == ("none", TAKEN)
    assert before[0] != after[0]


def test_rows_of_other_mixers_change_no_key_of_an_architecture(registry: Registry) -> None:
    arch = ArchSpec.parse("sliding", registry, ModelSpec())
    key = ("sm_90", 64, 0)
    mine = {(f"archsearch_plugins.{name}.triton", name, key, "bfloat16", "") for name in ("sliding",)}
    core = {("archsearch.ops.triton", "short_conv", key, "bfloat16", "")}
    others = {(f"archsearch_plugins.{name}.triton", name, key, "bfloat16", "") for name in ("sliding2", "moba")}
    assert of_arch(mine | core | others, arch, registry) == mine | core
