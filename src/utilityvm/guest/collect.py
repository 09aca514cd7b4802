"""Passing a process's streams on to their end, and collecting them within bounds."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, final

import msgspec

from utilityvm.guest.process import Process
from utilityvm.guest.transport import GuestStream
from utilityvm.kit.aio import Scope, finish
from utilityvm.kit.errors import DeadlineExceeded, OutputLimitExceeded, UtilityVMError

SILENCE: Final = 1.0
"""Seconds that output which others hold open may be silent after the process's end, before it is given up."""

AFTER_EXIT: Final = 2 * 1024 * 1024
"""Bytes of an output that are passed on after the process's end: more than it can have written before, in pipes and buffers."""

OUTPUT_LIMIT: Final = 16 * 1024 * 1024
"""Bytes of each output that a collecting call keeps unless it is told otherwise."""

KILL_TIMEOUT: Final = 5.0
"""Seconds that a killed process has to end."""

_CHUNK: Final = 256 * 1024

Sink = Callable[[bytes], Awaitable[None]]
"""Takes a piece of output; the process waits for it, once the buffers are full."""


class Completed(msgspec.Struct, frozen=True):
    """How a process ended, and what it said."""

    exit_code: int
    stdout: bytes
    stderr: bytes


async def relay(process: Process, *, stdout: Sink, stderr: Sink, feed: Callable[[GuestStream], Awaitable[None]] | None = None) -> int:
    """Pass the output of `process` on until it has ended and its output has, and return its exit code.

    Output that others hold open after its end is passed on until it has been silent for `SILENCE` seconds, or `AFTER_EXIT` bytes have
    come. Its input, which `feed` writes, is not waited for. The first failure of a sink or of `feed` ends it and is raised.
    """
    scope = Scope(f"relay {process.pid}")
    outputs = [_Output(process.stdout, stdout), _Output(process.stderr, stderr)]

    async def watch() -> None:
        await process.wait()
        for output in outputs:
            output.process_ended()

    async def write(to: Callable[[GuestStream], Awaitable[None]]) -> None:
        with suppress(BrokenPipeError):  # nobody reads it any more
            await to(process.stdin)

    tasks = [scope.start("exit", watch())]
    tasks += [scope.start(name, output.copy()) for name, output in zip(("stdout", "stderr"), outputs, strict=True)]
    if feed is not None:
        scope.start("stdin", write(feed))
    try:
        await asyncio.wait(tasks)  # a failure of any, the input's too, cancels all
        if scope.failure is not None:
            raise scope.failure
        return await process.wait()
    finally:
        await scope.aclose()


async def run_process(start: Callable[[], Awaitable[Process]], name: str, *, data: bytes, limit: int, timeout: float | None) -> Completed:
    """Run what `start` starts on the input `data` to its end and collect its output; see `UtilityVM.run`. `name` is for errors."""
    kept = _Kept(limit), _Kept(limit)
    try:
        async with asyncio.timeout(timeout):
            process = await start()
            try:
                return await _collect(process, data, kept)
            finally:
                await finish(_put_away(process), within=KILL_TIMEOUT + 1)
    except TimeoutError:
        said = f"{name}: killed, and not gone after {KILL_TIMEOUT + 1:g} s"
        if timeout is not None:
            said = f"{name}: not done within {timeout:g} s; it was killed"
        raise DeadlineExceeded(said, stdout=bytes(kept[0].data), stderr=bytes(kept[1].data)) from None
    except _Full:
        said = f"{name}: more than {limit} bytes of output; it was killed"
        hint = "raise limit, or read the streams of create_process as they come"
        raise OutputLimitExceeded(said, stdout=bytes(kept[0].data), stderr=bytes(kept[1].data), hint=hint) from None


async def _collect(process: Process, data: bytes, kept: "tuple[_Kept, _Kept]") -> Completed:
    async def feed(stdin: GuestStream) -> None:
        await stdin.write(data)
        await stdin.write_eof()

    out, err = kept
    code = await relay(process, stdout=out.add, stderr=err.add, feed=feed)
    return Completed(code, bytes(out.data), bytes(err.data))


async def _put_away(process: Process) -> None:
    """Leave nothing of a process: it is killed unless it has ended. Its VM may be gone, and with it the process."""
    with suppress(UtilityVMError):
        if not process.ended:
            await process.kill(group=True)
            await process.wait(timeout=KILL_TIMEOUT)
    await process.close()


@final
class _Output:
    """One output of a process on its way to a sink."""

    def __init__(self, stream: GuestStream, sink: Sink) -> None:
        self._stream, self._sink = stream, sink
        self._ended, self._left = False, AFTER_EXIT
        self._patience: asyncio.Timeout | None = None

    def process_ended(self) -> None:
        self._ended = True
        if self._patience is not None:
            self._patience.reschedule(asyncio.get_running_loop().time() + SILENCE)

    async def copy(self) -> None:
        while self._left > 0 and (data := await self._next()):
            await self._sink(data)
            if self._ended:
                self._left -= len(data)

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout(SILENCE if self._ended else None) as self._patience:
                return await self._stream.read(_CHUNK)
        except TimeoutError:
            return b""
        finally:
            self._patience = None


@final
class _Kept:
    """Output that is kept, up to a limit."""

    def __init__(self, limit: int) -> None:
        self.data, self._limit = bytearray(), limit

    async def add(self, data: bytes) -> None:
        room = self._limit - len(self.data)
        self.data += data[:room]
        if len(data) > room:
            raise _Full


class _Full(Exception):
    """More came than may be kept."""
