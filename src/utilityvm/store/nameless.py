"""Files without a name: disks of which nothing is left, whatever becomes of their owner."""

import errno
import os
import tempfile
from pathlib import Path
from typing import final

from utilityvm.kit.errors import HostError
from utilityvm.kit.files import make_folder


@final
class DiskFile:
    """An open file that is a disk. `path` leads to it as long as it is open, in this process only."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.path = f"/proc/self/fd/{fd}"

    def close(self) -> None:
        """Let go of it: a file without a name is gone then. A second call does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def give_name(fd: int, path: Path) -> None:
    """Give a file without a name one, which is on the disk then, unless there is another of this name.

    Raises:
        OSError: it cannot.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:  # without the folder's descriptor Python takes a system call that does not follow the link to the file
        os.link(f"/proc/self/fd/{fd}", path.name, dst_dir_fd=folder, follow_symlinks=True)
        os.fsync(folder)
    finally:
        os.close(folder)


def nameless(folder: Path) -> DiskFile:
    """Return a new file without a name in `folder`, which is made when it is missing.

    Raises:
        HostError: it cannot be made there.
    """
    try:
        make_folder(folder, private=True)
        try:
            return DiskFile(os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600))
        except OSError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR}:
                raise
        fd, name = tempfile.mkstemp(dir=folder)  # a file system without such files: the name is there for a moment
        Path(name).unlink()
        return DiskFile(fd)
    except OSError as error:
        raise HostError(f"{folder}: no disk can be made here: {error.strerror}") from error
