"""Messages that have come on streams and were not taken yet: bounded for a connection, and a stream that nobody reads pays for it."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, final

from utilityvm.kit.errors import Exhausted, UtilityVMError

MAX_MESSAGES: Final = 64
"""Messages that wait on a stream before its connection is read no further."""

MAX_BYTES: Final = 8 << 20
"""The same in bytes, of all streams of a connection; more by what is read at once."""

PATIENCE: Final = 1.0
"""Seconds until the stream that has most waiting is ended, since the others of its connection wait for it."""


@final
class Inbox:
    """What waits on one stream, for one reader."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._waiting: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._over: UtilityVMError | None = None
        self._finished = False
        self.size = 0

    @property
    def count(self) -> int:
        """How many messages wait."""
        return len(self._waiting)

    def put(self, data: bytes) -> None:
        """Let a message wait."""
        self._waiting.append(data)
        self.size += len(data)
        self._news.set()
        self._changed()

    def finish(self) -> None:
        """Say that there are no more."""
        self._finished = True
        self._news.set()

    def fail(self, error: UtilityVMError) -> None:
        """Let the reader have this error and nothing else any more. A second one is not heard of."""
        self._over = self._over or error
        self._waiting.clear()
        self.size = 0
        self._news.set()
        self._changed()

    async def get(self) -> bytes | None:
        """Wait for the next message; None: there are no more.

        Raises:
            UtilityVMError: the stream failed.
        """
        while True:
            if self._over is not None:
                raise self._over
            if self._waiting:
                data = self._waiting.popleft()
                self.size -= len(data)
                self._changed()
                return data
            if self._finished:
                return None
            self._news.clear()
            await self._news.wait()


@final
class Inboxes:
    """The inboxes of one connection. `hold` is told whether to read it no further; `overrun` ends a stream that nobody reads."""

    def __init__(self, hold: Callable[[bool], None], overrun: Callable[[int, Exhausted], None]) -> None:
        self._hold, self._overrun = hold, overrun
        self._open: dict[int, Inbox] = {}
        self._timer: asyncio.TimerHandle | None = None

    def open(self, stream: int) -> Inbox:
        """Make the inbox of a stream."""
        inbox = self._open[stream] = Inbox(self._look)
        return inbox

    def find(self, stream: int) -> Inbox | None:
        """Return the inbox of a stream, None when it has none."""
        return self._open.get(stream)

    def close(self, stream: int) -> None:
        """Forget a stream, with what waits on it. A second call does nothing."""
        if self._open.pop(stream, None) is not None:
            self._look()

    def close_all(self, error: UtilityVMError) -> None:
        """Let every reader have this error."""
        for inbox in list(self._open.values()):
            inbox.fail(error)
        self._open.clear()
        self._look()

    def _look(self) -> None:
        inboxes = self._open.values()
        full = any(inbox.count >= MAX_MESSAGES for inbox in inboxes) or sum(inbox.size for inbox in inboxes) >= MAX_BYTES
        if full and self._timer is None:
            self._hold(True)
            self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._give_up)
        elif not full and self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._hold(False)

    def _give_up(self) -> None:
        stream = max(self._open, key=lambda stream: (self._open[stream].size, self._open[stream].count))
        text = f"{self._open[stream].count} messages waited {PATIENCE:g} s and were not taken"
        self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._give_up)
        self._overrun(stream, Exhausted(text))
