"""Child processes that live as long as we do and no longer. Tools that run to their end are another module's."""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, final

from utilityvm.kit.enclosure import OPEN, Enclosure
from utilityvm.kit.errors import HostError, NotFound

OUTPUT_KEPT: Final = 64 * 1024
"""Bytes of a child's output that are kept; the oldest go first."""

_CHUNK: Final = 64 * 1024
_LAST_READS: Final = 32  # more than a pipe holds: all that an ended child has said

_SIGNAL_BASE: Final = 128  # what a shell, and what wraps programs as a shell does, adds to the number of a signal


@final
class Tail:
    """The newest bytes of an output that may be endless; `limit` is how many."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()

    def add(self, data: bytes) -> None:
        """Keep `data`, dropping what is oldest."""
        self._kept += data
        if len(self._kept) > self._limit:
            del self._kept[: -self._limit]

    @property
    def data(self) -> bytes:
        """All that is kept."""
        return bytes(self._kept)

    def text(self, lines: int) -> str:
        """Return the last lines that are not blank, fit to be shown: what is not printable is left out, or it could steer a terminal."""
        words = self._kept.decode(errors="replace").replace("\r", "\n").split("\n")
        shown = ("".join(c for c in line.replace("\t", " ") if c.isprintable()).rstrip() for line in words)
        return "\n".join([line for line in shown if line][-lines:])


async def next_message(control: socket.socket, limit: int) -> bytes:
    """Return the next message on our end of the socket by which a child speaks with us, ``b""`` when the child is gone."""
    try:
        return await asyncio.get_running_loop().sock_recv(control, limit)
    except (ConnectionResetError, BrokenPipeError):
        return b""


@final
class Child:
    """A process spawned by this call, in a session of its own, without input; its output and errors are kept together in `output`.

    With `stdout`, an open descriptor, its output goes there, and only its errors are kept.

    It is killed when this process ends, however this process ends. That is tied to the thread that spawned it: make it only
    in the thread of an event loop that lives on. Descriptors of `pass_fds` keep their numbers in the child; ours stay open.
    `enclosure` says what it is put into.

    Raises:
        NotFound: ``setpriv`` is missing. A missing program is not an error here: the child ends with code 127.
        HostError: the process could not be made.
    """

    def __init__(
        self, argv: Sequence[str], *, pass_fds: Sequence[int] = (), enclosure: Enclosure = OPEN, stdout: int | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._in_namespace = bool(enclosure.unshare)
        self.output = Tail(OUTPUT_KEPT)
        self._code: int | None = None
        self._killed = False
        self._exited = asyncio.Event()
        self._output_fd, theirs = os.pipe()
        try:
            # A session of its own: Ctrl-C at our terminal is ours to handle.
            self._process = subprocess.Popen(
                enclosure.words(os.getpid(), argv),
                stdin=subprocess.DEVNULL,
                stdout=theirs if stdout is None else stdout,
                stderr=theirs,
                pass_fds=pass_fds,
                start_new_session=True,
            )
        except OSError as error:
            os.close(self._output_fd)
            if isinstance(error, FileNotFoundError):
                raise NotFound("setpriv: command not found", hint="install the package util-linux") from error
            raise HostError(f"{argv[0]}: cannot be run: {error.strerror}") from error
        finally:
            os.close(theirs)
        os.set_blocking(self._output_fd, False)
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._output_fd, self._read)
        self._loop.add_reader(self._pidfd, self._reap)

    @property
    def pid(self) -> int:
        """The process that was spawned; another may have its id after the end. In a pid namespace the child itself is one below it."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""
        return self._code

    def kill(self) -> None:
        """End it at once. Nothing happens when it has ended."""
        if self._code is not None:
            return
        self._killed = True
        # What we spawned waits for the first process of the namespace, and that one's end for all others': this way round nothing is
        # left when we hear of the end.
        if not (self._in_namespace and self._kill_first_of_namespace()):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def wait(self) -> int:
        """Wait for its end and return `code`. Its last output is in `output` by then, and of its pid namespace nothing is left."""
        await self._exited.wait()
        assert self._code is not None  # noqa: S101 (set before the event)
        return self._code

    def _kill_first_of_namespace(self) -> bool:
        """Kill the first process of the namespace; False before there is one: it will find its parent dead, and end."""
        listing = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        with suppress(OSError, ValueError), ExitStack() as stack:
            first = int(listing.read_text())
            pidfd = os.pidfd_open(first)
            stack.callback(os.close, pidfd)
            if listing.read_text().split() == [str(first)]:  # so the descriptor is of that process, and not of one that got its id later
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                return True
        return False

    def _reap(self) -> None:
        code = self._process.wait()  # does not block: the pidfd says that it has ended
        if self._in_namespace and code > _SIGNAL_BASE:
            code = _SIGNAL_BASE - code
        self._code = -signal.SIGKILL if self._in_namespace and self._killed else code  # `unshare` fails to say so before util-linux 2.39
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        for _ in range(_LAST_READS):
            self._read()
        self._close_output()  # it may have left the other end to a process of its own
        self._exited.set()

    def _read(self) -> None:
        """Take one piece; the loop calls again while there is more, so that a child that never stops talking leaves it to others too."""
        if self._output_fd < 0:
            return
        try:
            data = os.read(self._output_fd, _CHUNK)
        except BlockingIOError:
            return
        if data:
            self.output.add(data)
        else:
            self._close_output()

    def _close_output(self) -> None:
        if self._output_fd >= 0:
            self._loop.remove_reader(self._output_fd)
            os.close(self._output_fd)
            self._output_fd = -1
