"""What a plugin must be: each fault is reported with the remedy, and the other plugins work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from interrupts import hears_interrupts

from archsearch.errors import ForeignCodeError, OptionsError, PluginError
from archsearch.registry import Registry, load_registry
from archsearch.testing.toy import ToyPlugin

MIXER = """
from typing import Annotated
from pydantic import ConfigDict, Field, field_validator
from archsearch import MixerOptions, MixerPlugin, Flops, Traffic, Tunable, hookimpl
from archsearch.mixer import System

class Options(MixerOptions):
    width: Annotated[int, Field(ge=1), Tunable(1, 2)] = 1
    # more options

class Plugin(MixerPlugin[Options]):
    name, family, summary, options = "mine", "other", "a stand-in", Options
    presets = {"mine-wide": {"width": 2}}
    def params(self, options, shape, layer): return 0
    def flops(self, options, shape, layer, *, phase, context): return Flops()
    def traffic(self, options, shape, layer, *, context): return Traffic()
    def state(self, options, shape, layer): return ()
    def build(self, options, shape, layer): raise AssertionError
    # more

@hookimpl
def register_mixers(register):
    register(Plugin())
"""

TASK = """
import numpy as np
from archsearch import hookimpl
from archsearch.tasks import Batch, Task, TaskOptions

class Options(TaskOptions):
    pairs: int = 2

class Mine(Task):
    name, summary, settings, default_setting = "mine-task", "", {"a": {"pairs": 3}}, "a"
    options_type = Options
    vocab_size, seq_len, chance = 8, 4, 0.0
    def draw(self, rng, count, *, split, label): return Batch(np.zeros((count, 4), int), np.zeros((count, 4), int))
    # more

@hookimpl
def register_tasks(register):
    register(Mine)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Installs a distribution "broken" of one module with an entry point, for this test."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(source: str, name: str = "broken") -> Path:
        (tmp_path / f"{name}_module.py").write_text(source)
        info = tmp_path / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[archsearch]\n{name} = {name}_module\n")
        sys.modules.pop(f"{name}_module", None)
        return tmp_path

    return install


def load() -> tuple[Registry, str]:
    """A registry of the broken plugin, a sound one and the tasks, and the error of the broken one."""
    registry = load_registry(environ={"ARCHSEARCH_LOAD_PLUGINS": "broken,full,tasks"})
    (report,) = (report for report in registry.reports() if report.name == "broken")
    assert (report.status == "failed") == bool(report.error)
    assert registry.mixer("full")
    assert registry.task("mqar")
    return registry, report.error or ""


def test_the_stand_ins_are_sound(install: Callable[..., Path]) -> None:
    install(MIXER + TASK)
    registry, error = load()
    assert error == ""
    assert registry.mixer("mine").name == "mine"
    assert registry.task("mine-task").name == "mine-task"


