"""``archsearch show``: one trial whole, and the command that measures it again."""

from __future__ import annotations

import json
import shlex
import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest
from cli_samples import FLAT, MODEL, OBJECTIVES, RECIPE, SPEC, add_trial, payload
from typer.testing import Result

from archsearch.analysis.repeat import repeat
from archsearch.cli import app, database
from archsearch.cli.remarks import not_exercised
from archsearch.cli.settings import read_settings
from archsearch.errors import ArchsearchError, SpecError, StorageError
from archsearch.exercise import Unexercised
from archsearch.storage import NewTrial, Store

Run = Callable[..., Result]


def test_json_has_the_whole_trial(run: Run, trials: dict[str, int]) -> None:
    data = json.loads(run("show", str(trials["confirm"]), "--json").stdout)
    assert (data["trial"], data["search"], data["kind"], data["parent"]) == (
        trials["confirm"],
        "quick",
        "confirm",
        trials["mixed"],
    )
    assert [measured["seed"] for measured in data["measurements"]] == [1_000_000, 1_000_001]
    assert data["arch"]["layers"][0] == {"mixer": "linear", "options": {"update": "delta"}}
    assert data["plugins"] == [{"plugin": "full", "distribution": "archsearch", "version": "0.1.0"}]
    assert "d_model 64" in data["valid_for"]


def test_a_trial_by_its_number_in_a_search(run: Run, trials: dict[str, int]) -> None:
    assert json.loads(run("show", "quick/2", "--json").stdout)["trial"] == trials["mixed"]


def test_what_is_shown(run: Run, trials: dict[str, int]) -> None:
    shown = run("show", str(trials["mixed"])).stdout
    for text in (
        "linear(update=delta) full",
        "update=delta",
        "8 MiB",
        "0.950",
        "chosen",
        "0.003",
        "torch 2.13.0",
        "accuracy on validation",
        "valid for 2 layers",
        "archsearch evaluate",
    ):
        assert text in shown, text


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("diverged", "reason: mqar, seed 0: loss was nan at step 12"),
        ("infeasible", "170% over budget"),
        ("flat", "not exercised: sliding(window=64) sees all of up to 64 tokens, and mqar:capacity has 64"),
    ],
)
def test_why_a_trial_is_not_on_the_front(run: Run, trials: dict[str, int], name: str, told: str) -> None:
    result = run("show", str(trials[name]))
    assert result.exit_code == 0
    assert told in result.stdout


def test_each_layer_that_was_not_exercised_is_told_once(run: Run, url: str) -> None:
    reason = f"state_bytes@32768 = 24 MiB exceeds 9 MiB; not exercised: {FLAT}"
    with Store.open(url) as store:
        search = store.create_search("flat", SPEC, OBJECTIVES)
        found = (FLAT, FLAT)
        plain = add_trial(store, search, "full", costs=(1e6, 1e4), accuracies=(0.5,), unexercised=found)
        refused = add_trial(
            store, search, "full", costs=(1e6, 1e4), state="infeasible", reason=reason, unexercised=found
        )
    for trial in (plain, refused):
        assert run("show", str(trial)).stdout.count(str(FLAT)) == 1
    assert run("trials", "flat").exit_code == 0
    for row_reason in ("", reason, None):
        row = {"reason": row_reason, "unexercised": [FLAT.to_json()] * 2}
        assert database._remark(row).count(str(FLAT)) == 1


def test_what_an_old_reason_tells_of_a_layer_is_not_told_again(run: Run, url: str) -> None:
    found = Unexercised(layer="sliding(window=64)", task="", seq_len=48, dense_up_to=64)
    unreadable = Unexercised(layer="half a sentence", task="", seq_len=0, dense_up_to=0)
    told = "sliding(window=64) sees all of up to 64 tokens, and the task has 48"
    assert not_exercised([found, found, unreadable]) == [f"not exercised: {told}", "not exercised: half a sentence"]
    reason = "not exercised: sliding(window=64) sees all of up to 64 tokens, measured on 48"
    with Store.open(url) as store:
        search = store.create_search("old", SPEC, OBJECTIVES)
        add_trial(store, search, "full", costs=(1e6, 1e4), state="infeasible", reason=reason, unexercised=[found])
        trial = store.trials(search)[0].id
    assert run("show", str(trial)).stdout.count("not exercised") == 1


