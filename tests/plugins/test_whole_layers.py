"""Whole layers against the public ones of `transformers`, by copied weights: forward, and token by token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any

import copied_weights as copied
import pytest
import torch
from archsearch_plugins.compressed import CompressedPlugin
from archsearch_plugins.conv import ConvPlugin
from archsearch_plugins.full import FullPlugin
from archsearch_plugins.indexed import IndexedPlugin
from archsearch_plugins.latent import LatentPlugin
from archsearch_plugins.linear import LinearPlugin
from archsearch_plugins.sliding import SlidingPlugin
from copied_weights import HEAD_DIM, HEADS, INDEX_DIM, INDEX_HEADS, KV_HEADS, LATENT, SHAPE, TURNED, WIDTH
from torch import Tensor, nn
from torch.testing import assert_close

from archsearch.mixer import LayerInfo, MixerPlugin
from archsearch.model import Context

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

WINDOW = 6
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": TURNED / HEAD_DIM}
EAGER = {"attn_implementation": "eager", "hidden_size": WIDTH}
HEADED = {
    **EAGER,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "rope_parameters": ROPE,
}
LINEAR = {
    **EAGER,
    "linear_num_key_heads": HEADS,
    "linear_num_value_heads": HEADS,
    "linear_key_head_dim": HEAD_DIM,
    "linear_value_head_dim": HEAD_DIM,
}

Run = Callable[[Any, Tensor], Tensor]
"""Of a layer of theirs and `x` `[B, T, D]`, what it makes of it."""


@dataclass(frozen=True)
class Public:
    """A public layer: ``layer`` of the module `models.name.modeling_name`, of a ``config``; ours is a ``plugin`` with
    ``options``, at ``place`` of a model, and has its weights by ``names``."""

    name: str
    layer: str
    config: tuple[str, Mapping[str, Any]]
    names: copied.Names
    plugin: MixerPlugin[Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    run: str = "alone"
    place: tuple[int, int] = (0, 1)


def causal(tokens: int, window: int | None = None) -> Tensor:
    """A mask `[1, 1, T, T]` to be added."""
    behind = torch.arange(tokens)[:, None] - torch.arange(tokens)
    seen = (behind >= 0) & (behind < (window or tokens))
    return torch.zeros(1, 1, tokens, tokens).masked_fill(~seen, -torch.inf)


def alone(theirs: Any, x: Tensor, module: ModuleType) -> Tensor:
    out = theirs(x)
    return out[0] if isinstance(out, tuple) else out


def masked(theirs: Any, x: Tensor, module: ModuleType) -> Tensor:
    return theirs(x, causal(x.shape[1]))[0]


def turned(theirs: Any, x: Tensor, module: ModuleType) -> Tensor:
    """Attention with positions and a mask."""
    kind = next(
        getattr(module, name) for name in dir(module) if name.endswith("RotaryEmbedding") and "ision" not in name
    )
    where = kind(theirs.config)(x, torch.arange(x.shape[1])[None].expand(len(x), -1))
    mask = causal(x.shape[1], getattr(theirs, "sliding_window", None)).expand(len(x), -1, -1, -1)
    return theirs(x, where, mask)[0]


def unmasked(theirs: Any, x: Tensor, module: ModuleType) -> Tensor:
    return theirs(x, (x, x), None)[0]


def compressing(theirs: Any, x: Tensor, module: ModuleType) -> Tensor:
    """DeepSeek-V4's, with positions of two kinds."""
    places = torch.arange(x.shape[1])[None].expand(len(x), -1)
    where = module.DeepseekV4RotaryEmbedding(theirs.config)
    found = {kind: where(x, places, layer_type=kind) for kind in ("main", "compress")}
    return theirs(x, found, places, causal(x.shape[1], theirs.sliding_window).expand(len(x), -1, -1, -1))[0]


def pooling(theirs: Any, x: Tensor, module: ModuleType) -> Tensor:
    """GLM-5.3-Flash's, which makes its own mask of which tokens there are."""
    return theirs(x, torch.ones(x.shape[:2], dtype=torch.bool))[0]


