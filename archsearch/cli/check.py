"""``archsearch check``: whether a mixer, task or evaluator keeps what the contract asks, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from archsearch.cli.outlet import QuietOutlet
from archsearch.cli.output import JsonFlag, console, print_json, table
from archsearch.printable import printable

if TYPE_CHECKING:
    from archsearch.registry import Registry
    from archsearch.testing.findings import Finding


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("check")(check)


def check(
    name: Annotated[str, typer.Argument(help='Mixer, preset, layer ("sliding(window=8)"), task or evaluator.')],
    impl: Annotated[
        list[str] | None,
        typer.Option("--impl", help="Implementation to try: auto, reference, chunkwise or triton; may be repeated."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Tries registration, costs, every law, a short training, and a build in another process.

    A mixer is tried with its defaults, its presets and the cases that its plugin states. Exits with 1 where something
    does not hold; laws that the plugin declares broken are shown with its reason.
    """
    from archsearch.registry import load_registry
    from archsearch.testing.findings import holds

    registry = load_registry()
    found = list(_watched(_examined(name, registry, impl or ["auto"])))
    if json:
        print_json({"name": name, "holds": holds(found), "findings": [finding.to_json() for finding in found]})
    else:
        _print(name, found)
    if not holds(found):
        raise typer.Exit(1)


def _examined(name: str, registry: Registry, impls: list[str]) -> Iterator[Finding]:
    """The findings; torch is imported once there is something to build."""
    from archsearch.testing.findings import unregistered

    _check_impls(impls)
    if name in {evaluator.name for evaluator in registry.evaluators()}:
        from archsearch.testing.examine_evaluator import examine_evaluator

        return examine_evaluator(name, registry)
    is_task = name in {task.name for task in registry.tasks()}
    wrong = None if is_task else unregistered(name, registry)
    if wrong is not None:
        return iter([wrong])
    from archsearch.testing.examine import examine_mixer, examine_task

    return examine_task(name, registry) if is_task else examine_mixer(name, registry, impls)


def _check_impls(impls: list[str]) -> None:
    from archsearch.errors import OptionsError, listing, nearest

    if set(impls) == {"auto"}:
        return
    from archsearch.ops.impl import IMPLS

    for impl in impls:
        if impl not in ("auto", *IMPLS):
            raise OptionsError(f'--impl "{impl}"{nearest(impl, IMPLS)}: one of {listing(("auto", *IMPLS))}')


def _watched(findings: Iterable[Finding]) -> Iterator[Finding]:
    """On a terminal, one line on stderr says what was looked at last."""
    outlet = QuietOutlet(stderr=True)
    shown = outlet.isatty()
    for finding in findings:
        if shown:
            outlet.write(f"\r\033[K{printable(f'{finding.group}: {finding.name} {finding.case}')[:100]}")
        yield finding
    if shown:
        outlet.write("\r\033[K")


def _print(name: str, findings: list[Finding]) -> None:
    out = console()
    for finding in findings:
        if finding.status == "ok" and finding.group != "laws":
            out.print(printable(_line(finding)), soft_wrap=True)
    counts: Counter[tuple[str, str]] = Counter(
        (finding.case, finding.status) for finding in findings if finding.group == "laws"
    )
    cases = list(dict.fromkeys(case for case, _ in counts))
    statuses = ("ok", "declared broken", "skipped", "failed")
    if cases:
        rows = [[case or "-", *(counts[case, status] or "" for status in statuses)] for case in cases]
        out.print(table(["laws", *(f">{status}" for status in statuses)], rows, title=""))
    for status in statuses[1:]:
        for text in dict.fromkeys(_line(finding) for finding in findings if finding.status == status):
            out.print(printable(text), soft_wrap=True)
    failed = sum(finding.status == "failed" for finding in findings)
    out.print(printable(f"{name}: " + (f"{failed} of {len(findings)} do not hold" if failed else "all holds")))


def _line(finding: Finding) -> str:
    mark = {"ok": "ok", "failed": "FAILED", "declared broken": "declared", "skipped": "skipped"}[finding.status]
    where = f" ({finding.case})" if finding.case else ""
    return f"{mark} {finding.name.replace('_', ' ')}{where}: {finding.text}"
