"""How far work with an image has come, on standard error: a line that overwrites itself on a terminal, elsewhere one a layer."""

import sys
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from utilityvm.images.depot import Progress

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_CLEAR: Final = "\r\x1b[K"


def human(size: int) -> str:
    """Return a number of bytes for people, e.g. ``12.3 MiB``."""
    power = min((max(size, 1).bit_length() - 1) // 10, len(_UNITS) - 1)
    number = size / (1 << 10 * power)
    return f"{number:.3g} {_UNITS[power]}" if number < 100 else f"{number:.0f} {_UNITS[power]}"


@final
class Bar:
    """Hears of progress. `close` ends the line."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._terminal = sys.stderr.isatty()
        self._quiet, self._last = quiet, ("", -1)

    def __call__(self, progress: "Progress", /) -> None:
        """Show it."""
        if self._quiet:
            return
        percent = 100 * progress.done // progress.total if progress.total else 100
        if (progress.what, percent) == self._last:
            return
        self._last = (progress.what, percent)
        if self._terminal:
            self._write(f"{_CLEAR}{progress.what}: {percent} % of {human(progress.total)}")
        elif percent == 100 and progress.what.startswith("layer"):  # the end of what comes by a pipe is not known before
            self._write(f"{progress.what}: {human(progress.total)}\n")

    def close(self) -> None:
        """End the line that is being overwritten."""
        if self._terminal and self._last[0]:
            self._write(_CLEAR)

    @staticmethod
    def _write(text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
