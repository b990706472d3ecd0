"""The notation: what a person types reads back, and an error points at the character."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest

from archsearch.arch import ArchSpec, ModelSpec
from archsearch.errors import NotationError, OptionsError, SpecError
from archsearch.layer import LayerSpec
from archsearch.notation import format_layers, parse_call, parse_layers
from archsearch.registry import Registry

ROUND_TRIPS = [
    "full*4",
    "[kda*3 full]*4",
    "sliding(window=64, sinks=4) full(rope=0.25)",
    "linear(update=delta, decay=none) deltanet(key_dim=16)",
    "moba(block_size=32, top_k=2) nsa",
    "sliding [gated-deltanet full]*2 full(rope=0.0)",
]


@pytest.mark.parametrize("text", ROUND_TRIPS)
@pytest.mark.parametrize("named", [True, False], ids=["presets", "mixers"])
def test_round_trip(text: str, named: bool, registry: Registry) -> None:
    layers = parse_layers(text, registry)
    written = format_layers(layers, registry if named else None)
    assert parse_layers(written, registry) == layers
    arch = ArchSpec(model=ModelSpec(), layers=layers)
    assert ArchSpec.from_json(json.loads(json.dumps(arch.to_json())), registry) == arch


def test_round_trip_of_random_patterns(registry: Registry) -> None:
    rng = random.Random(0)
    choices = [
        LayerSpec(mixer=mixer.name, options=options) for mixer in registry.mixers() for options in mixer.choices()
    ]
    for _ in range(200):
        unit = rng.choices(choices, k=rng.randint(1, 4))
        layers = tuple(unit * rng.randint(1, 4) + rng.choices(choices, k=rng.randint(0, 3)))
        assert parse_layers(format_layers(layers, registry), registry) == layers


def test_repeats_are_folded(registry: Registry) -> None:
    assert format_layers(parse_layers("kda kda kda full kda kda kda full", registry), registry) == "[kda*3 full]*2"


def test_brackets_nest(registry: Registry) -> None:
    nested = parse_layers("[[kda full]*2 moba]*2", registry)
    assert nested == parse_layers("kda full kda full moba kda full kda full moba", registry)


@pytest.mark.parametrize(
    ("text", "position", "said"),
    [
        ("[kdaa full]*4", 1, 'did you mean "kda"'),
        ("full full)", 9, 'unexpected "\\)"'),
        ("[full", 5, 'expected "]"'),
        ("full*", 5, "count"),
        ("full*0", 5, "count"),
        ("full*2.5", 5, "count"),
        ("", 0, "mixer name"),
        ("[]", 1, "mixer name"),
        ("full sliding(windw=64)", 5, 'did you mean "window"'),
        ("sliding(window=0)", 0, "window"),
        ("full $", 5, "unexpected '\\$'"),
        ("full*\u0663", 5, "unexpected"),
        ("full(rope=\uff11)", 10, "unexpected"),
        ("full(rope=)", 10, "value"),
        ("full(rope=1 qk_norm=true)", 12, 'expected ","'),
        ("full(rope=1, rope=0)", 13, "twice"),
        ("[full*4000]*4000", 12, "4096"),
        ("[" * 33 + "full" + "]" * 33, 32, "nest more than 32 deep"),
        ("full(rope=1e400)", 10, "too large a number"),
        ('full(rope="\\q")', 10, "cannot be read"),
        ('full(rope="\\ud800")', 10, "not seen"),
        ("full(name=1)", 0, 'no option "?name'),
        ("full(resolver=1)", 0, 'no option "?resolver'),
        ("full é(", 5, "unexpected"),
    ],
)
def test_errors_point_at_the_character(text: str, position: int, said: str, registry: Registry) -> None:
    with pytest.raises(NotationError, match=said) as raised:
        parse_layers(text, registry)
    assert raised.value.position == position
    assert str(raised.value).endswith(f"\n  {text}\n  {' ' * position}^")


ABSURD = {
    "500 brackets": "[" * 500 + "full" + "]" * 500,
    "100,000 brackets": "[" * 100_000,
    "dots": "." * 20_000,
    "digits before a word": "1" * 100_000 + "x",
    "5,000 digits": "full(rope=" + "9" * 5000 + ")",
    "a count of 5,000 digits": "full*" + "9" * 5000,
    "a long name": "a" * 100_000,
    "many layers": "full " * 100_000,
    "spaces": " " * 100_000 + "$",
    "an open quote": 'full(rope="' + "a" * 100_000,
    "NUL": "full\0",
    "a lone surrogate": "full \udcff",
    "two lines": "full\nfull $",
}


@pytest.mark.parametrize("text", ABSURD.values(), ids=ABSURD)
def test_absurd_patterns_are_refused_and_little_of_them_is_shown(text: str, registry: Registry) -> None:
    with pytest.raises(NotationError) as raised:
        parse_layers(text, registry)
    _, excerpt, caret = str(raised.value)[-1000:].rsplit("\n", 2)
    assert len(excerpt) < 900
    assert caret.endswith("^")
    assert len(caret) <= len(excerpt) + 1
    assert excerpt.isprintable()


def test_names_that_no_pattern_can_be_are_not_compared_with_every_known_one(registry: Registry) -> None:
    with pytest.raises(SpecError, match="unknown mixer"):
        registry.resolve("kda" * 100_000)


@pytest.mark.parametrize("seed", range(5))
def test_folding_loses_nothing_however_many_layers(seed: int, registry: Registry) -> None:
    rng = random.Random(seed)
    text = " ".join(rng.choices(["full", "sliding", "kda"], k=4096))
    layers = parse_layers(text, registry)
    assert parse_layers(format_layers(layers, registry), registry) == layers


def test_a_preset_and_its_options_have_one_digest(registry: Registry) -> None:
    for mixer in registry.mixers():
        for preset in mixer.presets:
            (layer,) = parse_layers(preset, registry)
            options = layer.options.model_dump(mode="json")
            shuffled = dict(sorted(options.items(), reverse=True))
            data = {"layers": [{"options": shuffled, "mixer": mixer.name}], "model": {}}
            assert ArchSpec.from_json(data, registry).digest == ArchSpec.parse(preset, registry).digest


def test_digest_is_stable_across_processes_and_time(registry: Registry) -> None:
    digest = ArchSpec.parse("full sliding(window=64)", registry).digest
    code = (
        "from archsearch import ArchSpec, load_registry\n"
        "print(ArchSpec.parse('full sliding(window=64)', load_registry()).digest)"
    )
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": hash_seed}
        )
        assert done.stdout.strip() == digest


def test_digest_leaves_out_accounting_and_absent_parts(registry: Registry) -> None:
    def digest(**model: object) -> str:
        return ArchSpec.parse("full", registry, ModelSpec.read(model)).digest

    assert digest(dtype="float32") == digest(dtype="bfloat16")
    assert digest(vocab_size=100) == digest()
    assert digest(channel_mixer="none", ffn_dim=7) == digest(channel_mixer="none")
    assert digest(channel_mixer="moe", n_experts=4) != digest(channel_mixer="moe")
    assert digest(d_model=128) != digest()
    assert digest(n_kv_heads=2) == digest(n_heads=2)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"d_modle": 64}, 'did you mean "d_model"'),
        ({"n_heads": 0, "d_modle": 64}, 'did you mean "d_model"'),
        ({"d_model": 65}, "does not divide"),
        ({"n_heads": 4, "n_kv_heads": 3}, "does not divide"),
        ({"d_model": "wide"}, "d_model"),
        ({"channel_mixer": "mlp"}, "channel_mixer"),
        ({"channel_mixer": "moe", "experts_per_token": 9}, "experts_per_token"),
        ({"n_heads": 0}, "n_heads"),
    ],
)
def test_a_bad_backbone_is_named(values: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        ModelSpec.read(values)


def test_parse_call(registry: Registry) -> None:
    assert parse_call("mqar") == ("mqar", None, {})
    assert parse_call("pair(a=full, of=[kda*2])", registry) == (
        "pair",
        None,
        {"a": "full", "of": (registry.layer("kda"),) * 2},
    )
    assert parse_call("mqar:easy(pairs=8, noise=true)") == ("mqar", "easy", {"pairs": 8, "noise": True})
    with pytest.raises(NotationError, match="setting"):
        parse_call("mqar:")


def test_options_error_names_all(registry: Registry) -> None:
    with pytest.raises(OptionsError, match=r"moba has no option .*block_size"):
        LayerSpec.make("moba", registry, blok_size=3)
