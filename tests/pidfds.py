"""Processes that are not the test's own children, by their descriptors: those are taken while they live, and tell of their end."""

import asyncio
import os
from collections.abc import Iterable
from typing import Final

LIMIT: Final = 60.0
"""Seconds that each may take."""


async def all_ended(pidfds: Iterable[int]) -> None:
    """Wait for the end of each process, and close its descriptor."""
    loop = asyncio.get_running_loop()
    for pidfd in pidfds:
        over = asyncio.Event()
        loop.add_reader(pidfd, over.set)
        try:
            async with asyncio.timeout(LIMIT):
                await over.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)
