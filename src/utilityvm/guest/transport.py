"""The guest connection on asyncio: one socket carries all streams between the host and a guest.

The shell round `wire.vsock`: it moves bytes, wakes readers and writers, and decides nothing.
"""

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol, final, runtime_checkable

from utilityvm.kit.errors import ConnectionLost, DeadlineExceeded, UtilityVMError
from utilityvm.wire.vsock import Credit, Ended, Event, HostSocket, Opened, PeerShut, Quiet, Ready, Received, StreamId

BACKLOG: Final = 64
"""Dials to one port that may wait for `accept`; one more is reset."""

_SMALL: Final = 4096  # chunks up to this size are joined
_MOMENT: Final = 0.001  # seconds that packets in no hurry wait for others
QUIESCE_TIMEOUT: Final = 1.0
"""Seconds that a guest has to fall silent when it is asked to."""

OUT_HIGH: Final = 1024 * 1024
"""Bytes waiting for the guest beyond which we stop reading from it and hold writers back, whatever room it claims to have."""


@runtime_checkable
class GuestStream(Protocol):
    """One stream from the guest: what is read and written by it is bytes without boundaries."""

    async def read(self, limit: int = -1) -> bytes:
        """Return up to `limit` bytes as soon as there are any, ``b""`` at the end; without a limit all up to the end.

        Raises:
            ConnectionLost: the stream was reset, or the VM is gone.
            ProtocolError: the guest broke the protocol, and its connection was ended.
        """
        ...

    async def write(self, data: bytes) -> None:
        """Send all of `data`; waits while the guest has no room.

        Raises:
            BrokenPipeError: the guest takes no more on this stream.
            ConnectionLost: the stream was reset, or the VM is gone.
            ProtocolError: the guest broke the protocol, and its connection was ended.
        """
        ...

    async def write_eof(self) -> None:
        """Send no more: the guest's reader sees the end. A second call does nothing."""
        ...

    def read_only(self) -> None:
        """Promise to write nothing: the stream is closed by itself once the guest's last byte has arrived. What arrived is still read."""
        ...

    def close(self) -> None:
        """Give the stream up in both directions. A second call does nothing."""
        ...


@runtime_checkable
class Listener(Protocol):
    """A port on which we wait for the guest to dial."""

    async def accept(self) -> GuestStream:
        """Return the next stream.

        Raises:
            ConnectionLost: the VM is gone.
            ProtocolError: the guest broke the protocol, and its connection was ended.
        """
        ...

    def close(self) -> None:
        """Accept no more; streams that nobody accepted are reset. A second call does nothing."""
        ...


class GuestSockets(Protocol):
    """Where a guest's dials arrive."""

    def listen(self, port: int, *, once: bool = False, programs: bool = False) -> Listener:
        """Accept dials of the guest's agent to `port`, with `programs` also those of its programs by AF_VSOCK; with `once` only the first.

        Raises:
            Exhausted: the port is listened to already.
        """
        ...


