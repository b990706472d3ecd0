"""Mounts: a SQLite file on a network file system is refused where it would be written to."""

from __future__ import annotations

from pathlib import Path

import pytest

from archsearch.errors import StorageError
from archsearch.storage import Store, mounts, upgrade
from archsearch.storage.mounts import network_kind

TEXT = """\
/dev/sda1 / ext4 rw,relatime 0 0
proc /proc proc rw 0 0
server:/home /home nfs4 rw,vers=4.2 0 0
/dev/sdb1 /home/ada/scratch xfs rw 0 0
server:/old /data nfs rw 0 0
/dev/sdc1 /data btrfs rw 0 0
//server/share /mnt/my\\040share cifs rw 0 0
ada@server:/ /mnt/ssh fuse.sshfs rw 0 0
gvfsd-fuse /run/user/1000/gvfs fuse.gvfsd-fuse rw 0 0
10.0.0.1@tcp:/scratch /lustre lustre rw 0 0
beegfs_nodev /beegfs beegfs rw 0 0
drvfs /mnt/c 9p rw 0 0
odd
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/a.db", None),
        ("/home/ada/a.db", "nfs4"),
        ("/homes/ada/a.db", None),
        ("/home/ada/scratch/a.db", None),
        ("/data/a.db", None),
        ("/mnt/my share/a.db", "cifs"),
        ("/mnt/ssh/deep/er/a.db", "fuse.sshfs"),
        ("/run/user/1000/gvfs/a.db", None),
        ("/lustre/a.db", "lustre"),
        ("/beegfs/a.db", "beegfs"),
        ("/mnt/c/a.db", None),
    ],
)
def test_the_deepest_mount_says_what_a_file_lies_on(path: str, kind: str | None) -> None:
    assert network_kind(Path(path), TEXT) == kind
    assert network_kind(Path(path), "") is None


def test_a_file_that_would_be_written_to_is_refused_and_one_that_is_read_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path}/team/searches.db"
    (tmp_path / "team").mkdir()
    upgrade(url)
    told = tmp_path / "mounts"
    told.write_text(f"server:/team {tmp_path}/team nfs4 rw 0 0\n")
    monkeypatch.setattr(mounts, "MOUNTS", told)
    for act in (Store.open, upgrade):
        with pytest.raises(StorageError, match=r"network file system \(nfs4\), .* or a PostgreSQL database"):
            act(url)
    with Store.open(url, read_only=True) as store:
        assert store.searches() == []


def test_a_link_to_a_network_file_system_is_followed(tmp_path: Path) -> None:
    (tmp_path / "team").mkdir()
    (tmp_path / "here").symlink_to(tmp_path / "team")
    assert network_kind(tmp_path / "here" / "a.db", f"x {tmp_path}/team nfs rw 0 0") == "nfs"


def test_where_nothing_tells_of_mounts_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "none")
    assert network_kind(tmp_path / "a.db") is None