DAMAGE = {
    "architecture": ("trial", "arch", {"model": 3}, ["layers", "the command"]),
    "layers": ("trial", "arch", {"model": MODEL, "layers": [{"mixer": 3}]}, ["layers"]),
    "spec": ("search", "spec", {"model": 3, "tasks": 3}, []),
    "recipe": ("measurement", "payload.recipe", {"steps": 10**400}, ["what it is valid for", "the command"]),
    "sweep": ("measurement", "payload.sweep", [{}], ["sweep"]),
    "chance": ("measurement", "payload.chance", None, []),
}


@pytest.mark.parametrize(("table", "place", "value", "unread"), DAMAGE.values(), ids=DAMAGE)
def test_a_part_that_cannot_be_read_leaves_the_others(
    run: Run, trials: dict[str, int], url: str, table: str, place: str, value: object, unread: list[str]
) -> None:
    column, _, key = place.partition(".")
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
        for row, text in database.execute(f"SELECT id, {column} FROM {table}").fetchall():
            written = {**json.loads(text), key: value} if key else value
            database.execute(f"UPDATE {table} SET {column} = ? WHERE id = ?", (json.dumps(written), row))
        database.commit()
    shown = run("show", str(trials["mixed"]))
    assert (shown.exit_code, shown.exception) == (0, None)
    told = [line.strip().split(":")[0] for line in shown.stdout.splitlines() if "cannot be read" in line]
    assert set(unread) <= set(told)
    assert "state_bytes" in shown.stdout
    data = json.loads(run("show", str(trials["mixed"]), "--json").stdout)
    assert (data["repeat"] is None) == ("the command" in told)
    assert (data["valid_for"] is None) == ("what it is valid for" in told)


@pytest.mark.parametrize("judged", ["steps", "forward", None])
def test_a_mixer_that_was_judged_by_its_steps_is_told(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch, judged: str | None
) -> None:
    from archsearch.registry import load_registry

    plugin = type(load_registry().resolve("full").plugin)
    monkeypatch.setattr(plugin, "broken_laws", {"step": "evicts", "causal": "looks ahead"})
    with Store.open(url) as store:
        search = store.create_search("judged", SPEC, OBJECTIVES)
        trial = add_trial(store, search, "full linear", costs=(1e6, 1e4))
        extra = {} if judged is None else {"judged": judged}
        measured = payload("full linear", 0, 0.5, **extra)
        store.add_measurement(trial, measured, {}, task="mqar")
    shown = run("show", str(trial)).stdout
    sentence = 'judged by prefill and steps: law "step" of full is broken by design\n'
    assert (sentence in shown) is (judged == "steps")
    assert shown.count("judged by") == (judged == "steps")


def test_a_superseded_trial_is_listed_with_its_reason(run: Run, url: str) -> None:
    with Store.open(url) as store:
        search = store.create_search("old", SPEC, OBJECTIVES)
        add_trial(
            store, search, "full", costs=(1e6, 1e4), accuracies=(0.5,), state="superseded", reason="full has changed"
        )
    for words in (("trials", "old"), ("trials", "old", "--state", "superseded"), ("show", "old/0")):
        shown = run(*words).stdout
        assert "superseded" in shown
        assert "full has changed" in shown


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("abc", SpecError),
        ("quick/", SpecError),
        ("/3", SpecError),
        ("-1", None),
        ("999", StorageError),
        ("quick/99", StorageError),
        ("quikc/0", StorageError),
    ],
)
def test_what_names_no_trial(run: Run, trials: dict[str, int], text: str, kind: type[ArchsearchError] | None) -> None:
    result = run("show", text)
    assert result.exit_code != 0
    if kind is not None:
        assert isinstance(result.exception, kind)


def command_of(url: str, trial: int) -> list[str]:
    with Store.open(url, read_only=True) as store:
        record = store.trial(trial)
        return shlex.split(repeat(record, store.search(record.search_id)))


def test_the_command_repeats_the_trial(trials: dict[str, int], url: str) -> None:
    words = command_of(url, trials["confirm"])
    assert words[:3] == ["archsearch", "evaluate", "linear(update=delta) full"]
    given = [f"{flag} {value}" for flag, value in zip(words[3::2], words[4::2], strict=True)]
    wanted = (
        "--task mqar:capacity; --seed 1000000; --seeds 2; --learning-rate 0.01; --learning-rate 0.003; --steps 300; "
        "--batch-size 64; --d-model 64; --heads 2; --channel-mixer none"
    )
    assert set(wanted.split("; ")) <= set(given)
    assert "--set" not in words


