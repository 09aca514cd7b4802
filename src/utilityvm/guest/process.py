"""A process in the guest: its streams, its exit code, and how it is started.

protocol/SPEC.md section 6. The host listens on a port for each stream before it sends ExecuteProcess, since the guest dials at once.
"""

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from itertools import count
from typing import Any, Final, Protocol, final

from utilityvm.guest.client import GuestClient
from utilityvm.guest.spec import ProcessSpec, check_console_size, check_pid, check_signal, check_timeout, parameters, windows_signal
from utilityvm.guest.transport import GuestSockets, GuestStream
from utilityvm.kit.errors import ConnectionLost, DeadlineExceeded, GuestError, ProtocolError, UtilityVMError
from utilityvm.kit.trace import span
from utilityvm.wire import gcs

DIAL_TIMEOUT: Final = 5.0
"""Seconds that the guest has to dial the streams of a process, counted from its word that the process runs."""


class ProcessHost(Protocol):
    """Who runs a process: the agent in the guest, or the host service for it."""

    def run(self, name: str, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run `work` for as long as the guest can be reached."""
        ...

    async def wait_process(self, process_id: int) -> int:
        """Wait for its end and return its exit code."""
        ...

    async def signal_process(self, process_id: int, signal: int | gcs.SignalOptions) -> bool:
        """Send it a signal, 0 for its end; say whether it was delivered."""
        ...

    async def resize_console(self, process_id: int, *, height: int, width: int) -> None:
        """Set the size of its terminal, in characters."""
        ...


class Connected(Protocol):
    """The streams of a process: input, output and errors."""

    connected: list[GuestStream]

    def close(self) -> None:
        """Close them. A second call does nothing."""
        ...


@final
class Process:
    """A process in the guest. `stdin`, `stdout`, `stderr` are its streams; one that was not asked for ends at once.

    What it writes is held back while nobody reads, and what is written to it while it does not. Give it up with `close`; it goes on
    running unless it was killed or stumbles over its closed streams.
    """

    pid: int
    """Process id in the guest."""
    stdin: GuestStream
    stdout: GuestStream
    stderr: GuestStream

    def __init__(self, client: "ProcessHost", name: str, pid: int, streams: "Connected", *, windows: bool = False) -> None:
        self._client, self._name, self._windows = client, name, windows
        self.pid = pid
        self.stdin, self.stdout, self.stderr = streams.connected
        self._streams = streams
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        client.run(f"wait-{pid}", self._watch()).add_done_callback(self._watched)

    @property
    def ended(self) -> bool:
        """Whether its end is known."""
        return self._exit.done()

    async def wait(self, *, timeout: float | None = None) -> int:
        """Wait until the process has ended and return its exit code, 128 + s when signal s killed it. May be called again, and by many.

        `timeout` is in seconds (None: as long as the VM lives).

        Raises:
            DeadlineExceeded: it still runs after `timeout`; nothing was done to it.
            ConnectionLost: the VM ended first.
            InvalidOptions: `timeout` is no number.
        """
        check_timeout(timeout)
        await asyncio.wait([self._exit], timeout=timeout)
        if not self._exit.done():
            raise DeadlineExceeded(f"{self._name}: process {self.pid} still runs after {timeout:g} s")
        return self._exit.result()

    async def kill(self, signal: int = 9, *, group: bool = False) -> bool:
        """Send `signal` to the process; say whether it was delivered, which it is not after the process's end.

        With `group` its children get it too, but for those that left its process group. A guest agent other than ours knows no groups
        and signals the process alone.

        On Windows a signal is an event of the process's console: 2 CtrlC, 3 CtrlBreak, 1 CtrlClose, 15 CtrlShutdown; 9 ends the process.

        Raises:
            InvalidOptions: there is no such signal.
            GuestError: the guest's agent cannot signal the processes of the VM itself; the original's cannot.
        """
        check_signal(signal)
        options: int | gcs.SignalOptions = gcs.SignalOptions(signal=signal, group=True) if group else signal
        if self._windows:
            event = windows_signal(signal)
            options = gcs.SignalOptions(signal=event) if event else 0
        with span("process.signal", level=logging.DEBUG, pid=self.pid):
            return await self._client.signal_process(self.pid, options)

    async def resize(self, *, height: int, width: int) -> None:
        """Set the size of its terminal, in characters.

        Raises:
            GuestError: it has no terminal.
            InvalidOptions: it is not from 0 to 65535 in each direction.
        """
        check_console_size((height, width))
        with span("process.resize", level=logging.DEBUG, pid=self.pid):
            await self._client.resize_console(self.pid, height=height, width=width)

    async def close(self) -> None:
        """Close the streams. A second call does nothing."""
        self._streams.close()

    async def _watch(self) -> None:
        try:
            with span("process.run", level=logging.DEBUG, pid=self.pid):
                code = await self._client.wait_process(self.pid)
        except UtilityVMError as error:
            self._exit.set_exception(error)
        else:
            self._exit.set_result(code)

    def _watched(self, _task: asyncio.Task[None]) -> None:
        if not self._exit.done():  # cancelled, perhaps before it began
            self._exit.set_exception(ConnectionLost(f"{self._name}: bridge closed"))
        self._exit.exception()  # whoever waits gets it; nobody has to


@final
class Stdio:
    """Makes the standard streams of processes on one guest connection; port numbers are never used twice on it."""

    def __init__(self, sockets: GuestSockets) -> None:
        self._sockets, self._numbers = sockets, count(gcs.FIRST_STDIO_PORT)

    def listen(self, *wanted: bool) -> "Streams":
        """Listen for the streams that are wanted of input, output and errors."""
        return Streams(self._sockets, tuple(next(self._numbers) if want else 0 for want in wanted))


@final
class Streams:
    """The standard streams of one process: ports that listen before it starts, connections after `accept`."""

    def __init__(self, sockets: GuestSockets, numbers: tuple[int, ...]) -> None:
        self.ports = gcs.StdioPorts(std_in=numbers[0], std_out=numbers[1], std_err=numbers[2])
        self._listeners = [sockets.listen(number, once=True) if number else None for number in numbers]
        self.connected: list[GuestStream] = []

    def join(self) -> None:
        """The process has a terminal: its errors come with its output."""
        if (errors := self._listeners[2]) is not None:
            errors.close()
        self._listeners[2] = None

    async def accept(self) -> None:
        """Take the connections, which the guest has dialled before it said that the process runs.

        Raises:
            ProtocolError: it has not.
        """
        try:
            async with asyncio.timeout(DIAL_TIMEOUT):
                for listener in self._listeners:
                    self.connected.append(await listener.accept() if listener else _Nothing())
                for output in self.connected[1:]:
                    output.read_only()  # some guests tell a process's end only after its output was closed on our side
        except TimeoutError:
            raise ProtocolError(f"the guest did not dial the streams of a process that it says is running ({DIAL_TIMEOUT:g} s)") from None

    def close(self) -> None:
        """Close what listens and what is connected. A second call does nothing."""
        for end in (*self.connected, *self._listeners):
            if end is not None:
                end.close()


@final
class Unattached:
    """The streams of a process of which none is there."""

    def __init__(self) -> None:
        self.connected: list[GuestStream] = [_Nothing(), _Nothing(), _Nothing()]

    def close(self) -> None:
        """Do nothing."""


def in_words(error: GuestError, program: str, cwd: str, where: str) -> GuestError:
    """Return the guest's failure to run `program` in the folder `cwd` in our words, if it is known; `where` they were looked for."""
    what, why = (cwd, "no such folder") if error.result == gcs.PATH_NOT_FOUND else (program, _NOT_RUN.get(error.result))
    return error if why is None else GuestError(f"{what}: {why} in {where}", call=error.call, result=error.result)


_NOT_RUN: Final = {
    gcs.FILE_NOT_FOUND: "no such program",
    gcs.LOADER_NOT_FOUND: "its interpreter or dynamic loader is missing",
    gcs.ACCESS_DENIED: "cannot be executed",
    gcs.BAD_FORMAT: "cannot be executed, being for another machine or a script without #!,",
}


async def start_process(client: GuestClient, stdio: Stdio, spec: ProcessSpec, name: str) -> Process:
    """Start a process in the utility VM. `name` is the VM's, for errors.

    Raises:
        InvalidOptions: `spec` has mistakes; nothing was sent.
        GuestError: it could not be started.
        ConnectionLost: the VM is gone.
    """
    return await launch(client, stdio, parameters(spec), name)


async def launch(client: GuestClient, stdio: Stdio, what: gcs.ProcessParameters, name: str) -> Process:
    """Start a process in the utility VM, or in the container that `client` is for. See `start_process` for errors."""
    streams = stdio.listen(what.create_std_in_pipe, what.create_std_out_pipe, what.create_std_err_pipe)
    try:
        pid = await client.execute_process(what, streams.ports)
        try:
            await streams.accept()
        except BaseException:
            with suppress(ConnectionLost):  # it is gone with its guest
                client.bridge.run("stray", client.kill_stray(pid))
            raise
        return Process(client, name, pid, streams, windows=client.os == "windows")
    except BaseException:
        streams.close()
        raise


async def attach(client: GuestClient, stdio: Stdio, pid: int, name: str, wanted: tuple[bool, bool, bool]) -> Process:
    """Take the streams that are `wanted` (input, output, errors) of a process that another host has started, before the VM was saved.

    What is not wanted is given up: its input is at its end, its output is dropped.

    Raises:
        InvalidOptions: `pid` is none.
        Unsupported: the guest's agent cannot; nothing was sent.
        GuestError: there is no such process, or it is attached already.
        ConnectionLost: the VM is gone.
    """
    check_pid(pid)
    streams = stdio.listen(*wanted)
    try:
        if (await client.attach_process(pid, streams.ports)).terminal:
            streams.join()
        await streams.accept()
        return Process(client, name, pid, streams, windows=client.os == "windows")
    except BaseException:
        streams.close()
        raise


@final
class _Nothing:
    """The end of a stream that was not asked for."""

    async def read(self, limit: int = -1) -> bytes:  # noqa: ARG002 (the port's signature)
        return b""

    async def write(self, data: bytes) -> None:
        raise BrokenPipeError(f"{len(data)} bytes for a process that was started without stdin")

    async def write_eof(self) -> None:
        return

    def read_only(self) -> None:
        return

    def close(self) -> None:
        return
