"""Findings: what `archsearch check` says, one sentence each; and of a name without a mixer, why: no torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal

from archsearch.errors import ArchsearchError, UnknownNameError
from archsearch.registry import PluginReport, Registry

Group = Literal["registration", "costs", "laws", "training", "worker"]
Status = Literal["ok", "failed", "declared broken", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at. ``case`` is the set of options by name, and the implementation where several were
    tried; ``text`` is one line, of what was found or of what is wrong."""

    group: Group
    name: str
    status: Status
    case: str = ""
    text: str = ""

    def to_json(self) -> dict[str, str]:
        """Plain data."""
        return asdict(self)


def holds(findings: Iterable[Finding]) -> bool:
    """Whether nothing failed."""
    return all(finding.status != "failed" for finding in findings)


def unregistered(name: str, registry: Registry) -> Finding | None:
    """What keeps the registry from having the mixer, where a plugin of that name or one that claims it is there; None
    for one that it has. Raises `UnknownNameError` for a name that nothing here claims."""
    try:
        registry.resolve(name.partition("(")[0].strip())
    except UnknownNameError:
        failed = [report for report in registry.reports() if report.status != "ok" and _named(name, report)]
        if not failed:
            raise
        return _of_report(name, failed[0])
    except ArchsearchError as error:
        return Finding(group="registration", name=name, status="failed", text=str(error))
    return None


def _named(name: str, report: PluginReport) -> bool:
    return name in (report.name, report.key, report.distribution) or f'"{name}"' in (report.error or "")


def _of_report(name: str, report: PluginReport) -> Finding:
    text = f"the plugin {report.key} {report.version} {report.status}: {report.error}"
    return Finding(group="registration", name=name, status="failed", text=text)
