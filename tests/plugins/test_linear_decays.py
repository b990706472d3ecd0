"""A form of the decay is one record, which options, costs, the layer and the README all agree with."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import archsearch_plugins.linear as linear
import pytest
import torch
from archsearch_plugins.linear.decays import FORMS, Dims, default_form, forms_of
from archsearch_plugins.linear.gates import decay_gate
from archsearch_plugins.linear.options import LinearOptions

from archsearch.mixer import LayerInfo

DIMS, LAYER = Dims(3, 8, 5), LayerInfo(index=1, depth=4)
MADE = [name for name, form in FORMS.items() if form.kind != "none"]


@pytest.mark.parametrize("name", MADE)
def test_the_gate_is_what_its_record_says(name: str) -> None:
    form, gate = FORMS[name], decay_gate(FORMS[name], DIMS, LAYER)
    assert gate is not None
    assert sum(x.numel() for x in gate.parameters()) == form.params(DIMS) + form.placed_params(DIMS, LAYER)
    assert gate.features == form.features(DIMS)
    log_decay, step = gate(torch.randn(2, 7, gate.features))
    shapes = {"constant": (3,), "head": (2, 7, 3), "channel": (2, 7, 3, 8)}
    assert tuple(log_decay.shape) == shapes[form.kind]
    assert (log_decay <= 0).all()
    assert (step is not None) == form.has_step
    assert (form.flops(DIMS).exp > 0) == (form.kind in ("head", "channel"))


@pytest.mark.parametrize("name", MADE)
def test_the_gate_can_be_copied_and_pickled(name: str) -> None:
    gate = decay_gate(FORMS[name], DIMS, LAYER)
    assert gate is not None
    x = torch.randn(1, 2, gate.features)
    for other in (copy.deepcopy(gate), pickle.loads(pickle.dumps(gate))):
        assert torch.equal(other(x)[0], gate(x)[0])


@pytest.mark.parametrize("name", FORMS)
def test_options_take_every_form_and_the_readme_names_it(name: str) -> None:
    kind = FORMS[name].kind
    assert LinearOptions(decay=kind, decay_form=name).form is FORMS[name]
    readme = (Path(linear.__file__).parent / "README.md").read_text()
    (row,) = (line for line in readme.splitlines() if line.startswith("| `decay_form`"))
    assert name == "none" or name in row


def test_the_default_goes_with_the_update_rule() -> None:
    found = {(rule, kind): default_form(rule, kind) for rule in ("hebbian", "delta") for kind in ("head", "channel")}
    assert list(found.values()) == ["mamba2", "gla", "mamba2", "kda"]
    assert default_form("hebbian", "constant") == forms_of("constant")[0].name == "retnet"
    assert default_form("hebbian", "sideways") is None
