"""Every formula of docs/costs.md is Python, and gives what the cost model gives."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.composition import figures_of, placed
from archsearch.costs import MEASURES, CostModel
from archsearch.figures import Figures
from archsearch.mixer import Phase
from archsearch.registry import Registry

PAGE = Path(__file__).parents[2] / "docs" / "costs.md"
BLOCKS: dict[str, str] = dict(
    re.findall(r"^<!-- checked: ([^\n]+) -->\n```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
)
CODE = {block: compile(text, f"<{block}>", "exec", dont_inherit=True) for block, text in BLOCKS.items()}

FORMULAS = {
    "full": ["full", "softmax", "full more"],
    "sliding": ["sliding", "softmax"],
    "static": ["static", "softmax", "static more"],
    "simplicial": ["simplicial"],
    "moba": ["moba", "softmax", "moba more"],
    "nsa": ["nsa", "softmax", "nsa more"],
    "linear": ["linear", "linear more"],
    "conv": ["conv"],
    "latent": ["latent"],
    "shared-kv": ["shared-kv", "softmax", "shared-kv more"],
    "shared": ["shared-kv", "softmax", "shared"],
    "evicting": ["evicting", "softmax", "evicting more"],
    "indexed": ["indexed", "indexed index", "indexed sums", "indexed more"],
    "shared-index": ["indexed", "shared-index", "indexed sums", "shared-index more"],
    "compressed": ["compressed"],
    "zorder": ["zorder"],
    "memory": ["memory", "memory more"],
    "ssm": ["ssm", "ssm more"],
    "parallel": ["parallel"],
}
"""The blocks that tell a mixer's costs, in their order."""

PRODUCTS_ALONE = {"linear", "memory", "ssm"}
"""Mixers whose elementwise operations and exponentials the page leaves to their code."""

WITHOUT = {"none": "it costs nothing"}
"""Mixers without a block, and why."""