RUNS = {each.__name__: each for each in (alone, masked, turned, unmasked, compressing, pooling)}


def _deepseek_v4(kind: str, **more: Any) -> dict[str, Any]:
    rates = {"compressed_sparse_attention": copied.BLOCK, "heavily_compressed_attention": copied.BLOCK}
    return {
        **EAGER,
        "num_attention_heads": HEADS,
        "head_dim": HEAD_DIM,
        "q_lora_rank": 12,
        "layer_types": [kind],
        "num_hidden_layers": 1,
        "compress_rates": rates,
        "compress_rope_theta": 160000.0,
        "partial_rotary_factor": TURNED / HEAD_DIM,
        "sliding_window": WINDOW,
        "o_groups": copied.O_GROUPS,
        "o_lora_rank": 10,
        "index_n_heads": INDEX_HEADS,
        "index_head_dim": INDEX_DIM,
        "index_topk": 5,
        "mlp_layer_types": ["moe"],
        **more,
    }


_YARN = {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 64}
"""A rotation that is stretched, as DeepSeek-V4's compressing layers have it, of positions that the test goes past."""
_GROUPED = {"out_groups": copied.O_GROUPS, "out_rank": 10, "rope_factor": 16.0, "rope_trained": 64}

_ENTRIES = {
    "window": WINDOW,
    "q_rank": 12,
    "rope": TURNED / HEAD_DIM,
    "rope_base": 160000.0,
    "block_size": copied.BLOCK,
}
_INDEX = {"index_heads": INDEX_HEADS, "index_dim": INDEX_DIM}
_LATENT = {"kv_rank": LATENT["kv_lora_rank"], "shared_dim": TURNED}
_PUBLISHED_MAMBA2 = {
    **LinearPlugin.presets["mamba2"],
    "key_dim": copied.STATE,
    "key_heads": 1,
    "conv_bias": True,
    "skip": True,
    "output_norm": "gated",
    "norm_eps": 1e-5,
}
_LIGHTNING = {**LinearPlugin.presets["lightning"], "output_norm": "joint"}

