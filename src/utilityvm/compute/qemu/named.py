"""A socket of this host at a path of the user's choice, which goes with its owner."""

import errno
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import final

from utilityvm.kit.errors import Exists, HostError


@final
class NamedSocket:
    """A listening socket at `path`, for its owner's user alone; `whose` it is, in errors."""

    def __init__(self, path: Path, whose: str) -> None:
        self._path, self._whose = path, whose
        self._listener: socket.socket | None = None
        self._inode = -1

    def open(self) -> socket.socket:
        """Listen. The socket does not block, and is closed by `close`.

        Raises:
            Exists: at the path is something that is not a socket without an owner.
            HostError: a socket cannot be made there.
        """
        _clear_stale(self._path, self._whose)
        listener = socket.socket(socket.AF_UNIX)
        try:
            os.fchmod(listener.fileno(), 0o600)  # on Linux the file that bind makes takes its mode from here
            listener.bind(str(self._path))
            self._inode = self._path.lstat().st_ino
            listener.listen(1)
        except OSError as error:
            listener.close()
            raise HostError(f"{self._path}: cannot be {self._whose} socket: {error.strerror or error}") from error
        listener.setblocking(False)
        self._listener = listener
        return listener

    def close(self) -> None:
        """Listen no more, and let go of the path. A second call does nothing."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            with suppress(OSError):
                if self._path.lstat().st_ino == self._inode:  # another VM may have taken the place of a socket that it saw dead
                    self._path.unlink()


def _clear_stale(path: Path, whose: str) -> None:
    """Remove a socket that nobody listens on; anything else that is there is somebody's."""
    if not path.is_socket():
        if path.exists() or path.is_symlink():
            raise Exists(f"{path}: there is a file already, which is not a socket; {whose} socket cannot be made there")
        return
    with socket.socket(socket.AF_UNIX) as trial:
        trial.setblocking(False)
        try:
            trial.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.EPROTOTYPE}:  # somebody listens but is busy, or speaks datagrams
                raise HostError(f"{path}: cannot be {whose} socket: {error.strerror or error}") from error
    raise Exists(f"{path}: another process listens there; {whose} socket cannot be made")
