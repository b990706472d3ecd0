"""The spec file: its vocabulary, its errors, and what is kept of it."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
from search_fakes import fake_registry, fake_spec

from archsearch.arch import ArchSpec
from archsearch.costs import CostModel
from archsearch.errors import ArchsearchError, SpecError
from archsearch.registry import Registry, load_registry
from archsearch.search.problem import Problem
from archsearch.search.spec import MAX_SEED, SearchSpec
from archsearch.search.survey import survey

REGISTRY = fake_registry()
QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart.toml"


def read(**tables: Any) -> SearchSpec:
    return SearchSpec.from_dict(fake_spec(**tables))


def refused(**tables: Any) -> str:
    with pytest.raises(ArchsearchError) as caught:
        Problem.of(read(**tables), REGISTRY)
    return str(caught.value)


WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "top-level key": ({"modle": {}}, ['unknown key "modle"', 'did you mean "model"']),
    "nested key": ({"model": {"d_modle": 3}}, ['"model.d_modle"', 'did you mean "d_model"']),
    "recipe key": ({"recipe": {"step": 3}}, ['"recipe.step"', 'did you mean "steps"']),
    "task key": ({"tasks": [{"name": "recall-task", "seting": "easy"}]}, ['seting"', 'did you mean "setting"']),
    "task": ({"tasks": [{"name": "recal-task"}]}, ["tasks[0]", 'did you mean "recall-task"']),
    "task setting": ({"tasks": [{"name": "recall-task", "setting": "esy"}]}, ["tasks[0]", 'did you mean "easy"']),
    "task twice": ({"tasks": [{"name": "bits"}, {"name": "bits"}]}, ["bits", "twice"]),
    "space key": ({"space": {"mixers": ["dense"], "patern": "free"}}, ['"space.patern"', 'did you mean "pattern"']),
    "mixer": ({"space": {"mixers": ["dens"]}}, ['"dens"', 'did you mean "dense"']),
    "mixer twice": ({"space": {"mixers": ["dense", "dense"]}}, ["space.mixers", "twice"]),
    "narrowing nobody": (
        {"space": {"mixers": ["window"], "widow": {"window": [4]}}},
        ["[space.widow]", 'did you mean "window"'],
    ),
    "option": ({"space": {"mixers": ["window"], "window": {"windw": [4]}}}, ["windw", 'did you mean "window"']),
    "option value": (
        {"space": {"mixers": ["window"], "window": {"window": [4, "wide"]}}},
        ["space.window.window", "'wide'"],
    ),
    "no value": ({"space": {"mixers": ["window"], "window": {"window": []}}}, ["space.window.window", "at least one"]),
    "no valid combination": (
        {"space": {"mixers": ["recurrent"], "recurrent": {"update": ["delta"], "norm": ["none"]}}},
        ["space.recurrent", "normalised keys"],
    ),
    "fixed by a preset": (
        {"space": {"mixers": ["deltanet"], "deltanet": {"update": ["hebbian"]}}},
        ["deltanet", "fixes update"],
    ),
    "pattern": ({"space": {"mixers": ["dense"], "pattern": "fre"}}, ["space.pattern", "fre", "periodic"]),
    "period missing": ({"space": {"mixers": ["dense"], "pattern": "periodic"}}, ["space.period"]),
    "period too long": ({"space": {"mixers": ["dense"], "pattern": "periodic", "period": 4}}, ["space.period = 4"]),
    "period elsewhere": ({"space": {"mixers": ["dense"], "period": 2}}, ["space.period", "periodic"]),
    "ratio too long": (
        {"space": {"mixers": ["dense", "window"], "pattern": "ratio", "ratios": [3]}},
        ["space.ratios has 3"],
    ),
    "ratio with nothing costly": (
        {"space": {"mixers": ["window", "recurrent"], "pattern": "ratio", "ratios": [1]}},
        ["space.costly"],
    ),
    "no mixers": ({"space": {"pattern": "free"}}, ["space.mixers is empty"]),
    "no architectures": ({"space": {"pattern": "listed"}}, ["space.architectures", "full"]),
    "architectures elsewhere": (
        {"space": {"mixers": ["dense"], "architectures": ["dense"]}},
        ['space.architectures goes with pattern = "listed"'],
    ),
    "architectures and mixers": (
        {"space": {"pattern": "listed", "mixers": ["dense"], "architectures": ["dense"]}},
        ["space.mixers goes with patterns that are drawn"],
    ),
    "an architecture": (
        {"space": {"pattern": "listed", "architectures": ["dense", "windo"]}},
        ["space.architectures[1]", 'did you mean "window"'],
    ),
    "layers of an architecture": (
        {"space": {"pattern": "listed", "architectures": ["dense window"]}},
        ["space.architectures[0]", "has 2 layers, and model.n_layers = 3"],
    ),
    "an architecture twice": (
        {"space": {"pattern": "listed", "architectures": ["dense", "dense*3"]}},
        ['space.architectures[1] = "dense*3" is "dense" again'],
    ),
    "comparison of a part of its list": (
        {
            "compare": {},
            "space": {"pattern": "listed", "architectures": ["dense", "window"]},
            "search": {"trials": 1},
        },
        ["search.trials = 1 would leave out some of the 2 architectures", "drop it"],
    ),
    "comparison of a drawn space": ({"compare": {}}, ['[compare] goes with space.pattern = "listed", not "free"']),
    "baseline": (
        {"space": {"pattern": "listed", "architectures": ["dense"]}, "compare": {"baseline": "window"}},
        ['compare.baseline = "window" is none of space.architectures'],
    ),
    "baseline that cannot be read": (
        {"space": {"pattern": "listed", "architectures": ["dense"]}, "compare": {"baseline": "dens"}},
        ["compare.baseline", 'did you mean "dense"'],
    ),
    "baseline over budget": (
        {
            "space": {"pattern": "listed", "architectures": ["dense", "recurrent"]},
            "compare": {},
            "budget": {"state_bytes": "100 KiB"},
        },
        ["compare.baseline: dense*3 would not be trained: state_bytes", "name another one"],
    ),
    "objective": ({"objectives": {"maximize": ["recal"]}}, ['"recal"', 'did you mean "recall"']),
    "objective metric": (
        {"objectives": {"maximize": ["recall-task.acuracy"]}},
        ["recall-task", "accuracy", "did you mean"],
    ),
    "objective the wrong way": ({"objectives": {"maximize": [], "minimize": ["recall"]}}, ["recall", "maximize"]),
    "objective at no set": (
        {"tasks": [{"name": "bits"}], "objectives": {"maximize": [], "minimize": ["bits.bits_per_byte@4x"]}},
        ["4x", "bits.bits_per_byte@2x"],
    ),
    "no recall task": ({"tasks": [{"name": "bits"}]}, ["recall"]),
    "nothing to optimise": ({"objectives": {"maximize": [], "minimize": []}}, ["objectives"]),
    "budget cost": ({"budget": {"state_byte": 3}}, ["state_byte", 'did you mean "state_bytes"']),
    "budget unit": ({"budget": {"state_bytes": "2 GFLOP"}}, ["budget.state_bytes", "2 GFLOP", "MiB"]),
    "sampler": ({"search": {"sampler": "nsga"}}, ["search.sampler", "nsga"]),
    "population elsewhere": ({"search": {"sampler": "tpe", "population": 4}}, ["search.population", "tpe"]),
    "start-up elsewhere": ({"search": {"sampler": "nsga2", "startup_trials": 4}}, ["search.startup_trials"]),
    "no layers": ({"model": {"n_layers": 0}}, ["model.n_layers = 0"]),
    "heads": ({"model": {"n_heads": 3}}, ["model", "n_heads = 3"]),
    "seed": ({"seed": MAX_SEED}, ["seed"]),
    "name": ({"name": "a b"}, ["name", "a b"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_is_refused_with_key_value_and_remedy(case: str) -> None:
    tables, parts = WRONG[case]
    text = refused(**tables)
    for part in parts:
        assert part in text
    assert len(text.splitlines()) <= 3


BEYOND: dict[str, tuple[dict[str, Any], str]] = {
    "trials": ({"search": {"trials": 10**9}}, "search.trials = 1000000000"),
    "trials true": ({"search": {"trials": True}}, "search.trials = True"),
    "trials text": ({"search": {"trials": "9"}}, "search.trials = '9'"),
    "confirmations": ({"search": {"confirm_seeds": 10**9}}, "search.confirm_seeds = 1000000000"),
    "workers": ({"search": {"concurrency": 10**6}}, "search.concurrency = 1000000"),
    "draws": ({"search": {"max_draws": 10**12}}, "search.max_draws"),
    "population": ({"search": {"population": 10**12}}, "search.population"),
    "seeds": ({"recipe": {"seeds": 10**9}}, "recipe.seeds = 1000000000"),
    "threads": ({"recipe": {"threads": 10**6}}, "recipe.threads = 1000000"),
    "steps": ({"recipe": {"steps": 10**12}}, "recipe.steps"),
    "batch": ({"recipe": {"batch_size": 10**9}}, "recipe.batch_size"),
    "rate inf": ({"recipe": {"learning_rates": [math.inf]}}, "recipe.learning_rates"),
    "rate nan": ({"recipe": {"learning_rates": [math.nan]}}, "recipe.learning_rates"),
    "betas": ({"recipe": {"betas": [0.9, 1.5]}}, "recipe.betas"),
    "betas nan": ({"recipe": {"betas": [math.nan, 0.9]}}, "recipe.betas"),
    "layers": ({"model": {"n_layers": 10**6}}, "model.n_layers = 1000000"),
    "width": ({"model": {"d_model": 10**12}}, "model.d_model"),
    "context": ({"objectives": {"context": 10**30}}, "objectives.context"),
    "context zero": ({"objectives": {"context": 0}}, "objectives.context = 0"),
    "context inf": ({"objectives": {"context": math.inf}}, "objectives.context"),
    "limit true": ({"budget": {"state_bytes": True}}, "budget.state_bytes"),
    "limit inf": ({"budget": {"state_bytes": math.inf}}, "budget.state_bytes"),
    "limit nan": ({"budget": {"state_bytes": math.nan}}, "budget.state_bytes"),
    "rates true": ({"recipe": {"learning_rates": [True]}}, "learning_rates = [true]: is a truth value"),
    "width text": ({"model": {"d_model": "64"}}, "model.d_model = '64'"),
    "experts as a float": ({"model": {"shared_experts": 0.0}}, "model.shared_experts = 0.0"),
    "option true": ({"space": {"mixers": ["window"], "window": {"window": True}}}, "window = true: is a truth value"),
    "option a table": ({"space": {"mixers": ["window"], "window": {"window": {"a": 1}}}}, "space.window.window has a"),
    "option tables in lists": (
        {"space": {"mixers": ["window"], "window": {"window": [[[{}]]]}}},
        "space.window.window has a table",
    ),
    "lists of lists": ({"space": {"mixers": ["window"], "window": {"window": [[[1]]]}}}, "space.window"),
    "mixers a number": ({"space": {"mixers": 3}}, "space.mixers = 3"),
    "mixers a text": ({"space": {"mixers": "window", "window": {"window": [4]}}}, "[space.window] narrows"),
    "mixers of lists": ({"space": {"mixers": [["window"]], "window": {"window": [4]}}}, "[space.window] narrows"),
    "task option true": ({"tasks": [{"name": "recall-task", "options": {"length": True}}]}, "length = true"),
    "limit negative": ({"budget": {"state_bytes": -1}}, "budget.state_bytes"),
    "period": (
        {"model": {"n_layers": 64}, "space": {"mixers": ["dense"], "pattern": "periodic", "period": 60}},
        "space.period = 60",
    ),
    "values": (
        {"space": {"mixers": ["window"], "window": {"window": list(range(1, 20000))}}},
        "space.window.window has 19999",
    ),
}


@pytest.mark.parametrize("case", BEYOND)
def test_what_is_beyond_a_bound_is_refused_with_the_key_and_the_bound(case: str) -> None:
    tables, part = BEYOND[case]
    text = refused(**tables)
    assert part in text
    assert len(text.splitlines()) <= 3


TEXTS: dict[str, tuple[bytes, str]] = {
    "nested lists": (b"name = " + b"[" * 500 + b"]" * 500, "nested too deeply|no TOML file"),
    "nested tables": (b"a = " + b"{a = " * 500 + b"1" + b"}" * 500, "nested too deeply|no TOML file"),
    "a number of 5,000 digits": (b"seed = " + b"9" * 5000, "no TOML file"),
    "no UTF-8": (b"name = '\xff'", "no TOML file"),
    "a large file": (b"#" * 2**20 + b"\n", "that is no spec"),
    "a NUL": (b"name = 'a\0'", "no TOML file"),
    "nothing": (b"", "is missing"),
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_text_that_is_no_spec_is_refused_in_a_sentence(case: str, tmp_path: Path) -> None:
    content, said = TEXTS[case]
    path = tmp_path / "spec.toml"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=said):
        SearchSpec.load(path)


@pytest.mark.parametrize("path", ["/dev/null/x", ".", "no\0file"])
def test_a_path_that_is_no_file_is_refused_in_a_sentence(path: str) -> None:
    with pytest.raises(SpecError):
        SearchSpec.load(path)


def test_a_byte_order_mark_is_no_part_of_a_spec(tmp_path: Path) -> None:
    path = tmp_path / "spec.toml"
    path.write_bytes(b"\xef\xbb\xbf" + QUICKSTART.read_bytes())
    assert SearchSpec.load(path) == SearchSpec.load(QUICKSTART)


def test_a_missing_table_is_named() -> None:
    values = fake_spec()
    del values["space"]
    with pytest.raises(SpecError, match='"space" is missing'):
        SearchSpec.from_dict(values)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot read the spec"):
        SearchSpec.load(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("name = ")
    with pytest.raises(SpecError, match=r"broken\.toml is no TOML"):
        SearchSpec.load(broken)


def test_the_quickstart_is_read_and_offers_what_its_front_needs() -> None:
    registry = load_registry()
    problem = Problem.of(SearchSpec.load(QUICKSTART), registry)
    assert set(problem.space.entries) == {"full", "sliding", "linear", "moba", "nsa"}
    looked = survey(problem)
    assert looked.candidates > 1000
    rng = random.Random(0)
    drawn = [problem.judge(problem.space.random(rng)) for _ in range(300)]
    assert 0.2 < sum(not one.over_budget for one in drawn) / len(drawn) < 0.5, "its budget is to bite"
    assert looked.unexercised == 0


def test_the_field_has_one_candidate_a_family_and_place(installed: Registry) -> None:
    problem = Problem.of(SearchSpec.load(QUICKSTART.with_name("field.toml")), installed)
    families = {installed.mixer(entry.reference.mixer).family for entry in problem.space.entries.values()}
    assert families == {"full", "sliding", "linear", "memory", "sparse", "hybrid", "other"}
    looked = survey(problem)
    assert (looked.candidates, looked.trainable) == (8**3, 8**3)


def test_the_field_has_the_state_that_its_header_says(installed: Registry) -> None:
    """Bytes a layer at 32k tokens: alike where it is fixed, but of two, which the header names with their figures."""
    path = QUICKSTART.with_name("field.toml")
    problem, costs = Problem.of(SearchSpec.load(path), installed), CostModel(installed)
    found = {}
    for name, entry in problem.space.entries.items():
        arch = ArchSpec(model=problem.space.model, layers=(entry.reference,) * 3)
        found[name] = costs.cost(arch, 32768).layers[0].state_bytes
    alike = {name: found.pop(name) for name in ("sliding", "gated-deltanet", "evicting", "parallel")}
    assert alike == {"sliding": 10112, "gated-deltanet": 9728, "evicting": 10176, "parallel": 9536}
    assert found == {"full": 8388992, "indexed": 9437568, "ttt-linear": 17280, "lfm": 256}
    header = path.read_text().partition("\nname")[0]
    assert f"{min(alike.values()) / 1024:.1f} to {max(alike.values()) / 1024:.1f} KiB a layer" in header
    assert f"ttt-linear keeps {found['ttt-linear'] / 1024:.1f} KiB" in header
    assert f"lfm {found['lfm'] / 1024:.2f} KiB" in header


def test_plain_data_reads_back_to_an_equal_problem() -> None:
    spec = read(budget={"state_bytes": "100 KiB"}, space={"mixers": ["deltanet", "window"], "window": {"window": 8}})
    again = SearchSpec.from_dict(spec.to_json())
    assert again.to_json() == spec.to_json()
    one, other = Problem.of(spec, REGISTRY), Problem.of(again, REGISTRY)
    assert (one.objectives, one.budget) == (other.objectives, other.budget)
    assert list(one.space.all()) == list(other.space.all())


def test_the_database_is_not_part_of_the_record() -> None:
    spec = read(storage={"url": "postgresql://me:secret@host/db"})
    assert "secret" not in str(spec.to_json())


def test_vocabulary_is_the_largest_of_the_tasks_unless_given() -> None:
    assert Problem.of(read(), REGISTRY).space.model.vocab_size == 64
    assert Problem.of(read(model={"vocab_size": 500}), REGISTRY).space.model.vocab_size == 500


def test_two_settings_of_a_task_are_told_apart() -> None:
    tasks = [{"name": "recall-task"}, {"name": "recall-task", "setting": "long"}]
    spec = read(tasks=tasks, objectives={"maximize": ["recall-task:long.accuracy"]})
    assert list(Problem.of(spec, REGISTRY).tasks) == ["recall-task:easy", "recall-task:long"]


def test_seeds_that_confirm_are_never_seeds_of_a_search() -> None:
    spec = read(seed=MAX_SEED - 1, recipe={"seeds": 3}, search={"confirm_seeds": 2})
    problem = Problem.of(spec, REGISTRY)
    assert problem.search_seeds == (MAX_SEED - 1, MAX_SEED, MAX_SEED + 1)
    assert not set(problem.search_seeds) & set(problem.confirm_seeds)


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ({"gpu": 1.5}, r"resources.gpu = 1.5: a share of a GPU is below 1"),
        ({"workers": 4000}, r"recipe.accumulate = 1 .* cannot be shared by 4000 workers"),
        ({"cpu": 0}, "resources.cpu"),
        ({"cpu": True}, "resources.cpu"),
        ({"max_silence": -1}, "resources.max_silence"),
        ({"checkpoints": "relative/folder"}, r'resources.checkpoints = "relative/folder": give a whole path'),
        ({"checkpoints": "s3://key:secret@bucket/x"}, r"has a user or a password in it"),
        ({"maxseconds": 1}, r"resources.maxseconds.*max_seconds"),
    ],
)
def test_resources_that_cannot_be_are_refused(resources: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said) as told:
        SearchSpec.from_dict(fake_spec(resources=resources))
    assert "secret" not in str(told.value)


def test_a_gpu_for_a_training_on_the_cpu_is_refused() -> None:
    with pytest.raises(SpecError, match=r'goes with recipe.device = "cuda" or "auto"'):
        SearchSpec.from_dict(fake_spec(recipe={"device": "cpu"}, resources={"gpu": 1}))
    SearchSpec.from_dict(fake_spec(recipe={"device": "cpu"}, resources={"gpu": 0}))


def test_resources_are_stored_and_no_part_of_what_is_measured() -> None:
    spec = SearchSpec.from_dict(fake_spec(resources={"cpu": 0.5, "checkpoints": "/shared/checkpoints"}))
    assert SearchSpec.from_dict(spec.to_json()) == spec
    assert spec.recipe == SearchSpec.from_dict(fake_spec()).recipe


def test_what_follows_from_a_list_of_architectures() -> None:
    space = {"pattern": "listed", "architectures": ["dense", "window dense window"]}
    listed = read(space=space, search={}).search
    assert (listed.trials, listed.references, listed.confirm_seeds) == (6, False, 1)
    compared = SearchSpec.from_dict({**fake_spec(space=space, compare={}), "search": {}})
    assert (compared.search.trials, compared.search.confirm_seeds) == (2, 0)
    said = SearchSpec.from_dict({**fake_spec(space=space), "search": {"trials": 1, "references": ["dense"]}}).search
    assert (said.trials, said.references) == (1, ("dense",))
    assert SearchSpec.from_dict(compared.to_json()) == compared