@final
class Transport:
    """The host's end of one VM's guest connection.

    `name` is the VM's name in errors. `on_lost` is called once when the connection ends by itself, with the reason.
    Open with `open`; `close` ends all streams and listeners at once.
    """

    def __init__(self, name: str, nonce: bytes, on_lost: Callable[[UtilityVMError], None] | None = None) -> None:
        self._name, self._on_lost = name, on_lost
        self._wire = HostSocket(nonce)
        self._streams: dict[StreamId, _Stream] = {}
        self._listeners: dict[int, _Listener] = {}
        self._carrier: asyncio.Transport | None = None
        self._lost: UtilityVMError | None = None
        self._later: asyncio.TimerHandle | None = None
        self._room, self._quiet = asyncio.Event(), asyncio.Event()
        self._room.set()

    async def open(self, sock: socket.socket) -> None:
        """Take over the connected stream socket `sock` and begin with a transport reset. Does not wait for the guest."""
        sock.setblocking(False)
        carrier, _ = await asyncio.get_running_loop().create_connection(lambda: _Carrier(self), sock=sock)
        carrier.set_write_buffer_limits(high=OUT_HIGH)
        self._carrier = carrier
        self.flush()

    def listen(self, port: int, *, once: bool = False, programs: bool = False) -> Listener:
        """See `GuestSockets.listen`. May be called before `open`."""
        self._wire.listen(port, once=once, programs=programs)
        listener = self._listeners[port] = _Listener(self, port, once=once)
        if self._lost is not None:
            listener.fail(self._lost)
        self.flush()
        return listener

    def allow(self, port: int, allowed: bool) -> None:
        """Refuse dials to `port`, whoever listens to it, or accept them again. Streams that were made stay."""
        (self._wire.enable if allowed else self._wire.disable)(port)
        self.flush()

    async def quiesce(self) -> None:
        """Let both ends stop between two packets: nothing is under way when this returns, until `speak`. A guest that has never answered
        has nothing to stop.

        Raises:
            DeadlineExceeded: the guest did not fall silent within `QUIESCE_TIMEOUT` seconds; the connection goes on.
            ConnectionLost, ProtocolError: the connection ended.
        """
        if not self._wire.ready:
            return
        self._quiet.clear()
        await self.room()
        if self._carrier is not None and self._lost is None:
            self._carrier.writelines(self._wire.quiesce())
        try:
            async with asyncio.timeout(QUIESCE_TIMEOUT):
                await self._quiet.wait()
        except BaseException as error:
            self.speak()
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(f"{self._name}: the guest's agent did not fall silent within {QUIESCE_TIMEOUT:g} s") from error
            raise
        if self._lost is not None:
            raise self._lost

    def speak(self) -> None:
        """Go on after `quiesce`."""
        if self._wire.ready:
            self._wire.speak()
            self.flush()

    def close(self) -> None:
        """End the connection: readers, writers and acceptors get `ConnectionLost`. A second call does nothing."""
        self.lose(ConnectionLost(f"{self._name}: the guest connection was closed"), ours=True)

    # -- for streams and listeners ----------------------------------------------------------------------------------

    @property
    def wire(self) -> HostSocket:
        """The state machine."""
        return self._wire

    def flush(self) -> None:
        """Write what the state machine wants to send, or what is in no hurry in a moment; to nobody once the connection has ended."""
        if self._wire.urgent:
            self._write()
        elif self._wire.waiting and self._later is None and self._carrier is not None:
            self._later = asyncio.get_running_loop().call_later(_MOMENT, self._write)

    def _write(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._carrier is not None and (out := self._wire.to_send()) and self._lost is None:
            self._carrier.writelines(out)

    async def room(self) -> None:
        """Wait until the carrier is no longer full."""
        while not self._room.is_set():  # another writer may have filled it again
            await self._room.wait()

    def drop(self, stream: StreamId) -> None:
        """Close a stream that its reader has given up."""
        self._close_stream(stream)
        self.flush()

    def refuse(self, stream: StreamId) -> None:
        """Reset a stream that nobody accepted: a guest that dials on and on must not use up what it has for others. `flush` tells it."""
        self._wire.reset(stream)
        self._streams.pop(stream, None)

    def forget_listener(self, listener: "_Listener") -> None:
        """Drop a closed listener."""
        if self._listeners.get(listener.port) is listener:
            del self._listeners[listener.port]
            self._wire.unlisten(listener.port)
            self.flush()

    # -- from the carrier -------------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Take bytes from the guest."""
        if self._lost is not None:
            return
        try:
            for event in self._wire.receive(data):
                self._on_event(event)
        except UtilityVMError as error:
            self.lose(error)
            return
        self.flush()

    def hold(self, *, full: bool) -> None:
        """Follow the carrier's fill level. A guest that does not read is not listened to: its questions would pile up as answers."""
        if self._carrier is None:
            return
        if full:
            self._room.clear()
            self._carrier.pause_reading()
        else:
            self._room.set()
            self._carrier.resume_reading()

    def lose(self, reason: UtilityVMError, *, ours: bool = False) -> None:
        """End everything because of `reason`."""
        if self._lost is not None:
            return
        self._lost = reason
        if self._later is not None:
            self._later.cancel()
        self._room.set()
        self._quiet.set()
        for stream in list(self._streams.values()):
            stream.fail(reason)
        for listener in list(self._listeners.values()):
            listener.fail(reason)
        self._streams.clear()
        if self._carrier is not None:
            self._carrier.abort()
        if not ours and self._on_lost is not None:
            self._on_lost(reason)

    def carrier_ended(self, error: Exception | None) -> None:
        """The other end of the carrier is gone."""
        lost = ConnectionLost(f"{self._name}: the guest connection ended: {error or 'the VM closed it'}")
        lost.__cause__ = error
        self.lose(lost)

    def _close_stream(self, stream: StreamId) -> None:
        if self._wire.close(stream) and (forgotten := self._streams.pop(stream, None)) is not None:
            forgotten.forget()

    def _on_event(self, event: Event) -> None:
        match event:
            case Opened(stream, port):
                self._streams[stream] = opened = _Stream(self, stream, f"{self._name}: guest stream on port {port:#x}")
                listener = self._listeners.pop(port) if self._listeners[port].once else self._listeners[port]
                listener.offer(opened)
            case Received(stream, data):
                self._streams[stream].received(data)
            case PeerShut(stream, sends, receives):
                if self._streams[stream].peer_shut(sends=sends, receives=receives):
                    self._close_stream(stream)
            case Credit(stream):
                if (waiting := self._streams.get(stream)) is not None:  # not closed by the event before
                    waiting.credit()
            case Ended(stream, why):
                self._streams.pop(stream).ended(why)
            case Quiet():
                self._quiet.set()
            case Ready():
                pass


class _Carrier(asyncio.Protocol):
    """asyncio's callbacks, handed to the transport."""

    def __init__(self, owner: Transport) -> None:
        self._owner = owner

    def data_received(self, data: bytes) -> None:
        self._owner.received(data)

    def pause_writing(self) -> None:
        self._owner.hold(full=True)

    def resume_writing(self) -> None:
        self._owner.hold(full=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.carrier_ended(exc)


@final
class _Stream:
    """A `GuestStream`. What it holds unread is bounded by the window that the guest was told."""

    def __init__(self, owner: Transport, stream: StreamId, name: str) -> None:
        self._owner, self._id, self._name = owner, stream, name
        self._chunks: deque[bytes | bytearray] = deque()
        self._eof = self._broken = self._sent_eof = self._read_only = self._closed = False
        self._ended = False  # then the guest may have given our name to another stream, which is none of our business
        self._failure: UtilityVMError | None = None
        self._readable, self._writable = asyncio.Event(), asyncio.Event()

    async def read(self, limit: int = -1) -> bytes:
        if limit < 0:
            return b"".join([chunk async for chunk in _chunks(self)])
        while not self._chunks:
            if self._eof or limit == 0:
                return b""
            if self._failure is not None:
                raise self._failure.with_traceback(None)
            self._readable.clear()
            await self._readable.wait()
        chunk = bytes(self._chunks.popleft())
        if len(chunk) > limit:
            self._chunks.appendleft(chunk[limit:])
            chunk = chunk[:limit]
        if not self._ended:
            self._owner.wire.taken(self._id, len(chunk))
            self._owner.flush()
        return chunk

    async def write(self, data: bytes) -> None:
        rest = memoryview(data).cast("B")  # items of an array may be longer than a byte
        while rest:
            await self._owner.room()
            if self._failure is not None:
                raise self._failure.with_traceback(None)
            if self._broken or self._sent_eof or self._read_only or self._closed:
                raise BrokenPipeError(f"{self._name}: " + ("the guest takes no more" if self._broken else "closed for writing"))
            self._writable.clear()
            piece = rest[:OUT_HIGH]
            sent = self._owner.wire.send(self._id, piece)
            self._owner.flush()
            if sent < len(piece):
                await self._writable.wait()
            rest = rest[sent:]
        await self._owner.room()

    async def write_eof(self) -> None:
        if not self._sent_eof:
            self._sent_eof = True
            if not (self._ended or self._closed):
                self._owner.wire.shut_send(self._id)
                self._owner.flush()

    def read_only(self) -> None:
        self._read_only = True
        if self._eof and not self._ended:
            self._owner.drop(self._id)

    def close(self) -> None:
        if not self._closed:
            self._closed = self._eof = True
            self._chunks.clear()
            if not self._ended:
                self._owner.drop(self._id)
            self._wake()

    def refuse(self) -> None:
        """End a stream that nobody has seen."""
        if not self._ended:
            self._owner.refuse(self._id)

    def received(self, data: bytes) -> None:
        if self._closed:
            return
        tail = self._chunks[-1] if self._chunks else b""
        if isinstance(tail, bytearray) and len(tail) <= _SMALL:
            tail += data  # a guest that sends single bytes must not cost us an object for each
        else:
            self._chunks.append(data if len(data) > _SMALL else bytearray(data))
        self._readable.set()

    def peer_shut(self, *, sends: bool, receives: bool) -> bool:
        """Note what the guest does no more; say whether nothing can pass in either direction any more."""
        self._eof = self._eof or not sends
        self._broken = self._broken or not receives
        self._wake()
        return self._eof and (self._broken or self._read_only)

    def credit(self) -> None:
        self._writable.set()

    def forget(self) -> None:
        """Nothing passes any more; what has come is still read."""
        self._ended = self._broken = True

    def ended(self, why: str) -> None:
        self._ended = self._broken = True
        if not why or self._closed:
            self._eof = True
        elif not self._eof:
            self._failure = ConnectionLost(f"{self._name}: {why}")
        self._wake()

    def fail(self, reason: UtilityVMError) -> None:
        self._failure, self._ended = reason, True
        self._wake()

    def _wake(self) -> None:
        self._readable.set()
        self._writable.set()


async def _chunks(stream: _Stream) -> AsyncIterator[bytes]:
    while chunk := await stream.read(1 << 20):
        yield chunk


@final
class _Listener:
    """A `Listener`; `once` ones end with their first stream."""

    def __init__(self, owner: Transport, port: int, *, once: bool) -> None:
        self._owner, self.port, self.once = owner, port, once
        self._waiting: deque[_Stream] = deque()
        self._failure: UtilityVMError | None = None
        self._changed = asyncio.Event()

    async def accept(self) -> GuestStream:
        while not self._waiting:
            if self._failure is not None:
                raise self._failure.with_traceback(None)
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft()

    def close(self) -> None:
        self.fail(ConnectionLost(f"guest port {self.port:#x} is no longer listened to"))
        for stream in self._waiting:
            stream.refuse()
        self._waiting.clear()
        self._owner.flush()
        self._owner.forget_listener(self)

    def offer(self, stream: _Stream) -> None:
        if len(self._waiting) >= BACKLOG:
            stream.refuse()
            return
        self._waiting.append(stream)
        self._changed.set()

    def fail(self, reason: UtilityVMError) -> None:
        self._failure = self._failure or reason
        self._changed.set()
