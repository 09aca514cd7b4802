"""Signals that reach `uvm` while a program runs in its guest: they are the program's, unless it does not mind them."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from utilityvm.cli import attach
from utilityvm.kit.errors import ConnectionLost


@pytest.fixture(autouse=True)
def nothing_ignored() -> Iterator[None]:
    """Whoever runs us in the background may have us ignore SIGINT and SIGQUIT, which is kept on purpose."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGQUIT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Receiver:
    """A process that keeps the signals it gets."""

    def __init__(self) -> None:
        self.got: list[int] = []
        self.arrived = asyncio.Event()

    async def kill(self, signal: int) -> bool:
        self.got.append(signal)
        self.arrived.set()
        return True

    async def one(self) -> None:
        async with asyncio.timeout(30):
            await self.arrived.wait()
        self.arrived.clear()


async def test_signals_are_passed_on_and_after_that_are_ours_again() -> None:
    process = Receiver()

    async def work(signals: attach.Signals) -> int:
        async with signals.passed_on(process):
            for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT, signal.SIGTERM):
                os.kill(os.getpid(), number)
                await process.one()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()
        return 0

    before = signal.getsignal(signal.SIGINT)
    assert await attach.interruptible(work) == 128 + signal.SIGTERM
    assert process.got == [signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT, signal.SIGTERM]
    assert signal.getsignal(signal.SIGINT) is before


async def test_the_third_interrupt_ends_it() -> None:
    process = Receiver()

    async def work(signals: attach.Signals) -> int:
        async with signals.passed_on(process):
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
                await process.one()
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        return 0

    assert await attach.interruptible(work) == 128 + signal.SIGINT
    assert process.got == [signal.SIGINT, signal.SIGINT]


async def test_a_process_that_does_not_end_of_sigterm_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach, "GRACE", 0.0)
    process = Receiver()

    async def work(signals: attach.Signals) -> int:
        async with signals.passed_on(process):
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        return 0

    assert await attach.interruptible(work) == 128 + signal.SIGTERM
    assert process.got == [signal.SIGTERM]


async def test_the_terminals_end_ends_it_at_once() -> None:
    process = Receiver()

    async def work(signals: attach.Signals) -> int:
        async with signals.passed_on(process):
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.Event().wait()
        return 0

    assert await attach.interruptible(work) == 128 + signal.SIGHUP
    assert process.got == []


async def test_a_signal_that_comes_too_late_is_no_failure() -> None:
    class Gone(Receiver):
        async def kill(self, signal: int) -> bool:
            await super().kill(signal)
            raise ConnectionLost("the VM has ended")

    process = Gone()

    async def work(signals: attach.Signals) -> int:
        async with signals.passed_on(process):
            os.kill(os.getpid(), signal.SIGINT)
            await process.one()
        return 7

    assert await attach.interruptible(work) == 7


async def test_a_signal_that_somebody_ignores_stays_ignored() -> None:
    async def work(signals: attach.Signals) -> int:
        async with signals.passed_on(Receiver()):
            os.kill(os.getpid(), signal.SIGHUP)
        return 3

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert await attach.interruptible(work) == 3
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_somebody_elses_cancellation_is_not_taken_for_a_signal() -> None:
    async def work(_: attach.Signals) -> int:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await attach.interruptible(work)
