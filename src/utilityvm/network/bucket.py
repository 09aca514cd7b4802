"""How fast something may go: bytes that are earned with time and spent as they go. Pure, but for the time it is told."""

from typing import Final, final

from utilityvm.kit.errors import InvalidOptions

LEAST: Final = 65_536
"""Bytes a second at least: about one of the longest frames."""

_BURST: Final = 0.1  # seconds' worth that is kept while nothing goes
_LEAST_BURST: Final = 1 << 17  # two of the longest that a guest hands over as one


def check_rate(rate: int | None) -> None:
    """Refuse a rate, in bytes a second, that is too small; None is however many.

    Raises:
        InvalidOptions: it is.
    """
    if rate is not None and rate < LEAST:
        raise InvalidOptions(f"rate: {rate} bytes a second: at least {LEAST}", hint="None is however many")


def burst(rate: int) -> float:
    """Return how many bytes may go at once, after nothing has gone for a while."""
    return max(rate * _BURST, _LEAST_BURST)


@final
class Bucket:
    """`rate` is in bytes a second. More may be spent than was earned; then nothing more is to go until it is."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._most = burst(rate)
        self._level, self._at = self._most, 0.0

    def spend(self, size: int, now: float) -> None:
        """Take note that so many bytes have gone."""
        self._earn(now)
        self._level -= size

    def wait(self, now: float) -> float:
        """Return how many seconds nothing is to go, 0 for none."""
        self._earn(now)
        return max(0.0, -self._level / self._rate)

    def _earn(self, now: float) -> None:
        self._level = min(self._most, self._level + (now - self._at) * self._rate)
        self._at = now
