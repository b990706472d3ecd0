"""Comparisons on equal terms: training FLOPs, parameters and state read, with the plugins of this project."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from search_fakes import apart, fake_measurement

from archsearch.analysis.comparison import compare
from archsearch.arch import ArchSpec, ModelSpec, whole_pattern
from archsearch.costs import CostModel
from archsearch.errors import SpecError
from archsearch.notation import parse_written
from archsearch.registry import Registry
from archsearch.search import Problem, SearchSpec
from archsearch.search.matching.matched import Matching
from archsearch.search.matching.sizes import Kind, StateReads, kinds_of, nearest_size, sizes_of
from archsearch.search.matching.state import match_state
from archsearch.search.plan import Campaign
from archsearch.search.survey import survey
from archsearch.storage import Store
from archsearch.tasks import resolve_task
from archsearch.training import Evaluation, form_of, measurement_key

SCORES = {"sliding": 0.5, "linear": 0.4}
BACKBONE = {"d_model": 64, "n_layers": 2, "n_heads": 2, "channel_mixer": "none"}


def spec(match: str, architectures: list[str], **tables: Any) -> SearchSpec:
    given = {
        "name": "equal",
        "model": BACKBONE | tables.pop("model", {}),
        "space": {"pattern": "listed", "architectures": architectures},
        "compare": {"match": match},
        "tasks": [{"name": "mqar", "setting": "easy"}],
        "recipe": {"steps": 300} | tables.pop("recipe", {}),
        "objectives": {"maximize": ["recall"], "context": tables.pop("context", 32768)},
    }
    return SearchSpec.from_dict(given | tables)


def posed(registry: Registry, match: str, *architectures: str, **tables: Any) -> Problem:
    return Problem.of(spec(match, list(architectures), **tables), registry)


def matching(registry: Registry, match: str, *architectures: str, **tables: Any) -> Matching:
    found = posed(registry, match, *architectures, **tables).matching
    assert found is not None
    return found


def became(found: Matching, registry: Registry) -> dict[str, str]:
    return {row.text: row.arch.pattern(registry) for row in found.rows}


@pytest.mark.parametrize("baseline", ["sliding(window=32)", "gated-deltanet(key_dim=24)", "mamba3(state_dim=48)"])
def test_linear_mixers_and_windows_read_as_much(installed: Registry, baseline: str) -> None:
    others = ["sliding(sinks=1)", "gated-deltanet(value_dim=16)", "kda", "mamba2", "lightning", "mamba1", "simplicial"]
    found = matching(installed, "state_read", baseline, *others)
    costs = CostModel(installed)
    for row in found.rows:
        assert abs(apart(found, row)) <= 0.05, row.text
        assert row.after == costs.cost(row.arch, 32768).decode_read_bytes
        assert row.before == costs.cost(row.asked, 32768).decode_read_bytes
    assert found.rows[0].arch == found.rows[0].asked
    values = {getattr(row.arch.layers[0].options, "value_dim", None) for row in found.rows if "=16" in row.text}
    assert values == {16}, "what is written out stays"


def test_a_window_is_chosen_to_the_token(installed: Registry) -> None:
    """Of two heads of 32: a row of keys and values takes 256 bytes, a state of 32 by 32 with its convolutions 9344."""
    found = matching(installed, "state_read", "gated-deltanet", "sliding", model={"short_conv": 0})
    assert became(found, installed)["sliding"] == "sliding(window=36)*2"
    assert found.target == 2 * 9344
    assert found.rows[1].after == 2 * 36 * 256
    assert found.rows[1].after == min((rows * 512 for rows in range(100)), key=lambda read: abs(read - found.target))


def test_choices_of_entries_and_ranks_follow_at_a_context_that_allows_them(installed: Registry) -> None:
    found = matching(installed, "state_read", "kda(key_dim=600)", "moba", "mla", "dsa(index_dim=4)", context=2048)
    assert all(abs(apart(found, row)) <= 0.05 for row in found.rows)
    changed = {row.arch.layers[0].mixer: row.arch.layers[0].options.model_dump() for row in found.rows}
    assert changed["moba"]["top_k"] > 1
    assert changed["moba"]["block_size"] == 128, "the number of blocks gives way, not what a block is"
    assert changed["latent"]["kv_rank"] != 64
    assert changed["indexed"]["index_dim"] == 4


def test_layers_of_a_hybrid_share_what_is_left_equally(installed: Registry) -> None:
    found = matching(
        installed, "state_read", "sliding(window=40)*3 full", "kda sliding mamba2 full", model={"n_layers": 4}
    )
    row = found.rows[1]
    reads = [layer.traffic.read_bytes for layer in CostModel(installed).cost(row.arch, 32768).layers]
    share = 40 * 256 + 3 * 64 * 2
    assert reads[:3] == pytest.approx([share] * 3, rel=0.05)
    assert row.arch.layers[3] == row.asked.layers[3]


def test_what_reads_as_much_already_stays_as_it_is(installed: Registry) -> None:
    found = matching(installed, "state_read", "gated-deltanet", "kda", "mamba2")
    assert [row.arch for row in found.rows] == [row.asked for row in found.rows]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("full", "none of its options sizes its state, which follows from the context alone: it reads 16 MiB"),
        ("sliding(window=9)", "what sizes its state is written out in the pattern, and stays: it reads 5.25 KiB"),
        ("moba", r"the nearest found, moba\(top_k=2\)\*2, reads 19. KiB of state a token at 32768 tokens, not 19 KiB"),
        ("shared-kv", "which follows from the context alone"),
        ("none", "reads 0 B|reads 768 B"),
    ],
)
def test_what_cannot_read_as_much_is_refused_with_the_nearest(installed: Registry, asked: str, said: str) -> None:
    with pytest.raises(SpecError, match=rf'compare.match = "state_read", held against gated-deltanet\*2: .*{said}'):
        posed(installed, "state_read", "gated-deltanet", asked)


def test_every_architecture_that_cannot_be_matched_is_named_at_once(installed: Registry) -> None:
    with pytest.raises(SpecError, match=r"full: none of .*; mla: the nearest found, mla\(kv_rank=1\)"):
        posed(installed, "state_read", "gated-deltanet", "full", "kda", "mla")


def test_two_that_become_one_are_refused(installed: Registry) -> None:
    with pytest.raises(SpecError, match=r'"sliding\(window=36\)" and "sliding" both become sliding\(window=36\)\*2'):
        posed(installed, "state_read", "gated-deltanet", "sliding", "sliding(window=36)")


def test_the_options_own_checks_hold(installed: Registry) -> None:
    """Half of mamba3's state is turned in pairs: multiples of 4 alone can stand."""
    model = ModelSpec.read({key: value for key, value in BACKBONE.items() if key != "n_layers"})
    arch = whole_pattern("mamba3", model, 2, installed)
    reads = StateReads(registry=installed, costs=CostModel(installed), context=4096)
    (kind,) = kinds_of(arch, [frozenset()] * 2)
    assert kind == Kind(layer=arch.layers[0], written=frozenset(), places=(0, 1))
    assert sizes_of(arch, kind, reads) == ("state_dim",)
    for share in (5000.0, 20000.0, 123456.0):
        found = nearest_size(arch, kind, "state_dim", share, reads)
        assert found is not None
        assert found.value % 4 == 0
        possible = [reads.sized(arch, kind, "state_dim", value) for value in range(4, 512, 4)]
        best = min(abs(one.read - share) for one in possible if one is not None)
        assert abs(found.read - share) == best


