"""``archsearch plugins``: what is installed, what it brings, and what failed to load."""

from __future__ import annotations

import typer

from archsearch.cli.output import JsonFlag, console, print_json, table


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("plugins")(plugins)


def plugins(json: JsonFlag = False) -> None:
    """Every plugin with its mixers, presets, tasks and status; one that failed shows its error."""
    from dataclasses import asdict

    from archsearch.registry import load_registry

    registry = load_registry()
    reports = registry.reports()
    if json:
        print_json({"plugins": [asdict(report) for report in reports]})
        return
    out = console()
    rows = [
        [
            report.name, f"{report.distribution} {report.version}", ", ".join(report.mixers), ", ".join(report.presets),
            ", ".join(report.tasks), report.status,
        ]
        for report in reports
    ]  # fmt: skip
    out.print(table(["plugin", "distribution", "mixers", "presets", "tasks", "status"], rows))
    for report in reports:
        if report.error:
            out.print(f"{report.name} ({report.distribution}): {report.status}: {report.error}")
