"""Mamba-1's whole layer against that of `transformers`, by copied weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from archsearch_plugins.ssm import SsmPlugin

from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context

pytestmark = pytest.mark.peers

PLUGIN = SsmPlugin()
SHAPE = ModelShape(d_model=24, n_heads=3, n_kv_heads=3, head_dim=8, dtype="float32")
NAMES = {
    "proj.weight": "in_proj.weight",
    "conv_bias": "conv1d.bias",
    "select.weight": "x_proj.weight",
    "dt.weight": "dt_proj.weight",
    "dt.bias": "dt_proj.bias",
    "skip": "D",
    "out.weight": "out_proj.weight",
}
"""Ours, and those of `MambaMixer`; the convolution and A_log are laid out otherwise."""


def test_mamba1_is_the_layer_of_transformers_and_decodes_as_it_does() -> None:
    pytest.importorskip("transformers", reason="transformers 5.24 is not installed: it has the layer compared with")
    from transformers import DynamicCache, MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer

    torch.manual_seed(0)
    config = MambaConfig(hidden_size=24, state_size=8, num_hidden_layers=1, conv_kernel=4, expand=2, use_bias=False)
    theirs = MambaMixer(config, layer_idx=0).eval()
    ours = PLUGIN.build(PLUGIN.parse_options({"state_dim": 8}), SHAPE, LayerInfo(index=0, depth=1)).eval()
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    weights = copied(theirs)
    ours.load_state_dict(weights)
    x = torch.randn(2, 75, 24)
    with torch.no_grad():
        wanted = theirs(x)
        torch.testing.assert_close(ours(x, ctx=Context())[0], wanted, rtol=1e-5, atol=1e-5)
        cache = DynamicCache(config=config)
        theirs(x[:, :70], cache=cache)
        _, state = ours(x[:, :70], ctx=Context(want_state=True))
        for token in range(70, 75):
            one, state = ours.step(x[:, token], state=state, ctx=Context())
            torch.testing.assert_close(one, theirs(x[:, token : token + 1], cache=cache)[:, 0], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(one, wanted[:, token], rtol=1e-5, atol=1e-5)


def copied(theirs: Any) -> dict[str, torch.Tensor]:
    given = theirs.state_dict()
    weights = {ours: given[name] for ours, name in NAMES.items()}
    weights["A_log"] = given["A_log"].T.contiguous()
    weights["conv.weight"] = given["conv1d.weight"][:, 0].T.flip(0).contiguous()  # ours begins with the last token
    return weights
