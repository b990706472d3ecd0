"""Comparisons on equal terms of layers that are made of several mixers: what sizes those is chosen inside of them."""

from __future__ import annotations

import pytest
from search_fakes import apart

from archsearch.arch import ModelSpec, whole_pattern
from archsearch.costs import CostModel
from archsearch.errors import SpecError
from archsearch.notation import parse_written
from archsearch.registry import Registry
from archsearch.search import Problem, SearchSpec
from archsearch.search.matching.matched import Matching
from archsearch.search.matching.parts import part_reads, with_option

BASELINE = "sliding(window=60)"


def matching(registry: Registry, match: str, *architectures: str, channel_mixer: str = "none") -> Matching:
    spec = SearchSpec.from_dict(
        {
            "name": "equal",
            "model": {"d_model": 64, "n_layers": 2, "n_heads": 2, "channel_mixer": channel_mixer},
            "space": {"pattern": "listed", "architectures": list(architectures)},
            "compare": {"match": match},
            "tasks": [{"name": "mqar", "setting": "easy"}],
            "recipe": {"steps": 300},
            "objectives": {"maximize": ["recall"]},
        }
    )
    found = Problem.of(spec, registry).matching
    assert found is not None
    return found


def became(registry: Registry, text: str) -> dict[str, int]:
    """The options of the second of two architectures, matched by what it reads, by their paths."""
    found = matching(registry, "state_read", BASELINE, text)
    assert abs(apart(found, found.rows[1])) <= 0.05
    options = found.rows[1].arch.layers[0].options
    told = {}
    for name in type(options).model_fields:
        part = getattr(options, name)
        for path, held in enumerate(part) if isinstance(part, tuple) else [("", part)]:
            if hasattr(held, "options"):
                own = held.options.model_dump()
                told |= {f"{name}{path}.{key}": own[key] for key in ("window", "key_dim", "value_dim") if key in own}
    return told


def test_parts_of_a_layer_share_what_it_reads_equally(installed: Registry) -> None:
    found = matching(installed, "state_read", BASELINE, "hymba", "parallel(a=sliding, b=kda, more=[mamba2])")
    for row in found.rows[1:]:
        assert abs(apart(found, row)) <= 0.05, row.text
        reads = part_reads(row.arch, 0, installed, 32768)
        assert reads is not None
        shares = [read for path, read in reads.items() if path]
        assert shares == pytest.approx([sum(shares) / len(shares)] * len(shares), rel=0.05)
        assert sum(reads.values()) == pytest.approx(row.after / 2, rel=0.1)


@pytest.mark.parametrize(
    "text", ["parallel(a=sliding(window=20), b=mamba2)", "parallel(a='sliding(window=20)', b=mamba2)"]
)
def test_what_a_part_writes_out_stays_and_the_others_take_up_the_rest(installed: Registry, text: str) -> None:
    found = became(installed, text)
    assert found["a.window"] == 20
    assert found["b.key_dim"] > 30


def test_a_part_in_a_list_is_sized(installed: Registry) -> None:
    found = became(installed, "parallel(a=sliding(window=10), b=sliding(window=10), more=[sliding])")
    assert found["more0.window"] == 40


def test_a_part_whose_sizes_end_leaves_the_rest_to_another(installed: Registry) -> None:
    """A window of 60 is less than what the state of that width reads at any key width but the least."""
    found = became(installed, "parallel(a=sliding, b=mamba2(value_dim=120))")
    assert found["b.value_dim"] == 120
    assert found["a.window"] < 60


def test_beside_full_attention_a_state_does_not_shrink_to_nothing(installed: Registry) -> None:
    found = matching(installed, "state_read", "full", "falcon-h1")
    assert found.rows[1].arch == found.rows[1].asked
    assert apart(found, found.rows[1]) < 0.01


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("falcon-h1", r"the nearest found, falcon-h1\(b=mamba2\(key_dim=1\)\)\*2, reads 16 MiB"),
        ("parallel(a=full, b=full(rope=1.0))", "none of its options sizes its state"),
        (
            "parallel(a=sliding(window=9, sinks=0), b=sliding(window=9, sinks=1))",
            "what sizes its state is written out in the pattern, and stays",
        ),
    ],
)
def test_parts_that_cannot_read_as_much_are_refused(installed: Registry, text: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        matching(installed, "state_read", BASELINE, text)


def test_the_other_kinds_of_matching_hold_for_parts_as_they_stand(installed: Registry) -> None:
    steps = matching(installed, "train_flops", "full", "hymba").rows[1]
    assert steps.arch == steps.asked
    assert steps.steps["mqar"] < 300
    wide = matching(installed, "params", "full", "hymba", channel_mixer="swiglu")
    assert wide.rows[1].arch.layers[0].options == wide.rows[1].asked.layers[0].options
    assert abs(apart(wide, wide.rows[1])) <= 0.01


def test_what_is_written_inside_of_a_layer_is_told_by_its_path(installed: Registry) -> None:
    text = "parallel(a=parallel(a=kda(key_dim=8), b=full), b=sliding, more=[full sliding(window=4)], join=sum)"
    ((_, names),) = parse_written(text, installed)
    assert sorted(names) == ["a", "a.a", "a.a.key_dim", "a.b", "b", "join", "more", "more.1.window"]
    model = ModelSpec(d_model=64, n_heads=2, channel_mixer="none")
    arch = whole_pattern(text, model, 1, installed)
    layer = with_option(arch.layers[0], "more.1.window", 7, installed)
    layer = with_option(layer, "a.a.key_dim", 9, installed)
    assert whole_pattern(text.replace("=8", "=9").replace("=4", "=7"), model, 1, installed).layers == (layer,)
    reads = part_reads(arch, 0, installed, 1024)
    assert reads is not None
    assert list(reads) == ["", "a", "a.a", "a.b", "b", "more.0", "more.1"]
    (whole,) = CostModel(installed).cost(arch, 1024).layers
    assert sum(reads.values()) == pytest.approx(whole.traffic.read_bytes, rel=0.05)
