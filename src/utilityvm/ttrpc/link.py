"""One connection: what is written goes whole and in turns, and nobody writes more than the other end takes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, cast, final

from utilityvm.kit.errors import ConnectionLost

_UNREAD: Final = "unread"
_UNWRITTEN: Final = "unwritten"


@final
class Link(asyncio.Protocol):
    """A connection's bytes: `take` is called with those that come, `lost` once with the reason of its end, `made` at its beginning.

    While the other end takes nothing, nothing is read of it either: what it sends could make us answer.
    """

    def __init__(
        self, name: str, take: Callable[[bytes], None], lost: Callable[[ConnectionLost], None], made: Callable[[], None] = lambda: None
    ) -> None:
        self._name, self._take, self._lost, self._made = name, take, lost, made
        self._transport: asyncio.Transport | None = None
        self._turn, self._room = asyncio.Lock(), asyncio.Event()
        self._held: set[str] = set()
        self._ended: ConnectionLost | None = None

    @property
    def open(self) -> bool:
        """Whether it was made and has not ended."""
        return self._transport is not None and self._ended is None

    @property
    def transport(self) -> asyncio.BaseTransport:
        """What carries it; there is one once it is made."""
        assert self._transport is not None  # noqa: S101 (set before `made` is called)
        return self._transport

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until it is our turn and the other end takes something; what is written then is written before any other turn.

        Raises:
            ConnectionLost: the connection has ended.
        """
        async with self._turn:
            await self._room.wait()
            if self._ended is not None:
                raise ConnectionLost(self._ended.message)
            yield

    def write(self, data: bytes) -> None:
        """Write these bytes, whole. Nothing happens when the connection has ended."""
        if self._transport is not None and self._ended is None and data:
            self._transport.write(data)

    def hold(self, *, held: bool) -> None:
        """Read nothing until this is called with False."""
        self._hold(_UNREAD, held=held)

    def close(self) -> None:
        """End the connection; what was written is sent if the other end takes it at once. A second call does nothing."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection at once, whatever waits to be sent. A second call does nothing."""
        if self._transport is not None:
            self._transport.abort()

    # -- called by asyncio ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)
        self._room.set()
        self._made()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._take(data)

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._room.clear()
        self._hold(_UNWRITTEN, held=True)

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._room.set()
        self._hold(_UNWRITTEN, held=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._ended = ConnectionLost(f"{self._name}: the connection was lost: {exc}" if exc else f"{self._name}: the connection was closed")
        self._ended.__cause__ = exc
        self._room.set()
        self._lost(self._ended)

    def _hold(self, why: str, *, held: bool) -> None:
        before = bool(self._held)
        (self._held.add if held else self._held.discard)(why)
        if self._transport is None or self._ended is not None or bool(self._held) is before or self._transport.is_closing():
            return
        (self._transport.pause_reading if self._held else self._transport.resume_reading)()
