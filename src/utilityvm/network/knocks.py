"""Connections from outside that a guest has not answered: passt asks once, and gives up after ten seconds. Pure.

A guest whose program has not taken the connections before lets the question fall, and waits to be asked again, as every TCP does.
"""

import math
from typing import Final, final

import msgspec

AFTER: Final = (1.0, 2.0, 4.0)
"""Seconds until a question is repeated, each counted from the one before."""

MOST: Final = 1024
"""Questions that are repeated; one more is not."""


class _Knock(msgspec.Struct):
    frame: bytes
    due: float
    times: int = 0


@final
class Knocks:
    """Those of one guest; `due` is when the next question is to be repeated."""

    def __init__(self) -> None:
        self._open: dict[bytes, _Knock] = {}
        self.due = math.inf

    def arrived(self, key: bytes, frame: bytes, now: float) -> None:
        """Take note of a question, the first segment of the connection `key`, which goes to the guest now."""
        if len(self._open) < MOST:
            self._open[key] = _Knock(frame, now + AFTER[0])
            self.due = min(self.due, now + AFTER[0])

    def answered(self, key: bytes) -> None:
        """Take note that the guest has said something to it."""
        self._open.pop(key, None)

    def again(self, now: float) -> list[bytes]:
        """Return the questions that are to be repeated now."""
        if now < self.due:
            return []
        frames = []
        for key, knock in list(self._open.items()):
            if knock.due > now:
                continue
            frames.append(knock.frame)
            knock.times += 1
            if knock.times == len(AFTER):
                del self._open[key]
            else:
                knock.due = now + AFTER[knock.times]
        self.due = min((knock.due for knock in self._open.values()), default=math.inf)
        return frames
