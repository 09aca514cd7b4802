"""What a side's program does once its VM runs: it says `ready`, then answers one command a line on stdin, each with one line of JSON.

Its other end is `Session` in `run.py`. As all of the raw side it uses nothing of ours.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


def serve(answer: Callable[[str, int], list[float]]) -> None:
    """Answer each command and its number until stdin ends."""
    print("ready", flush=True)
    for line in sys.stdin:
        command, number = line.split()
        print(json.dumps(answer(command, int(number))), flush=True)


async def serve_beside(answer: Callable[[str, int], Coroutine[object, object, list[float]]]) -> None:
    """The same in a program with an event loop, which goes on while nothing is asked."""
    import asyncio  # noqa: PLC0415 (the raw side's clock runs while its program starts)

    loop = asyncio.get_running_loop()
    await asyncio.to_thread(serve, lambda *asked: asyncio.run_coroutine_threadsafe(answer(*asked), loop).result())
