"""Files that hold a secret: read only where nobody else can read them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_ROOT = 0


def exposed(path: Path) -> str:
    """Why a secret must not be kept in this file, with the remedy; "" where only its owner reads it, and where there
    is none.

    A file of root may be read by its group too, as secrets that are mounted are, and as libpq has it.
    """
    try:
        found = os.stat(path)
    except OSError:
        return ""
    if not stat.S_ISREG(found.st_mode):
        return ""
    others = stat.S_IMODE(found.st_mode) & (0o037 if found.st_uid == _ROOT else 0o077)
    if not others:
        return ""
    return f"{path} can be read by others (mode {stat.S_IMODE(found.st_mode):04o}): chmod 600 {path}"
