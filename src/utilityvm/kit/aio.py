"""Tasks that have an owner, and cleanup that completes.

The one place where `asyncio` tasks are made. A `TaskGroup` must be left by the task that entered it; a VM is opened in one
request and closed in another, so its tasks live in a `Scope`, which anyone may close.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar, final

T = TypeVar("T")


@final
class Scope:
    """Daemon tasks of one owner. The first that fails cancels the others; the owner hears of it once.

    `on_failure` is called in the loop with the first failure (never with a cancellation); an owner without one looks at `failure`.
    """

    def __init__(self, name: str, on_failure: Callable[[Exception], None] | None = None) -> None:
        self._name, self._on_failure = name, on_failure
        self._tasks: set[asyncio.Task[None]] = set()
        self.failure: Exception | None = None
        self._closed = False

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` until it ends or the scope is closed. In a closed scope it is cancelled before it begins."""
        task = asyncio.create_task(work, name=f"{self._name}:{name}")  # noqa: TID251 (this is the owner)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        if self._closed:
            task.cancel()
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not isinstance(error, Exception):
            raise error
        if self.failure is None:
            self.failure = error
            for other in self._tasks:
                other.cancel()
            if self._on_failure is not None:
                self._on_failure(error)

    async def aclose(self) -> None:
        """Cancel what still runs and wait until it has ended. May be called from one of the scope's own tasks."""
        self._closed = True
        mine = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not mine]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)  # what they start meanwhile is cancelled before it begins


async def finish(work: Coroutine[Any, Any, T], *, within: float) -> T:
    """Await cleanup that must complete: cancellation of the caller waits until `work` is done, then goes on.

    `within` is in seconds; when it has passed `work` is cancelled.

    Raises:
        TimeoutError: `work` did not end in time.
    """
    task = asyncio.create_task(work)  # noqa: TID251 (this is the owner)
    timer = asyncio.get_running_loop().call_later(within, task.cancel)
    cancelled: asyncio.CancelledError | None = None
    try:
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
    finally:
        timer.cancel()
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # the caller's cancellation outranks it; mark it as seen
        raise cancelled
    if task.cancelled():
        raise TimeoutError(f"cleanup did not end within {within:g} s")
    return task.result()


@final
class Deadlines:
    """Deadlines that can stand still: `hold` stops them, `release` lets each have what it had left."""

    def __init__(self) -> None:
        self._running: set[asyncio.Timeout] = set()
        self._left: dict[asyncio.Timeout, float] | None = None

    @asynccontextmanager
    async def within(self, seconds: float | None) -> AsyncIterator[None]:
        """Give the body `seconds` of time in which nothing is held, None without end.

        Raises:
            TimeoutError: they have passed.
        """
        if seconds is None:
            yield
            return
        async with asyncio.timeout(None if self._left is not None else seconds) as deadline:
            self._running.add(deadline)
            if self._left is not None:
                self._left[deadline] = seconds
            try:
                yield
            finally:
                self._running.discard(deadline)
                if self._left is not None:
                    self._left.pop(deadline, None)

    def hold(self) -> None:
        """Let no deadline pass until `release`. A second call does nothing."""
        if self._left is None:
            now = asyncio.get_running_loop().time()
            pending = [deadline for deadline in self._running if not deadline.expired()]  # one that has passed only waits for its body
            self._left = {deadline: when - now for deadline in pending if (when := deadline.when()) is not None}
            for deadline in self._left:
                deadline.reschedule(None)

    def release(self) -> None:
        """Let the deadlines go on. Nothing happens when none is held."""
        left, self._left = self._left or {}, None
        now = asyncio.get_running_loop().time()
        for deadline, seconds in left.items():
            deadline.reschedule(now + seconds)
