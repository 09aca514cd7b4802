"""Names at which programs of one host find each other, and who is at the other end."""

import asyncio
import errno
import os
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol, final

from utilityvm.kit.errors import Exists, HostError

ProtocolFactory = Callable[[], asyncio.Protocol]

ACCEPT_AGAIN: Final = 1.0
"""Seconds after which is tried again to take a connection for which there was no descriptor."""

_CREDENTIALS: Final = struct.Struct("=iII")


class Served(Protocol):
    """A name that is served."""

    def close(self) -> None:
        """Serve it no more; connections go on. A second call does nothing."""
        ...


class Named(Protocol):
    """Connections by name: sockets on Unix, pipes on Windows."""

    async def serve(self, name: str, factory: ProtocolFactory) -> Served:
        """Let others connect to this name.

        Raises:
            OSError, UtilityVMError: the name is taken, or may not be used.
        """
        ...

    async def dial(self, name: str, protocol: asyncio.Protocol) -> asyncio.BaseTransport:
        """Connect to this name.

        Raises:
            OSError, UtilityVMError: nobody serves it, or we may not.
        """
        ...


@final
class UnixSockets:
    """A `Named` of Unix: paths; and what begins with ``@``, names that are no files and go with their owner, however it ends.

    A path is for its owner's user alone. To the others everybody may connect: `peer_uid` says who did.
    """

    async def serve(self, name: str, factory: ProtocolFactory) -> Served:
        """See `Named.serve`."""
        if name.startswith("@"):
            return await asyncio.get_running_loop().create_unix_server(factory, _address(name))
        named = NamedSocket(Path(name), "a server's")
        listener = named.open()
        try:
            return _AtPath(await asyncio.get_running_loop().create_unix_server(factory, sock=listener), named)
        except BaseException:
            named.close()
            raise

    async def dial(self, name: str, protocol: asyncio.Protocol) -> asyncio.BaseTransport:
        """See `Named.dial`."""
        transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: protocol, _address(name))
        return transport


@final
class _AtPath:
    def __init__(self, server: asyncio.Server, named: "NamedSocket") -> None:
        self._server, self._named = server, named

    def close(self) -> None:
        self._server.close()
        self._named.close()


def _address(name: str) -> str:
    return f"\0{name[1:]}" if name.startswith("@") else name


def peer_uid(transport: asyncio.BaseTransport) -> int | None:
    """Return the user at the other end of a Unix socket; None: the system does not tell."""
    sock = transport.get_extra_info("socket")
    if sys.platform != "linux" or sock is None or sock.family != socket.AF_UNIX:
        return None
    _, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(uid)


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
