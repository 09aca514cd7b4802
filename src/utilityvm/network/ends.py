"""When a connection's half may end: what the guest says of its own end reaches passt when it harms no longer. Pure.

passt before 2025 hears nothing from a guest that has said that it sends no more: what still comes for it stops at its window, and it never
learns of its end. So that word is held back while something comes, until the other side has said the same. The guest repeats it.
"""

from typing import Final, final

from utilityvm.network.frames import FIN, RST, SYN

QUIET: Final = 1.0
"""Seconds in which nothing came: then the other side waits for the guest's end, and is told."""

_MOST: Final = 16_384  # connections that are remembered


@final
class Ends:
    """Those of one guest's connections."""

    def __init__(self) -> None:
        self._heard: dict[bytes, float] = {}

    def arrived(self, key: bytes, flags: int, now: float, *, carries: bool) -> None:
        """Take note of a segment that has come for the connection `key`; `carries` says whether there is anything in it."""
        if flags & (FIN | RST):
            self._heard.pop(key, None)
        elif carries or flags & SYN:
            if len(self._heard) >= _MOST and key not in self._heard:
                del self._heard[next(iter(self._heard))]
            self._heard[key] = now

    def too_early(self, key: bytes, now: float) -> bool:
        """Return whether the guest's word that it sends no more is to be held back."""
        return now - self._heard.get(key, -QUIET) < QUIET
