"""Memory of machines as files without a name: made, copied, sealed."""

import errno
import mmap
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, final

from utilityvm.kit.files import extents, pieces, write_all

if sys.platform != "win32":  # where no machine of ours runs
    import fcntl

_NOT_HERE: Final = (errno.EINVAL, errno.ENOSYS)

_POPULATE_WRITE: Final = 23  # MADV_POPULATE_WRITE, which Python's mmap has no name for
_PART: Final = 16 << 20  # bytes that one thread copies in a row
_THREADS: Final = 4


def new_memory(name: str, size: int) -> int:
    """Return a descriptor of an empty memory of `size` bytes, which the kernel takes back when nobody has it open.

    Raises:
        OSError: there is none.
    """
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
    except BaseException:
        os.close(fd)
        raise
    return fd


def seal(fd: int) -> None:
    """Let nobody write to a memory any more, whoever has it open."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)


def reopened(fd: int, at: int) -> int:
    """Return another descriptor of the file behind one, for reading, with a place of its own in it, which is `at`."""
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    os.lseek(again, at, os.SEEK_SET)
    return again


@final
class Room:
    """Room for a quick copy of a memory while its machine stands still: `target`, an empty one, mapped, with pages where `source` has some.

    Who writes to a memory by its descriptor waits for all others who do, and for each page; who writes to pages that are mapped does not.
    """

    def __init__(self, source: int, target: int) -> None:
        """Raises:
        OSError: there is not so much.
        """
        self._size = os.fstat(target).st_size
        self._map = mmap.mmap(target, self._size)
        try:
            for offset, length in extents(source):
                os.posix_fallocate(target, offset, length)
                with suppress(OSError):  # before Linux 5.14: they are mapped one by one, as they are written to
                    self._map.madvise(_POPULATE_WRITE, offset, length)
        except BaseException:
            self._map.close()
            raise

    def copy(self, source: int) -> None:
        """Copy what a memory has between its holes; where it has got more meanwhile the room grows.

        Raises:
            OSError: it cannot be read.
        """
        with memoryview(self._map) as there, ThreadPoolExecutor(min(_THREADS, len(os.sched_getaffinity(0)))) as threads:

            def copy(at: int) -> None:
                end = min(at + _PART, self._size)
                for offset, length in extents(source, at, end):
                    _read(source, there, offset, offset + length)

            for _ in threads.map(copy, range(0, self._size, _PART)):
                pass

    def close(self) -> None:
        """Map it no longer; what was copied stays. A second call does nothing."""
        self._map.close()


def _read(source: int, there: memoryview, at: int, end: int) -> None:
    while at < end and (got := os.preadv(source, [there[at:end]], at)):
        at += got


def copy_memory(source: int, target: int) -> None:
    """Copy what a file has between its holes to an empty memory, of a longer file its beginning: within the kernel where that can, which
    takes half as long. The place in the file behind `target` moves.

    Raises:
        OSError: it cannot be read or written.
    """
    size = os.fstat(target).st_size
    for offset, length in extents(source, 0, size):
        _copy(source, target, offset, offset + length)


def _copy(source: int, target: int, at: int, end: int) -> None:
    os.lseek(target, at, os.SEEK_SET)
    try:
        while at < end and (copied := os.sendfile(target, source, at, end - at)):
            at += copied
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        for offset, piece in pieces(source, at, end - at):
            write_all(target, piece, offset)
