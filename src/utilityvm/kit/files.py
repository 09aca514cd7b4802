"""Files that are whole or not there: replace a file or a folder, a file's digest, and a lock that the kernel drops with its holder."""

import ctypes
import errno
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self, final

from utilityvm.kit.errors import HostError

if sys.platform != "win32":  # where files are only read
    import fcntl

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_FICLONE = 0x4004_9409
_PIECE = 4 << 20
_BLOCK = 4096
_ZEROS = memoryview(bytes(_BLOCK))


def replace(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Make `path` hold `data`: after a crash it has its old content or the new one, never a part. Its folder must exist."""
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            settle(file, Path(name), path, mode=mode)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def settle(file: IO[bytes], written: Path, place: Path, *, mode: int = 0o644) -> None:
    """Make the open temporary file `written` durable, and give it its place on the same file system."""
    file.flush()
    os.fchmod(file.fileno(), mode)
    os.fsync(file.fileno())
    written.replace(place)
    sync_folder(place.parent)


def make_folder(folder: Path, *, private: bool = False) -> None:
    """Make a folder and those above it that are missing: nobody else writes in them, whatever the umask, nor looks into a `private` one.

    Raises:
        OSError: it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700 if private else 0o755)
    except FileNotFoundError:
        make_folder(folder.parent)
        make_folder(folder, private=private)
    except OSError:
        if not folder.is_dir():
            raise


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identity(path: Path) -> str:
    """Name a file so that another content has another name, without reading it."""
    try:
        return identity_of(path, path.stat())
    except OSError:
        return f"{path} missing"


def identity_of(path: Path | str, found: os.stat_result) -> str:
    """Name a file as `identity` does, of which the host has told this."""
    return f"{path} {found.st_mtime_ns} {found.st_size}"


def copy_sparse(source: int, target: int, *, dig: bool = False) -> None:
    """Copy an open file to an empty one: by sharing its blocks where the file system can, else what it has between its holes. `dig`
    makes holes of blocks of zeros, and shares none.

    Raises:
        OSError: it cannot be read or written.
    """
    if not dig and share_blocks(source, target):
        return
    os.ftruncate(target, os.fstat(source).st_size)
    for offset, length in extents(source):
        for at, piece in pieces(source, offset, length):
            for first, last in filled(piece) if dig else [(0, len(piece))]:
                write_all(target, piece[first:last], at + first)


def share_blocks(source: int, target: int) -> bool:
    """Let an empty open file have another's content by sharing its blocks; False, and it is empty, where the file system cannot."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def extents(fd: int, at: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """Yield where an open file has data between its holes, from `at` to `end` (None: its own): offset and length, upwards.

    Raises:
        OSError: it cannot be looked at.
    """
    size = os.fstat(fd).st_size
    last = size if end is None else min(end, size)
    while at < last and (begin := _next(fd, at, os.SEEK_DATA)) is not None and begin < last:
        at = min(_next(fd, begin, os.SEEK_HOLE) or size, last)
        yield begin, at - begin


def pieces(fd: int, offset: int, length: int) -> Iterator[tuple[int, memoryview]]:
    """Yield a part of an open file, few bytes at a time, each with its offset; less than `length` when the file ends before.

    Raises:
        OSError: it cannot be read.
    """
    end = offset + length
    while offset < end and (piece := os.pread(fd, min(_PIECE, end - offset), offset)):
        yield offset, memoryview(piece)
        offset += len(piece)


def filled(piece: memoryview) -> Iterator[tuple[int, int]]:
    """Yield where the blocks of a piece begin and end that are not all zeros, neighbours together."""
    begin = -1
    for at in range(0, len(piece), _BLOCK):
        empty = piece[at : at + _BLOCK] == _ZEROS[: len(piece) - at]
        if empty and begin >= 0:
            yield begin, at
            begin = -1
        elif not empty and begin < 0:
            begin = at
    if begin >= 0:
        yield begin, len(piece)


def write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` to an open file, from `offset` on.

    Raises:
        OSError: it cannot be written.
    """
    left = memoryview(data)
    while left:
        written = os.pwrite(fd, left, offset)
        left, offset = left[written:], offset + written


def _next(fd: int, at: int, what: int) -> int | None:
    try:
        return os.lseek(fd, at, what)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def swap_folder(new: Path, place: Path) -> None:
    """Put the folder `new`, already synced, at `place` in one step, then remove what was there. Both must be on one file system.

    Raises:
        HostError: the file system cannot exchange two folders.
    """
    try:
        new.replace(place)  # where there is nothing, or an empty folder
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise HostError(f"{place}: cannot be replaced: {error.strerror}") from error
        _exchange(new, place)
        sync_folder(place.parent)
        shutil.rmtree(new)
    else:
        sync_folder(place.parent)


def _exchange(first: Path, second: Path) -> None:
    # Only renameat2 swaps two folders without a moment at which one of the names is missing; Python has no binding for it.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), ctypes.c_uint(_RENAME_EXCHANGE)) != 0:
        reason = os.strerror(ctypes.get_errno())
        raise HostError(f"{second}: cannot be exchanged with {first.name}: {reason}", hint=f"remove {second} and try again")


@final
class FileLock:
    """A lock on a file or a folder, exclusive or `shared`. The kernel drops it when its holder ends, however it ends.

    A file that is missing is made, unless `make` is False: then `FileNotFoundError` is raised. As a context manager it waits for the
    lock, unless `acquire` has it already. `acquire(wait=False)` tries once.
    """

    def __init__(self, path: Path, *, shared: bool = False, make: bool = True) -> None:
        self._path, self.shared, self._make = path, shared, make
        self._fd = -1

    def acquire(self, *, wait: bool = True) -> bool:
        """Take the lock; False when `wait` is False and another holds it."""
        if self._fd >= 0:
            raise RuntimeError(f"{self._path}: this lock is already held")
        fd = self._open()
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if self.shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(fd)
            return False
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return True

    @contextmanager
    def unheld(self) -> Iterator[int]:
        """Give the open descriptor of the lock, for a program to take the lock on it; when all goes well it is held after that."""
        fd = self._open()
        try:
            yield fd
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT if self._make and not self._path.is_dir() else os.O_RDONLY
        return os.open(self._path, flags | os.O_CLOEXEC, 0o600)  # whoever may read it could hold it

    @property
    def descriptor(self) -> int:
        """The open descriptor that holds the lock: a child that inherits it holds the lock too. It is -1 when the lock is not held."""
        return self._fd

    def release(self) -> None:
        """Give the lock back; nothing happens when it is not held."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        if self._fd < 0:
            self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()