def test_the_command_has_options_that_evaluate_has(trials: dict[str, int], url: str) -> None:
    import typer.main

    words = command_of(url, trials["mixed"])
    evaluate = typer.main.get_command(app).commands["evaluate"]  # type: ignore[attr-defined]
    known = {flag for parameter in evaluate.params for flag in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_a_trial_that_was_not_trained_is_repeated_as_the_spec_says(trials: dict[str, int], url: str) -> None:
    words = command_of(url, trials["infeasible"])
    assert words[words.index("--task") + 1] == "mqar:capacity"
    assert words[words.index("--seeds") + 1] == "2"


def test_settings_without_an_option_of_their_own_are_set(url: str) -> None:
    recipe = {**RECIPE, "weight_decay": 0.0, "betas": [0.8, 0.99]}
    with Store.open(url) as store:
        search = store.create_search("odd", {**SPEC, "recipe": recipe}, OBJECTIVES)
        trial = add_trial(store, search, "full", costs=(1e6, 1e4), state="infeasible")
    words = command_of(url, trial)
    settings = read_settings(words[at + 1] for at, word in enumerate(words) if word == "--set")
    assert settings == {"recipe": {"weight_decay": 0.0, "betas": [0.8, 0.99]}, "model": {}}


@pytest.mark.parametrize("text", ["recipe.warmup", "warmup=0.2", "recip.warmup=0.2", "recipe.=0.2", ""])
def test_a_setting_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"--set .*: write recipe\.KEY=VALUE or model\.KEY=VALUE"):
        read_settings([text])


def test_values_of_settings_are_toml_or_plain_text() -> None:
    settings = read_settings(["recipe.dtype=bfloat16", "model.ffn_dim = 32", 'model.channel_mixer="moe"'])
    assert settings == {"recipe": {"dtype": "bfloat16"}, "model": {"ffn_dim": 32, "channel_mixer": "moe"}}


def test_an_unknown_setting_names_the_nearest(run: Run) -> None:
    result = run("evaluate", "full", "--task", "mqar:easy", "--set", "recipe.wamrup=0.2")
    assert isinstance(result.exception, SpecError)
    assert "warmup" in str(result.exception)


def test_sizes_without_an_option_of_their_own_are_set(url: str) -> None:
    with Store.open(url) as store:
        search = store.create_search("odd", SPEC, OBJECTIVES)
        layer = {"mixer": "full", "options": {}}
        trial = store.add_trial(
            search,
            NewTrial(
                kind="search",
                state="infeasible",
                digest="d",
                pattern="full",
                params={},
                seeds=[],
                costs={},
                arch={"model": {**MODEL, "channel_mixer": "swiglu", "ffn_dim": 999}, "layers": [layer]},
                violations={},
            ),
        )
    words = command_of(url, trial)
    assert words[words.index("--set") + 1] == "model.ffn_dim=999"


def test_a_width_and_what_was_drawn_of_the_backbone_are_shown(run: Run, url: str) -> None:
    layers = [{"mixer": "full", "options": {"rope": 0.5}, "ffn_dim": 64}, {"mixer": "full", "options": {}}]
    with Store.open(url) as store:
        space = {"mixers": ["full"], "backbone": {"meta_tokens": [0, 8], "head_dim": [16, 32]}}
        search = store.create_search("backbones", {**SPEC, "space": space}, OBJECTIVES)
        trial = store.add_trial(
            search,
            NewTrial(
                kind="search",
                state="infeasible",
                digest="d",
                pattern="full(rope=0.5):ffn_dim=64 full",
                params={},
                seeds=[],
                costs={},
                arch={"model": {**MODEL, "meta_tokens": 8}, "layers": layers},
                violations={},
            ),
        )
    shown = run("show", str(trial)).stdout
    assert "backbone drawn: meta_tokens = 8, head_dim = 32" in shown
    assert "rope=0.5 :ffn_dim=64" in shown
    words = command_of(url, trial)
    assert words[2] == "full(rope=0.5):ffn_dim=64 full"
    assert words[words.index("--set") + 1] == "model.meta_tokens=8"


def test_where_a_trial_ran_and_what_workers_it_lost_are_shown(run: Run, url: str, trials: dict[str, int]) -> None:
    with Store.open(url) as store:
        store.set_placement(trials["mixed"], {"node": "gpu7", "device": "NVIDIA H200", "gpus": ["0"], "pid": 7})
        store.lose_worker(trials["mixed"], "the machine was lost on gpu7")
        assert store.trial(trials["mixed"]).state == "preempted"
    shown = run("show", str(trials["mixed"])).stdout
    assert "ran on gpu7, NVIDIA H200, GPU 0" in shown
    assert "workers lost: 1" in shown
    assert json.loads(run("show", str(trials["mixed"]), "--json").stdout)["attempts"] == 1
    assert "ran on" not in run("show", str(trials["confirm"])).stdout
