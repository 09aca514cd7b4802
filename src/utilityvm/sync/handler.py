"""Handlers of the guest's log stream that are plain functions: each runs in a thread of its own, since it waits as callers do."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from utilityvm.guest.transport import GuestStream
from utilityvm.sync.loop import loop_thread
from utilityvm.sync.twin import wrap


def with_handler(create: Callable[..., Any]) -> Callable[..., Any]:
    """Let `create` take as `output_handler` a function that is given the twin of the stream, and is not awaited."""

    @wraps(create)
    async def created(*args: object, **keywords: Any) -> object:  # noqa: ANN401 (the arguments of `create`)
        if (handler := keywords.get("output_handler")) is not None:
            keywords["output_handler"] = _in_a_thread(handler)
        return await create(*args, **keywords)

    return created


def _in_a_thread(handler: Callable[[object], object]) -> Callable[[GuestStream], Awaitable[None]]:
    async def run(stream: GuestStream) -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        failure: list[Exception] = []

        def work() -> None:
            try:
                handler(wrap(stream, loop_thread()))
            except Exception as error:  # noqa: BLE001 (the caller's; told by the VM, which goes on)
                failure.append(error)
            loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=work, name="utilityvm.sync:output", daemon=True).start()
        await ended.wait()
        for error in failure:
            raise error

    return run