@pytest.mark.parametrize("pattern", ["sliding", "kda", "mla", "nsa", "csa", "ssm", "mom", "performer", "bigbird"])
@pytest.mark.parametrize("times", [0.3, 1.7])
def test_any_size_that_is_found_is_as_near_as_its_neighbours(installed: Registry, pattern: str, times: float) -> None:
    model = ModelSpec.read({key: value for key, value in BACKBONE.items() if key != "n_layers"})
    arch = whole_pattern(pattern, model, 1, installed)
    reads = StateReads(registry=installed, costs=CostModel(installed), context=4096)
    (kind,) = kinds_of(arch, [frozenset()])
    share = times * reads.of(arch)
    found = nearest_size(arch, kind, sizes_of(arch, kind, reads)[0], share, reads)
    assert found is not None
    for value in (found.value - 1, found.value + 1):
        near = reads.sized(arch, kind, found.name, value) if value > 0 else None
        assert near is None or abs(found.read - share) <= abs(near.read - share)


def test_what_a_pattern_writes_out_is_told_layer_by_layer(installed: Registry) -> None:
    written = parse_written("[kda(key_dim=8, conv=4) sliding]*2 mamba2:ffn_dim=32", installed)
    assert [sorted(names) for _, names in written] == [["conv", "key_dim"], [], ["conv", "key_dim"], [], []]
    assert written[4][0].ffn_dim == 32


def test_layers_written_differently_are_sized_apart(installed: Registry) -> None:
    model = ModelSpec.read({key: value for key, value in BACKBONE.items() if key != "n_layers"})
    text = "sliding(window=128) sliding"
    arch = whole_pattern(text, model, 2, installed)
    written = [names for _, names in parse_written(text, installed)]
    reads = StateReads(registry=installed, costs=CostModel(installed), context=4096)
    assert match_state(arch, written, 140 * 256, reads).pattern(installed) == "sliding sliding(window=12)"


