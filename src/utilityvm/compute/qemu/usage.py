"""What this host spends on a QEMU, as its kernel tells: processor time, memory, age. Read from /proc; no record is kept anywhere."""

import os
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from utilityvm.compute.qemu.cgroup import OURS
from utilityvm.compute.qemu.jail import FIRST_UID
from utilityvm.compute.qemu.lower import PORT_NAME
from utilityvm.kit.errors import HostError, NotFound
from utilityvm.schema.statistics import StorageStats

PREALLOCATED: Final = "prealloc=on"
"""A word of the command line of a QEMU whose guest's memory its owner has locked, and so has mapped as well."""

PAGE: Final = 4096
"""Bytes of a page, in the schema's words."""

_TICK: Final = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_SECOND: Final = 10**9


class Usage(msgspec.Struct, frozen=True):
    """Of one QEMU: nanoseconds of processor time and since its start; bytes of the host's memory: `resident`, of what it shares with
    others its part, and `unique`, what is nobody else's.
    """

    processor_ns: int
    uptime_ns: int
    resident: int
    unique: int


class Found(msgspec.Struct, frozen=True):
    """A running VM of this user: the process that is its QEMU, what it was started with, and its control `group` (``""``: none)."""

    id: str
    pid: int
    processors: int
    memory: int
    locked: bool
    group: str


def usage_of(pid: int, *, locked: int = 0, proc: Path = Path("/proc")) -> Usage:
    """Return what a QEMU uses. `locked` bytes of it are its guest's memory, which its owner has mapped too and which is not the owner's.

    Raises:
        NotFound: there is no such process, or it may not be looked at.
    """
    folder = proc / str(pid)
    try:
        fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        memory = (folder / "smaps_rollup").read_text()
        age = float((proc / "uptime").read_text().split()[0]) - int(fields[19]) / _TICK
    except (OSError, IndexError) as error:
        raise NotFound(f"process {pid}: is gone, or is not for us to look at") from error
    sizes = {name: int(kib) << 10 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", memory, re.MULTILINE)}
    unique = sizes.get("Private_Clean", 0) + sizes.get("Private_Dirty", 0) + locked
    resident = sizes.get("Pss", 0) + locked // 2
    return Usage((int(fields[11]) + int(fields[12])) * _SECOND // _TICK, max(round(age * _SECOND), 0), resident, unique)


class _Counts(msgspec.Struct, frozen=True):
    rd_operations: int
    rd_bytes: int
    wr_operations: int
    wr_bytes: int


class _Device(msgspec.Struct, frozen=True):
    stats: _Counts
    qdev: str = ""


def storage_of(answer: object) -> StorageStats:
    """Return what all disks together have done, from QEMU's answer to ``query-blockstats``.

    Raises:
        HostError: it is no such answer.
    """
    try:
        disks = [device.stats for device in msgspec.convert(answer, list[_Device]) if device.qdev]
    except msgspec.ValidationError as error:
        raise HostError(f"QEMU's answer to query-blockstats: {error}") from error
    return StorageStats(
        read_count_normalized=sum(disk.rd_operations for disk in disks),
        read_size_bytes=sum(disk.rd_bytes for disk in disks),
        write_count_normalized=sum(disk.wr_operations for disk in disks),
        write_size_bytes=sum(disk.wr_bytes for disk in disks),
    )


def family(pid: int, proc: Path = Path("/proc")) -> set[int]:
    """Return a process and all below it; none when it has ended."""
    try:
        children = (proc / f"{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return set()
    return {pid}.union(*(family(int(child), proc) for child in children))


def qemu_below(pid: int, proc: Path = Path("/proc")) -> int:
    """Return the process that is QEMU, of what was spawned as `pid`.

    Raises:
        NotFound: it is not QEMU yet, or no more.
    """
    for below in family(pid, proc):
        try:
            words = (proc / str(below) / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has just ended
            continue
        if _is_ours(words):
            return below
    raise NotFound(f"process {pid}: no QEMU runs below it")


def find(proc: Path = Path("/proc")) -> list[Found]:
    """Return the running VMs of this user, by id. Those of root run as users of their own, and are root's."""
    return sorted(_found(proc), key=lambda found: (found.id, found.pid))


def _found(proc: Path) -> Iterator[Found]:
    us = os.geteuid()
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            owner = folder.stat().st_uid
            groups = (folder / "cgroup").read_text()
        except OSError:  # it has just ended
            continue
        if _is_ours(words) and (owner == us or (us == 0 and owner >= FIRST_UID)):
            yield _described(int(folder.name), words, groups)


def _is_ours(words: Sequence[str]) -> bool:
    """Whether this is the command line of a QEMU of ours itself; what it is put into has the same words behind others."""
    return words[1:2] == ["-name"] and any(word.endswith(f"name={PORT_NAME}") for word in words)


def _described(pid: int, words: Sequence[str], groups: str) -> Found:
    said = dict(pairwise(words))
    group = next((path for path in re.findall(rf":[^:]*:(/.*{OURS}/.+)$", groups, re.MULTILINE)), "")
    mib = re.match(r"\d+", said.get("-m", ""))
    locked = any(PREALLOCATED in word for word in words if word.startswith("memory-backend-file"))
    return Found(words[2], pid, int(said.get("-smp", "1")), int(mib[0]) << 20 if mib else 0, locked, group)
