"""Costs of whole architectures, and budgets over them."""

from __future__ import annotations

import pytest

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.costs import MEASURES, Budget, CostModel, CostTerm, parse_context
from archsearch.errors import SpecError
from archsearch.registry import Registry
from archsearch.units import format_quantity, parse_quantity

MODEL = ModelSpec.read({"d_model": 2048, "n_heads": 16, "head_dim": 128})


def cost_of(pattern: str, registry: Registry, context: int, model: ModelSpec = MODEL):  # type: ignore[no-untyped-def]
    """Costs of a pattern on the usual backbone."""
    return CostModel(registry).cost(ArchSpec.parse(pattern, registry, model), context)


def test_kv_cache_of_full_attention_is_the_textbook_one(registry: Registry) -> None:
    cost = cost_of("full*4", registry, 131072)
    assert cost.kv_bytes == 4 * 2 * 16 * 128 * 131072 * 2
    assert cost.state_bytes == cost.kv_bytes
    assert cost.decode_read_bytes == pytest.approx(cost.kv_bytes, rel=1e-4)


def test_three_to_one_keeps_a_quarter_of_the_cache(registry: Registry) -> None:
    hybrid, full = (cost_of(pattern, registry, 2**20) for pattern in ("[kda kda kda full]*4", "full*16"))
    assert hybrid.kv_bytes * 4 == full.kv_bytes
    assert hybrid.kv_bytes < hybrid.state_bytes < 1.01 * hybrid.kv_bytes


def test_grouped_heads_shrink_the_cache(registry: Registry) -> None:
    grouped = ModelSpec.read({"d_model": 2048, "n_heads": 16, "head_dim": 128, "n_kv_heads": 4})
    assert cost_of("full", registry, 4096, grouped).kv_bytes * 4 == cost_of("full", registry, 4096).kv_bytes


def test_a_recurrent_state_does_not_grow_and_a_window_stops_growing(registry: Registry) -> None:
    short, long = (cost_of("kda", registry, context) for context in (1024, 2**20))
    assert short.kv_bytes == long.kv_bytes == 0
    assert short.state_bytes == long.state_bytes > 16 * 128 * 128 * 4
    window = cost_of("sliding(window=64, sinks=4)", registry, 2**20)
    assert window.kv_bytes == 68 * 2 * 16 * 128 * 2
    assert cost_of("sliding(window=64, sinks=4)", registry, 10).kv_bytes == 10 * 2 * 16 * 128 * 2


@pytest.mark.parametrize("channel", ["none", "swiglu", "moe"])
def test_parameters_are_those_of_the_model(channel: str, registry: Registry) -> None:
    from archsearch.model import HybridLM

    model = ModelSpec.read({"d_model": 32, "n_heads": 2, "channel_mixer": channel, "vocab_size": 50})
    arch = ArchSpec.parse("full sliding kda moba nsa retnet", registry, model)
    built = HybridLM(arch, registry)
    cost = CostModel(registry).cost(arch, 64)
    assert cost.params == sum(parameter.numel() for parameter in built.parameters())
    assert (cost.active_params < cost.params) == (channel == "moe")


def test_training_is_three_forwards(registry: Registry) -> None:
    cost = cost_of("full*2", registry, 512)
    head_of_the_other_tokens = 2 * 2048 * 32768 * 511
    assert cost.train.matmul == pytest.approx(3 * (cost.prefill.matmul + head_of_the_other_tokens))


