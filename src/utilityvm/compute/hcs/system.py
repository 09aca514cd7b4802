"""A compute system of the host service on asyncio: a VM or a container, from its creation to its end."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from enum import IntEnum
from functools import partial
from typing import Final, Self, final

import msgspec

from utilityvm.compute.hcs import hresult
from utilityvm.compute.hcs.calls import SYSTEM, Change, Handle, Hcs, Opened
from utilityvm.compute.hcs.ending import COMMUNICATION_LOST, Ended
from utilityvm.compute.hcs.timeouts import Timeouts
from utilityvm.compute.hcs.workers import Workers
from utilityvm.kit.aio import finish
from utilityvm.kit.errors import ConnectionLost, DeadlineExceeded, HcsError, StateError, UtilityVMError
from utilityvm.schema.json import encode

Started = Callable[[], Awaitable[None]]
"""Waits until a system has started."""

CLOSE_TIMEOUT: Final = 10.0
"""Seconds that the service may take to let go of a handle. A call that it does not return from keeps the handle until then."""

REGISTER_TIMEOUT: Final = 10.0
"""Seconds that the service may take to register for notifications."""


class Notice(IntEnum):
    """Numbers of the service's notifications."""

    EXITED = 1
    CREATED = 2
    STARTED = 3
    PAUSED = 4
    RESUMED = 5
    SAVED = 8
    PROCESS_EXITED = 0x00010000
    DISCONNECTED = 0x01000000


class Host(msgspec.Struct, frozen=True):
    """The service as systems use it. What ends a system never waits for a turn behind what it should end."""

    calls: Hcs
    work: Workers
    ending: Workers
    timeouts: Timeouts

    async def register(self, name: str, watch: Callable[[], None]) -> None:
        """Have a system or process watched. `name` names it in the error.

        Raises:
            HcsError: the service refuses.
            DeadlineExceeded: it does not return; what it registers later ends with its handle.
        """
        try:
            async with asyncio.timeout(REGISTER_TIMEOUT):
                await self.work.run(f"watch {name}", watch)
        except TimeoutError as error:
            message = f"Watch {name}: the service did not return within {REGISTER_TIMEOUT:g} s"
            raise DeadlineExceeded(message) from error


