"""How much may be on its way to a guest at a time: the windows of its connections are narrowed to what there is room for. Pure.

passt before 2024 drops what its socket does not take, and waits two seconds before it sends that again. An ordinary user's sockets hold
less than one connection's window.
"""

from typing import Final, final

from utilityvm.network.frames import PSH, narrow, push

ROOM: Final = 4 << 20
"""Bytes."""

LEAST: Final = 4096
"""Bytes that each connection may have on its way however many there are: with less they would be made of headers."""

_TWO: Final = 1 << 17  # bytes of two of the longest segments
_PERIOD: Final = 1.0
_MOST: Final = 16_384  # connections that are counted


@final
class Windows:
    """Those of one guest; `room` is in bytes, and shared by the connections that something came for in the last second or two."""

    def __init__(self, room: int) -> None:
        self._room = self._share = room
        self._busy = set[bytes]()
        self._before, self._until = 0, 0.0

    def arrived(self, key: bytes, frame: memoryview, at: int) -> None:
        """Take note that a segment, whose header is `at`, has come for the connection `key`, and let it be acknowledged soon.

        Linux waits 40 ms for a second one, which has no room where one fills the window.
        """
        if key not in self._busy and len(self._busy) < _MOST:
            self._busy.add(key)
            self._divide()
        if self._share < _TWO and not frame[at + 13] & PSH:
            push(frame, at)

    def narrow(self, frame: memoryview, at: int, scale: int, now: float) -> None:
        """Let a segment of the guest's, whose header is `at`, ask for no more than its share."""
        if now >= self._until:
            self._before, self._busy, self._until = len(self._busy), set(), now + _PERIOD
            self._divide()
        if (frame[at + 14] << 8 | frame[at + 15]) << scale > self._share:
            narrow(frame, at, max(self._share >> scale, 1))

    def _divide(self) -> None:
        self._share = max(self._room // max(len(self._busy), self._before, 1), LEAST)