@pytest.mark.parametrize("channel", ["none", "swiglu", "moe"])
def test_matrix_products_of_the_backbone_are_counted_as_torch_counts_them(channel: str, registry: Registry) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from archsearch.model import HybridLM

    values = {"d_model": 64, "n_heads": 2, "channel_mixer": channel, "vocab_size": 100, "n_experts": 4}
    model = ModelSpec.read(values)
    arch = ArchSpec.parse("sliding(window=1)", registry, model)
    built = HybridLM(arch, registry)
    tokens = torch.zeros(1, 128, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        built.logits_at(tokens, torch.ones_like(tokens, dtype=torch.bool))
    with FlopCounterMode(display=False) as of_mixer, torch.no_grad():
        from archsearch.model import Context

        built.blocks[0].mixer(torch.zeros(1, 128, 64), ctx=Context())
    plugin = registry.mixer("sliding")
    mixer = plugin.flops(
        arch.layers[0].options, model.shape, arch.layer_info(0, registry), phase="train", context=128
    ).matmul
    counted = counter.get_total_flops() - of_mixer.get_total_flops()
    assert CostModel(registry).cost(arch, 128).train.matmul / 3 - mixer == pytest.approx(counted, rel=0.02)


def test_every_measure_is_there(registry: Registry) -> None:
    data = cost_of("kda full", registry, 1024).to_json()
    assert set(MEASURES) <= set(data)
    assert data["decode_intensity"] > 0
    assert len(data["layers"]) == 2
    assert sum(layer["kv_bytes"] for layer in data["layers"]) == data["kv_bytes"]


def test_budget_at_several_contexts(registry: Registry) -> None:
    limits = {"state_bytes": "18 MiB", "decode_flops@131072": "2 GFLOP", "kv_bytes@4Ki": 1}
    budget = Budget.parse(limits, context=32768)
    model = ModelSpec.read({"d_model": 64, "n_heads": 2, "channel_mixer": "none"})
    costs = CostModel(registry)

    def violated(pattern: str) -> list[str]:
        arch = ArchSpec.parse(pattern, registry, model)
        return [str(found.term) for found in budget.violations(lambda context: costs.cost(arch, context))]

    assert violated("full full kda") == ["kv_bytes@4096"]
    assert violated("full full full") == ["state_bytes@32768", "kv_bytes@4096"]
    assert violated("kda*3") == []


def test_violation_says_how_much(registry: Registry) -> None:
    budget = Budget.parse({"state_bytes": "16 MiB"}, context=32768)
    model = ModelSpec.read({"d_model": 64, "n_heads": 2, "channel_mixer": "none"})
    (found,) = budget.violations(
        lambda context: CostModel(registry).cost(ArchSpec.parse("full*3", registry, model), context)
    )
    assert found.excess == pytest.approx(0.5)
    assert str(found) == "state_bytes@32768 = 24 MiB exceeds 16 MiB"


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"state_byte": "1 MiB"}, 'did you mean "state_bytes"'),
        ({"state_bytes": "1 GFLOP"}, "counted in bytes"),
        ({"state_bytes": "many"}, "18 MiB"),
        ({"state_bytes": -1}, "above 0"),
        ({"state_bytes@none": "1 MiB"}, "none"),
        ({"state_bytes": True}, "no quantity"),
    ],
)
def test_bad_budgets_are_named(limits: dict[str, str], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        Budget.parse(limits, context=1024)


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("18 MiB", "bytes", 18 * 2**20),
        ("256KiB", "bytes", 2**18),
        ("2 GFLOP", "FLOP", 2e9),
        ("1.5e3", "", 1500.0),
        ("3 kB", "bytes", 3000.0),
        ("7 bytes", "bytes", 7.0),
        ("2 TFLOPs", "FLOP", 2e12),
        ("1_000", "", 1000.0),
        (42, "bytes", 42.0),
        ("128Ki", "", 131072.0),
    ],
)
def test_quantities(text: str | int, unit: str, value: float) -> None:
    assert parse_quantity(text, unit=unit) == value


def test_quantities_are_written_short() -> None:
    assert format_quantity(18 * 2**20, unit="bytes") == "18 MiB"
    assert format_quantity(2.5e9, unit="FLOP") == "2.5 GFLOP"
    assert format_quantity(999, unit="bytes") == "999 B"


@pytest.mark.parametrize("bad", ["0", "-5", "1.5", "x"])
def test_bad_contexts(bad: str) -> None:
    with pytest.raises(SpecError):
        parse_context(bad)


def test_terms_read_back() -> None:
    term = CostTerm.parse("decode_flops@128Ki", context=1)
    assert CostTerm.parse(str(term), context=7) == term
    with pytest.raises(SpecError, match="context = 0"):
        CostModel(None).cost(None, 0)  # type: ignore[arg-type]
