"""Recording: a pytest plugin that keeps what the conformance suite found, in the package of the mixer's plugin.

``pytest -p archsearch.testing.recording --write-conformance`` writes ``conformance.json`` beside the plugin's modules;
with ``--conformance-device cuda`` the laws are tried with kernels on that device alone, and kept beside the others.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from archsearch.errors import SpecError
from archsearch.evidence.conformance import (
    ANY,
    ConformanceRecord,
    ConformanceRecords,
    Outcome,
    package_of,
    tried_source,
)
from archsearch.evidence.proofs import triton_version
from archsearch.mixer import MixerPlugin

OPTION = "--write-conformance"
DEVICE = "--conformance-device"
FOLDER = "--conformance-folder"
LEFT_OUT = ("slow", "arena")
"""Markers of cases that a run may leave out."""
KERNELS = "triton"
"""The implementation that a device is named for."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options; without the first nothing is recorded."""
    group = parser.getgroup("archsearch", "archsearch mixers")
    group.addoption(
        OPTION,
        action="store_true",
        help=f"Keep what the conformance suite finds in {ConformanceRecords.FILE} of the mixers' packages.",
    )
    group.addoption(DEVICE, metavar="DEVICE", help='Try the laws with kernels alone, on a device such as "cuda".')
    group.addoption(FOLDER, metavar="FOLDER", help="Keep it below a folder, by package.")


def pytest_configure(config: pytest.Config) -> None:
    """Records only where that is asked for; raises `UsageError` where single laws are named."""
    if config.getoption(OPTION):
        single = [argument for argument in config.args if argument.count("::") > 1]
        if single:
            raise pytest.UsageError(f"{OPTION} with {single[0]}: name whole files or classes")
        folder = config.getoption(FOLDER)
        recorder = Recorder(kernels_alone=_kernels_alone(config), folder=Path(folder) if folder else None)
        config.pluginmanager.register(recorder, "archsearch-conformance")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With a device, leaves out the laws that run no kernel."""
    if not _kernels_alone(config):
        return
    left_out = [item for item in items if (case := _case(item)) is not None and not case.by_kernel]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _kernels_alone(config: pytest.Config) -> bool:
    return config.getoption(DEVICE) is not None


@dataclass(frozen=True, kw_only=True)
class Case:
    """One test of the suite: a law, tried on a mixer in a form."""

    plugin: MixerPlugin[Any]
    law: str
    form: str
    slow: bool

    @property
    def by_kernel(self) -> bool:
        """Whether the layer's ops run their kernels."""
        return self.form.startswith(KERNELS)


@dataclass
class Recorder:
    """The cases that a run collected, by test id, and how they came out; of those that run kernels alone, perhaps.

    Records go to the mixers' packages, or below `folder`.
    """

    kernels_alone: bool = False
    folder: Path | None = None
    cases: dict[str, Case] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Before any is deselected, so that what was left out is known."""
        for item in items:
            case = _case(item)
            if case is not None and (case.by_kernel or not self.kernels_alone):
                self.cases[item.nodeid] = case

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A case that failed in any phase has failed."""
        if report.failed:
            self.outcomes[report.nodeid] = "failed"
        elif report.skipped:
            self.outcomes[report.nodeid] = "declared broken" if hasattr(report, "wasxfail") else "skipped"
        elif report.when == "call":
            self.outcomes[report.nodeid] = "passed"

    def pytest_sessionfinish(self) -> None:
        """Writes the records of every mixer whose cases, but for slow ones, all ran."""
        plugins = {(package_of(case.plugin), case.plugin.name): case.plugin for case in self.cases.values()}
        for (package, name), plugin in plugins.items():
            missing = [test for test, case in self._of(plugin) if not case.slow and test not in self.outcomes]
            if package is None:
                self.lines.append(f"{name}: not recorded, as its plugin is in no package")
            elif missing:
                self.lines.append(f"{name}: not recorded, as {len(missing)} cases did not run, first {missing[0]}")
            else:
                self.lines.append(f"{name}: {_write(package, self._records(plugin, package), self.folder)}")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Says what was written."""
        for line in self.lines:
            terminalreporter.write_line(line)

    def _of(self, plugin: MixerPlugin[Any]) -> list[tuple[str, Case]]:
        return [(test, case) for test, case in self.cases.items() if case.plugin.name == plugin.name]

    def _records(self, plugin: MixerPlugin[Any], package: str) -> list[ConformanceRecord]:
        by_form: dict[str, list[tuple[str, Case]]] = defaultdict(list)
        for test, case in self._of(plugin):
            by_form[case.form].append((test, case))
        return [
            self._record(plugin, package, form, cases)
            for form, cases in by_form.items()
            if any(test in self.outcomes for test, _ in cases)
        ]

    def _record(
        self, plugin: MixerPlugin[Any], package: str, form: str, cases: Sequence[tuple[str, Case]]
    ) -> ConformanceRecord:
        laws: dict[str, Counter[Outcome]] = defaultdict(Counter)
        ran = [(test, case) for test, case in cases if test in self.outcomes]
        for test, case in ran:
            laws[case.law][self.outcomes[test]] += 1
        if form == ANY:
            tried = {case.law for _, case in self._of(plugin)}
            laws.update({law: Counter() for law in laws_of_suite() if law not in tried})
        failed = tuple(test.split("::", 1)[-1] for test, _ in ran if self.outcomes[test] == "failed")
        return ConformanceRecord(
            mixer=plugin.name,
            form=form,
            version=plugin.version,
            laws=laws,
            failed=failed,
            untried=len(cases) - len(ran),
            source=tried_source(package),
            torch=version("torch"),
            triton=triton_version() if form.startswith(KERNELS) else None,
            date=datetime.now(UTC).date().isoformat(),
        )


def device_of(config: pytest.Config) -> str:
    """Where the laws are tried: on the CPU unless the option says otherwise."""
    return str(config.getoption(DEVICE, None) or "cpu")


def laws_of_suite() -> list[str]:
    """The names of the laws, as the suite's tests."""
    from archsearch.testing.conformance import MixerConformance

    return [name for name in dir(MixerConformance) if name.startswith("test_")]


def _case(item: pytest.Item) -> Case | None:
    """None for what is no law: another test, or one that a subclass put in a law's place, which is then untried."""
    from archsearch.testing.conformance import MixerConformance

    owner, law = getattr(item, "cls", None), getattr(item, "originalname", "")
    if not (isinstance(owner, type) and issubclass(owner, MixerConformance)):
        return None
    if getattr(owner, law) is not getattr(MixerConformance, law, None):
        return None
    slow = any(item.get_closest_marker(name) for name in LEFT_OUT)
    return Case(plugin=owner.plugin, law=law, form=_form(item), slow=slow)


def _form(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    impl = str(callspec.params.get("impl", ANY)) if callspec is not None else ANY
    if impl != KERNELS:
        return impl
    import torch

    device = torch.device(device_of(item.config))
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{KERNELS} interpreted" if device.type == "cpu" else f"{KERNELS} on {card}"


def _write(package: str, new: Sequence[ConformanceRecord], folder: Path | None) -> str:
    """Records of other mixers and forms stay as they are, each with its own digest; says what was done."""
    path = (Path(str(files(package))) if folder is None else folder / package) / ConformanceRecords.FILE
    try:
        ConformanceRecords.add(path, new)
    except SpecError as error:
        return f"not recorded: {error}"
    return f"recorded in {path}"