CHECK = "    @field_validator('width')\n    @classmethod\n    def check(cls, value): return {}"
FAULTS = [
    ("def params(self, options, shape, layer)", "def params(self, options, shape)", "params(options, shape) cannot be"),
    ("*, phase, context", "*, phase", "flops(options, shape, layer, *, phase) cannot be called as"),
    ("layer, *, context", "layer, context, extra", "missing a required argument: 'extra'"),
    ("def state(self, options, shape, layer)", "def state(self)", "state() cannot be called"),
    ("def build(self, options, shape, layer)", "def build(self, shape)", "build(shape) cannot be called"),
    ("    # more\n", "    dense_up_to = 64\n", "dense_up_to = 64 cannot be called"),
    ("    def build", "    def bild", "abstract method build"),
    ('"other", "a', '"banana", "a', "family = 'banana': one of full, hybrid"),
    ('"other", "a', '"slidin", "a', 'did you mean "sliding"'),
    ('"other", "a', '["other"], "a', "family = ['other']"),
    ('"a stand-in"', "3", "summary = 3: write one line of text"),
    ("    # more\n", "    version = '2'\n", "version = '2': write a whole number"),
    ("    # more\n", "    version = True\n", "version = True"),
    ("    # more\n", "    version = 2**63\n", "version = 9223372036854775808: write a whole number"),
    ("    # more\n", "    api_version = '1'\n", "speaks contract version '1', this core 1"),
    ("    # more\n", "    broken_laws = {'stepp': 'why'}\n", "broken_laws names 'stepp' (did you mean \"step\"?)"),
    ("    # more\n", "    systems = {'mine-wid': 'x'}\n", "systems names 'mine-wid' (did you mean \"mine-wide\"?)"),
    ("    # more\n", "    systems = {'mine': 'x'}\n", "systems[\"mine\"] = 'x': write System(rule=..., source=...)"),
    ("    # more\n", "    systems = {'mine': System(rule='', source='here')}\n", "rule = '': write one line of text"),
    ("    # more\n", "    systems = {'mine': System(rule='a', source='b\\nc')}\n", "source = 'b\\nc': write one"),
    ("    # more\n", "    short_conv = 4\n", "short_conv = 4: True or False"),
    ("    # more\n", "    broken_laws = ['step']\n", "broken_laws = ['step']: write a dict"),
    ("    # more\n", "    broken_laws = {'step': None}\n", "write the reason as text"),
    ("    # more\n", "    op_names = 'mine'\n", "op_names = 'mine': write a tuple"),
    ('{"mine-wide": {"width": 2}}', '["mine-wide"]', "presets = ['mine-wide']: write a dict"),
    ('{"width": 2}}', '["width"]}', "presets[\"mine-wide\"] = ['width']: write a dict"),
    ('{"width": 2}}', '{"width": 0}}', "mine(width=0)"),
    ('"mine-wide": ', "3: ", "3 cannot be a mixer name"),
    ('"mine", "other"', 'None, "other"', "None cannot be a mixer name"),
    ("options = ", "options = 'x', ", "too many values"),
    ('"a stand-in", Options', '"a stand-in", dict', "it must be a subclass of MixerOptions"),
    ('"a stand-in", Options', '"a stand-in", Options()', "it must be a subclass of MixerOptions"),
    ("Tunable(1, 2)", "Tunable(1, 0)", "the Tunable of width offers 0, which the option refuses"),
    ("Tunable(1, 2)", "Tunable('a')", "the Tunable of width offers 'a'"),
    ("Tunable(1, 2)", "Tunable()", "the Tunable of width = (): name its choices"),
    ("    # more options", "    many: list[int] = [1]", "cannot be hashed"),
    ("    # more options", "    far: float = float('inf')", "mine(far=inf): Input should be a finite number"),
    (
        "    # more options",
        "    model_config = ConfigDict(allow_inf_nan=True)\n    far: float = float('inf')",
        "the default options",
    ),
    ("    # more options", "    what: object = object()", "are no plain data"),
    ("    # more options", "    model_config = ConfigDict(frozen=False)", "frozen = False"),
    ("    # more options", "    model_config = ConfigDict(extra='ignore')", "extra = 'ignore'"),
    ("    # more options", CHECK.format("value + 1"), "change when they are written and read"),
    ("    # more options", CHECK.format("1 / (value - 1)"), "raised ZeroDivisionError"),
    ("@hookimpl\n", "", "register_mixers is not marked as a hook: put @hookimpl"),
    ("def register_mixers", "def register_mixer", 'unknown hook "register_mixer" (did you mean "register_mixers"?)'),
    ("def register_mixers", "async def register_mixers", "register_mixers is a generator, a coroutine or a wrapper"),
    ("    register(Plugin())", "    yield register(Plugin())", "register_mixers is a generator"),
    ("@hookimpl\n", "@hookimpl(wrapper=True)\n", "a wrapper"),
    ("register_mixers(register):\n    register(Plugin())", "register_mixers():\n    pass", "takes no register"),
    ("@hookimpl\ndef register_mixers(", "def register_mixer(", "has no hook: define register_mixers or register_tasks"),
    ("register(Plugin())", "register(Plugin)", "registered the class Plugin: register Plugin()"),
    ("register(Plugin())", "raise KeyboardInterrupt", "KeyboardInterrupt"),
    ("register(Plugin())", "raise BaseException('odd')", "BaseException: odd"),
]


@pytest.mark.parametrize(("found", "put", "told"), FAULTS, ids=[told[:50] for _, _, told in FAULTS])
def test_a_fault_of_a_mixer_is_told(install: Callable[..., Path], found: str, put: str, told: str) -> None:
    assert found in MIXER
    install(MIXER.replace(found, put))
    assert told in load()[1]


