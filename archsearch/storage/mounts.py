"""Mounts: on what kind of file system a file lies, as Linux tells it."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

MOUNTS = Path("/proc/self/mounts")
_NETWORK = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "coda", "ncpfs"),
        *("ceph", "lustre", "beegfs", "gpfs", "panfs", "glusterfs", "pvfs2", "orangefs", "gfs2", "ocfs2", "wekafs"),
    }
)
_NETWORK_IN_USER_SPACE = frozenset(
    {
        *("sshfs", "glusterfs", "ceph", "cephfs-fuse", "moosefs", "juicefs", "lizardfs", "smbnetfs", "davfs", "davfs2"),
        *("s3fs", "rclone", "gcsfuse", "goofys", "mount-s3", "blobfuse", "blobfuse2"),
    }
)
"""Kinds that several machines share. SQLite's locks and its log are of one machine's memory: two that write there
damage the file, and neither is told. What a virtual machine has of its host (9p, virtiofs) is not among them."""
_ESCAPED = re.compile(r"\\([0-7]{3})")


def network_kind(path: Path, mounts: str | None = None) -> str | None:
    """The kind of network file system that `path` lies on; None for a local one, and where that is not told.

    ``mounts`` is the text of /proc/self/mounts, read there by default.
    """
    if mounts is None:
        try:
            mounts = MOUNTS.read_text(errors="surrogateescape")
        except OSError:
            return None
    kind = _kind(PurePosixPath(path.resolve()), mounts)
    is_network = kind in _NETWORK or (kind.startswith("fuse.") and kind[5:] in _NETWORK_IN_USER_SPACE)
    return kind if is_network else None


def _kind(path: PurePosixPath, mounts: str) -> str:
    """The kind of the deepest mount above `path`; of two at one place the later one, which covers the other."""
    found, depth = "", -1
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        place = PurePosixPath(_ESCAPED.sub(lambda match: chr(int(match[1], 8)), fields[1]))
        if path.is_relative_to(place) and len(place.parts) >= depth:
            found, depth = fields[2], len(place.parts)
    return found
