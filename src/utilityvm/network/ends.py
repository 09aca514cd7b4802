"""When a connection's half may end: what the guest says of its own end reaches passt when it harms no longer. Pure.

passt before 2025 hears nothing from a guest that has said that it sends no more: what still comes for it stops at its window, and it never
learns of its end. So that word is held back while something comes, until the other side has said the same. The guest repeats it.
"""

from typing import Final, final

from utilityvm.network.frames import FIN, RST, SYN

QUIET: Final = 1.0
"""Seconds in which the other side says nothing at all: then it waits for the guest's end, and is told."""

PAUSE: Final = 5.0
"""The same once it has said something: passt takes two to send again what was lost."""

_MOST: Final = 16_384  # connections that are remembered


@final
class Ends:
    """Those of one guest's connections."""

    def __init__(self) -> None:
        self._until: dict[bytes, float] = {}

    def arrived(self, key: bytes, flags: int, now: float, *, carries: bool) -> None:
        """Take note of a segment that has come for the connection `key`; `carries` says whether there is anything in it."""
        if flags & (FIN | RST):
            self._until.pop(key, None)
        elif carries or flags & SYN:
            if len(self._until) >= _MOST and key not in self._until:
                del self._until[next(iter(self._until))]
            self._until[key] = now + (QUIET if flags & SYN else PAUSE)

    def too_early(self, key: bytes, now: float, window: int) -> bool:
        """Return whether the guest's word that it sends no more is to be held back; while its `window` is closed nothing can come."""
        until = self._until.get(key)
        return until is not None and (now < until or not window)