LAYERS = {
    "qwen3-next-attention": Public(
        "qwen3_next",
        "Qwen3NextAttention",
        ("Qwen3NextConfig", HEADED),
        copied.attention(TURNED, gated=True, normed=True),
        FullPlugin(),
        {"rope": TURNED / HEAD_DIM, "qk_norm": True, "output_gate": True},
        "turned",
    ),
    "gpt-oss-sliding": Public(
        "gpt_oss",
        "GptOssAttention",
        (
            "GptOssConfig",
            {
                **HEADED,
                "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
                "sliding_window": WINDOW,
                "layer_types": ["sliding_attention"],
                "num_hidden_layers": 1,
                "attention_bias": False,
            },
        ),
        copied.attention(HEAD_DIM) | {"sink_logits": copied.same("sinks")},
        SlidingPlugin(),
        {"window": WINDOW, "sink_logit": True},
        "turned",
    ),
    "qwen3-next-delta": Public(
        "qwen3_next",
        "Qwen3NextGatedDeltaNet",
        ("Qwen3NextConfig", {**LINEAR, "linear_num_key_heads": KV_HEADS}),
        copied.QWEN3_NEXT,
        LinearPlugin(),
        {**LinearPlugin.presets["gated-deltanet"], "key_heads": KV_HEADS},
    ),
    "olmo-hybrid-delta": Public(
        "olmo_hybrid",
        "OlmoHybridGatedDeltaNet",
        ("OlmoHybridConfig", LINEAR),
        copied.OLMO_HYBRID,
        LinearPlugin(),
        {**LinearPlugin.presets["olmo-hybrid"], "norm_eps": 1e-5},
    ),
    "kimi-delta": Public(
        "kimi_linear",
        "KimiLinearDeltaAttention",
        ("KimiLinearConfig", {**EAGER, "linear_num_heads": HEADS, "linear_head_dim": HEAD_DIM}),
        copied.KIMI_DELTA,
        LinearPlugin(),
        {**LinearPlugin.presets["kda"], "norm_eps": 1e-5},
    ),
    **{
        f"minimax-lightning-{index}": Public(
            "minimax",
            "MiniMaxLightningAttention",
            (
                "MiniMaxConfig",
                {**HEADED, "num_hidden_layers": 4, "layer_types": ["linear_attention"] * 4, "block_size": 32},
            ),
            copied.LIGHTNING,
            LinearPlugin(),
            _LIGHTNING,
            "unmasked",
            (index, 4),
        )
        for index in (0, 2)
    },
    "mamba2": Public(
        "mamba2",
        "Mamba2Mixer",
        (
            "Mamba2Config",
            {
                "hidden_size": WIDTH,
                "num_heads": HEADS,
                "head_dim": HEAD_DIM,
                "expand": HEADS * HEAD_DIM // WIDTH,
                "state_size": copied.STATE,
                "n_groups": 1,
                "num_hidden_layers": 1,
                "chunk_size": 32,
            },
        ),
        copied.MAMBA2,
        LinearPlugin(),
        _PUBLISHED_MAMBA2,
    ),
    "nemotron-h": Public(
        "nemotron_h",
        "NemotronHMamba2Mixer",
        (
            "NemotronHConfig",
            {
                "hidden_size": WIDTH,
                "mamba_num_heads": HEADS,
                "mamba_head_dim": HEAD_DIM,
                "ssm_state_size": copied.STATE,
                "n_groups": 1,
                "layer_types": ["mamba"],
                "num_hidden_layers": 1,
                "chunk_size": 32,
            },
        ),
        copied.MAMBA2,
        LinearPlugin(),
        _PUBLISHED_MAMBA2,
    ),
    "bailing-hybrid-delta": Public(
        "bailing_hybrid",
        "BailingHybridDeltaAttention",
        (
            "BailingHybridConfig",
            {**EAGER, "num_attention_heads": HEADS, "head_dim": HEAD_DIM, "rms_norm_eps": 1e-6},
        ),
        copied.BAILING_DELTA,
        LinearPlugin(),
        {**LinearPlugin.presets["kda-bounded"], "decay_form": "bounded-full", "low_rank_gate": False},
    ),
    "xlstm-7b": Public(
        "xlstm",
        "xLSTMLayer",
        (
            "xLSTMConfig",
            {
                "hidden_size": WIDTH,
                "num_heads": HEADS,
                "num_blocks": 1,
                "qk_dim_factor": HEADS * HEAD_DIM / WIDTH / 2,
                "v_dim_factor": HEADS * HEAD_DIM / WIDTH,
                "chunk_size": 16,
                "eps": 0.0,
                "autocast_kernel_dtype": "float32",
            },
        ),
        copied.XLSTM,
        LinearPlugin(),
        {
            **LinearPlugin.presets["mlstm"],
            "decay_form": "xlstm-7b",
            "key_dim": HEAD_DIM // 2,
            "output_norm": "group",
        },
    ),
    "lfm2-conv": Public(
        "lfm2",
        "Lfm2ShortConv",
        (
            "Lfm2Config",
            {"hidden_size": WIDTH, "conv_L_cache": 3, "num_hidden_layers": 1, "layer_types": ["conv"]},
        ),
        copied.GATED_CONV,
        ConvPlugin(),
        ConvPlugin.presets["lfm"],
    ),
    "glm5-next-delta": Public(
        "glm5_next",
        "Glm5NextTextLinearAttention",
        (
            "Glm5NextTextConfig",
            {
                **EAGER,
                "linear_num_heads": HEADS,
                "linear_head_dim": HEAD_DIM,
                "linear_lower_bound": -5.0,
                "num_hidden_layers": 1,
                "layer_types": ["linear_attention"],
                "rms_norm_eps": 1e-5,
            },
        ),
        copied.BOUNDED_DELTA,
        LinearPlugin(),
        {**LinearPlugin.presets["kda-bounded"], "norm_eps": 1e-5},
    ),
    "glm5-next-pools": Public(
        "glm5_next",
        "Glm5NextTextAttention",
        (
            "Glm5NextTextConfig",
            {
                **EAGER,
                **LATENT,
                "qk_rope_head_dim": 0,
                "num_attention_heads": HEADS,
                "num_key_value_heads": HEADS,
                "q_lora_rank": 10,
                "index_n_heads": INDEX_HEADS,
                "index_head_dim": INDEX_DIM,
                "index_topk": 12,
                "index_kpool": 4,
                "num_hidden_layers": 1,
                "layer_types": ["full_attention"],
                "indexer_types": ["full"],
                "rms_norm_eps": 1e-6,
            },
        ),
        copied.POOLED,
        IndexedPlugin(),
        {
            **IndexedPlugin.presets["glm5-next"],
            **_INDEX,
            "kv_rank": LATENT["kv_lora_rank"],
            "q_rank": 10,
            "top_k": 3,
        },
        "pooling",
    ),
    "deepseek-v3": Public(
        "deepseek_v3",
        "DeepseekV3Attention",
        (
            "DeepseekV3Config",
            {
                **EAGER,
                **LATENT,
                "num_attention_heads": HEADS,
                "num_key_value_heads": HEADS,
                "q_lora_rank": 10,
                "rope_interleave": True,
            },
        ),
        copied.LOW_RANK_LATENTS,
        LatentPlugin(),
        {**_LATENT, "q_rank": 10, "rope": 1.0},
        "turned",
    ),
    "kimi-latents": Public(
        "kimi_linear",
        "KimiLinearAttention",
        ("KimiLinearConfig", {**EAGER, **LATENT, "num_attention_heads": HEADS, "num_key_value_heads": HEADS}),
        copied.LATENTS,
        LatentPlugin(),
        {**_LATENT, "rope": 0.0},
        "masked",
    ),
    "deepseek-v32": Public(
        "deepseek_v32",
        "DeepseekV32Attention",
        (
            "DeepseekV32Config",
            {
                **EAGER,
                **LATENT,
                "num_attention_heads": HEADS,
                "num_key_value_heads": HEADS,
                "q_lora_rank": 10,
                "index_n_heads": INDEX_HEADS,
                "index_head_dim": INDEX_DIM,
                "index_topk": 9,
            },
        ),
        copied.DSA,
        IndexedPlugin(),
        {**_LATENT, **_INDEX, "q_rank": 10, "top_k": 9, "rope": TURNED / INDEX_DIM},
        "turned",
    ),
    "qwen4-exp-qsa": Public(
        "qwen4_exp",
        "Qwen4ExpTextAttention",
        (
            "Qwen4ExpTextConfig",
            {
                **HEADED,
                "indexer_n_heads": INDEX_HEADS,
                "indexer_kv_heads": 1,
                "indexer_head_dim": INDEX_DIM,
                "indexer_budget": 24,
                "indexer_compress_ratio": 8,
            },
        ),
        copied.QSA,
        IndexedPlugin(),
        {
            **IndexedPlugin.presets["qsa"],
            **_INDEX,
            "top_k": 3,
            "rope": TURNED / HEAD_DIM,
            "qk_norm": True,
            "output_gate": True,
        },
        "turned",
    ),
    "minimax-m3": Public(
        "minimax_m3_vl",
        "MiniMaxM3VLAttention",
        (
            "MiniMaxM3VLTextConfig",
            {
                **HEADED,
                "rotary_dim": TURNED,
                "index_n_heads": KV_HEADS,
                "index_head_dim": INDEX_DIM,
                "index_block_size": 8,
                "index_topk_blocks": 4,
                "index_local_blocks": 2,
                "num_hidden_layers": 1,
                "layer_types": ["minimax_m3_sparse"],
            },
        ),
        copied.M3,
        IndexedPlugin(),
        {
            **IndexedPlugin.presets["m3"],
            "top_k": 2,
            "local": 1,
            "index_dim": INDEX_DIM,
            "rope": TURNED / HEAD_DIM,
            "qk_norm": True,
        },
        "turned",
    ),
    "deepseek-v4-hca": Public(
        "deepseek_v4",
        "DeepseekV4Attention",
        ("DeepseekV4Config", _deepseek_v4("heavily_compressed_attention")),
        copied.compressed(1),
        CompressedPlugin(),
        _ENTRIES,
        "compressing",
    ),
    "deepseek-v4-csa": Public(
        "deepseek_v4",
        "DeepseekV4Attention",
        ("DeepseekV4Config", _deepseek_v4("compressed_sparse_attention")),
        copied.compressed(2),
        CompressedPlugin(),
        {**_ENTRIES, **_INDEX, "overlap": True, "top_k": 5},
        "compressing",
    ),
    "deepseek-v4-hca-of-groups-and-yarn": Public(
        "deepseek_v4",
        "DeepseekV4Attention",
        ("DeepseekV4Config", _deepseek_v4("heavily_compressed_attention", rope_parameters=_YARN)),
        copied.compressed(1, grouped=True),
        CompressedPlugin(),
        {**_ENTRIES, **_GROUPED},
        "compressing",
    ),
    "deepseek-v4-csa-of-groups-and-yarn": Public(
        "deepseek_v4",
        "DeepseekV4Attention",
        ("DeepseekV4Config", _deepseek_v4("compressed_sparse_attention", rope_parameters=_YARN)),
        copied.compressed(2, grouped=True),
        CompressedPlugin(),
        {**_ENTRIES, **_INDEX, **_GROUPED, "overlap": True, "top_k": 5},
        "compressing",
    ),
}