TASK_FAULTS = [
    ("*, split, label", "*, split", "draw(self, rng, count, *, split) cannot be called as draw("),
    ("    def draw", "    def drew", "does not define draw: write them"),
    ('{"a": {"pairs": 3}}', '{"a": {"pears": 3}}', 'the setting "a" cannot be used: pears'),
    ('{"a": {"pairs": 3}}', '["a"]', "settings = ['a']: write a dict"),
    ('{"a": {"pairs": 3}}', '{"a": {}, "a b": {}}', '"a b" cannot be a setting name'),
    ('}, "a"\n', '}, "b"\n', "default_setting = 'b' is no setting: its settings are a"),
    ("    # more\n", "    direction = 'up'\n", "direction = 'up': one of maximize, minimize"),
    ("    # more\n", "    metric = 3\n", "metric = 3: name a metric"),
    ("    # more\n", "    version = 1.5\n", "version = 1.5: write a whole number"),
    ("options_type = Options", "options_type = dict", "it must be a subclass of BaseModel"),
    ("    pairs: int = 2", "    pairs: list[int] = [1]", "pairs = 3"),
    ("register(Mine)", "register(Mine.make())", "it must be a subclass of archsearch.tasks.Task"),
    ("register(Mine)", "register(int)", "it lacks default_setting"),
]


@pytest.mark.parametrize(("found", "put", "told"), TASK_FAULTS, ids=[told[:50] for _, _, told in TASK_FAULTS])
def test_a_fault_of_a_task_is_told(install: Callable[..., Path], found: str, put: str, told: str) -> None:
    assert found in TASK
    install(TASK.replace(found, put))
    assert told in load()[1]


def test_a_class_is_no_plugin() -> None:
    with pytest.raises(PluginError, match="ToyPlugin is a class: add an instance of it"):
        Registry().add(ToyPlugin)


def test_choices_without_end_are_refused() -> None:
    many = {"channels": tuple(range(1, 200_002))}
    with pytest.raises(OptionsError, match="have 200001 combinations, more than 100000: narrow them"):
        next(ToyPlugin().choices(many))


def test_what_a_validator_raises_is_named(install: Callable[..., Path]) -> None:
    install(MIXER.replace("    # more options", CHECK.format("{1: 1, 2: 2}[value]")))
    registry, error = load()
    assert error == ""
    with pytest.raises(ForeignCodeError, match=r'mixer "mine": the validation of its options raised KeyError: 7'):
        registry.mixer("mine").parse_options({"width": 7})


NOISY = """
import ctypes, os, sys
print("by print")
sys.__stdout__.write("by the stream\\n")
os.write(1, b"by the descriptor\\n")
ctypes.CDLL(None).puts(b"by C")
""" + MIXER.replace("    register(Plugin())", "    print('in the hook'); register(Plugin())")


def run_plugins(folder: Path) -> subprocess.CompletedProcess[str]:
    """``archsearch plugins --json`` with what lies in a folder."""
    text = "import sys; sys.argv = ['archsearch', 'plugins', '--json']; from archsearch.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", text],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        preexec_fn=hears_interrupts,
        env={**os.environ, "PYTHONPATH": str(folder), "ARCHSEARCH_LOAD_PLUGINS": "broken,full"},
    )


def test_stdout_is_the_answers_alone(install: Callable[..., Path]) -> None:
    import json

    done = run_plugins(install(NOISY))
    assert done.returncode == 0, done.stderr
    names = {plugin["name"] for plugin in json.loads(done.stdout)["plugins"]}
    assert "broken" in names
    for said in ("by print", "by the stream", "by the descriptor", "by C", "in the hook"):
        assert said in done.stderr


def test_a_plugin_that_interrupts_by_itself_has_failed(install: Callable[..., Path]) -> None:
    done = run_plugins(install("raise KeyboardInterrupt"))
    assert done.returncode == 0
    assert "KeyboardInterrupt" in done.stdout


def test_the_users_interrupt_is_no_plugins_fault(install: Callable[..., Path]) -> None:
    done = run_plugins(install("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)"))
    assert done.returncode == 130
    assert done.stdout == ""


def test_the_handler_of_interrupts_stays(install: Callable[..., Path]) -> None:
    before = signal.getsignal(signal.SIGINT)
    install(MIXER)
    load()
    assert signal.getsignal(signal.SIGINT) is before


def test_threads_that_load_at_once_leave_stdout_where_it_was() -> None:
    text = (
        "import threading\n"
        "from archsearch.registry import load_registry\n"
        "threads = [threading.Thread(target=load_registry) for _ in range(4)]\n"
        "[thread.start() for thread in threads]\n[thread.join() for thread in threads]\n"
        "import os; os.write(1, b'here'); print(' and here')"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout == "here and here\n"
