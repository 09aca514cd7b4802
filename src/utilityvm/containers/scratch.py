"""Disks that containers write to: ext4 in files without a name (`store.nameless`).

A file system of each size is made once and kept; a new disk is a copy of it that shares its blocks, or has holes where it has.
"""

import asyncio
import errno
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from utilityvm.kit.aio import finish
from utilityvm.kit.errors import HostError, InvalidOptions, Problem
from utilityvm.kit.files import FileLock, copy_sparse, make_folder
from utilityvm.kit.proc import run_tool
from utilityvm.store.nameless import DiskFile

SCRATCH_SIZE: Final = 10 << 30
"""Bytes of a disk unless its size is given. It takes of the host what is written to it."""

MIN_SIZE: Final = 16 << 20
MAX_SIZE: Final = 16 << 40
"""Bytes of the smallest and the largest disk: what ext4 with blocks of 4096 bytes has a use for."""

SCRATCH_FORMAT: Final = ("-O", "^has_journal,sparse_super2,^resize_inode")
"""No journal: nobody looks at the disk after its container."""

VOLUME_FORMAT: Final = ()
"""What is kept has a journal: its VM may be killed at any time."""

KEPT: Final = 16
"""File systems that are kept to be copied; the oldest go."""

_MKFS_SECONDS: Final = 120.0


def check_size(size: object, name: str) -> int:
    """Return the size of a disk, rounded up to 4096 bytes.

    Raises:
        InvalidOptions: it is no number of bytes that a disk can have; `name` is the option's.
    """
    if isinstance(size, bool) or not isinstance(size, int) or not MIN_SIZE <= size <= MAX_SIZE:
        message = f"{name} is {size!r:.100}: a disk has from {MIN_SIZE >> 20} MiB to {MAX_SIZE >> 40} TiB, in bytes"
        raise InvalidOptions(message, problems=[Problem(f"$.{name}", "range", message)])
    return -(-size // 4096) * 4096


async def fill(file: DiskFile, kept: Path, size: int, extra: Sequence[str]) -> None:
    """Make of an empty file a disk of `size` bytes with an empty ext4 on it; what is copied lies in the folder `kept`.

    `extra` are words for mkfs.ext4. A cancelled call is carried out.

    Raises:
        NotFound: there is no mkfs.ext4.
        HostError: the disk is full, or mkfs fails.
    """
    await finish(asyncio.to_thread(_fill, file.fd, kept, size, tuple(extra)), within=None)


def _fill(fd: int, kept: Path, size: int, extra: tuple[str, ...]) -> None:
    folder = kept
    try:
        source = _formatted(kept, size, extra)
        try:
            folder = Path(os.readlink(f"/proc/self/fd/{fd}")).parent  # noqa: PTH115 (a path that may have no name any more)
            copy_sparse(source, fd)
        finally:
            os.close(source)
    except OSError as error:
        hint = f"make room on the file system of {folder}" if error.errno in {errno.ENOSPC, errno.EDQUOT} else ""
        raise HostError(f"{folder}: a disk of {size} bytes cannot be made here: {error.strerror}", hint=hint) from error


def _formatted(kept: Path, size: int, extra: tuple[str, ...]) -> int:
    """Return a descriptor of a disk of that size with an empty file system, which is made if it is not there."""
    path = kept / f"ext4-{size}{'-plain' if extra else ''}.img"
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        pass
    make_folder(kept)
    with FileLock(kept / "lock"):  # not the folder: whoever may look into it could hold that
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=kept, prefix=".new-") as folder:
                _format(Path(folder), size, extra).replace(path)
            for old in sorted(kept.glob("ext4-*.img"), key=lambda file: file.stat().st_mtime_ns)[:-KEPT]:
                old.unlink()
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _format(folder: Path, size: int, extra: tuple[str, ...]) -> Path:
    raw, copy = folder / "raw", folder / "copy"
    with raw.open("wb") as file:
        file.truncate(size)
    sbin = {"PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}  # which an ordinary user may not have there
    words: list[str | Path] = ["mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-E", "lazy_itable_init=0,nodiscard", *extra, raw]
    run_tool(words, within=_MKFS_SECONDS, package="e2fsprogs", env=sbin)
    run_tool(["debugfs", "-w", "-R", "rmdir lost+found", raw], within=_MKFS_SECONDS, package="e2fsprogs", env=sbin)
    with raw.open("rb") as source, copy.open("wb") as target:  # mkfs reserves blocks that it does not write; a copy has holes there
        copy_sparse(source.fileno(), target.fileno())
    copy.chmod(0o600)
    return copy
