"""The GCS bridge: calls to the guest agent over one stream, answers matched by id in whatever order they come.

protocol/SPEC.md section 5; the rules are those of the original's `internal/gcs/bridge.go`. The bridge lives until its stream ends or
the guest breaks the protocol; then every call that waits, and every later one, fails with the reason.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Final, Generic, TypeVar, final

from utilityvm.guest.transport import GuestStream
from utilityvm.kit.aio import Deadline, Deadlines, Scope
from utilityvm.kit.errors import ConnectionLost, DeadlineExceeded, Exists, GuestError, ProtocolError, Unknown, UtilityVMError
from utilityvm.kit.trace import FlightRecorder
from utilityvm.wire import gcs
from utilityvm.wire.frames import NOTIFICATION, RESPONSE, Frame, FrameReader, encode

CALL_TIMEOUT: Final = 300.0
"""Seconds that the guest has for an answer. Exceeding it ends the bridge: the guest's state is no longer known."""

MAX_CALLS: Final = 4096
"""Calls with a deadline that may wait for an answer at a time, also those whose caller gave up; one more waits for its turn."""

Q = TypeVar("Q", bound=gcs.Request)
R = TypeVar("R", bound=gcs.Response)


@final
class Bridge:
    """Calls and answers over `stream`. `name` is the VM's, for errors; `on_lost` hears once why the bridge ended by itself."""

    def __init__(self, stream: GuestStream, name: str, on_lost: Callable[[UtilityVMError], None] | None = None) -> None:
        self._stream, self._name, self._on_lost = stream, name, on_lost
        self.deadlines = Deadlines()
        """The guest's for its answers."""
        self._recorder = FlightRecorder()
        self._asked: dict[int, _Asked[Any]] = {}
        self._exits: dict[str, asyncio.Future[gcs.ContainerNotification]] = {}
        self._slots = asyncio.Semaphore(MAX_CALLS)
        self._outbox: OrderedDict[int, bytes] = OrderedDict()  # bounded as `_asked` is; what is still here was not sent
        self._more = asyncio.Event()
        self._next_id = 0
        self._ended: UtilityVMError | None = None
        self._scope = Scope(f"{name}:bridge", self._failed)
        self._scope.start("reader", self._read())
        self._scope.start("writer", self._write())

    async def call(
        self,
        call: gcs.Call[Q, R],
        request: Q,
        *,
        within: float | None = CALL_TIMEOUT,
        undo: Callable[[R], Coroutine[Any, Any, None]] | None = None,
        gone: Callable[[], None] | None = None,
    ) -> R:
        """Send `request` and return the guest's answer. `within` None waits as long as the guest lives, and takes none of `MAX_CALLS`.

        A caller that is cancelled before the request was sent withdraws it. After that `call.given_up` says what happens; a late success
        is handed to `undo`. `gone` is called once it is certain that the request has, or leaves, no effect in the guest.

        Raises:
            GuestError: the guest answered with a failure.
            ProtocolError: its answer cannot be read; the bridge is ended.
            ConnectionLost: the bridge has ended; `Unknown` when the request had been sent and the call is not idempotent.
            DeadlineExceeded: no answer in time; the bridge is ended.
        """
        try:
            asked = await self._ask(call, gcs.encode_request(request), within)
        except BaseException:
            if gone is not None:
                gone()
            raise
        cancelled: asyncio.CancelledError | None = None
        while not asked.answer.done():
            try:
                await asked.answer
            except asyncio.CancelledError as error:
                asked.wait_on()
                if self._withdraw(asked):
                    if gone is not None:
                        gone()
                    raise
                cancelled = error
                if call.given_up is not gcs.GivenUp.FINISH:
                    break
        if cancelled is not None:
            if undo is not None or gone is not None:
                self._scope.start(f"late-{call.name}", _settle(asked, undo, gone))
            raise cancelled
        if gone is not None and isinstance(asked.answer.result(), GuestError):
            gone()
        return asked.result()

    def notify(self, call: gcs.Call[Q, R], request: Q) -> None:
        """Send a request that the guest does not answer.

        Raises:
            ConnectionLost: the bridge has ended.
        """
        self._post(call, gcs.encode_request(request))

    def expect_exit(self, container_id: str) -> asyncio.Future[gcs.ContainerNotification]:
        """Return what will hold the notification of a container's end, or the reason why there is none. To be called before its creation.

        The guest may notify of no other container: that ends the bridge.

        Raises:
            Exists: it is expected already.
            ConnectionLost: the bridge has ended.
        """
        if self._ended is not None:
            raise self._lost(self._ended)
        if container_id in self._exits:
            raise Exists(f"container {container_id} already exists")
        exit_ = self._exits[container_id] = asyncio.get_running_loop().create_future()
        return exit_

    def forget_exit(self, container_id: str, expected: asyncio.Future[gcs.ContainerNotification]) -> None:
        """Expect no notification of a container that is not there; `expected` is what `expect_exit` returned. A second call does nothing.

        Another container of this name, made since this one's end was told, is expected as before.
        """
        if self._exits.get(container_id) is expected:
            del self._exits[container_id]

    def run(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` for as long as the bridge lives, e.g. to wait for a process. It may be cancelled before it begins.

        Raises:
            ConnectionLost: the bridge has ended; `work` was not begun.
        """
        if self._ended is not None:
            work.close()
            raise self._lost(self._ended)
        return self._scope.start(name, work)

    async def aclose(self) -> None:
        """End the bridge: calls that wait get `ConnectionLost`. A second call does nothing."""
        self._end(ConnectionLost(f"{self._name}: bridge closed"), tell=False)
        await self._scope.aclose()

    # -- sending ----------------------------------------------------------------------------------------------------

    async def _ask(self, call: gcs.Call[Q, R], body: bytes, within: float | None) -> "_Asked[R]":
        """Wait for a slot and post the request; the slot is given back with the answer, since the caller may give up long before."""
        if within is None:
            asked = _Asked(call, self._post(call, body))
        else:
            await self._slots.acquire()
            try:
                asked = _Asked(call, self._post(call, body))
            except BaseException:
                self._slots.release()
                raise
            asked.slot = self._slots
            asked.deadline = self.deadlines.start(within, partial(self._silent, asked, within))
        self._asked[asked.number] = asked
        return asked

    def _post(self, call: gcs.Call[Q, R], body: bytes) -> int:
        """Hand a frame to the writer. The stream takes it in pieces, which a cancelled caller, or another one, must not tear."""
        if self._ended is not None:
            raise self._lost(self._ended)
        number = self._next_id
        data = encode(Frame(call.word, number, body))
        self._next_id += 1
        self._recorder.note(f"> {number} {call.name} {len(data)} bytes")
        self._outbox[number] = data
        self._more.set()
        return number

    def _withdraw(self, asked: "_Asked[Any]") -> bool:
        """Take a request back; False: too late, it was sent."""
        if self._outbox.pop(asked.number, None) is None:
            return False
        self._recorder.note(f"> {asked.number} withdrawn")
        del self._asked[asked.number]
        asked.release()
        return True

    async def _write(self) -> None:
        while True:
            while not self._outbox:
                self._more.clear()
                await self._more.wait()
            _, data = self._outbox.popitem(last=False)
            await self._stream.write(data)

    # -- receiving --------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        reader = FrameReader()
        while data := await self._stream.read(65_536):
            for frame in reader.feed(data):
                self._on_frame(frame)
        if reader.half:
            raise ProtocolError(f"{self._name}: bridge read failed: the stream ended in the middle of a message")
        raise ConnectionLost(f"{self._name}: the guest agent closed the bridge")

    def _on_frame(self, frame: Frame) -> None:
        self._recorder.note(f"< {frame.id} {frame.type:#x} {len(frame.body)} bytes")
        if frame.kind == NOTIFICATION:
            self._on_notification(gcs.decode_notification(frame))
            return
        if frame.kind != RESPONSE:
            raise ProtocolError(f"{self._name}: bridge received unknown message type {frame.type:#x}")
        asked = self._asked.get(frame.id)
        if asked is None or gcs.response_type(asked.call.word) != frame.type or frame.id in self._outbox:
            raise ProtocolError(f"{self._name}: bridge received unknown rpc response for id {frame.id}, type {frame.type:#x}")
        del self._asked[frame.id]
        asked.take(frame)

    def _on_notification(self, notification: gcs.ContainerNotification) -> None:
        exit_ = self._exits.pop(notification.container_id, None)
        if exit_ is None:
            raise ProtocolError(f"{self._name}: bridge notification failed: container {notification.container_id} not found")
        exit_.set_result(notification)

    # -- the end ----------------------------------------------------------------------------------------------------

    def _silent(self, asked: "_Asked[Any]", within: float) -> None:
        why = DeadlineExceeded(f"{self._name}: no answer to {asked.call.name} within {within:g} s; the guest connection was ended")
        del self._asked[asked.number]
        asked.settle(why)
        self._end(why)

    def _failed(self, error: Exception) -> None:
        self._end(error if isinstance(error, UtilityVMError) else self._lost(error))

    def _end(self, reason: UtilityVMError, *, tell: bool = True) -> None:
        if self._ended is not None:
            return
        self._ended = reason
        for asked in self._asked.values():
            asked.settle(self._fate(asked, self._lost(reason)))
        for exit_ in self._exits.values():
            exit_.set_exception(self._lost(reason))
            exit_.exception()  # whoever waits gets it; nobody has to
        self._asked.clear()
        self._exits.clear()
        self._outbox.clear()
        self._stream.close()
        if tell and self._on_lost is not None:
            self._on_lost(reason)

    def _fate(self, asked: "_Asked[Any]", lost: ConnectionLost) -> ConnectionLost:
        """Say it when nobody knows whether a request has had an effect that matters."""
        if asked.call.idempotent or asked.number in self._outbox:
            return lost
        unknown = Unknown(f"{asked.call.name} was sent and may have happened: {lost.message}", frames=lost.frames)
        unknown.__cause__ = lost
        return unknown

    def _lost(self, cause: Exception) -> ConnectionLost:
        lost = ConnectionLost(f"{self._name}: guest connection lost: {cause}", frames=self._recorder.frames())
        lost.__cause__ = cause
        return lost


@final
class _Asked(Generic[R]):
    """A request that is to be answered. Its answer comes once: what the guest said, or why it says nothing."""

    def __init__(self, call: gcs.Call[Any, R], number: int) -> None:
        self.call, self.number = call, number
        self.answer: asyncio.Future[R | UtilityVMError] = asyncio.get_running_loop().create_future()
        self.slot: asyncio.Semaphore | None = None
        self.deadline: Deadline | None = None

    def take(self, frame: Frame) -> None:
        """Take the guest's answer.

        Raises:
            ProtocolError: it is none.
        """
        try:
            self.settle(gcs.decode_response(self.call, frame))
        except GuestError as error:
            self.settle(error)
        except ProtocolError as error:
            self.settle(error)
            raise

    def settle(self, outcome: R | UtilityVMError) -> None:
        """Give the outcome to whoever waits."""
        self.release()
        self.wait_on()
        self.answer.set_result(outcome)

    def wait_on(self) -> None:
        """Have a place for the answer again where a caller's cancellation has taken it, which the caller hears of a turn later."""
        if self.answer.cancelled():
            self.answer = asyncio.get_running_loop().create_future()

    def release(self) -> None:
        """Stop the clock, and give the slot to the next call."""
        if self.deadline is not None:
            self.deadline.stop()
        if self.slot is not None:
            self.slot.release()

    def result(self) -> R:
        """Return what the guest answered, or raise why it did not."""
        outcome = self.answer.result()
        if isinstance(outcome, UtilityVMError):
            raise outcome
        return outcome


async def _settle(asked: _Asked[R], undo: Callable[[R], Coroutine[Any, Any, None]] | None, gone: Callable[[], None] | None) -> None:
    """See to a request whose caller gave up."""
    await asyncio.wait([asked.answer])
    outcome = asked.answer.result()
    if not isinstance(outcome, UtilityVMError) and undo is not None:
        with suppress(UtilityVMError):  # the guest is gone, and with it what the call made; or it cannot be undone
            await undo(outcome)
    if gone is not None:
        gone()
