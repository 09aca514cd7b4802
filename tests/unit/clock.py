"""A clock for tests: what waits for an hour has waited when the test says so."""

import asyncio

import pytest

TURNS = 10
"""Turns of the loop in which what is ready has run."""


class Clock:
    """The loop's clock, put forward by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        loop = asyncio.get_running_loop()
        real = loop.time
        monkeypatch.setattr(loop, "time", lambda: real() + self.ahead)

    async def forward(self, seconds: float) -> None:
        """Let what is ready run, put the clock forward, and let run what that makes ready."""
        for ahead in (0, seconds):
            self.ahead += ahead
            await turns()


async def turns() -> None:
    """Let what is ready run."""
    for _ in range(TURNS):
        await asyncio.sleep(0)
