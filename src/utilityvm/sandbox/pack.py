"""Files of this host on their way into a guest, as a tar stream."""

import io
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast, final

from utilityvm.kit.errors import HostError, InvalidOptions, NotFound

_PIECE: Final = 256 * 1024


def pack(source: Path, name: str, write: Callable[[bytes], None]) -> None:
    """Write what is at `source` as the tar entry `name` and, of a folder, all below it; blocks. Links are copied as links.

    Owners stay behind: in the guest all of it is of the user who unpacks it. So do sockets and devices, which are the host's.

    Raises:
        NotFound: nothing is at `source`.
        InvalidOptions: a socket, a pipe or a device is.
        HostError: something cannot be read.
    """
    writer = _Writer(write)
    buffer = io.BufferedWriter(cast("io.RawIOBase", writer), _PIECE)
    try:
        if stat.S_IFMT(source.lstat().st_mode) not in {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}:
            raise InvalidOptions(f"{source} is a socket, a pipe or a device: files, folders and links can be copied")
        # GNU's form: busybox does not read POSIX's, in which long names would be.
        with tarfile.open(fileobj=buffer, mode="w|", format=tarfile.GNU_FORMAT, dereference=False) as archive:
            archive.add(source, arcname=name, filter=_plain)
        buffer.flush()
    except FileNotFoundError as error:
        raise NotFound(f"{error.filename or source}: no such file or folder") from error
    except BrokenPipeError:
        raise
    except (OSError, tarfile.TarError) as error:
        what = getattr(error, "filename", None) or source
        raise HostError(f"{what} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    finally:
        writer.is_over = True


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if entry.isdev():
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


@final
class _Writer(io.RawIOBase):
    def __init__(self, write: Callable[[bytes], None]) -> None:
        super().__init__()
        self._write, self.is_over = write, False

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        piece = bytes(cast("memoryview", data))
        if not self.is_over:  # a buffer that is thrown away writes what is left in it, in whatever thread that is
            self._write(piece)
        return len(piece)