@pytest.mark.parametrize("channel", [{"channel_mixer": "swiglu"}, {"channel_mixer": "moe", "n_experts": 4}])
def test_the_width_of_the_channel_mixer_makes_parameters_equal(installed: Registry, channel: dict[str, Any]) -> None:
    asked = ["gated-deltanet", "lightning", "kda", "mla", "mamba2:ffn_dim=64 mamba2"]
    found = matching(installed, "params", *asked, model=channel | {"d_model": 128})
    for row in found.rows:
        assert abs(apart(found, row)) <= 0.01
        assert row.after == CostModel(installed).cost(row.arch, 1).params
        assert row.asked.layers[0].options == row.arch.layers[0].options
    assert found.rows[-1].arch.layers[0].ffn_dim == 64


@pytest.mark.parametrize(
    ("others", "model", "said"),
    [
        (["kda"], {}, 'model.channel_mixer = "none" leaves no width'),
        (["kda:ffn_dim=16"], {"channel_mixer": "swiglu"}, "every layer's ffn_dim is written out, and stays"),
        (["titans"], {"channel_mixer": "swiglu", "ffn_dim": 1}, "with channel mixers of the least width, 1, it has"),
        (["kda"], {"channel_mixer": "moe", "n_experts": 512, "ffn_dim": 2}, r"the nearest found, .* and 1% count as"),
    ],
)
def test_parameters_that_cannot_be_equal_are_refused(
    installed: Registry, others: list[str], model: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        posed(installed, "params", "gated-deltanet", *others, model=model)


def test_training_flops_become_steps_task_by_task(installed: Registry) -> None:
    tasks = [{"name": "mqar", "setting": "easy"}, {"name": "mqar", "setting": "compact"}]
    problem = posed(installed, "train_flops", "full", "kda", "sliding(window=4)", tasks=tasks)
    found, costs = problem.matching, CostModel(installed)
    assert found is not None
    for row in found.rows:
        assert row.arch == row.asked
        total = 0.0
        for name, task in problem.tasks.items():
            recipe = problem.recipe_of(row.arch, name)
            sized = ArchSpec(
                model=row.arch.model.model_copy(update={"vocab_size": task.vocab_size}), layers=row.arch.layers
            )
            flops = costs.cost(sized, task.seq_len).train_flops * recipe.batch_size
            assert recipe.steps == row.steps[name]
            total += flops * recipe.steps
        assert total == pytest.approx(row.after)
        assert abs(apart(found, row)) < 1 / 300
    steps = [row.steps for row in found.rows]
    assert set(steps[0].values()) == {300}
    assert all(steps[1][name] < 300 for name in steps[1])


def test_a_recipe_of_tokens_is_matched_too(installed: Registry) -> None:
    problem = posed(installed, "train_flops", "full", "kda", recipe={"tokens": 640_000})
    baseline, kda = (problem.recipe_of(arch, "mqar") for arch in problem.space.all())
    assert baseline == problem.spec.training, "so that its results are found again"
    length = resolve_task("mqar:easy", installed).seq_len
    assert kda.tokens is None
    assert kda.steps < baseline.steps_for(length)


def test_steps_too_few_to_be_equal_are_refused(installed: Registry) -> None:
    told = r"full\*2: kda: the nearest whole steps, 1 of mqar, are \+\d+\.\d% from .*: take more steps"
    with pytest.raises(SpecError, match=told):
        posed(installed, "train_flops", "full", "kda", recipe={"steps": 1})


def test_flops_of_a_teacher_are_not_passed_over(installed: Registry) -> None:
    with pytest.raises(SpecError, match=r'"train_flops" with recipe.teacher = "full", whose own FLOPs are not counted'):
        posed(installed, "train_flops", "full", "dsa(top_k=4)", recipe={"teacher": "full"})


def test_a_baseline_that_reads_nothing_is_refused(installed: Registry) -> None:
    with pytest.raises(SpecError, match=r"none\*2 reads no state: name another compare.baseline"):
        posed(installed, "state_read", "none", "kda", model={"short_conv": 0})


def test_tokens_are_the_default_and_change_nothing(installed: Registry) -> None:
    given = spec("tokens", ["full", "kda"])
    assert given.compare is not None
    problem = Problem.of(given, installed)
    assert problem.matching is None
    assert problem.recipe_of(next(problem.space.all()), "mqar") == given.training
    assert [arch.pattern(installed) for arch in problem.space.all()] == ["full*2", "kda*2"]
    with pytest.raises(SpecError, match=r"compare.match = .flops.: Input should be .tokens., .train_flops."):
        spec("flops", ["full"])


TINY = {"d_model": 16, "n_heads": 1}
KINDS = pytest.mark.parametrize(
    ("match", "model"), [("train_flops", {}), ("state_read", {}), ("params", {"channel_mixer": "swiglu"})]
)


@pytest.mark.parametrize("match", ["train_flops", "state_read"])
def test_a_matched_comparison_is_stored_and_its_results_are_found_again(
    installed: Registry, tmp_path: Path, match: str
) -> None:
    def measured(arch: ArchSpec, name: str, seed: int) -> dict[str, Any]:
        task, recipe = problem.tasks[name], problem.recipe_of(arch, name)
        key = measurement_key(arch, task, recipe, seed, installed, device="cpu", form=form_of("cpu"))
        made = fake_measurement(problem, installed, arch, name, seed, scores=SCORES)
        own = ArchSpec(model=arch.model.model_copy(update={"vocab_size": task.vocab_size}), layers=arch.layers)
        costs = {"train_flops": CostModel(installed).cost(own, task.seq_len).train_flops}
        own_recipe = recipe.model_dump(mode="json")
        return made | {"key": key, "recipe": own_recipe, "seq_len": task.seq_len, "costs": costs}

    problem = posed(installed, match, "sliding(window=8)", "gated-deltanet", "kda", model=TINY)
    check_stored(problem, tmp_path, measured)


@pytest.mark.slow
@KINDS
def test_a_matched_comparison_is_trained(
    installed: Registry, tmp_path: Path, match: str, model: dict[str, Any]
) -> None:
    def measured(arch: ArchSpec, task: str, seed: int) -> dict[str, Any]:
        recipe = problem.recipe_of(arch, task)
        training = Evaluation(arch, problem.tasks[task], recipe, seed, registry=installed)
        while not training.done:
            training.advance(60)
        found: dict[str, Any] = json.loads(json.dumps(training.measurement().to_json()))
        assert found["recipe"]["steps"] == found["steps"] == recipe.steps
        return found

    recipe = {"steps": 16, "eval_every": 100, "batch_size": 4}
    problem = posed(installed, match, "sliding(window=8)", "gated-deltanet", "kda", model=TINY | model, recipe=recipe)
    check_stored(problem, tmp_path, measured)


def check_stored(problem: Problem, tmp_path: Path, measured: Callable[[ArchSpec, str, int], dict[str, Any]]) -> None:
    """Two searches of one problem: what the first stores is what was matched, and the second trains nothing."""
    assert problem.matching is not None
    rows = {row.text: row for row in problem.matching.rows}
    with Store.open(f"sqlite:///{tmp_path}/x.db") as store:
        for name, trained in (("first", 3), ("second", 0)):
            search = store.create_search(name, problem.spec.to_json(), [])
            campaign = Campaign(problem, store=store, search_id=search)
            campaign.prepare(survey(problem))
            orders = 0
            while not isinstance(order := campaign.next(), str):
                orders += 1
                for run in order.runs:
                    campaign.measured(order, run, measured(order.arch, run.task, run.seed))
                campaign.finished(order)
            assert orders == trained
        trials = [store.trial(trial.id) for trial in store.trials(search)]
        shown = compare(store, "second", problem.registry)
    assert [trial.params["architecture"] for trial in trials] == list(rows) == [row.asked for row in shown.rows]
    assert shown.matching == problem.matching.table(problem.registry), "the record says what was planned"
    term = {"params": "params@32768", "state_read": "decode_read_bytes@32768"}.get(problem.matching.match)
    for trial, row, told in zip(trials, rows.values(), shown.rows, strict=True):
        assert (trial.pattern, trial.state) == (row.arch.pattern(problem.registry), "complete")
        assert term is None or told.costs[term] == row.after
        assert told.scores["mqar"].steps == (row.steps or {"mqar": problem.spec.recipe.steps})["mqar"]


def test_an_architecture_of_the_list_is_found_by_what_the_list_calls_it(installed: Registry, tmp_path: Path) -> None:
    problem = posed(installed, "state_read", "gated-deltanet", "sliding", "kda")
    with Store.open(f"sqlite:///{tmp_path}/x.db") as store:
        search = store.create_search("first", problem.spec.to_json(), [])
        campaign = Campaign(problem, store=store, search_id=search)
        campaign.prepare(survey(problem))
        for _ in range(2):
            order = campaign.next()
            assert not isinstance(order, str)
            made = fake_measurement(problem, installed, order.arch, "mqar", 0, scores=SCORES)
            campaign.measured(order, order.runs[0], made)
            campaign.finished(order)
        assert compare(store, "first", installed, "sliding").baseline.pattern == "sliding(window=36)*2"
        assert [text for text, *_ in compare(store, "first", installed).waiting] == ["kda"]