def pair(given: Public) -> tuple[Run, nn.Module]:
    """Theirs, with weights that are drawn, and ours with the same."""
    pytest.importorskip("transformers", reason="the public layers are those of transformers 5.24: make test-peers")
    module = import_module(f"transformers.models.{given.name}.modeling_{given.name}")
    name, values = given.config
    torch.manual_seed(0)
    config = getattr(import_module(f"transformers.models.{given.name}.configuration_{given.name}"), name)(**values)
    index, depth = given.place
    layer, numbered = getattr(module, given.layer), {} if given.name == "xlstm" else {"layer_idx": index}
    theirs = layer(config, **numbered).eval()
    for weights in theirs.parameters():
        nn.init.normal_(weights, std=0.3)
    options = given.plugin.parse_options(given.options)
    ours = given.plugin.build(options, SHAPE, LayerInfo(index=index, depth=depth)).eval()
    copied.copy_weights(theirs, ours, given.names)
    return lambda x: RUNS[given.run](theirs, x, module), ours


def decoded(ours: nn.Module, x: Tensor, prefill: int) -> Tensor:
    """A prefill, and steps."""
    out, state = ours(x[:, :prefill], state=ours.init_state(len(x), x.shape[1]), ctx=Context(want_state=True))
    steps = [out]
    for token in range(prefill, x.shape[1]):
        y, state = ours.step(x[:, token], state=state, ctx=Context(want_state=True))
        steps.append(y[:, None])
    return torch.cat(steps, 1)


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_layer_of_copied_weights_gives_the_same_and_decodes_the_same(name: str) -> None:
    theirs, ours = pair(LAYERS[name])
    for tokens in (1, 7, 75):
        x = torch.randn(2, tokens, WIDTH)
        wanted = theirs(x)
        assert_close(ours(x, ctx=Context())[0], wanted, rtol=1e-5, atol=1e-5)
        for prefill in {0, min(tokens, 13)}:
            assert_close(decoded(ours, x, prefill), wanted, rtol=1e-5, atol=1e-5)
