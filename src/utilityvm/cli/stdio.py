"""Our own standard streams on the event loop, whatever they are: terminal, pipe, socket, file."""

import asyncio
import os
from collections.abc import Callable


async def read_some(fd: int, limit: int) -> bytes:
    """Return up to `limit` bytes of `fd`, ``b""`` at its end; waits without blocking the loop."""
    loop = asyncio.get_running_loop()
    await _ready(fd, loop.add_reader, loop.remove_reader)
    return os.read(fd, limit)


async def write_all(fd: int, data: bytes) -> None:
    """Write all of `data` to `fd`; waits without blocking the loop while nobody takes it."""
    loop = asyncio.get_running_loop()
    rest = memoryview(data)
    while rest:
        await _ready(fd, loop.add_writer, loop.remove_writer)
        # The descriptor may be shared with other programs, so it is not set to non-blocking. A pipe that is writable takes PIPE_BUF
        # bytes without blocking; a file takes anything.
        rest = rest[os.write(fd, rest[: min(len(rest), 4096)]) :]


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
