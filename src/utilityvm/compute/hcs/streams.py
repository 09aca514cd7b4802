"""Streams on one transport of asyncio: a `guest.transport.GuestStream` of a socket, or of a pipe in one direction."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final, final

from utilityvm.kit.errors import ConnectionLost, UtilityVMError

HELD: Final = 512 * 1024
"""Bytes that may wait for a reader before the other end is held back."""


@final
class Stream(asyncio.Protocol):
    """A stream: everything that it was sent can be read, then the end.

    `name` names it in errors; `ended` is called once when its transport is gone.
    """

    def __init__(self, name: str, ended: Callable[["Stream"], None] = lambda _: None) -> None:
        self._name, self._on_end = name, ended
        self._transport: asyncio.BaseTransport | None = None
        self._held = bytearray()
        self._paused = self._eof = self._shut = self._gone = False
        self._failure: UtilityVMError | None = None
        self._readable, self._room = asyncio.Event(), asyncio.Event()
        self._room.set()

    async def read(self, limit: int = -1) -> bytes:
        """See `guest.transport.GuestStream.read`."""
        if limit < 0:
            return b"".join([chunk async for chunk in _chunks(self)])
        while not self._held and limit:
            if self._failure is not None:
                raise self._failure.with_traceback(None)
            if self._eof:
                return b""
            self._readable.clear()
            await self._readable.wait()
        chunk = bytes(self._held[:limit])
        del self._held[:limit]
        if self._paused and len(self._held) < HELD:
            self._pause(on=False)
        return chunk

    async def write(self, data: bytes) -> None:
        """See `guest.transport.GuestStream.write`."""
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        transport = self._transport
        if self._shut or self._gone or transport is None or transport.is_closing():
            raise BrokenPipeError(f"{self._name}: {'closed for writing' if self._shut else 'it takes no more'}")
        assert isinstance(transport, asyncio.WriteTransport)  # noqa: S101 (nobody else is given one to write to)
        transport.write(data)
        await self._room.wait()

    async def write_eof(self) -> None:
        """See `guest.transport.GuestStream.write_eof`."""
        transport = self._transport
        if self._shut or self._gone or not isinstance(transport, asyncio.WriteTransport):
            return
        self._shut = True
        if transport.can_write_eof() and isinstance(transport, asyncio.ReadTransport):
            transport.write_eof()
        else:
            transport.close()  # a pipe in one direction: its end is its closing, after what was written

    def read_only(self) -> None:
        """See `guest.transport.GuestStream.read_only`."""
        self._shut = True
        if self._eof and self._transport is not None:
            self._transport.close()

    def close(self) -> None:
        """See `guest.transport.GuestStream.close`."""
        self._eof = self._shut = True
        self._held.clear()
        if self._transport is not None:
            self._transport.close()
        self._wake()

    def fail(self, reason: UtilityVMError) -> None:
        """End it because of `reason`; what it was sent before can still be read."""
        self._failure = self._failure or (None if self._eof else reason)
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.abort()
        elif self._transport is not None:
            self._transport.close()
        self._wake()

    # -- from asyncio -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Keep what has come."""
        self._held += data
        if len(self._held) >= HELD:
            self._pause(on=True)
        self._readable.set()

    def eof_received(self) -> bool:
        """Note the end of what comes; what we write may go on."""
        self._eof = True
        self._readable.set()
        return not self._shut

    def pause_writing(self) -> None:
        """Hold writers back."""
        self._room.clear()

    def resume_writing(self) -> None:
        """Let writers go on."""
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        self._gone = True
        if exc is not None and not self._eof and self._failure is None:
            self._failure = ConnectionLost(f"{self._name}: reset: {exc}")
            self._failure.__cause__ = exc
        self._eof = True
        self._wake()
        self._on_end(self)

    def _pause(self, *, on: bool) -> None:
        if on is not self._paused and isinstance(self._transport, asyncio.ReadTransport) and not self._transport.is_closing():
            self._paused = on
            (self._transport.pause_reading if on else self._transport.resume_reading)()

    def _wake(self) -> None:
        self._readable.set()
        self._room.set()


async def _chunks(stream: Stream) -> AsyncIterator[bytes]:
    while chunk := await stream.read(1 << 20):
        yield chunk


@final
class NoStream:
    """The end of a stream that was not asked for."""

    async def read(self, limit: int = -1) -> bytes:  # noqa: ARG002 (the port's signature)
        """Return the end."""
        return b""

    async def write(self, data: bytes) -> None:
        """Refuse."""
        raise BrokenPipeError(f"{len(data)} bytes for a process that was started without stdin")

    async def write_eof(self) -> None:
        """Do nothing."""

    def read_only(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
