"""Our own standard streams on the event loop, whatever they are: terminal, pipe, socket, file."""

import asyncio
import os
from collections.abc import Callable
from typing import Final

from utilityvm.kit.errors import HostError

_NAMES: Final = ("standard input", "standard output", "standard error")


async def read_some(fd: int, limit: int) -> bytes:
    """Return up to `limit` bytes of `fd`, ``b""`` at its end; waits without blocking the loop.

    Raises:
        HostError: it cannot be read.
    """
    loop = asyncio.get_running_loop()
    while True:
        await _ready(fd, loop.add_reader, loop.remove_reader)
        try:
            return os.read(fd, limit)
        except BlockingIOError:
            continue  # somebody else, who shares it, was faster
        except OSError as error:
            raise HostError(f"{_NAMES[fd]} cannot be read: {error.strerror}") from error


async def write_all(fd: int, data: bytes, stream: int | None = None) -> None:
    """Write all of `data` to `fd`; waits without blocking the loop while nobody takes it. `stream` is which of our streams it stands for.

    Raises:
        BrokenPipeError: whoever read it is gone.
        HostError: it cannot be written.
    """
    loop = asyncio.get_running_loop()
    rest = memoryview(data)
    while rest:
        await _ready(fd, loop.add_writer, loop.remove_writer)
        # The descriptor may be shared with other programs, so it is not set to non-blocking. A pipe that is writable takes PIPE_BUF
        # bytes without blocking; a file takes anything.
        try:
            rest = rest[os.write(fd, rest[: min(len(rest), 4096)]) :]
        except BlockingIOError:
            continue
        except BrokenPipeError:
            raise
        except OSError as error:
            raise HostError(f"{_NAMES[fd if stream is None else stream]} cannot be written: {error.strerror}") from error


async def _ready(fd: int, add: Callable[..., None], remove: Callable[[int], object]) -> None:
    """Wait until `fd` is ready. A regular file always is, and epoll refuses it."""
    ready = asyncio.Event()
    try:
        add(fd, ready.set)
    except PermissionError:
        return
    try:
        await ready.wait()
    finally:
        remove(fd)
