"""The one thread of this process in which the synchronous names run their event loop.

QEMU ends with the thread that spawned it, so this thread lives as long as the process. A call hands its coroutine over and sleeps until
it has ended. A call from the loop's own thread could only wait for itself, and is refused.
"""

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, Protocol, TypeVar, final

from utilityvm.kit.aio import Scope
from utilityvm.kit.errors import StateError, UtilityVMError

T = TypeVar("T")

EXIT_TIMEOUT: Final = 10.0
"""Seconds in which the VMs that nobody closed are closed when the process ends; what is left then dies with the process."""

_LOOK: Final = 1.0  # seconds between looks for Ctrl-C
_SUBJECT: Final = "utilityvm.sync"


class Closable(Protocol):
    """What is to be closed when the process ends."""

    async def close(self) -> None:
        """Close it; again is nothing."""
        ...


@final
class LoopThread:
    """An event loop in a thread of its own. Make none: `loop_thread` has the one of this process."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._calls = Scope(_SUBJECT)
        self._open: set[Closable] = set()
        self._ended = False
        self._thread = threading.Thread(target=self._loop.run_forever, name=_SUBJECT, daemon=True)
        self._thread.start()
        atexit.register(self._end)

    def run(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run what `make` makes in the loop, and return its result. Ctrl-C cancels it and waits until it has tidied up; a second one
        does not wait.

        Raises:
            StateError: called from the loop's own thread, in a forked child, or while the process ends; nothing was begun.
        """
        if (state := self._refusal()) is not None:
            raise StateError(_SUBJECT, state, "wait for a call")
        future: Future[T] = Future()
        begun: list[asyncio.Task[None]] = []

        def give_up() -> None:
            if begun:
                begun[0].cancel()
            else:
                future.cancel()  # Ctrl-C came before it was handed over

        try:
            self._loop.call_soon_threadsafe(lambda: begun.append(self._begin(make, future)))
            return _result(future)
        except asyncio.CancelledError:
            raise StateError(_SUBJECT, "at the end of the process", "finish a call") from None
        except BaseException:
            if not future.done():  # not the call's failure, but something that came to our thread: Ctrl-C
                self._loop.call_soon_threadsafe(give_up)
                with suppress(BaseException):
                    _result(future)
            raise

    def call(self, function: Callable[[], T]) -> T:
        """Run a plain function in the loop's thread, since what belongs to the loop is touched nowhere else."""

        async def work() -> T:
            return function()

        return self.run(work)

    def keep(self, thing: Closable) -> None:
        """Close `thing` at the process's end, unless `drop` came first."""
        self._open.add(thing)

    def drop(self, thing: Closable) -> None:
        """Forget `thing`: it was closed."""
        self._open.discard(thing)

    def _begin(self, make: Callable[[], Coroutine[Any, Any, T]], future: "Future[T]") -> asyncio.Task[None]:
        async def carry() -> None:
            try:
                future.set_result(await make())
            except BaseException as error:  # noqa: BLE001 (whatever it is, it is the caller's)
                future.set_exception(error)

        def never_begun(_: asyncio.Task[None]) -> None:
            if not future.done():
                future.set_exception(asyncio.CancelledError())

        task = self._calls.start("call", carry())
        task.add_done_callback(never_begun)
        return task

    def _refusal(self) -> str | None:
        if self._pid != os.getpid():
            return "in a forked child, whose parent has the VMs"
        if threading.get_ident() == self._thread.ident:
            return "inside the event loop that would have to go on meanwhile"
        return "at the end of the process" if self._ended else None

    def _end(self) -> None:
        if self._ended or self._pid != os.getpid():
            return
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._close_all(), self._loop).result(EXIT_TIMEOUT)
        self._ended = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(EXIT_TIMEOUT)

    async def _close_all(self) -> None:
        async def close(thing: Closable) -> None:
            with suppress(UtilityVMError):
                await thing.close()

        async with asyncio.TaskGroup() as group:
            for thing in list(self._open):
                group.create_task(close(thing))
        await self._calls.aclose()


def _result(future: "Future[T]") -> T:
    """Wait for the result. A signal that comes between Python's last look for one and the wait is noticed at the next look."""
    while True:
        try:
            return future.result(_LOOK)
        except TimeoutError:
            if future.done():  # a timeout of the call's own, or the end came with the look's
                return future.result()


_threads: Final[dict[int, LoopThread]] = {}
_making: Final = threading.RLock()  # a signal's handler that comes while we hold it may call as well
os.register_at_fork(before=_making.acquire, after_in_parent=_making.release, after_in_child=_making.release)


def loop_thread() -> LoopThread:
    """Return this process's loop thread, which begins with the first call. A forked child gets one of its own, for VMs of its own."""
    with _making:
        pid = os.getpid()
        if pid not in _threads:
            _threads.clear()
            _threads[pid] = LoopThread()
        return _threads[pid]
