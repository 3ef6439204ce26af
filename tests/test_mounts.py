"""Disks that several machines share, but whose locks hold on one machine only."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from cliqa_bench.errors import UserError
from cliqa_bench.system import locks, mounts
from cliqa_bench.system.locks import claimed, locked
from cliqa_bench.system.mounts import has_local_locks

NFS = "rw,vers=3,rsize=1048576,wsize=1048576,hard,proto=tcp,mountproto=udp,addr=10.0.0.1"


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns a function that says how the disk of `tmp_path` is mounted, beside others."""

    def mount(kind: str, own: str, shared: str) -> None:
        number = tmp_path.stat().st_dev
        device = f"{os.major(number)}:{os.minor(number)}"
        lines = [
            "22 27 0:5 / /dev rw,nosuid shared:2 - fuse.sshfs udev rw,nolock",
            f"90 27 {device} / /a\\040disk {own} shared:9 - {kind} host:/x {shared}",
            f"90 27 {device} short",
        ]
        table = tmp_path / "mountinfo"
        table.write_text("\n".join(lines) + "\n")
        monkeypatch.setattr(mounts, "MOUNTS", table)
        locks._has_flock.cache_clear()

    yield mount
    locks._has_flock.cache_clear()


@pytest.mark.parametrize(
    ("kind", "own", "shared", "local"),
    [
        ("ext4", "rw,relatime", "rw,errors=remount-ro", False),
        ("nfs4", "rw,relatime", "rw,vers=4.2,hard,clientaddr=10.0.0.2,local_lock=none,addr=10.0.0.1", False),
        ("nfs", "rw,relatime", f"{NFS},local_lock=none", False),
        ("nfs", "rw,relatime", f"{NFS},nolock,local_lock=all", True),
        ("nfs", "rw,relatime", f"{NFS},local_lock=flock", True),
        ("nfs", "rw,relatime", f"{NFS},local_lock=posix", False),
        ("lustre", "rw,flock", "rw,flock,user_xattr", False),
        ("lustre", "rw", "rw,localflock,user_xattr", True),
        ("ext4", "rw,nolock", "rw,localflock", False),
        ("cifs", "rw,relatime", "rw,vers=3.1.1,cache=strict,nobrl", True),
        ("fuse.sshfs", "rw,nosuid,nodev,relatime", "rw,user_id=0,group_id=0", True),
        ("beegfs", "rw,relatime", "rw,cfgFile=/etc/beegfs/beegfs-client.conf", True),
        ("gfs2", "rw,relatime", "rw,localflocks", True),
        ("fuse.glusterfs", "rw,relatime", "rw,user_id=0,group_id=0,allow_other", False),
    ],
)
def test_locks_of_one_machine_are_known_by_type_and_options(mounted, tmp_path, kind, own, shared, local):
    mounted(kind, own, shared)
    assert has_local_locks(tmp_path) == local


def test_a_lease_is_taken_there_and_said_why(mounted, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(locks, "_said", [])
    path = tmp_path / "x.lock"
    mounted("fuse.sshfs", "rw,nosuid,nodev,relatime", "rw,user_id=0,group_id=0")
    with claimed(path) as ours:
        assert ours
        assert len(path.read_text().splitlines()) == 3, "process, mark with its beats, since when"
    assert "locks (flock) on this disk are not seen by other machines; runs share" in capsys.readouterr().err


def test_leases_can_be_asked_for(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(locks, "_said", [])
    locks._has_flock.cache_clear()
    path = tmp_path / "x.lock"
    with claimed(path):
        assert len(path.read_text().splitlines()) == 2
    monkeypatch.setenv("CLIQA_LEASES", "1")
    locks._has_flock.cache_clear()
    with claimed(path), claimed(path) as second:
        assert not second and len(path.read_text().splitlines()) == 3
    assert f"{tmp_path}: CLIQA_LEASES=1; runs share the work through lease files" in capsys.readouterr().err
    locks._has_flock.cache_clear()
    monkeypatch.setenv("CLIQA_LEASES", "yes")
    with pytest.raises(UserError, match="CLIQA_LEASES must be 0 or 1, not 'yes'"), claimed(path):
        pass
    locks._has_flock.cache_clear()


def test_who_uses_flock_respects_a_lease_that_is_renewed_and_sees_one_that_is_over(tmp_path, monkeypatch):
    path = tmp_path / "x.lock"
    lease = "process 7 on elsewhere\nother-boot.1 7 99 abcdef 000000000001\n2026-01-01T00:00:00+00:00\n"
    path.write_text(lease)
    locks._has_flock.cache_clear()
    with claimed(path) as ours:
        assert not ours and locks.is_held(path) and path.read_text() == lease
    monkeypatch.setattr(locks, "LEASE", 0.0)
    assert not locks.is_held(path)
    with claimed(path) as ours:
        assert ours
    assert not path.exists()
    locks._watched.clear()


def test_who_waits_for_a_lease_with_flock_gets_the_lock_once_it_is_over(tmp_path, monkeypatch, capsys):
    path = tmp_path / "x.lock"
    path.write_text("process 7 on elsewhere\nother-boot.1 7 99 abcdef 000000000001\n\n")
    monkeypatch.setattr(locks, "LEASE", 0.2)
    locks._has_flock.cache_clear()
    start = time.monotonic()
    with locked(path, "that works") as lasting:
        assert lasting and time.monotonic() - start >= 0.2
    assert "waiting for process 7 on elsewhere that works" in capsys.readouterr().err
    locks._watched.clear()


def test_who_uses_leases_does_not_know_whether_the_owner_of_a_flock_lives(tmp_path, monkeypatch):
    path = tmp_path / "x.lock"
    with claimed(path):
        monkeypatch.setenv("CLIQA_LEASES", "1")
        monkeypatch.setattr(locks, "LEASE", 0.0)
        locks._has_flock.cache_clear()
        assert locks.is_unknown(path)
        locks.watch_leases([path])  # nothing to wait for
        path.write_text("process 7 on elsewhere\nother-boot.1 7 99 abcdef 000000000001\n\n")
        assert not locks.is_unknown(path)
    locks._has_flock.cache_clear()
    locks._watched.clear()


def test_where_mounts_are_not_known_flock_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "none")
    assert not has_local_locks(tmp_path)
