"""Ground truth: tables that are read, cases that are posed on them, and searches that are replayed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from search_fakes import fake_registry, fake_spec

from archsearch.arch import ArchSpec
from archsearch.errors import SpecError
from archsearch.search.problem import Problem
from archsearch.search.spec import SearchSpec
from archsearch.search.tables.search import EarlyStopTable
from archsearch.search.truth.archive import Archive, Trained
from archsearch.search.truth.case import Case, default_objectives
from archsearch.search.truth.file import append, read_lines
from archsearch.search.truth.measure import measure
from archsearch.search.truth.medians import middle, ratio
from archsearch.search.truth.replay import posed, replay, table_seed
from archsearch.search.truth.score import Scoring, score
from archsearch.search.truth.table import TruthTable

REGISTRY = fake_registry()
SPACE = {"mixers": ["dense", "window", "recurrent"], "dense": {"rope": [1.0]}, "window": {"window": [8]}}
WORTH = {"dense": 0.3, "window": 0.1, "recurrent": 0.2}
OBJECTIVES = ("recall-task.accuracy", "state_bytes")


def truth_spec(**tables: Any) -> SearchSpec:
    given = {
        "space": {**SPACE, "recurrent": {"norm": ["rms"], "update": ["delta"]}},
        "tasks": [{"name": "recall-task"}, {"name": "bits"}],
        "recipe": {"steps": 40, "eval_every": 20, "seeds": 3},
        "objectives": {"maximize": ["recall"], "minimize": ["bits.bits_per_byte", "state_bytes"]},
        "budget": {"state_bytes": "140 KiB"},
        "search": {"trials": 12},
    }
    return SearchSpec.from_dict(fake_spec(**{**given, **tables}))


def luck(arch: ArchSpec, seed: int) -> float:
    return int(arch.digest, 16) // 7**seed % 100 / 1000


def lines(problem: Problem) -> Iterator[dict[str, Any]]:
    yield {"kind": "table", "spec": problem.spec.to_json()}
    for name, task in problem.tasks.items():
        for seed in problem.search_seeds:
            for arch in problem.space.all():
                value = sum(WORTH[layer.mixer] for layer in arch.layers) + luck(arch, seed)
                yield {
                    "kind": "run",
                    "pattern": arch.pattern(REGISTRY),
                    "digest": arch.digest,
                    "task": name,
                    "seed": seed,
                    "status": "complete",
                    "learning_rate": 0.01,
                    "curve": [[20, value / 2], [40, value]],
                    "steps": 40,
                    "validation": {task.metric: value},
                    "test": {task.metric: value},
                }


def written(path: Path, found: list[Mapping[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in found), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def whole() -> list[dict[str, Any]]:
    return list(lines(Problem.of(truth_spec(), REGISTRY)))


@pytest.fixture(scope="module")
def table(whole: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> TruthTable:
    return TruthTable.load(written(tmp_path_factory.mktemp("truth") / "table.jsonl", whole), REGISTRY)


def test_only_whole_columns_count_and_the_others_are_told(whole: list[dict[str, Any]], tmp_path: Path) -> None:
    cut = TruthTable.load(written(tmp_path / "cut.jsonl", whole[: 1 + 27 * 2 + 5]), REGISTRY)
    assert set(cut.columns) == {("recall-task", 0), ("recall-task", 1)}
    assert cut.missing == {("recall-task", 2): 5, ("bits", 0): 0, ("bits", 1): 0, ("bits", 2): 0}
    assert cut.seeds(["recall-task"]) == (0, 1)
    assert default_objectives(cut) == [OBJECTIVES]
    with pytest.raises(SpecError, match=r"bits.bits_per_byte.* cannot be posed yet.*bits, seed 0"):
        Case.of(cut, ["bits.bits_per_byte", "state_bytes"])


def test_a_row_whose_digest_has_changed_since_is_found_by_its_pattern(
    whole: list[dict[str, Any]], table: TruthTable, tmp_path: Path
) -> None:
    older = [{**line, "digest": line["digest"][::-1]} if line["kind"] == "run" else line for line in whole]
    found = TruthTable.load(written(tmp_path / "older.jsonl", older), REGISTRY)
    assert found.columns == table.columns


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda found: [], "is not there, or empty"),
        (lambda found: found[1:], "no line of kind table"),
        (lambda found: found[:9], "has no whole column yet"),
        (lambda found: [found[0], {**found[1], "curve": "?"}], "cannot be read"),
    ],
    ids=["empty", "no header", "hardly begun", "a line that is none"],
)
def test_files_that_are_no_tables_are_refused(
    whole: list[dict[str, Any]], tmp_path: Path, change: Any, told: str
) -> None:
    with pytest.raises(SpecError, match=told):
        TruthTable.load(written(tmp_path / "bad.jsonl", change(whole)), REGISTRY)


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"\xff\xfe",
        b'{"kind": ["run"]}',
        b'{"kind": "table"}',
        b'{"kind": "table", "spec": 3}',
        b'{"kind": "run", "pattern": "dense", "digest": [], "task": {}, "seed": 1}',
        b'{"kind": "run", "pattern": "dense", "digest": "0", "task": "bits"}',
        b"[" * 100_000,
    ],
    ids=["list", "bytes", "kind", "no spec", "spec", "digest", "no seed", "nested"],
)
def test_a_line_of_any_shape_is_refused_by_its_number(whole: list[dict[str, Any]], tmp_path: Path, line: bytes) -> None:
    path = written(tmp_path / "bad.jsonl", whole[:2])
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(SpecError, match="line 3 is no line of a table"):
        TruthTable.load(path, REGISTRY)


def test_a_folder_in_the_place_of_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="Is a directory: name the file of a table"):
        TruthTable.load(tmp_path, REGISTRY)


@pytest.mark.parametrize("cut", [1, 40, 10_000], ids=["newline", "end", "all of it"])
def test_a_line_that_was_cut_is_measured_again_in_its_place(
    whole: list[dict[str, Any]], tmp_path: Path, cut: int
) -> None:
    """A process that was ended while it wrote leaves a line without its end: what follows must not run into it."""
    path = written(tmp_path / "cut.jsonl", whole[:3])
    text = path.read_bytes()
    path.write_bytes(text[: max(text.rstrip().rfind(b"\n") + 2, len(text) - cut)])
    assert read_lines(path) == (whole[:3] if cut == 1 else whole[:2])
    append(path, whole[3])
    assert read_lines(path) == [*(whole[:3] if cut == 1 else whole[:2]), whole[3]]


def test_text_that_is_no_table_is_not_taken_for_a_line_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary")
    with pytest.raises(SpecError, match="line 1 is no line"):
        read_lines(path)


@pytest.mark.parametrize(
    ("tables", "told"),
    [
        ({"seed": 7}, "whose seed is another one"),
        ({"tasks": [{"name": "bits"}, {"name": "recall-task"}]}, r"whose \[tasks\] is another one"),
    ],
)
def test_a_table_is_not_gone_on_with_by_another_spec(
    whole: list[dict[str, Any]], tmp_path: Path, tables: dict[str, Any], told: str
) -> None:
    problem = Problem.of(truth_spec(**tables), REGISTRY)
    with pytest.raises(SpecError, match=told):
        next(measure(problem, written(tmp_path / "whole.jsonl", whole)))


@pytest.mark.parametrize("names", [("nothing.accuracy", "state_bytes"), ("state_bytes",)])
def test_objectives_that_the_table_cannot_have_are_refused(table: TruthTable, names: tuple[str, ...]) -> None:
    with pytest.raises(SpecError, match="recall-task"):
        Case.of(table, names)


def test_speed_is_no_objective_of_a_table(table: TruthTable) -> None:
    with pytest.raises(SpecError, match=r'"recall-task.tokens_to_half" is timed by trainings, and a table has none'):
        Case.of(table, ["recall-task.tokens_to_half", "state_bytes"])


def test_a_task_on_which_all_diverged_poses_nothing(whole: list[dict[str, Any]], tmp_path: Path) -> None:
    lost = {"status": "diverged", "validation": {}, "test": {}}
    found = [{**line, **lost} if line.get("task") == "recall-task" else line for line in whole]
    table = TruthTable.load(written(tmp_path / "lost.jsonl", found), REGISTRY)
    with pytest.raises(SpecError, match=r"recall-task.accuracy, state_bytes cannot be posed: .*\(0, 1, 2\)"):
        Case.of(table, OBJECTIVES)


def test_a_case_has_the_front_that_its_seeds_give(table: TruthTable) -> None:
    case = Case.of(table, OBJECTIVES)
    assert len(case.feasible) < len(table.archs) == 27
    losses = case.losses([arch.digest for arch in case.feasible], case.seeds, "test")
    front = {arch.digest for arch in case.true_front(case.seeds)}
    for arch, mine in zip(case.feasible, losses, strict=True):
        beaten = any((other <= mine).all() and (other < mine).any() for other in losses)
        assert (arch.digest in front) is not beaten
    assert case.true_volume(case.seeds, "test") > 0
    assert [one.direction for one in Case.of(table, ["bits.bits_per_byte", "state_bytes"]).problem.objectives] == [
        "minimize",
        "minimize",
    ]


@pytest.mark.parametrize("sampler", ["random", "nsga2", "ehvi"])
def test_a_replayed_search_is_the_real_one_and_equal_seeds_give_equal_searches(table: TruthTable, sampler: str) -> None:
    case = Case.of(table, OBJECTIVES)
    one, other = (replay(case, posed(case, sampler, trials=12, seed=1)) for _ in range(2))
    assert one == other
    assert len(one.trained) == len({trial.digest for trial in one.trained}) == 12
    assert {trial.seeds for trial in one.trained} == {(1,)}
    assert {trial.digest for trial in one.trained} <= {arch.digest for arch in case.feasible}
    judged = score(case, one.trained, unseen=[0, 2])
    assert len(judged.own) == len(judged.fresh) == 12
    assert list(judged.own) == sorted(judged.own)
    assert judged.own[-1] <= 1.0 + 1e-9
    assert judged.steps == 12 * 40
    assert 0.0 <= judged.unconfirmed <= 1.0


def test_a_search_of_several_tasks_trains_each_candidate_on_all_of_them(table: TruthTable) -> None:
    case = Case.of(table, ["recall-task.accuracy", "bits.bits_per_byte", "state_bytes"])
    found = replay(case, posed(case, "nsga3", trials=8, seed=2, second_seeds=0.25)).trained
    assert {trial.steps for trial in found} == {2 * 40}
    assert [trial.seeds for trial in found].count((0,)) == 2  # after the table's last seed comes its first
    judged = score(case, found, unseen=[1])
    assert len(judged.own) == 8
    assert 0.0 < judged.own[-1] <= 1.0 + 1e-9


def test_a_search_of_all_finds_all_of_what_it_sees(table: TruthTable) -> None:
    case = Case.of(table, OBJECTIVES)
    trained = [Trained(digest=arch.digest, seeds=(0,), steps=1) for arch in case.feasible]
    judged = score(case, trained, unseen=[1, 2])
    assert judged.own[-1] == pytest.approx(1.0)
    assert judged.to_own <= len(trained)
    assert set(judged.front) == {arch.digest for arch in case.true_front([0], "validation")}
    fresh = case.losses(judged.front, [1, 2], "test")
    assert judged.fresh[-1] == pytest.approx(case.volume(fresh) / case.true_volume([1, 2], "test"))
    assert judged.limit == pytest.approx(judged.fresh[-1])
    assert judged.to_limit <= min(judged.to_fresh, len(trained))


@pytest.mark.parametrize("sampler", ["random", "nsga2", "ehvi"])
def test_a_search_that_goes_on_is_the_same_and_arrives(table: TruthTable, sampler: str) -> None:
    case = Case.of(table, OBJECTIVES)
    cut = replay(case, posed(case, sampler, trials=5, seed=1)).trained
    scoring = Scoring(case, unseen=[0, 2], trials=5)

    def enough(trial: Trained) -> bool:
        scoring.add(trial)
        return scoring.arrived

    found = replay(case, posed(case, sampler, trials=5, seed=1, go_on=True), enough=enough).trained
    judged, answer = scoring.score(), score(case, cut, unseen=[0, 2])
    assert found[:5] == cut
    assert len(found) < len(case.feasible)
    assert math.isfinite(judged.to_own)
    assert math.isfinite(judged.to_limit)
    assert judged.own[:5] == answer.own
    assert (judged.front, judged.unconfirmed, judged.steps) == (answer.front, answer.unconfirmed, answer.steps)


def test_without_other_seeds_nothing_is_said_of_fresh_ones(table: TruthTable) -> None:
    case = Case.of(table, OBJECTIVES)
    judged = score(case, [Trained(digest=case.feasible[0].digest, seeds=(0,), steps=1)], unseen=[])
    assert math.isnan(judged.fresh[-1])
    assert math.isnan(judged.to_limit)
    assert math.isnan(judged.unconfirmed)


@pytest.mark.parametrize("sampler", ["random", "nsga2", "ehvi"])
def test_a_share_of_the_trials_are_second_seeds_of_front_points(table: TruthTable, sampler: str) -> None:
    case = Case.of(table, OBJECTIVES)
    found = replay(case, posed(case, sampler, trials=12, seed=0, second_seeds=0.25)).trained
    assert len(found) == 12
    again = [index for index, trial in enumerate(found) if trial.seeds != (0,)]
    assert again == [4, 7, 11]  # the first four are the sampler's start
    for index in again:
        assert found[index].seeds == (table_seed(case, 1),)
        assert found[index].digest in _archive(case, found[:index]).points
    assert len({found[index].digest for index in again}) == 3
    means = _archive(case, found).losses([found[4].digest])
    assert np.allclose(means, case.losses([found[4].digest], [0, 1], "validation"))


def _archive(case: Case, trained: Sequence[Trained]) -> Archive:
    archive = Archive(case)
    for trial in trained:
        archive.add(trial)
    return archive


def test_the_rule_of_early_stopping_ends_trainings_of_the_real_campaign(table: TruthTable) -> None:
    case = Case.of(table, OBJECTIVES)
    plain, found = (
        replay(case, posed(case, "random", trials=12, seed=0, early_stop=rule)).trained
        for rule in (None, EarlyStopTable(others=1, margin=0.0))
    )
    stopped = [trial for trial in found if trial.stopped]
    assert stopped
    assert {trial.steps for trial in stopped} == {20}
    assert {trial.steps for trial in found if not trial.stopped} == {trial.in_full for trial in found} == {40}
    assert [trial.digest for trial in found] == [trial.digest for trial in plain]
    judged = score(case, found, unseen=[1, 2])
    assert not {trial.digest for trial in stopped} & set(judged.front)


def test_a_median_has_an_interval_by_ranks_and_allows_for_never() -> None:
    found = middle([*range(1, 19), math.inf, math.inf])
    assert (found.median, found.low, found.high) == (10.5, 6.0, 15.0)
    assert middle([1.0, 2.0, math.inf]).high == math.inf
    assert math.isnan(middle([math.nan]).median)


def test_a_ratio_of_medians_has_an_interval_by_pairs_and_may_be_unknown() -> None:
    others = [10.0, 20.0, 40.0, 80.0, 20.0, 10.0, 40.0]
    paired = ratio([value / 2 for value in others], others)
    assert (paired.median, paired.low, paired.high) == (0.5, 0.5, 0.5)  # whichever pairs are drawn
    apart = ratio([value / 2 for value in [*others[3:], *others[:3]]], others)
    assert apart.low < apart.median == 0.5 < apart.high
    assert ratio([1.0, 2.0], [2.0, 4.0]).high == math.inf  # two pairs bound nothing
    assert math.isnan(ratio([math.inf] * 8, [1.0] * 8).median)
    assert math.isnan(ratio([1.0] * 8, [math.inf] * 8).median)
    assert ratio([2.0] * 5 + [math.inf] * 3, [1.0] * 5 + [math.inf] * 3).high == math.inf
    assert ratio([2.0] * 8, [1.0] * 5 + [math.inf] * 3).low == 0.0
