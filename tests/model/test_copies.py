"""A model can be copied, saved and sent, and the copy works alone."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ray import cloudpickle

from archsearch.analysis.catalogue import catalogue
from archsearch.arch import ArchSpec, ModelSpec
from archsearch.model import Context, HybridLM
from archsearch.registry import Registry, load_registry
from archsearch.testing.toy import ToyPlugin

MODEL = ModelSpec.read({"d_model": 32, "n_heads": 2, "channel_mixer": "swiglu", "short_conv": 4, "vocab_size": 50})
TOKENS = torch.arange(24).view(2, 12)


def through_torch(model: HybridLM) -> HybridLM:
    """Saved and loaded."""
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    found: HybridLM = torch.load(file, weights_only=False)
    return found


COPIES = [
    copy.deepcopy,
    lambda model: pickle.loads(pickle.dumps(model)),
    through_torch,
    lambda model: cloudpickle.loads(cloudpickle.dumps(model)),
]


@pytest.fixture
def model() -> HybridLM:
    """A model of every kind of mixer, one of them installed by no distribution."""
    registry = load_registry([ToyPlugin()], environ={"ARCHSEARCH_LOAD_PLUGINS": "full,sliding,linear,moba,nsa"})
    torch.manual_seed(0)
    arch = ArchSpec.parse("full sliding(window=4) kda moba nsa toy", registry, MODEL)
    return HybridLM(arch, registry).eval()


@pytest.mark.parametrize("copied", COPIES, ids=["deepcopy", "pickle", "torch", "cloudpickle"])
@torch.no_grad()
def test_a_copy_works_alone(model: HybridLM, copied: Callable[[HybridLM], HybridLM]) -> None:
    expected = model(TOKENS)
    found = copied(model)
    for parameter in model.parameters():
        parameter.zero_()
    assert torch.equal(found(TOKENS), expected)
    assert found.arch == model.arch
    assert hash(found.arch.layers[0]) == hash(model.arch.layers[0])
    assert found.blocks[2].mixer.layer.resolver.resolve("kda").plugin.name == "linear"


def test_a_copy_asks_the_same_registry_in_this_process(model: HybridLM) -> None:
    assert copy.deepcopy(model).blocks[0].mixer.layer.resolver is model.blocks[0].mixer.layer.resolver


@torch.no_grad()
def test_states_are_copied_too(model: HybridLM) -> None:
    ctx = Context(want_state=True)
    x = torch.randn(1, 6, 32)
    for block in model.blocks:
        state = block.init_state(1, 16)
        _, state = block(x, state=state, ctx=ctx)
        twin = copy.deepcopy(state)
        first, _ = block.step(x[:, 0], state=state, ctx=ctx)
        second, _ = block.step(x[:, 0], state=twin, ctx=ctx)
        assert torch.equal(first, second)


READ = """
import sys, torch
model = torch.load(sys.argv[1], weights_only=False).eval()
with torch.no_grad():
    torch.save(model(torch.arange(24).view(2, 12)), sys.argv[2])
resolver = model.blocks[0].mixer.layer.resolver
print(len({layer for layer in model.arch.layers} | {type(layer)(mixer=layer.mixer, options=layer.options)
      for layer in model.arch.layers}), resolver.resolve("toy-wide").plugin.name, resolver.source_of("toy"))
"""


@torch.no_grad()
def test_a_saved_model_works_in_another_process(model: HybridLM, tmp_path: Path) -> None:
    torch.save(model, tmp_path / "model.pt")
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "model.pt"), str(tmp_path / "logits.pt")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), model(TOKENS))
    registry = model.blocks[0].mixer.layer.resolver
    assert isinstance(registry, Registry)
    assert done.stdout.split() == ["6", "toy", registry.source_of("toy")]


def test_a_pickled_registry_loads_what_was_loaded() -> None:
    registry = load_registry(environ={"ARCHSEARCH_LOAD_PLUGINS": "full,tasks"})
    found = pickle.loads(pickle.dumps(registry))
    assert found.fingerprint() == registry.fingerprint()
    assert [mixer.name for mixer in found.mixers()] == ["full"]
    (report,) = (report for report in found.reports() if report.name == "moba")
    assert report.error == "not loaded where the registry was copied from"


TAKEN_FROM = {"shared": "yoco-kv", "shared-index": "dsa-mla"}
"""Of mixers that take from an earlier layer, one that they take from."""


def test_every_system_is_pickled(installed: Registry) -> None:
    for entry in catalogue(installed):
        layers = ArchSpec.parse(f"{TAKEN_FROM.get(entry.mixer, '')} {entry.name}".strip(), installed, MODEL)
        model = HybridLM(layers, installed).eval()
        found = pickle.loads(pickle.dumps(model))
        assert sum(map(torch.numel, found.parameters())) == sum(map(torch.numel, model.parameters())), entry.name