LAYERS = [
    "full",
    "full(rope=0.3, qk_norm=true)",
    "sliding(window=7, sinks=3)",
    "sliding(window=300)",
    *("forgetting", "sigmoid", "stick-breaking", "deltaformer"),
    *("qwen3-next-full", "sliding-sink(window=7, output_gate=true)"),
    *("longformer(first_projections=true)", "bigbird(first_projections=true, rope=0.5)"),
    *("longformer", "bigbird", "static(block_size=4, local=3, dilation=2, random=2)"),
    *("simplicial", "simplicial(window=3, second_window=7, qk_norm=true)"),
    "simplicial(second_window=5, score=determinant, rope=0.5)",
    "moba(block_size=16, top_k=3)",
    "moba(block_size=16, top_k=1)",
    "moba(block_size=64, top_k=8)",
    "nsa(block_size=16, top_k=4, window=24)",
    "nsa(block_size=16, top_k=1, window=8)",
    "nsa(block_size=32, top_k=2, window=400)",
    "nsa(block_size=16, top_k=4, window=24, branch_kv=true)",
    "nsa(block_size=16, top_k=4, window=24, compress=mlp)",
    "nsa(block_size=16, top_k=5, window=24, length=8, stride=4, local=2)",
    "nsa(block_size=16, top_k=3, window=24, length=32, stride=8, local=2, branch_kv=true, compress=mlp, rope=0.4)",
    *("linear", "retnet", "lightning", "mamba2", "gla", "deltanet", "gated-deltanet", "kda"),
    *("gated-retention", "hgrn2", "rwkv6", "mlstm", "performer"),
    *("log-linear-mamba2", "log-linear-gated-deltanet", "mom", "gla(memories=3, memories_used=1)"),
    *("kda-bounded", "olmo-hybrid", "gated-deltaproduct", "gated-deltanet-2", "comba", "rwkv7"),
    "linear(update=delta, steps=3, static_shift=true, initial_state=learned)",
    "linear(decay=head, output_bonus=true, static_shift=true, initial_state=learned, output_gate=none)",
    "linear(decay=head, write=dt, conv_bias=true, skip=true, output_norm=gated)",
    "linear(output_norm=joint, output_bonus=true)",
    "linear(key_dim=8, value_dim=24, skip=true, conv=1)",
    "mamba2(conv_bias=true, skip=true, output_norm=gated)",
    "lightning(output_norm=joint)",
    "retnet(rope=1, value_dim=24, output_norm=layer)",
    "mlstm(decay_form=xlstm-7b, output_norm=group)",
    *("lightning(decay_form=transnormer)", "kda-bounded(decay_form=bounded-full, low_rank_gate=false)"),
    *("mamba2(key_heads=1)", "gated-deltaproduct(key_heads=2)"),
    "rwkv7(first_values=true, gate_rank=12, inner_gate=true, output_norm=group)",
    *("conv", "conv(width=1)"),
    *("latent", "mla", "mla-nope", "latent(kv_rank=24, shared_dim=6, rope=0.7, q_rank=12)"),
    *("yoco-kv", "shared-kv(window=40, rope=0.4, qk_norm=true)"),
    "shared-kv(qk_norm=true, v_norm=true, kv_norm=true)",
    "shared-kv(v_norm=true, kv_norm=true) shared(v_norm=true, kv_norm=true)",
    *("yoco-kv yoco", "shared-kv(window=40, qk_norm=true) shared(window=40, qk_norm=true)"),
    *("h2o", "h2o(n_kv_heads=1)", "evicting(heavy=9, recent=5, rope=0.3)"),
    *("dsa", "dsa-mla", "glm5-next", "qsa", "m3", "topk", "quest", "infllm"),
    "indexed(top_k=8, learn=gates, first=2, local=3)",
    "indexed(block_size=8, top_k=3, own=block, scorer=attention, summary=softmax, learn=gates)",
    "indexed(block_size=8, top_k=3, own=block, scorer=attention, summary=mean, learn=none, rope=0.5)",
    "indexed(block_size=4, top_k=2, own=block, scorer=attention, learn=none)",
    "infllm(block_size=5, local=3, top_k=2, counted=10, choose=together, far=20)",
    *("infllm(counted=8)", "infllm(far=16, rope=0.5)", "topk(choose=together)"),
    "indexed(block_size=4, top_k=2, own=block, scorer=attention, summary=mean, learn=none, far=9)",
    "dsa-mla(q_rank=12)",
    "qsa(qk_norm=true, output_gate=true)",
    "indexed(block_size=8, top_k=2, own=block, summary=gated, rope=0, local=1)",
    *("dsa-mla indexshare", "dsa-mla(top_k=5, q_rank=12) indexshare-latents", "dsa-mla(top_k=5) reindex"),
    "dsa-mla(top_k=5, query_scale=true, rope_learned=true, index_norm=true) reindex(index_keys=own)",
    "dsa-mla(query_scale=true, rope_learned=true, index_norm=true)",
    "m3(query_scale=true, rope_learned=true, rope=0.4, index_norm=true)",
    "topk(query_scale=true, rope_learned=true)",
    *(f"{owner} reindex(index_keys=own)" for owner in ("glm5-next(top_k=3)", "qsa(kv_rank=24)")),
    *("dsa-mla indexshare(teach=true)", "m3 indexshare(teach=true)", "qsa(top_k=3) indexshare(teach=true)"),
    *("glm5-next(top_k=3) reindex", "m3 indexshare", "topk(top_k=5) indexshare", "qsa(kv_rank=24) reindex"),
    "csa(out_groups=2, out_rank=5, q_rank=12, rope_factor=16, rope_trained=64)",
    *("hca", "csa", "compressed(block_size=8, window=3, top_k=2, sink=false)"),
    "compressed(block_size=1, top_k=8, window=0, sink=false, norm=false, rope=1.0)",
    "compressed(block_size=1, overlap=true, window=3, rope=0.0)",
    "compressed(block_size=8, window=0, q_rank=12)",
    *("zeta", "zorder", "zorder(top_k=13, chunk=5, key_dim=2, bits=6, hidden=20)"),
    *("ttt-linear", "ttt-mlp", "titans", "memory", "memory(mini_batch=1, conv=3, output_gate=gelu)"),
    "memory(momentum=true, mini_batch=24, bias=false)",
    *("ttt-linear(shared_projection=true, conv=4, output_gate=gelu)", "titans(clip=10)"),
    *("mamba1", "s4d", "s4d-real", "mamba3(expand=5)", "ssm(conv=1, expand=3, state_dim=5, dt_rank=3)"),
    *("ssm(conv=0)", "ssm(rule=fixed, start=inv, state_dim=6)", "ssm(rule=trapezoidal, expand=5, state_dim=8)"),
    "mamba3(expand=5, rank=3)",
    "mamba3(expand=5, rank=2, output_norm=true)",
    *("hymba", "falcon-h1", "titans-mag", "resona", "parallel(a=full, b=retnet, more=[conv], join=gate)"),
    *("parallel(a=full, b=retnet, join=sum, share=0.5)", "hymba(project=shared)"),
    "parallel(a=full, b=retnet, more=[titans], join=gate, project=shared, a_in=0.5)",
    "falcon-h1(a_in=0.5, b_in=1.25, a_out=0.75, b_out=0.25)",
]
CONTEXTS = [1, 15, 16, 64, 65, 130, 1000]
PHASES: dict[Phase, str] = {"prefill": "forward", "train": "forward", "decode": "decode"}

