"""Files that hold a secret: read only where nobody else can read them, and made for a process that is started."""

from __future__ import annotations

import os
import stat
import tempfile
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


def handed_on(secret: str) -> Path:
    """A file of this user alone that holds `secret`, for a program that takes this process's place (`os.execve`) and
    for those that it starts.

    On Linux it lies in memory and ends with the process; elsewhere it is one in the folder for temporary files.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("archsearch-secret", 0)
        path = Path(f"/proc/{os.getpid()}/fd/{descriptor}")
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, secret.encode())
        return path
    descriptor, named = tempfile.mkstemp(prefix="archsearch-secret-")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(secret)
    return Path(named)
