"""The GCS bridge: calls to the guest agent over one stream, answers matched by id in whatever order they come.

protocol/SPEC.md section 5; the rules are those of the original's `internal/gcs/bridge.go`. The bridge lives until its stream ends or
the guest breaks the protocol; then every call that waits, and every later one, fails with the reason.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar, final

from utilityvm.guest.transport import GuestStream
from utilityvm.kit.aio import Deadlines, Scope
from utilityvm.kit.errors import ConnectionLost, DeadlineExceeded, ProtocolError, Unknown, UtilityVMError
from utilityvm.kit.trace import FlightRecorder
from utilityvm.wire import gcs
from utilityvm.wire.frames import RESPONSE, Frame, FrameReader, encode

CALL_TIMEOUT: Final = 300.0
"""Seconds that the guest has for an answer. Exceeding it ends the bridge: the guest's state is no longer known."""

MAX_CALLS: Final = 4096
"""Calls with a deadline that may wait for an answer at a time, also those whose caller gave up; one more waits for its turn."""

Q = TypeVar("Q", bound=gcs.Request)
R = TypeVar("R", bound=gcs.Response)


@dataclass(frozen=True, slots=True)
class _Waiting:
    word: int
    answer: asyncio.Future[Frame]
    late: Callable[[Frame], None]
    slot: asyncio.Semaphore | None  # to be given back with the answer


@final
class Bridge:
    """Calls and answers over `stream`. `name` is the VM's, for errors; `on_lost` hears once why the bridge ended by itself."""

    def __init__(self, stream: GuestStream, name: str, on_lost: Callable[[UtilityVMError], None] | None = None) -> None:
        self._stream, self._name, self._on_lost = stream, name, on_lost
        self.deadlines = Deadlines()
        """The guest's for its answers."""
        self._recorder = FlightRecorder()
        self._waiting: dict[int, _Waiting] = {}
        self._slots = asyncio.Semaphore(MAX_CALLS)
        self._outbox: asyncio.Queue[bytes] = asyncio.Queue()  # bounded as `_waiting` is
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
    ) -> R:
        """Send `request` and return the guest's answer. `within` None waits as long as the guest lives, and takes none of `MAX_CALLS`.

        When the caller is cancelled after sending, the late answer is dropped; a successful one is handed to `undo` first.

        Raises:
            GuestError: the guest answered with a failure.
            ConnectionLost: the bridge has ended; `Unknown` when the request had been sent and the call is not idempotent.
            DeadlineExceeded: no answer in time; the bridge is ended.
        """

        def late(frame: Frame) -> None:
            if undo is not None:
                self._scope.start(f"undo-{call.name}", self._undo(call, frame, undo))

        body, slot = gcs.encode_request(request), None
        if within is not None:
            await self._slots.acquire()
            slot = self._slots
        answer = self._send(call, body, late, slot)
        try:
            async with self.deadlines.within(within):
                frame = await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                late(answer.result())  # it came in the same turn of the loop in which the caller gave up
            raise
        except TimeoutError:
            why = DeadlineExceeded(f"{self._name}: no answer to {call.name} within {within:g} s; the guest connection was ended")
            self._end(why)
            raise why from None
        except ConnectionLost as lost:
            if call.idempotent:
                raise
            raise Unknown(f"{call.name} was sent and may have happened: {lost.message}", frames=lost.frames) from lost
        return gcs.decode_response(call, frame)

    def notify(self, word: int, request: gcs.Request) -> None:
        """Send a request that the guest does not answer.

        Raises:
            ConnectionLost: the bridge has ended.
        """
        self._post(word, gcs.encode_request(request), f"{word:#x}")

    def run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` for as long as the bridge lives, e.g. to wait for a process.

        Raises:
            ConnectionLost: the bridge has ended; `work` was not begun.
        """
        if self._ended is not None:
            work.close()
            raise self._lost(self._ended)
        self._scope.start(name, work)

    async def aclose(self) -> None:
        """End the bridge: calls that wait get `ConnectionLost`. A second call does nothing."""
        self._end(ConnectionLost(f"{self._name}: bridge closed"), tell=False)
        await self._scope.aclose()

    def _send(
        self, call: gcs.Call[Q, R], body: bytes, late: Callable[[Frame], None], slot: asyncio.Semaphore | None
    ) -> asyncio.Future[Frame]:
        """Use the slot that was taken. It is given back with the answer, since the caller may give up long before."""
        try:
            number = self._post(call.word, body, call.name)
        except UtilityVMError:
            if slot is not None:
                slot.release()
            raise
        answer: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        self._waiting[number] = _Waiting(gcs.response_type(call.word), answer, late, slot)
        return answer

    def _post(self, word: int, body: bytes, name: str) -> int:
        """Hand a frame to the writer. The stream takes it in pieces, which a cancelled caller, or another one, must not tear."""
        if self._ended is not None:
            raise self._lost(self._ended)
        number = self._next_id
        data = encode(Frame(word, number, body))
        self._next_id += 1
        self._recorder.note(f"> {number} {name} {len(data)} bytes")
        self._outbox.put_nowait(data)
        return number

    async def _write(self) -> None:
        while True:
            await self._stream.write(await self._outbox.get())

    async def _read(self) -> None:
        reader = FrameReader()
        while data := await self._stream.read(65_536):
            for frame in reader.feed(data):
                self._on_frame(frame)
        raise ConnectionLost(f"{self._name}: the guest agent closed the bridge")

    def _on_frame(self, frame: Frame) -> None:
        self._recorder.note(f"< {frame.id} {frame.type:#x} {len(frame.body)} bytes")
        if frame.kind != RESPONSE:
            raise ProtocolError(f"{self._name}: bridge received unknown message type {frame.type:#x}")
        waiting = self._waiting.get(frame.id)
        if waiting is None or waiting.word != frame.type:
            raise ProtocolError(f"{self._name}: bridge received unknown rpc response for id {frame.id}, type {frame.type:#x}")
        del self._waiting[frame.id]
        if waiting.slot is not None:
            waiting.slot.release()
        if waiting.answer.done():
            waiting.late(frame)
        else:
            waiting.answer.set_result(frame)

    async def _undo(self, call: gcs.Call[Q, R], frame: Frame, undo: Callable[[R], Coroutine[Any, Any, None]]) -> None:
        try:
            await undo(gcs.decode_response(call, frame))
        except UtilityVMError:
            return  # the call failed, so there is nothing to undo; or the guest is gone, and with it what the call made

    def _failed(self, error: Exception) -> None:
        self._end(error if isinstance(error, UtilityVMError) else self._lost(error))

    def _end(self, reason: UtilityVMError, *, tell: bool = True) -> None:
        if self._ended is not None:
            return
        self._ended = reason
        for waiting in self._waiting.values():
            if waiting.slot is not None:
                waiting.slot.release()
            if not waiting.answer.done():
                waiting.answer.set_exception(self._lost(reason))
                waiting.answer.exception()  # a caller that was cancelled does not come back for it
        self._waiting.clear()
        self._stream.close()
        if tell and self._on_lost is not None:
            self._on_lost(reason)

    def _lost(self, cause: Exception) -> ConnectionLost:
        lost = ConnectionLost(f"{self._name}: guest connection lost: {cause}", frames=self._recorder.frames())
        lost.__cause__ = cause
        return lost
