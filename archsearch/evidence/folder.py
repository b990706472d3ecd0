"""The folder of this user in which what was found out on this machine is kept between processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "ARCHSEARCH_CACHE"


def cache_folder() -> Path:
    """``$ARCHSEARCH_CACHE``, else ``archsearch`` in the platform's folder for caches: ``$XDG_CACHE_HOME``, by default
    ``~/.cache`` (macOS: ``~/Library/Caches``)."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named).expanduser()
    usual = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or usual) / "archsearch"
