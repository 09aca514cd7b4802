"""Memory of machines as files without a name: made, copied, sealed."""

import errno
import os
import sys
from typing import Final

from utilityvm.kit.files import extents, pieces, write_all

if sys.platform != "win32":  # where no machine of ours runs
    import fcntl

_NOT_HERE: Final = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


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


def reserve(source: int, target: int) -> None:
    """Have the host give an empty memory as much as another has, and where: what is copied there then takes half as long.

    Raises:
        OSError: there is not so much.
    """
    for offset, length in extents(source):
        os.posix_fallocate(target, offset, length)


def copy_memory(source: int, target: int) -> None:
    """Copy what a file has between its holes to an empty memory, of a longer file its beginning: within the kernel where that can, which
    takes half as long.

    Raises:
        OSError: it cannot be read or written.
    """
    size = os.fstat(target).st_size
    for offset, length in extents(source):
        _copy(source, target, offset, min(offset + length, size))


def _copy(source: int, target: int, at: int, end: int) -> None:
    try:
        while at < end and (copied := os.copy_file_range(source, target, end - at, at, at)):
            at += copied
    except OSError as error:
        if error.errno not in _NOT_HERE:
            raise
        for offset, piece in pieces(source, at, end - at):
            write_all(target, piece, offset)
