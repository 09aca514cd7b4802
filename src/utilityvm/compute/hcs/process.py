"""A process in a compute system of the host service, on asyncio."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Final, Self, TypeVar, final

from utilityvm.compute.hcs import hresult
from utilityvm.compute.hcs.calls import PROCESS, Handle, ProcessInformation
from utilityvm.compute.hcs.ending import COMMUNICATION_LOST
from utilityvm.compute.hcs.ports import Pipes
from utilityvm.compute.hcs.streams import NoStream, Stream
from utilityvm.compute.hcs.system import CLOSE_TIMEOUT, HcsSystem, Notice
from utilityvm.guest.transport import GuestStream
from utilityvm.kit.aio import Scope, finish
from utilityvm.kit.errors import ConnectionLost, DeadlineExceeded, StateError, UtilityVMError
from utilityvm.kit.trace import event
from utilityvm.schema.json import decode_answer, encode
from utilityvm.schema.process import CloseHandle, ConsoleSize, ProcessModifyRequest, ProcessStatus

T = TypeVar("T")

GUARD: Final = 1.0
"""Seconds that a process which cannot be signalled any more has for the word of its end; then it has ended with `UNKNOWN_CODE`."""

UNKNOWN_CODE: Final = -1
"""Exit code of a process whose own is not known."""


@final
class HcsProcess:
    """A process that was created or opened. Give it up with `close`; it goes on.

    `stdin`, `stdout`, `stderr` are its streams; one that is not there ends at once.
    """

    stdin: GuestStream
    stdout: GuestStream
    stderr: GuestStream

    def __init__(self, system: HcsSystem, pipes: Pipes, process_id: int, handle: Handle) -> None:
        self.pid = process_id
        self._system, self._host, self._pipes, self._handle = system, system.host, pipes, handle
        self._name = f"{system.id}:{process_id}"
        self._loop = asyncio.get_running_loop()
        self.stdin = self.stdout = self.stderr = NoStream()
        self._scope = Scope(f"process:{self._name}")
        self._exit: asyncio.Future[int] = self._loop.create_future()
        self._guard: asyncio.TimerHandle | None = None
        self._closed = False

    @classmethod
    async def create(cls, system: HcsSystem, pipes: Pipes, parameters: object) -> Self:
        """Create a process; `parameters` are the struct or plain builtins that the service takes.

        A caller who gives up leaves no process.

        Raises:
            HcsError: it could not be created.
            StateError: the system is closed.
        """
        host, document = system.host, encode(parameters)
        started = await host.work.run(
            f"create a process in {system.id}",
            lambda: host.calls.create_process(system.handle, system.id, document),
            late=lambda started: host.calls.discard_process(system.id, started, pipes.close),
        )
        process = cls(system, pipes, started.information.process_id, started.handle)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(process._undo)
            await process._connect(started.information)
            await process._watch()
            undo.pop_all()
        return process

    @classmethod
    async def open(cls, system: HcsSystem, pipes: Pipes, process_id: int) -> Self:
        """Open a process that runs.

        Raises:
            NotFound, HcsError: there is none, or it may not be opened.
        """
        host = system.host
        handle = await host.work.run(
            f"open process {process_id} in {system.id}",
            lambda: host.calls.open_process(system.handle, system.id, process_id),
            late=lambda handle: handle.close(),
        )
        process = cls(system, pipes, process_id, handle)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(process.close)
            await process._watch()
            undo.pop_all()
        return process

    async def open_streams(self) -> None:
        """Take over the streams of a process that was opened. They are given to one taker only.

        Raises:
            HcsError: they are not there (any more).
        """
        information = await self._run("streams", partial(self._host.calls.process_information, self._handle, self._name))
        await self._connect(information)

    @property
    def ended(self) -> bool:
        """Whether its end is known."""
        return self._exit.done()

    async def wait(self) -> int:
        """Wait for its end and return its exit code, `UNKNOWN_CODE` where the service does not know it. May be called again, and by many.

        Raises:
            ConnectionLost: its system ended first, or the service is gone.
            StateError: it was closed first.
        """
        await asyncio.wait([self._exit])
        return self._exit.result()

    async def status(self) -> ProcessStatus:
        """Ask how it stands.

        Raises:
            HcsError: it was refused.
            HostError: the answer is none.
        """
        told = await self._run("status", partial(self._host.calls.process_properties, self._handle, self._name))
        return decode_answer(told, ProcessStatus)

    async def signal(self, options: object) -> bool:
        """Send it a signal, in the shape of its system: ``{"Signal": 15}`` or ``{"Signal": "CtrlC"}``. Returns whether it was delivered.

        Raises:
            HcsError: it was refused for another reason than the process's end.
        """
        return await self._deliver(partial(self._host.calls.signal_process, self._handle, self._name, encode(options)))

    async def kill(self) -> bool:
        """End it, and do not wait for it. See `signal`."""
        return await self._deliver(partial(self._host.calls.terminate_process, self._handle, self._name))

    async def resize(self, *, height: int, width: int) -> None:
        """Set the size of its console, in characters.

        Raises:
            HcsError: it has none.
        """
        await self._modify(ProcessModifyRequest(operation="ConsoleSize", console_size=ConsoleSize(height=height, width=width)))

    async def close_stdin(self) -> None:
        """Let it read the end of its input, which the closing of our end alone does not do everywhere.

        Raises:
            HcsError: it was refused.
        """
        await self._modify(ProcessModifyRequest(operation="CloseHandle", close_handle=CloseHandle(handle="StdIn")))

    async def close(self) -> None:
        """Hear no more of it and let go of it and its streams: whoever waits gets `StateError`. A second call does nothing.

        Raises:
            DeadlineExceeded: the service does not let go of it.
        """
        for stream in (self.stdin, self.stdout, self.stderr):
            stream.close()
        await self.let_go()

    async def let_go(self) -> None:
        """As `close`, but for its streams, from which the last can still be read."""
        if self._closed:
            return
        self._closed = True
        if self._guard is not None:
            self._guard.cancel()
        try:
            await finish(self._release(), within=CLOSE_TIMEOUT)
        except TimeoutError as error:
            raise DeadlineExceeded(f"Process::Close {self._name}: the service did not let go of it within {CLOSE_TIMEOUT:g} s") from error
        finally:
            self._over(StateError(self._name, "closed", "wait"))

    async def _release(self) -> None:
        await self._scope.aclose()
        await self._host.ending.run(f"close {self._name}", self._handle.close)

    async def _undo(self) -> None:
        with suppress(UtilityVMError, TimeoutError):  # why it failed says more
            await finish(self.kill(), within=CLOSE_TIMEOUT)
        with suppress(UtilityVMError):
            await self.close()

    async def _watch(self) -> None:
        await self._host.register(self._name, partial(self._host.calls.watch, PROCESS, self._handle, self._name, self._heard))
        self._scope.start("system", self._end_with_system())

    async def _connect(self, information: ProcessInformation) -> None:
        """Make streams of the handles; one that could not be made leaves none of the later handles open."""
        reading, writing = self._pipes.read, self._pipes.write
        handles = [("stdin", information.std_input, writing), ("stdout", information.std_output, reading)]
        handles = [(name, handle, opening) for name, handle, opening in [*handles, ("stderr", information.std_error, reading)] if handle]
        while handles:
            name, handle, opening = handles.pop(0)
            stream = Stream(f"{self._name}: {name}")
            try:
                await opening(handle, stream)
            except BaseException:
                for _, unused, _ in handles:
                    self._pipes.close(unused)
                raise
            setattr(self, name, stream)

    async def _modify(self, settings: object) -> None:
        await self._run("modify", partial(self._host.calls.modify_process, self._handle, self._name, encode(settings)))

    async def _deliver(self, call: Callable[[], None]) -> bool:
        try:
            await self._run("signal", call)
        except UtilityVMError as error:
            if not hresult.refused_with(error, hresult.NOT_DELIVERED):
                raise
            if self._guard is None and not self._exit.done():
                self._guard = self._loop.call_later(GUARD, self._ended_with, UNKNOWN_CODE)
            return False
        return True

    async def _run(self, what: str, call: Callable[[], T]) -> T:
        return await self._host.work.run(f"{what} of {self._name}", call)

    # -- its end ----------------------------------------------------------------------------------------------------

    def _heard(self, kind: int, status: int, _data: str) -> None:
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._notified, kind, status)

    def _notified(self, kind: int, _status: int) -> None:
        if self._closed or self._exit.done():
            return
        if kind == Notice.DISCONNECTED:
            self._over(ConnectionLost(f"{self._name}: {COMMUNICATION_LOST}"))
        elif kind == Notice.PROCESS_EXITED:
            self._scope.start("code", self._ask_code())

    async def _ask_code(self) -> None:
        try:
            status = await self.status()
        except UtilityVMError as error:
            event("hcs.process.code", level=logging.WARNING, pid=self.pid, error=str(error))
            self._ended_with(UNKNOWN_CODE)
            return
        self._ended_with(UNKNOWN_CODE if status.last_wait_result else status.exit_code)

    async def _end_with_system(self) -> None:
        try:
            await self._system.wait()
        except StateError as error:
            self._over(ConnectionLost(f"{self._name}: {error.message}"))
        else:
            self._over(ConnectionLost(f"{self._name}: its system ended"))

    def _ended_with(self, code: int) -> None:
        if not self._exit.done():
            self._exit.set_result(code & 0xFFFFFFFF if code != UNKNOWN_CODE else code)

    def _over(self, error: UtilityVMError) -> None:
        if not self._exit.done():
            self._exit.set_exception(error)
            self._exit.exception()  # whoever waits gets it; nobody has to