MODELS = [
    ModelSpec(d_model=64, n_heads=4, n_kv_heads=2, channel_mixer="none"),
    ModelSpec(d_model=48, n_heads=2, head_dim=20, short_conv=4, meta_tokens=5, dtype="float64", vocab_size=100),
    ModelSpec(d_model=64, n_heads=4, channel_mixer="moe", n_experts=6, experts_per_token=2, dtype="float32"),
]
MODEL_IDS = [model.channel_mixer for model in MODELS]


def mixers_tried() -> set[str]:
    """Names that stand last in the patterns of `LAYERS`."""
    return {re.sub(r"\(.*?\)", "", layer).split()[-1] for layer in LAYERS}


def symbols(model: ModelSpec, tokens: int) -> dict[str, Any]:
    """The symbols of the page."""
    backbone = model.model_dump()
    sizes = {"d": model.d_model, "V": model.vocab_size, "F": model.ffn_dim, "E": model.expert_dim}
    heads = {"H": model.n_heads, "G": model.n_kv_heads, "D": model.head_dim, "e": model.shape.dtype_bytes}
    return {**backbone, **sizes, **heads, "T": tokens, "qk_norm": False, "output_gate": False, "sink_logit": False}


def sums(parts: list[Figures], phase: Phase, tokens: int) -> dict[str, Any]:
    """Of the parts of a mixer, under the names of the page."""
    traffic = [part.traffic(context=tokens) for part in parts]
    flops = [asdict(part.flops(phase=phase, context=tokens)) for part in parts]
    found = {
        "n": len(parts),
        "parts_params": sum(part.params() for part in parts),
        "parts_state": sum(tensor.nbytes(tokens) for part in parts for tensor in part.state()),
        "parts_read": sum(one.read_bytes for one in traffic),
        "parts_written": sum(one.written_bytes for one in traffic),
    }
    for kind in ("forward", "decode"):
        for part in ("matmul", "elementwise", "exp"):
            found[f"parts_{kind}_{part}"] = sum(amounts[part] for amounts in flops)
    return found


def evaluated(blocks: list[str], names: dict[str, Any]) -> dict[str, Any]:
    """The names after the blocks have run."""
    for block in blocks:
        exec(CODE[block], names)
    return names


