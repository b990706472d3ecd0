"""Sizes that can only be a slip of the pen are refused with their bound."""

from __future__ import annotations

import math
from typing import Any

import pytest

from archsearch.arch import ModelSpec
from archsearch.errors import OptionsError, SpecError
from archsearch.registry import Registry
from archsearch.tasks import resolve_task

SIZES: list[tuple[dict[str, Any], str]] = [
    ({"d_model": 2**20 + 2}, "model.d_model = 1048578: .*1048576"),
    ({"n_heads": 2**16 + 1, "head_dim": 1}, "model.n_heads = 65537: .*65536"),
    ({"n_heads": 4, "head_dim": 2**22, "n_kv_heads": 1}, "model.head_dim = 4194304: .*1048576"),
    ({"n_heads": 2**16, "head_dim": 2**10}, "n_heads = 65536 by head_dim = 1024 is 67108864, .*lower head_dim"),
    ({"ffn_dim": 2**24 + 1}, "model.ffn_dim = 16777217: .*16777216"),
    ({"n_experts": 2**16 + 1}, "model.n_experts = 65537: .*65536"),
    ({"shared_experts": 2**16 + 1}, "model.shared_experts = 65537: .*65536"),
    ({"expert_dim": 2**24 + 1}, "model.expert_dim = 16777217: .*16777216"),
    (
        {"channel_mixer": "moe", "n_experts": 2**16, "expert_dim": 2**16},
        r"shared_experts = 65537 by expert_dim = 65536",
    ),
    ({"vocab_size": 2**31 + 1}, "model.vocab_size = 2147483649: .*2147483648"),
]


@pytest.mark.parametrize(("values", "said"), SIZES, ids=[" ".join(values) for values, _ in SIZES])
def test_a_backbone_out_of_bounds_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        ModelSpec.read(values)


@pytest.mark.parametrize("name", ["meta_tokens", "short_conv", "head_dim", "ffn_dim", "n_experts", "experts_per_token"])
@pytest.mark.parametrize("value", [-1, "two"])
def test_of_a_backbone_the_number_that_is_wrong_is_named_and_none_that_is_left_out(name: str, value: object) -> None:
    with pytest.raises(SpecError, match=rf"^model\.{name} = {value!r}: Input should be"):
        ModelSpec.read({"d_model": 128, "n_heads": 8, name: value})


def test_sizes_that_are_left_out_follow_from_the_others() -> None:
    left_out = {"n_kv_heads": 0, "head_dim": 0, "ffn_dim": 0, "expert_dim": 0}
    for given in ({}, left_out):
        model = ModelSpec.read({"d_model": 128, "n_heads": 8, **given})
        assert (model.n_kv_heads, model.head_dim, model.ffn_dim, model.expert_dim) == (8, 16, 352, 176)
        assert not model.model_fields_set & set(left_out)


def test_the_largest_backbones_of_today_are_in_bounds() -> None:
    ModelSpec.read({"d_model": 18432, "n_heads": 128, "head_dim": 192, "ffn_dim": 65536, "vocab_size": 262144})
    ModelSpec.read(
        {
            "d_model": 7168,
            "n_heads": 128,
            "head_dim": 128,
            "channel_mixer": "moe",
            "n_experts": 384,
            "expert_dim": 2048,
        }
    )


@pytest.mark.parametrize(
    ("mixer", "option", "value"),
    [
        ("full", "rope_base", math.inf),
        ("full", "rope_base", math.nan),
        ("full", "n_kv_heads", 2**17),
        ("full", "rope", math.nan),
        ("sliding", "window", 2**24 + 1),
        ("sliding", "sinks", 2**24 + 1),
        ("sliding", "rope_base", math.inf),
        ("sliding", "n_kv_heads", 2**17),
        ("moba", "block_size", 2**24 + 1),
        ("moba", "top_k", 2**24 + 1),
        ("nsa", "block_size", 2**24 + 1),
        ("nsa", "top_k", 2**24 + 1),
        ("nsa", "window", 2**24 + 1),
        ("nsa", "rope", math.nan),
        ("linear", "key_dim", 2**16 + 1),
        ("linear", "value_dim", 2**40),
    ],
)
def test_an_option_of_a_mixer_out_of_bounds_is_refused(
    mixer: str, option: str, value: float, registry: Registry
) -> None:
    with pytest.raises(OptionsError, match=rf"{mixer}\({option}={value}\): Input should be"):
        registry.mixer(mixer).parse_options({option: value})


TASKS = {
    "text": ("seq_len", "max_bytes"),
    "copying": ("seq_len", "items", "symbols", "noise_tokens"),
    "mqar": ("seq_len", "pairs", "rewrites", "keys", "values", "noise_tokens"),
    "multihop": ("seq_len", "hops", "chains", "distractors", "variables", "values", "noise_tokens"),
    "state_tracking": ("seq_len", "moved"),
    "niah": ("seq_len", "needles", "answer_len", "symbols", "names", "noise_tokens", "max_bytes"),
}


@pytest.mark.parametrize(
    ("task", "option"), [(task, option) for task, options in TASKS.items() for option in options], ids=str
)
def test_an_option_of_a_task_out_of_bounds_is_refused(task: str, option: str, registry: Registry) -> None:
    with pytest.raises(OptionsError, match=rf"{task}\.{option} = {2**50}: Input should be less than or equal to"):
        resolve_task(task, registry, options={option: 2**50})


@pytest.mark.parametrize(("task", "option"), [("mqar", "write_share"), ("niah", "depth_min"), ("niah", "depth_max")])
def test_a_share_that_is_no_number_is_refused(task: str, option: str, registry: Registry) -> None:
    with pytest.raises(OptionsError, match=rf"{task}\.{option} = nan: Input should be"):
        resolve_task(task, registry, options={option: math.nan})


def test_every_number_of_a_task_has_a_bound(registry: Registry) -> None:
    for task in registry.tasks():
        for name, field in task.options_type.model_fields.items():
            if field.annotation is int:
                assert any(hasattr(bound, "le") for bound in field.metadata), f"{task.name}.{name} has no upper bound"


def test_every_number_of_a_mixer_has_a_bound(installed: Registry) -> None:
    for mixer in installed.mixers():
        for name, field in mixer.options.model_fields.items():
            if field.annotation in (int, float):
                assert any(hasattr(bound, "le") for bound in field.metadata), f"{mixer.name}({name}) has no upper bound"
