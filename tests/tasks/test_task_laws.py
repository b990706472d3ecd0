"""What the built-in tasks keep beside the laws of the suite, at every setting."""

from __future__ import annotations

import json
import subprocess
import sys
from math import log

import numpy as np
import pytest

from archsearch.errors import OptionsError, SpecError
from archsearch.registry import Registry
from archsearch.tasks import IGNORE, Batch, Task, builtin, resolve_task
from archsearch.tasks.ngram import Ngram
from archsearch.tasks.splits import row_hash

REGISTRY = Registry()
REGISTRY.add(builtin, name="tasks")
HUGE = ("zoology_512x128", "zoology_1024x256", "long")
LABELS = [f"{task.name}:{setting}" for task in REGISTRY.tasks() for setting in task.settings]
SMALL = [label for label in LABELS if not label.endswith(HUGE)]
DEFAULTS = [task.name for task in REGISTRY.tasks()]


def task_of(label: str) -> Task:
    return resolve_task(label, REGISTRY)


def nothing_lost(batch: Batch) -> np.ndarray:
    return np.zeros(batch.tokens.shape)


def test_the_built_in_tasks_are_these() -> None:
    assert DEFAULTS == ["copying", "facts", "mqar", "multihop", "ngram", "niah", "state_tracking", "text"]


@pytest.mark.parametrize("label", LABELS)
def test_batches_have_the_shape_and_vocabulary_that_are_promised(label: str) -> None:
    task = task_of(label)
    batch = task.train_batch(seed=0, step=0, batch_size=5)
    assert batch.tokens.shape == batch.targets.shape == (5, task.seq_len)
    assert batch.tokens.dtype == batch.targets.dtype == np.int64
    assert batch.tokens.min() >= 0
    assert batch.tokens.max() < task.vocab_size
    scored = batch.targets[batch.targets != IGNORE]
    assert scored.size >= 5
    assert 0 <= scored.min() <= scored.max() < task.vocab_size


@pytest.mark.parametrize("label", SMALL)
def test_no_sequence_is_in_two_splits(label: str) -> None:
    task = task_of(label)
    train = [task.train_batch(seed=seed, step=step, batch_size=256) for seed in (0, 1) for step in range(8)]
    rows = {
        "train": np.concatenate([batch.tokens for batch in train]),
        "validation": task.evaluation("validation")[""].tokens,
        "test": task.evaluation("test")[""].tokens,
    }
    assert len(rows["train"]) == 4096
    assert len(rows["validation"]) == task.evaluation_rows["validation"]
    assert len(rows["test"]) == task.evaluation_rows["test"]
    seen = {split: {row.tobytes() for row in values} for split, values in rows.items()}
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    assert not seen["validation"] & seen["test"]


def test_a_tiny_space_still_shares_no_sequence() -> None:
    """Here chance alone would repeat every sequence in every split: only the partition keeps them apart."""
    task = resolve_task("mqar:easy(seq_len=3, pairs=1, keys=8, values=64)", REGISTRY)
    train = {row.tobytes() for row in task.train_batch(seed=0, step=0, batch_size=4096).tokens}
    validation = {row.tobytes() for row in task.evaluation("validation")[""].tokens}
    test = {row.tobytes() for row in task.evaluation("test")[""].tokens}
    assert len(train) > 400
    assert len(train | validation | test) == len(train) + len(validation) + len(test) == 512


def test_too_few_different_sequences_are_an_error() -> None:
    task = resolve_task("mqar:easy(seq_len=3, pairs=1, keys=1, values=2)", REGISTRY)
    with pytest.raises(OptionsError, match=r"mqar:easy\(.*too few different sequences"):
        task.evaluation("validation")


@pytest.mark.parametrize("label", SMALL)
def test_every_metric_of_an_oracle_is_perfect_and_carries_its_label(label: str) -> None:
    task = task_of(label)
    for name, batch in task.evaluation("validation").items():
        nll, predictions = nothing_lost(batch), batch.targets
        if isinstance(task, Ngram):  # whose oracle knows the language no better than its counts
            best = task.bayes(batch)
            nll, predictions = best.nll, best.likeliest
        metrics = task.metrics(name, batch, nll=nll, predictions=predictions)
        assert (f"{task.metric}@{name}" if name else task.metric) in metrics
        for metric, value in metrics.items():
            assert metric.endswith(f"@{name}") if name else "@" not in metric
            assert value == (0.0 if metric.startswith(("bits", "kl")) else 1.0)


@pytest.mark.parametrize("label", [label for label in SMALL if not label.startswith(("text", "ngram"))])
def test_breakdowns_average_to_the_accuracy_of_all_positions(label: str) -> None:
    task = task_of(label)
    batch = task.evaluation("validation")[""]
    rng = np.random.default_rng(1)
    predictions = np.where(rng.random(batch.tokens.shape) < 0.5, batch.targets, 0)
    metrics = task.metrics("", batch, nll=nothing_lost(batch), predictions=predictions)
    parts = [value for name, value in metrics.items() if name.startswith("accuracy[")]
    overall = (predictions == batch.targets)[batch.scored].mean()
    if parts:
        assert min(parts) - 1e-9 <= overall <= max(parts) + 1e-9
    assert metrics["accuracy"] == pytest.approx(overall, abs=0.03)


