"""A guest's serial console: its newest output is kept, and one client at a time may look on and type through a named socket.

Nothing here can hold a VM up: the console is always read, and a client that is too slow loses the oldest.
"""

import asyncio
import socket
from pathlib import Path
from typing import Final, final

from utilityvm.kit.child import Tail
from utilityvm.kit.named import ACCEPT_AGAIN, NamedSocket

KEPT: Final = 256 * 1024
"""Bytes of the console's output that are kept; the same bound holds for what waits for a client."""

_CHUNK: Final = 64 * 1024
_LAST_READS: Final = 64  # more than a socket's buffer holds: all that an ended QEMU has said


@final
class SerialConsole:
    """The host's end of a serial port. `path` is where a client may connect, ``""`` for nowhere."""

    def __init__(self, path: str = "") -> None:
        self._kept = Tail(KEPT)
        self._sock: socket.socket | None = None
        self._bridge = _Bridge(Path(path)) if path else None

    def open(self, sock: socket.socket) -> None:
        """Read `sock`, which stays the caller's, from now on, and let clients connect.

        Raises:
            Exists: at `path` is something that is not a socket without an owner.
            HostError: a socket cannot be made there.
        """
        if self._bridge is not None:
            self._bridge.open(sock)
        self._sock = sock
        sock.setblocking(False)
        asyncio.get_running_loop().add_reader(sock, self._read)

    def tail(self, lines: int) -> str:
        """Return the last lines, fit to be shown."""
        return self._kept.text(lines)

    def close(self) -> None:
        """Take what is still to be read, and let go of the socket and the path. A second call does nothing."""
        for _ in range(_LAST_READS):
            self._read()
        self._stop()
        if self._bridge is not None:
            self._bridge.close()

    def _read(self) -> None:
        """Take one piece; the loop calls again while there is more. A guest that never stops talking must not keep it from other VMs."""
        if self._sock is None:
            return
        try:
            data = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._stop()
            return
        self._kept.add(data)
        if self._bridge is not None:
            self._bridge.show(data)

    def _stop(self) -> None:
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._sock = None


@final
class _Bridge:
    """A listening socket at a path, and between the console and its one client. The next client waits until that one has left."""

    def __init__(self, path: Path) -> None:
        self._named = NamedSocket(path, "the console's")
        self._listener: socket.socket | None = None
        self._client: socket.socket | None = None
        self._serial: socket.socket | None = None
        self._to_client = Tail(KEPT)
        self._client_full = False  # then its writer wakes us, and trying each time would copy all that waits
        self._to_serial = b""
        self._again: asyncio.TimerHandle | None = None

    def open(self, serial: socket.socket) -> None:
        self._listener, self._serial = self._named.open(), serial
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def show(self, data: bytes) -> None:
        if self._client is not None:
            self._to_client.add(data)
            if not self._client_full:
                self._write_client()

    def close(self) -> None:
        self._drop_client()
        if self._again is not None:
            self._again.cancel()
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener = None
        self._named.close()
        self._serial = None

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def _accept(self) -> None:
        assert self._listener is not None  # noqa: S101 (its reader is gone with it)
        try:
            self._client, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError:  # we have no descriptor left, and the listener stays readable
            self._loop.remove_reader(self._listener)
            self._again = self._loop.call_later(ACCEPT_AGAIN, self._loop.add_reader, self._listener, self._accept)
            return
        self._client.setblocking(False)
        self._to_client = Tail(KEPT)
        self._loop.remove_reader(self._listener)
        self._loop.add_reader(self._client, self._read_client)

    def _drop_client(self) -> None:
        if self._client is None:
            return
        self._loop.remove_reader(self._client)
        self._loop.remove_writer(self._client)
        self._client.close()
        self._client, self._client_full, self._to_serial = None, False, b""
        if self._serial is not None:
            self._loop.remove_writer(self._serial)
        if self._listener is not None:
            self._loop.add_reader(self._listener, self._accept)

    def _write_client(self) -> None:
        assert self._client is not None  # noqa: S101 (its writer is gone with it)
        waiting = self._to_client.data
        try:
            sent = self._client.send(waiting) if waiting else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop_client()
            return
        self._to_client = Tail(KEPT)
        self._to_client.add(waiting[sent:])
        self._client_full = sent < len(waiting)
        if self._client_full:
            self._loop.add_writer(self._client, self._write_client)
        else:
            self._loop.remove_writer(self._client)

    def _read_client(self) -> None:
        assert self._client is not None  # noqa: S101 (its reader is gone with it)
        try:
            self._to_serial = self._client.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self._to_serial = b""
        if not self._to_serial:
            self._drop_client()
            return
        self._loop.remove_reader(self._client)  # until the guest has taken what we have
        self._write_serial()

    def _write_serial(self) -> None:
        if self._serial is None or self._client is None:
            return
        try:
            sent = self._serial.send(self._to_serial)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop_client()
            return
        self._to_serial = self._to_serial[sent:]
        if self._to_serial:
            self._loop.add_writer(self._serial, self._write_serial)
        else:
            self._loop.remove_writer(self._serial)
            self._loop.add_reader(self._client, self._read_client)
