"""Every system has a test that says what it is by what it equals, named here; and identities of whole layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.testing import assert_close

from archsearch.mixer import LayerInfo, ModelShape
from archsearch.model import Context
from archsearch.registry import Registry

HERE = Path(__file__)
SHAPE = ModelShape(d_model=24, n_heads=4, n_kv_heads=2, head_dim=8, dtype="float32")
ALIKE = ModelShape(d_model=24, n_heads=3, n_kv_heads=3, head_dim=8, dtype="float32")
T = 20

NAMED = {
    "test_compressed.test_entries_of_single_tokens_are_full_attention_whose_shared_keys_are_its_values": "hca csa",
    "test_conv.test_it_is_the_sum_that_it_says": "lfm",
    "test_conv.test_no_mixing_leaves_the_stream_and_costs_its_norm": "none",
    "test_evicting.test_with_room_for_all_it_is_full_attention": "h2o",
    "test_full.test_op_equals_token_by_token": "full",
    "test_full_delta.test_a_second_value_under_a_key_takes_the_place_of_the_first": "deltaformer",
    "test_full_path.test_without_reflections_it_is_softmax_attention_and_with_gates_forgetting_attention": (
        "path path-fox"
    ),
    "test_full_weightings.test_forgetting_with_one_gate_for_all_tokens_is_alibi": "forgetting",
    "test_full_weightings.test_sigmoid_attention_without_scores_is_nearly_a_mean": "sigmoid",
    "test_full_weightings.test_weights_of_stick_breaking_sum_to_what_is_broken_off": "stick-breaking",
    "test_gate_and_sink.test_a_sink_logit_of_minus_infinity_is_the_plain_window": "sliding-sink",
    "test_indexed.test_mean_keys_and_attention_choose_as_moba": "moba",
    "test_indexed.test_with_everything_chosen_it_is_full_attention": "dsa qsa m3 topk quest infllm",
    "test_indexed_latents.test_with_everything_chosen_it_is_multi_head_latent_attention": "dsa-mla glm5-next",
    "test_latent.test_without_compression_it_is_full_attention": "mla",
    "test_linear_additive.test_gated_retention_is_retention_with_a_decay_that_tokens_say": "gated-retention",
    "test_linear_additive.test_hgrn2_writes_what_its_forget_gate_leaves": "hgrn2",
    "test_linear_additive.test_mlstm_is_the_recurrence_of_its_paper": "mlstm",
    "test_linear_additive.test_performer_estimates_softmax_attention_the_better_the_more_features": "performer",
    "test_linear_additive.test_rwkv6_with_a_bonus_of_1_and_no_decay_is_linear_attention": "rwkv6 linear",
    "test_linear_delta_layers.test_identity_of_deltaproduct_one_step_and_a_second_that_writes_nothing_are_deltanet": (
        "gated-deltaproduct"
    ),
    "test_linear_delta_layers.test_identity_of_negative_eigenvalues_beta_2_tells_the_parity_of_ones": "olmo-hybrid",
    "test_linear_identities.test_kda_bounded_is_kda_where_little_is_forgotten_and_forgets_no_more_than_its_bound": (
        "kda-bounded"
    ),
    "test_linear_identities.test_the_chunkwise_layer_is_attention_under_the_decay_of_its_paper": (
        "retnet lightning mamba2 gla"
    ),
    "test_linear_identities.test_the_layer_kda_whose_channels_forget_alike_is_that_of_gated_deltanet": (
        "kda gated-deltanet"
    ),
    "test_linear_levels.test_layers_of_weights_of_1_are_their_base": "log-linear-mamba2 log-linear-gated-deltanet",
    "test_linear_memories.test_one_memory_without_the_shared_one_is_its_base": "mom",
    "test_linear_removals.test_identity_of_comba_without_decay_a_full_share_is_the_delta_rule": "comba",
    "test_linear_removals.test_identity_of_dplr_without_decay_one_rate_and_a_unit_removal_key_is_a_delta_rule": "rwkv7",
    "test_linear_removals.test_identity_of_gated_deltanet_2_equal_gates_are_kda": "gated-deltanet-2",
    "test_memory_ops.test_a_network_of_two_matrices_that_stays_as_it_is_gives_its_forward_pass": "ttt-mlp",
    "test_memory_ops.test_titans_of_a_matrix_and_single_tokens_without_momentum_is_a_gated_delta_rule": "titans",
    "test_memory_ops.test_ttt_linear_of_single_tokens_with_nothing_around_it_is_the_delta_rule": "ttt-linear",
    "test_nsa.test_nsa_whose_gates_open_the_window_alone_is_sliding_window_attention": "nsa",
    "test_parallel.test_a_system_is_what_its_paper_makes_of_its_halves": "hymba falcon-h1 titans-mag",
    "test_parallel.test_resona_is_the_mean_of_a_recurrence_and_of_what_is_retrieved_from_blocks_of_the_context": (
        "resona"
    ),
    "test_shared.test_a_reader_with_the_writers_weights_is_the_writer": "yoco yoco-kv",
    "test_shared_index.test_with_the_sources_weights_it_is_the_source": "indexshare indexshare-latents reindex",
    "test_simplicial.test_with_second_keys_and_values_of_ones_it_is_the_window": "simplicial",
    "test_ssm.test_a_selective_scan_that_selects_nothing_is_a_fixed_recurrence_of_real_states": "mamba1",
    "test_ssm.test_s4d_is_the_convolution_by_its_kernel": "s4d s4d-real",
    "test_ssm_trapezoid.test_with_all_of_a_write_at_once_and_no_turns_it_is_the_rule_of_mamba2": "mamba3",
    "test_static.test_longformer_of_single_tokens_without_dilation_is_the_sliding_window": "longformer",
    f"{HERE.stem}.test_bigbird_without_random_blocks_is_longformer": "bigbird",
    f"{HERE.stem}.test_gated_deltanet_that_forgets_nothing_is_deltanet": "deltanet",
    f"{HERE.stem}.test_mla_nope_is_mla_whose_shared_key_stands_still": "mla-nope",
    f"{HERE.stem}.test_qwen3_next_full_of_half_open_gates_is_half_of_full_attention": "qwen3-next-full",
    f"{HERE.stem}.test_sliding_over_all_tokens_is_full_attention": "sliding",
    f"{HERE.stem}.test_zeta_with_every_token_a_neighbour_weighs_by_distance": "zeta",
}
"""Tests, and the systems that each is of."""


def test_every_system_is_named_with_a_test_that_is_there(installed: Registry) -> None:
    systems = [system for plugin in installed.mixers() for system in plugin.systems]
    named = [system for told in NAMED.values() for system in told.split()]
    assert sorted(named) == sorted(systems)
    for place in NAMED:
        file, _, name = place.partition(".")
        assert f"\ndef {name}(" in HERE.with_name(f"{file}.py").read_text(), place


def layer(name: str, more: dict[str, Any], installed: Registry, shape: ModelShape = SHAPE) -> Any:
    """A layer of a preset in float64, with some of its options."""
    given = installed.layer(name)
    plugin = installed.mixer(given.mixer)
    torch.manual_seed(0)
    options = plugin.parse_options({**plugin.presets.get(name, {}), **more})
    return plugin.build(options, shape, LayerInfo(index=1, depth=4)).double().eval()


def weights_of(one: Any, other: Any, *, without: str = "") -> None:
    """Gives a layer the weights of another, but for the one that is named, which only that has."""
    assert [name for name in other.state_dict() if name not in one.state_dict()] == [without] * bool(without)
    one.load_state_dict({name: weights for name, weights in other.state_dict().items() if name != without})


def of(mixer: Any, x: torch.Tensor, places: torch.Tensor | None = None) -> torch.Tensor:
    """What a layer gives, and gives again token by token."""
    with torch.no_grad():
        found: torch.Tensor = mixer(x, ctx=Context(positions=places))[0]
        state, steps = mixer.init_state(len(x), T, dtype=torch.float64), []
        for t in range(T):
            at = Context(want_state=True, positions=None if places is None else places[:, t : t + 1])
            y, state = mixer.step(x[:, t], state=state, ctx=at)
            steps.append(y)
    assert_close(torch.stack(steps, 1), found)
    return found


def drawn() -> torch.Tensor:
    return torch.randn(2, T, 24, generator=torch.Generator().manual_seed(1)).double()


def test_bigbird_without_random_blocks_is_longformer(installed: Registry) -> None:
    """BigBird, arXiv 2007.14062, section 2: what it adds to window and global blocks is drawn."""
    blocks = {"block_size": 2, "local": 1, "first": 1}
    drawing, whole = (layer("bigbird", {**blocks, "random": count}, installed) for count in (2, 0))
    longformer = layer("longformer", {**blocks, "dilation": 1, "rope": whole.options.rope}, installed)
    for one in (drawing, longformer):
        weights_of(one, whole)
    found = of(whole, drawn())
    assert_close(found, of(longformer, drawn()))
    assert not torch.allclose(of(drawing, drawn()), found)


def test_mla_nope_is_mla_whose_shared_key_stands_still(installed: Registry) -> None:
    """Kimi Linear, arXiv 2510.26692, section 3: where all tokens are at one place, nothing turns against another."""
    still, turned, x = layer("mla-nope", {}, installed), layer("mla", {}, installed), drawn()
    weights_of(still, turned)
    found = of(still, x)
    assert_close(found, of(turned, x, torch.full((2, T), 7)))
    assert not torch.allclose(found, of(turned, x))


def test_qwen3_next_full_of_half_open_gates_is_half_of_full_attention(installed: Registry) -> None:
    """arXiv 2505.06708: heads times sigmoid(W x), which is a half for W = 0."""
    gated = layer("qwen3-next-full", {}, installed)
    plain = layer("full", {"rope": 0.25, "qk_norm": True}, installed)
    weights_of(plain, gated, without="output_gate.weight")
    torch.nn.init.zeros_(gated.output_gate.weight)
    assert_close(2 * of(gated, drawn()), of(plain, drawn()))


def test_sliding_over_all_tokens_is_full_attention(installed: Registry) -> None:
    """All masks are equal where no token is T back."""
    wide, narrow = (layer("sliding", {"window": window}, installed) for window in (T, 5))
    plain = layer("full", {"rope": wide.options.rope}, installed)
    for one in (narrow, plain):
        weights_of(one, wide)
    found = of(plain, drawn())
    assert_close(of(wide, drawn()), found)
    assert not torch.allclose(of(narrow, drawn()), found)


def test_zeta_with_every_token_a_neighbour_weighs_by_distance(installed: Registry) -> None:
    """ZETA, arXiv 2501.14577, section 3.3: with every key chosen a Cauchy kernel over all tokens, and their mean."""
    mixer, x = layer("zeta", {"top_k": T, "chunk": 4, "own": True}, installed), drawn()
    with torch.no_grad():
        q, k, v = mixer.project(x, Context())
        k, v = (y.repeat_interleave(2, 2) for y in (k, v))
        heads = []
        for t in range(T):
            keys, values = (torch.cat((y[:, : t + 1], y[:, : t + 1].mean(1, keepdim=True)), 1) for y in (k, v))
            weights = 1 / ((q[:, t, None] - keys).square().sum(-1) + mixer.width.sigmoid() ** 2)
            heads.append((weights[..., None] * values).sum(1) / weights.sum(1)[..., None])
        wanted = mixer.out(torch.stack(heads, 1).flatten(2))
    assert_close(of(mixer, x), wanted)


def test_gated_deltanet_that_forgets_nothing_is_deltanet(installed: Registry) -> None:
    """Gated DeltaNet, arXiv 2412.06464, section 3.1: with a = 1 it is the delta rule."""
    gated = layer("gated-deltanet", {"output_gate": "none"}, installed, ALIKE)
    plain = layer("deltanet", {}, installed, ALIKE)
    torch.nn.init.constant_(gated.decay.A_log, -100.0)
    rows = gated.proj.weight.detach().split(gated.sizes)
    weights = {name: one for name, one in gated.state_dict().items() if name in plain.state_dict()}
    plain.load_state_dict({**weights, "proj.weight": torch.cat((*rows[:2], *rows[3:]))})
    assert_close(of(gated, drawn()), of(plain, drawn()), rtol=0, atol=1e-6)