@pytest.mark.parametrize("model", MODELS, ids=MODEL_IDS)
@pytest.mark.parametrize("layer", LAYERS)
def test_the_formulas_of_a_mixer_give_what_its_plugin_gives(layer: str, model: ModelSpec, installed: Registry) -> None:
    arch = ArchSpec.parse(layer, installed, model)
    spec, last = arch.layers[-1], len(arch.layers) - 1
    figures, *parts = (one.figures(installed) for one in placed(arch, last, installed))
    for tokens in CONTEXTS:
        for phase, kind in PHASES.items():
            names = {**symbols(model, tokens), "phase": phase}
            for one in arch.layers:  # a layer that takes from an earlier one goes by the options of that
                names |= dict(one.options) | one.options.model_dump()  # a dump may leave out what is at its default
            names |= sums(parts, phase, tokens)
            found = evaluated(FORMULAS[spec.mixer], names)
            traffic = figures.traffic(context=tokens)
            assert found["params"] == figures.params()
            assert found["state_bytes"] == sum(tensor.nbytes(tokens) for tensor in figures.state())
            assert (found["read_bytes"], found["written_bytes"]) == (traffic.read_bytes, traffic.written_bytes)
            for part, amount in asdict(figures.flops(phase=phase, context=tokens)).items():
                told = found.get(f"{kind}_{part}")
                assert told == pytest.approx(amount, rel=1e-12) or (
                    spec.mixer in PRODUCTS_ALONE and part != "matmul" and told is None
                ), part


def test_the_page_tells_all_kinds_of_operations_of_softmax_and_the_products_of_linear(registry: Registry) -> None:
    options = dict(registry.mixer("linear").parse_options({}))  # a dump may leave out what is at its default
    names = evaluated(FORMULAS["linear"], {**symbols(MODELS[0], 100), **options, "phase": "train"})
    assert {"forward_matmul", "decode_matmul"} <= set(names)
    for part in ("matmul", "elementwise", "exp"):
        assert f"forward_{part} =" in BLOCKS["softmax"]
        assert f"decode_{part} =" in BLOCKS["softmax"]


@pytest.mark.parametrize("model", MODELS, ids=MODEL_IDS)
@pytest.mark.parametrize("layer", ["full", "kda", "nsa(block_size=16, top_k=4, window=24)"])
def test_the_formulas_of_a_whole_model_give_what_the_cost_model_gives(
    layer: str, model: ModelSpec, registry: Registry
) -> None:
    arch = ArchSpec.parse(f"[{layer}]*3", registry, model)
    figures = figures_of(arch.layers[0], arch, 0, registry)
    for tokens in CONTEXTS:
        context = tokens + model.meta_tokens
        traffic = figures.traffic(context=context)
        mixer = {
            "mixer_params": figures.params(),
            "mixer_active": figures.active_params(),
            "mixer_state": sum(tensor.nbytes(context) for tensor in figures.state()),
            "mixer_kv": sum(tensor.nbytes(context) for tensor in figures.state() if tensor.grows),
            "mixer_read": traffic.read_bytes,
            "mixer_written": traffic.written_bytes,
            **{f"mixer_{phase}": figures.flops(phase=phase, context=context).total for phase in PHASES},
        }
        found = evaluated(["channel", "model"], {**symbols(model, tokens), **mixer, "L": 3})
        cost = CostModel(registry).cost(arch, tokens)
        for measure in MEASURES:
            assert found[measure] == pytest.approx(cost.measure(measure), rel=1e-12), measure


def test_every_checked_block_of_the_page_is_evaluated_here() -> None:
    used = {block for blocks in FORMULAS.values() for block in blocks} | {"channel", "model"}
    assert set(BLOCKS) == used
    assert PAGE.read_text().count("```python") == len(BLOCKS)


def test_every_mixer_has_formulas_or_a_reason_for_none(installed: Registry) -> None:
    assert not set(FORMULAS) & set(WITHOUT)
    assert {plugin.name for plugin in installed.mixers()} == {*FORMULAS, *WITHOUT}
    assert {installed.resolve(name).plugin.name for name in mixers_tried()} == set(FORMULAS)
