"""Blocking calls beside the event loop, each in a thread of its own that ends with it.

Not a pool: a call that the service never answers must not keep the process from ending, which a pool's threads do.
"""

import asyncio
import logging
from collections.abc import Callable
from threading import Thread
from typing import TypeVar, cast, final

from utilityvm.kit.trace import event

T = TypeVar("T")


@final
class Workers:
    """Runs at most `limit` calls at once; more wait for their turn. One that takes `slow` seconds is told of, once."""

    def __init__(self, limit: int, slow: float) -> None:
        self._room, self._slow = asyncio.Semaphore(limit), slow

    async def run(self, what: str, call: Callable[[], T], late: Callable[[T], object] | None = None) -> T:
        """Return what `call` returns. `what` names it to who reads the log.

        A caller who gives up is let go at once, and the call ends when it does: `late` then gets its result, on a thread.
        """
        await self._room.acquire()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        watch = loop.call_later(self._slow, self._tell, what)

        def deliver(result: T | None, error: Exception | None) -> None:
            self._room.release()
            watch.cancel()
            if answer.done():
                give_up(result, error)
            elif error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(cast("T", result))

        def give_up(result: T | None, error: Exception | None) -> None:
            if error is None:
                _give(cast("T", result), late)

        def work() -> None:
            result: T | None = None
            failure: Exception | None = None
            try:
                result = call()
            except Exception as error:  # noqa: BLE001 (it belongs to the caller)
                failure = error
            try:
                loop.call_soon_threadsafe(deliver, result, failure)
            except RuntimeError:  # the loop has ended, and with it whoever asked
                give_up(result, failure)

        Thread(target=work, name=f"hcs: {what}", daemon=True).start()
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:  # both in the same turn
                _give(answer.result(), late)
            raise

    def _tell(self, what: str) -> None:
        event("hcs.call.slow", level=logging.WARNING, message=f"the host service has not returned from: {what}", within=self._slow)


def _give(result: T, late: Callable[[T], object] | None) -> None:
    if late is not None:
        Thread(target=late, args=(result,), name="hcs: undo", daemon=True).start()