@final
class HcsSystem:
    """A system that was created or opened. Give it up with `close`; the service ends it with its last handle if its document says so."""

    def __init__(self, host: Host, system_id: str) -> None:
        self.id = system_id
        self._host, self._loop = host, asyncio.get_running_loop()
        self._handle: Handle | None = None
        self._expected: dict[int, _Expected] = {}
        self._ended: asyncio.Future[Ended] = self._loop.create_future()
        self._closed = False

    @classmethod
    async def create(cls, host: Host, system_id: str, document: str) -> Self:
        """Create a system of a document in JSON. A creation that fails, is given up or takes too long leaves none.

        Raises:
            Exists: there is one of this id.
            HcsError: the service refuses.
            DeadlineExceeded: it does not say that it has done it.
        """
        system = cls(host, system_id)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(system._undo)
            creating = system._expect(Notice.CREATED, "System::Create")
            opened = await host.work.run(
                f"create {system_id}",
                lambda: host.calls.create_system(system_id, document),
                late=partial(host.calls.discard, system_id),
            )
            await system._take(opened)
            if opened.pending:
                await system._arrival(creating, host.timeouts.create)
            undo.pop_all()
        return system

    @classmethod
    async def open(cls, host: Host, system_id: str) -> Self:
        """Open a system that exists.

        Raises:
            NotFound: there is none of this id.
            HcsError: the service refuses.
        """
        system = cls(host, system_id)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(system.close)
            opened = await host.work.run(
                f"open {system_id}", lambda: host.calls.open_system(system_id), late=lambda opened: opened.handle.close()
            )
            await system._take(opened)
            undo.pop_all()
        return system

    @property
    def handle(self) -> Handle:
        """Its handle, for calls on its processes."""
        if self._handle is None:
            raise StateError(self.id, "closed", "be used")
        return self._handle

    @property
    def host(self) -> Host:
        """The service that has it."""
        return self._host

    @property
    def ended(self) -> Ended | None:
        """Its last notification, if that has come."""
        return self._ended.result() if self._ended.done() and not self._ended.cancelled() else None

    async def start(self, options: str | None = None) -> None:
        """Start it, and wait until it has started. A VM with an internal guest connection has then been reached.

        Raises:
            HcsError: it was refused, or could not be started.
            ConnectionLost: it ended, or the service is gone.
            DeadlineExceeded: no word of it in time.
            StateError: the system was closed.
        """
        await (await self.begin_start(options))()

    async def begin_start(self, options: str | None = None) -> Started:
        """Ask it to start; what is returned waits until it has. See `start` for errors."""
        starting = self._expect(Notice.STARTED, Change.START.value)
        if not await self._call(Change.START, options):
            self._notified(Notice.STARTED, hresult.OK, "")
        return lambda: self._arrival(starting, self._host.timeouts.start)

    async def pause(self, options: str | None = None) -> None:
        """Let it stand still. See `start` for errors."""
        await self._change(Change.PAUSE, options, Notice.PAUSED, self._host.timeouts.pause)

    async def resume(self, options: str | None = None) -> None:
        """Let it run on. See `start` for errors."""
        await self._change(Change.RESUME, options, Notice.RESUMED, self._host.timeouts.resume)

    async def save(self, options: object) -> None:
        """Save a paused system as `options` say. See `start` for errors."""
        await self._change(Change.SAVE, encode(options), Notice.SAVED, self._host.timeouts.save)

    async def modify(self, request: object) -> None:
        """Change a resource of it: done when this returns.

        Raises:
            HcsError: it was refused.
            ConnectionLost: it has ended.
        """
        await self._call(Change.MODIFY, encode(request))

    async def shutdown(self) -> bool:
        """Ask it to end, and do not wait for it. Returns False when there is nothing (any more) to be asked.

        Raises:
            HcsError: it was refused.
        """
        return await self._end(Change.SHUTDOWN)

    async def terminate(self) -> bool:
        """Make it end, and do not wait for it; see `shutdown`."""
        return await self._end(Change.TERMINATE)

    async def properties(self, types: Sequence[str] = ()) -> str:
        """Return in JSON what it tells of itself: always who it is, and what `types` name.

        Raises:
            HcsError: it was refused.
        """
        query = encode({"PropertyTypes": list(types)}) if types else "{}"
        return await self._host.work.run(f"properties of {self.id}", lambda: self._host.calls.properties(self.handle, self.id, query))

    async def wait(self) -> Ended:
        """Wait for its end.

        Raises:
            StateError: it was closed first.
        """
        await asyncio.wait([self._ended])
        if self._ended.cancelled():
            raise StateError(self.id, "closed", "wait")
        return self._ended.result()

    async def close(self) -> None:
        """Hear no more of it and let go of it: whoever waits gets `StateError`. A second call does nothing.

        Raises:
            DeadlineExceeded: the service does not let go of it.
        """
        if self._closed:
            return
        self._closed = True
        for expected in self._expected.values():
            expected.fail(StateError(self.id, "closed", f"wait for {expected.operation}"))
        try:
            if self._handle is not None:
                await finish(self._host.ending.run(f"close {self.id}", self._handle.close), within=CLOSE_TIMEOUT)
        except TimeoutError as error:
            raise DeadlineExceeded(f"System::Close {self.id}: the service did not let go of it within {CLOSE_TIMEOUT:g} s") from error
        finally:
            self._ended.cancel()

    async def _undo(self) -> None:
        with suppress(UtilityVMError, TimeoutError):  # why the creation failed says more
            await finish(self.terminate(), within=CLOSE_TIMEOUT)
        with suppress(UtilityVMError):
            await self.close()

    async def _take(self, opened: Opened) -> None:
        self._handle = opened.handle
        watch = partial(self._host.calls.watch, SYSTEM, opened.handle, self.id, self._heard)
        await self._host.register(self.id, watch)

    async def _change(self, what: Change, options: str | None, notice: Notice, within: float) -> None:
        expected = self._expect(notice, what.value)
        if await self._call(what, options):
            await self._arrival(expected, within)

    async def _call(self, what: Change, options: str | None) -> bool:
        call = partial(self._host.calls.change, what, self.handle, self.id, options)
        if (ended := self.ended) is not None:
            raise self._over(ended, what.value)
        try:
            return await self._host.work.run(f"{what.value} {self.id}", call)
        except HcsError as error:
            if error.hresult == hresult.ALREADY_STOPPED:  # the word of its end may come after the refusal
                raise ConnectionLost(error.message) from error
            raise

    async def _end(self, what: Change) -> bool:
        if self._closed or self._handle is None:
            return False
        try:
            await self._host.ending.run(f"{what.value} {self.id}", partial(self._host.calls.change, what, self._handle, self.id))
        except UtilityVMError as error:
            if hresult.refused_with(error, hresult.ENDED) or isinstance(error, StateError):
                return False
            raise
        return True

    # -- notifications ----------------------------------------------------------------------------------------------

    def _expect(self, notice: Notice, operation: str) -> "_Expected":
        """Wait for a notification from now on: it may come before the call that asks for it has returned."""
        expected = self._expected[notice] = _Expected(operation, self._loop.create_future())
        if (ended := self.ended) is not None:
            expected.fail(self._over(ended, operation))
        return expected

    async def _arrival(self, expected: "_Expected", within: float) -> None:
        await asyncio.wait([expected.arrived], timeout=within)
        if not expected.arrived.done():
            silence = f"timeout waiting for notification: the service said nothing for {within:g} s"
            raise DeadlineExceeded(f"{expected.operation} {self.id}: {silence}")
        expected.arrived.result()

    def _heard(self, kind: int, status: int, data: str) -> None:
        """Take a notification on the service's thread, and pass it on to the loop, unless that has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._notified, kind, status, data)

    def _notified(self, kind: int, status: int, data: str) -> None:
        if self._closed:
            return
        if kind in {Notice.EXITED, Notice.DISCONNECTED}:
            if not self._ended.done():
                self._ended.set_result(Ended(status, data, disconnected=kind == Notice.DISCONNECTED))
            for expected in self._expected.values():
                expected.fail(self._over(self._ended.result(), expected.operation))
        elif (awaited := self._expected.pop(kind, None)) is not None:
            if status == hresult.OK:
                awaited.arrive()
            else:
                awaited.fail(hresult.error_of(awaited.operation, self.id, status, data))

    def _over(self, ended: Ended, operation: str) -> ConnectionLost:
        if ended.disconnected:
            return ConnectionLost(f"{operation} {self.id}: {COMMUNICATION_LOST}")
        detail = f": {ended.data}" if ended.data else ""
        reason = hresult.sentence_of(hresult.code_of(ended.status))
        return ConnectionLost(f"{operation} {self.id}: unexpected container exit: {reason}{detail}")


class _Expected(msgspec.Struct, frozen=True):
    """A notification that somebody waits for, and what it is the answer to."""

    operation: str
    arrived: "asyncio.Future[None]"

    def arrive(self) -> None:
        if not self.arrived.done():
            self.arrived.set_result(None)

    def fail(self, error: UtilityVMError) -> None:
        if not self.arrived.done():
            self.arrived.set_exception(error)
            self.arrived.exception()  # whoever waits gets it; nobody has to
