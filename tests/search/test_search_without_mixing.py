"""A search may leave a layer without token mixing: such candidates are drawn, costed, trained, and have no state."""

from __future__ import annotations

from dataclasses import replace

import torch
from search_fakes import fake_spec

from archsearch.model import Context, HybridLM
from archsearch.registry import Registry
from archsearch.search.problem import Problem
from archsearch.search.spec import SearchSpec


def test_a_layer_without_mixing_is_drawn_costed_and_trained(installed: Registry) -> None:
    tables = {"space": {"mixers": ["full", "none"], "full": {"rope": [1.0]}}, "tasks": [{"name": "mqar"}]}
    spec = fake_spec(**tables, objectives={"maximize": ["recall"], "minimize": ["state_bytes"], "context": 1024})
    problem = Problem.of(SearchSpec.from_dict(spec), installed)
    found = {tuple(layer.mixer for layer in arch.layers): arch for arch in problem.space.all()}
    assert len(found) == 2**problem.space.n_layers
    judged = {mixers: problem.judge(arch) for mixers, arch in found.items()}
    dense = judged["full", "full", "full"]
    for mixers, verdict in judged.items():
        assert verdict.trainable
        (of_state,) = (value for name, value in verdict.costs.items() if name.startswith("state_bytes"))
        (of_dense,) = (value for name, value in dense.costs.items() if name.startswith("state_bytes"))
        assert of_state * 3 == of_dense * mixers.count("full")
    arch = found["none", "full", "none"]
    model = HybridLM(replace(arch, model=arch.model.changed({"vocab_size": 11})), installed).train()
    model(torch.randint(11, (2, 6)), ctx=Context()).square().sum().backward()
    untaught = {name for name, weights in model.named_parameters() if weights.grad is None}
    assert untaught <= {"blocks.0.mixer_norm.weight", "blocks.2.mixer_norm.weight"}  # of what is not mixed
