"""Knows disks that several machines share, but whose locks (`flock`) hold on one machine only.

There `flock` succeeds on every machine, and says nothing of the others: a disk over SSH (sshfs, tried with
3.7.3), other programs that show remote files as a folder, BeeGFS (by default: `tuneUseGlobalFileLocks`
in its client's configuration), NFS mounted with `nolock` or `local_lock` (nfs(5)), Lustre with `localflock`
(mount.lustre(8)), GFS2 and OCFS2 with `localflocks`, CIFS with `nobrl` (mount.cifs(8)).
"""

from __future__ import annotations

import os
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
"""What Linux says of this process's mounts; proc(5)."""

_BY_TYPE = {"beegfs", "fuse.sshfs", "fuse.rclone", "fuse.s3fs", "fuse.gcsfuse"}
_BY_OPTION = {
    "nfs": {"nolock", "local_lock=all", "local_lock=flock"},
    "nfs4": {"nolock", "local_lock=all", "local_lock=flock"},
    "lustre": {"localflock"},
    "gfs2": {"localflocks"},
    "ocfs2": {"localflocks"},
    "cifs": {"nobrl"},
    "smb3": {"nobrl"},
}


def has_local_locks(folder: Path) -> bool:
    """Tells whether machines that share a folder's disk do not see each other's `flock`s.

    Args:
        folder: A folder that exists.

    Returns:
        False also where it is not known: on a system other than Linux, or a disk that is not listed above.
    """
    number = folder.stat().st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(_is_local(line) for line in lines if line.split()[2:3] == [device])


def _is_local(line: str) -> bool:
    before, _, after = line.partition(" - ")
    kind, *_, more = after.split() or [""]
    options = {*before.split()[5].split(","), *more.split(",")}
    return kind in _BY_TYPE or bool(options & _BY_OPTION.get(kind, set()))
