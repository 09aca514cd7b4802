"""Tasks that have an owner, and cleanup that completes.

The one place where `asyncio` tasks are made. A `TaskGroup` must be left by the task that entered it; a VM is opened in one
request and closed in another, so its tasks live in a `Scope`, which anyone may close.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, final

from utilityvm.kit.errors import HostError

T = TypeVar("T")


@final
class Scope:
    """Daemon tasks of one owner. The first that fails cancels the others; the owner hears of it once.

    `on_failure` is called in the loop with the first failure; an owner without one looks at `failure`. That somebody else cancels a
    task, as `asyncio.run` does at its end with all there are, is a failure to an owner that has `on_failure`: nobody may wait for that
    task's work any more.
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
        if task.cancelled():
            if self._closed or self._on_failure is None:
                return
            error: BaseException | None = HostError(f"{task.get_name()}: cancelled, as by the end of the event loop")
        else:
            error = task.exception()
        if error is None:
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


async def together(*works: Coroutine[Any, Any, T]) -> list[T]:
    """Await all of `works` side by side and return what they return. The first failure cancels the others, and is raised alone."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from failed.exceptions[0].__cause__
    return [task.result() for task in tasks]


async def finish(work: Coroutine[Any, Any, T], *, within: float | None) -> T:
    """Await what must complete: cancellation of the caller waits until `work` is done, then goes on.

    `within` is in seconds; when it has passed `work` is cancelled. None is for work that has bounds of its own.

    Raises:
        TimeoutError: `work` did not end in time.
    """
    task = asyncio.create_task(work)  # noqa: TID251 (this is the owner)
    timer = None if within is None else asyncio.get_running_loop().call_later(within, task.cancel)
    cancelled: asyncio.CancelledError | None = None
    try:
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
    finally:
        if timer is not None:
            timer.cancel()
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # the caller's cancellation outranks it; mark it as seen
        raise cancelled
    if task.cancelled() and within is not None:
        raise TimeoutError(f"cleanup did not end within {within:g} s")
    return task.result()


@final
class Deadlines:
    """Deadlines that can stand still: `hold` stops them, `release` lets each have what it had left."""

    def __init__(self) -> None:
        self._running: set[Deadline] = set()
        self._held = False

    def start(self, seconds: float, then: Callable[[], None]) -> "Deadline":
        """Call `then` once `seconds` in which nothing is held have passed, unless the deadline is stopped first."""

        def passed() -> None:
            self._running.discard(deadline)
            then()

        deadline = Deadline(seconds, passed, self._running.discard)
        self._running.add(deadline)
        if not self._held:
            deadline.go_on()
        return deadline

    def hold(self) -> None:
        """Let no deadline pass until `release`. A second call does nothing."""
        self._held = True
        for deadline in self._running:
            deadline.pause()

    def release(self) -> None:
        """Let the deadlines go on. Nothing happens when none is held."""
        self._held = False
        for deadline in self._running:
            deadline.go_on()


@final
class Deadline:
    """One of `Deadlines`."""

    def __init__(self, left: float, then: Callable[[], None], forget: Callable[["Deadline"], None]) -> None:
        self._left, self._then, self._forget = left, then, forget
        self._timer: asyncio.TimerHandle | None = None

    def stop(self) -> None:
        """Let it never pass. A second call does nothing."""
        self.pause()
        self._forget(self)

    def go_on(self) -> None:
        """Let the time run."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._left, self._then)

    def pause(self) -> None:
        """Let the time stand."""
        if self._timer is not None:
            self._left = max(0.0, self._timer.when() - asyncio.get_running_loop().time())
            self._timer.cancel()
            self._timer = None
