"""What the installed plugins registered, loaded once."""

from __future__ import annotations

from functools import cache

from archsearch.errors import PluginError
from archsearch.registry import Registry, load_registry


@cache
def registry() -> Registry:
    """Every installed plugin; raises `PluginError` for one that cannot be loaded, as its pages would be missing."""
    loaded = load_registry()
    for report in loaded.reports():
        if report.status != "ok":
            raise PluginError(
                f'the plugin "{report.name}" is {report.status}: {report.error}: mend it, then build again'
            )
    return loaded
