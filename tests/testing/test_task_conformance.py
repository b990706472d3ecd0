"""The suite of tasks: a right task passes it, and each planted bug fails by its law with one line."""

from __future__ import annotations

import inspect
import re

import pytest
from planted_tasks import ZOO, Right, RightLoss

from archsearch.errors import ArchsearchError
from archsearch.tasks import Task
from archsearch.testing import TaskConformance

pytest_plugins = ["pytester"]


class TestRight(TaskConformance):
    task = Right
    cases = {"short": {"seq_len": 20}}  # noqa: RUF012 - as an author writes it


class TestRightLoss(TaskConformance):
    task = RightLoss


LAWS = [name for name in dir(TaskConformance) if name.startswith("test_")]


def failure_of(task: type[Task], law: str, setting: str) -> str | None:
    """What a law says of a task at a setting, None when it holds."""
    suite = type("Suite", (TaskConformance,), {"task": task})()
    method = getattr(suite, law)
    try:
        method(**({"made": task.make(setting)} if "made" in inspect.signature(method).parameters else {}))
    except (AssertionError, ArchsearchError, pytest.fail.Exception) as error:
        return str(error)
    return None


@pytest.mark.parametrize("bug", ZOO)
def test_a_planted_bug_fails_by_its_law(bug: str) -> None:
    task, part, said = ZOO[bug]
    (law,) = [law for law in LAWS if part in law]
    setting = "long" if bug == "loses-options" else "easy"
    found = failure_of(task, law, setting)
    assert found is not None, f"{law} holds"
    assert re.search(said, found), found
    assert "\n" not in found


def test_every_law_can_fail() -> None:
    assert {law for law in LAWS for _, part, _ in ZOO.values() if part in law} == set(LAWS)


def test_pytest_runs_the_laws_on_every_setting_and_case(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from archsearch.testing import TaskConformance
        from planted_tasks import BoastsOfChance
        class TestPlanted(TaskConformance):
            task = BoastsOfChance
            cases = {"short": {"seq_len": 20}}
        """
    )
    run = pytester.inline_run("-p", "no:cacheprovider")
    passed, _, failed = run.listoutcomes()
    assert {report.nodeid.split("::")[-1] for report in failed} == {
        f"test_{law}[{case}]" for law in ("a_guesser_has_chance",) for case in ("easy", "long", "short")
    }
    assert len(passed) == 3 * (len(LAWS) - 3) + 2


def test_the_suite_of_tasks_loads_no_torch(pytester: pytest.Pytester) -> None:
    run = pytester.runpython_c("import sys, archsearch.testing as t; t.TaskConformance; print('torch' in sys.modules)")
    run.stdout.fnmatch_lines(["False"])
