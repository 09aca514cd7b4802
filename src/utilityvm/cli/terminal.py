"""The user's terminal while a program in the guest has it: raw, followed in its size, and given back whatever happens."""

import asyncio
import os
import signal
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, final

ESCAPE: Final = 0x1D
"""The key (Ctrl-]) that ends the VM when it is pressed `ESCAPE_TIMES` within `ESCAPE_WITHIN` seconds, as in systemd-nspawn."""

ESCAPE_TIMES: Final = 3
ESCAPE_WITHIN: Final = 1.0

_IFLAG, _OFLAG, _CFLAG, _LFLAG, _CC = 0, 1, 2, 3, 6  # places in the list of tcgetattr


@final
class Escape:
    """Looks for the escape in what is typed. It holds nothing back: the program gets these keys as well."""

    def __init__(self) -> None:
        self._pressed: list[float] = []

    def found(self, typed: bytes, now: float) -> bool:
        """Take what was typed at `now`, in seconds; say whether it completes the escape."""
        for key in typed:
            if key != ESCAPE:
                self._pressed.clear()
                continue
            self._pressed = [*self._pressed[1 - ESCAPE_TIMES :], now]
            if len(self._pressed) == ESCAPE_TIMES and now - self._pressed[0] <= ESCAPE_WITHIN:
                return True
        return False


def size_of(*fds: int) -> tuple[int, int] | None:
    """Return (height, width) in characters of the first of `fds` that is a terminal, None when none is."""
    for fd in fds:
        with suppress(OSError):
            size = os.get_terminal_size(fd)
            return size.lines, size.columns
    return None


def raw_mode(before: list[Any]) -> list[Any]:
    """Return the attributes of a terminal on which each key is a byte and each byte is shown as it is; `before` are tcgetattr's."""
    mode = [*before]
    mode[_IFLAG] &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
    )
    mode[_OFLAG] &= ~termios.OPOST
    mode[_CFLAG] = mode[_CFLAG] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    mode[_LFLAG] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    mode[_CC] = [*before[_CC]]
    mode[_CC][termios.VMIN], mode[_CC][termios.VTIME] = 1, 0
    return mode


@final
class Terminal:
    """The terminal `fd`, which must be one.

    Inside `raw` every key is only a byte, Ctrl-C too, and `resized` is set at the start and whenever its size may have changed.
    A stop from elsewhere (SIGTSTP) gives the terminal back first, and it is taken again when we go on in the foreground.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before = termios.tcgetattr(fd)
        self._loop = asyncio.get_running_loop()
        self.resized = asyncio.Event()

    @contextmanager
    def raw(self) -> Iterator[None]:
        """Take the terminal; give it back as it was at the end."""
        handlers = {signal.SIGWINCH: self.resized.set, signal.SIGTSTP: self._stop, signal.SIGCONT: self._take}
        if signal.getsignal(signal.SIGTSTP) is signal.SIG_IGN:  # our parent wants us not to stop
            del handlers[signal.SIGTSTP]
        try:
            for number, handler in handlers.items():
                self._loop.add_signal_handler(number, handler)
            self._take()
            yield
        finally:
            for number in handlers:
                self._loop.remove_signal_handler(number)
            self._set(self._before)

    def _take(self) -> None:
        self._set(raw_mode(self._before))
        self.resized.set()

    def _set(self, mode: list[Any]) -> None:
        """Set the mode, unless the terminal is another job's now: then the shell sees to it, and SIGCONT tells us when it is ours."""
        with suppress(OSError):  # not our controlling terminal: nobody else's either
            if os.tcgetpgrp(self._fd) != os.getpgrp():
                return
        with suppress(termios.error):  # it is gone, which its reader learns as well
            termios.tcsetattr(self._fd, termios.TCSANOW, mode)

    def _stop(self) -> None:
        self._set(self._before)
        self._loop.remove_signal_handler(signal.SIGTSTP)
        os.kill(os.getpid(), signal.SIGTSTP)  # we go on from here, at once where nobody could continue us
        self._loop.add_signal_handler(signal.SIGTSTP, self._stop)
        self._take()


@contextmanager
def unblocked(fd: int) -> Iterator[int]:
    """Give a descriptor for writing to `fd` which, if that is a terminal, never blocks us, however long its other end takes nothing.

    The flag would be everybody's who shares our standard streams, so the terminal is opened anew. What is no terminal, or cannot be
    opened, is given as it is.
    """
    try:
        own = os.open(os.ttyname(fd), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        yield fd
        return
    try:
        yield own
    finally:
        os.close(own)
