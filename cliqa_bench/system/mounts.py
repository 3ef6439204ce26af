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
        folder: The folder.

    Returns:
        False also where it is not known: on a system other than Linux, a disk that is not listed above, or
        a folder that is not there.
    """
    try:
        number = folder.stat().st_dev
        device = f"{os.major(number)}:{os.minor(number)}"
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(_is_local(line) for line in lines if line.split()[2:3] == [device])


def _is_local(line: str) -> bool:
    """Reads a line: numbers, device, root, mount point, options, ..., "-", type, source, more options."""
    before, _, after = (part.split() for part in line.partition(" - "))
    if len(before) < 6 or len(after) < 3:
        return False
    options = {*before[5].split(","), *after[2].split(",")}
    return after[0] in _BY_TYPE or bool(options & _BY_OPTION.get(after[0], set()))
