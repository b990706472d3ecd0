"""Options that came after the kernels: layers that have them, interpreted, against the readable form in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

import pytest
import torch
from archsearch_plugins.linear.first_values import FirstValues
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context, Mixer
from archsearch.registry import Registry

SHAPE = ModelShape(d_model=24, n_heads=4, n_kv_heads=2, head_dim=16, dtype="float32")
TOKENS, PACKED = 21, (0, 5, 5, 13, 21)
"""More than the chunk of the row that the interpreter takes; and sequences of it, one of them empty."""

LINEAR: dict[str, dict[str, Any]] = {
    "linear": {"key_heads": 1},
    "linear key-heads-2-delta": {"key_heads": 2, "update": "delta", "decay": "head"},
    "mamba2": {"key_heads": 1},
    "gated-deltanet": {"key_heads": 2},
    "kda": {"key_heads": 2},
    "linear key-heads-wide-values": {
        "key_heads": 1,
        "update": "delta",
        "decay": "constant",
        "key_dim": 8,
        "value_dim": 16,
    },
    "retnet": {"rope": 1.0, "value_dim": 32, "output_norm": "layer"},
    "gated-retention": {"rope": 0.5, "value_dim": 32, "output_norm": "layer"},
    "rwkv6": {"output_norm": "group"},
    "rwkv7": {"first_values": True, "output_norm": "group", "norm_eps": 1e-5, "inner_gate": True, "gate_rank": 12},
    "mlstm": {"decay_form": "xlstm-7b", "output_norm": "group", "key_dim": 8},
    "lightning": {"decay_form": "transnormer"},
    "kda-bounded": {"decay_form": "bounded-full", "low_rank_gate": False},
    "kda plain-draws": {"draws": "plain"},
    "comba rotated": {"rope": 0.5},
}
SPARSE: dict[str, dict[str, Any]] = {
    "nsa": {"block_size": 4, "top_k": 2, "window": 5},
    "dsa": {"top_k": 3, "learn_over": "chosen", "query_scale": True, "index_norm": True},
    "dsa stretched": {"top_k": 3, "rope_factor": 4.0, "rope_trained": 8},
    "dsa-mla": {"top_k": 3, "rope_learned": True, "query_scale": True},
}
QUICK = ("linear key-heads-2-delta", "kda", "retnet")


def cases(chosen: Mapping[str, Mapping[str, Any]]) -> list[Any]:
    return [
        pytest.param(name.split()[0], options, id=name, marks=[] if name in QUICK else [pytest.mark.slow])
        for name, options in chosen.items()
    ]


def built(name: str, options: Mapping[str, Any], registry: Registry, dtype: torch.dtype) -> Mixer:
    """The second layer of four, always with the same weights."""
    resolved = registry.resolve(name)
    parsed = resolved.plugin.parse_options({**resolved.preset, **options}, registry)
    torch.manual_seed(0)
    mixer = resolved.plugin.build(parsed, SHAPE, LayerInfo(index=1, depth=4))
    assert isinstance(mixer, Mixer)
    with torch.no_grad():
        for parameter in mixer.parameters():  # some start at zero, where what they weigh does not show
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return mixer.to(dtype)


def context(mixer: Mixer, x: Tensor, **given: Any) -> Context:
    """Where a layer mixes in the values of the first one, that has handed some: a function of its tokens."""
    ctx = Context(**given)
    if getattr(mixer, "first_values", None) is not None:
        places = torch.arange(SHAPE.n_heads * SHAPE.head_dim).view(SHAPE.n_heads, SHAPE.head_dim)
        tokens = x.detach() if x.dim() == 3 else x[:, None]
        ctx.share(LayerInfo(index=0, depth=4), FirstValues.NAME, torch.sin(tokens[..., :1, None] + places))
    return ctx


def results(mixer: Mixer, dtype: torch.dtype) -> dict[str, Tensor]:
    """Of whole sequences, and of packed ones, the outputs and the gradients of all that is learned; of two parts over a
    state, and of two decoded tokens, the outputs and the state. Losses that a layer adds are learned from too."""
    found: dict[str, Tensor] = {}
    x = torch.randn(2, TOKENS, SHAPE.d_model, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
    for kind, given, bounds in (("whole", x, None), ("packed", x[:1], torch.tensor(PACKED))):
        leaf = given.clone().requires_grad_()
        mixer.zero_grad()
        ctx = context(mixer, leaf, cu_seqlens=bounds)
        out, _ = mixer(leaf, ctx=ctx)
        weighted = (out * torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)).sum()
        torch.stack([weighted, *ctx.losses.values()]).sum().backward()
        found |= {kind: out.detach(), f"{kind} d_x": leaf.grad if leaf.grad is not None else leaf.new_zeros(0)}
        found |= {f"{kind} d_{name}": p.grad.clone() for name, p in mixer.named_parameters() if p.grad is not None}
    with torch.no_grad():
        state = mixer.init_state(len(x), TOKENS + 1, dtype=dtype)
        for first, last in ((0, 7), (7, TOKENS - 2)):
            part = x[:, first:last]
            found[f"from {first}"], state = mixer(part, state=state, ctx=context(mixer, part))
        for place in (TOKENS - 2, TOKENS - 1):
            token = x[:, place]
            found[f"token {place}"], state = mixer.step(token, state=state, ctx=context(mixer, token))
    return found | {f"state {name}": tensor for name, tensor in state.tensors.items()}


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize(("name", "options"), cases(LINEAR | SPARSE))
def test_a_layer_by_kernels_is_the_layer_in_float64(
    name: str, options: Mapping[str, Any], installed: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARCHSEARCH_IMPL", "reference")
    wanted = results(built(name, options, installed, torch.float64), torch.float64)
    monkeypatch.setenv("ARCHSEARCH_IMPL", "triton")
    launched, run = set[str](), InterpretedFunction.run

    def counted(kernel: InterpretedFunction, *args: Any, **given: Any) -> Any:
        launched.add(kernel.__name__)
        return run(kernel, *args, **given)

    with patch.object(InterpretedFunction, "run", counted):
        got = results(built(name, options, installed, torch.float32), torch.float32)
    assert launched
    assert got.keys() == wanted.keys()
    for key, tensor in got.items():
        scale = wanted[key].square().mean().sqrt() + 1e-12
        assert (tensor.double() - wanted[key]).square().mean().sqrt() / scale < 2e-5, key