@pytest.mark.parametrize("label", LABELS)
def test_label_and_json_read_back_to_the_same_task(label: str) -> None:
    task = task_of(label)
    assert task.label == label
    data = json.loads(json.dumps(task.to_json()))
    again = resolve_task(data["name"], REGISTRY, setting=data["setting"], options=data["options"])
    assert again.to_json() == task.to_json()
    assert again.label == label


def test_a_label_states_what_differs_from_the_setting_and_reads_back() -> None:
    task = resolve_task("mqar:capacity(write_share=0.5, rewrites=1, pairs=12)", REGISTRY)
    assert task.label == "mqar:capacity(rewrites=1, write_share=0.5)"
    assert resolve_task(task.label, REGISTRY).to_json() == task.to_json()
    assert resolve_task("copying:easy(feedback=false)", REGISTRY).label == "copying:easy(feedback=false)"


def test_name_alone_is_the_default_setting() -> None:
    assert task_of("mqar").label == "mqar:noisy_update"
    assert resolve_task("mqar", REGISTRY, setting="easy", options={"pairs": 4}).label == "mqar:easy(pairs=4)"


ERRORS = {
    "mqra": r'unknown task "mqra" \(did you mean "mqar"\?\)',
    "mqar:capcity": r'task "mqar" has no setting "capcity" \(did you mean "capacity"\?\): .*easy',
    "mqar(pears=8)": r'unknown key "mqar.pears" \(did you mean "pairs"\?\)',
    "mqar(pairs=many)": r"mqar.pairs = 'many'",
    "mqar:easy(pairs=64)": r"pairs = 64 needs as many keys, and keys = 63",
    "mqar:noisy_update(rewrites=9)": r"rewrites = 9 exceeds pairs = 8",
    "mqar:noisy_update(pairs=20)": r"20 pairs and 4 rewrites take 48 positions, and 40 of seq_len = 64",
    "mqar:easy(pairs=30)": r"30 questions do not fit in the 4 positions that seq_len = 64 leaves",
    "mqar:noisy_update(rewrites=0, pairs=16, write_share=0.8)": r"16 questions do not fit in the 13 positions",
    "niah(needles=40)": r"needles = 40 needs as many names, and names = 32",
    "niah(needles=27)": r"27 needles of 3 tokens do not fit in the 74 positions .* seq_len = 128",
    "niah(depth_min=0.5, depth_max=0.4)": r"do not fit in the 0 positions from depth 0.5 to 0.4",
    "niah(haystack=straw)": r"niah.haystack = 'straw'",
    "multihop:hop4(chains=20)": r"21 chains of 4 hops need 84 variables, and variables = 64",
    "multihop:hop2(seq_len=40)": r"12 assignments take 36 positions and 8 questions 16: more than seq_len = 40",
    "copying:easy(items=40)": r"40 items are read and written, which takes 80 positions: raise seq_len = 64",
    "state_tracking:a5(moved=2)": r"moved = 2 leaves group = a5 the identity alone, .* set moved = 3 or more",
    "state_tracking(group=s9)": r"state_tracking.group = 's9'",
    "text(seq_len=0)": r"text.seq_len = 0",
}


@pytest.mark.parametrize("text", ERRORS)
def test_an_error_names_the_thing_the_value_and_the_remedy(text: str) -> None:
    with pytest.raises(SpecError, match=ERRORS[text]):
        resolve_task(text, REGISTRY)


def test_two_settings_at_once_are_refused() -> None:
    with pytest.raises(SpecError, match="names the setting easy, but the setting capacity is given too"):
        resolve_task("mqar:easy", REGISTRY, setting="capacity")


def test_the_uniform_model_has_the_chance_of_text() -> None:
    task = task_of("text:short")
    batch = task.evaluation("validation")["2x"]
    metrics = task.metrics(
        "2x", batch, nll=np.full(batch.tokens.shape, log(256)), predictions=np.full(batch.tokens.shape, 256)
    )
    assert metrics["bits_per_byte@2x"] == pytest.approx(task.chance)
    assert metrics["accuracy@2x"] == 0.0


def test_tasks_import_no_torch_and_are_the_same_in_another_process() -> None:
    program = (
        "import sys\n"
        "from archsearch.registry import Registry\n"
        "from archsearch.tasks import builtin, resolve_task\n"
        "from archsearch.tasks.splits import row_hash\n"
        "registry = Registry(); registry.add(builtin, name='tasks')\n"
        "for name in ('mqar', 'niah:uuid', 'multihop', 'copying', 'state_tracking', 'text'):\n"
        "    print(row_hash(resolve_task(name, registry).train_batch(seed=1, step=2, batch_size=8).tokens).tolist())\n"
        "assert 'torch' not in sys.modules and 'ray' not in sys.modules\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    names = ("mqar", "niah:uuid", "multihop", "copying", "state_tracking", "text")
    hashes = [row_hash(task_of(name).train_batch(seed=1, step=2, batch_size=8).tokens).tolist() for name in names]
    assert run.stdout.splitlines() == [str(value) for value in hashes]
