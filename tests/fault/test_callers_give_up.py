"""A caller that gives up at each turn of the event loop: no process without an owner, no torn frame, and the VM goes on."""

import asyncio

import pytest
from tests.unit.vm.fake import create, echo, service

from utilityvm.testing.guest import FakeGuest, Program

BOUND = 20.0
"""Seconds in which everything has ended on a busy machine."""


async def forever(_guest: FakeGuest, _program: Program) -> int:
    await asyncio.Event().wait()
    return 0


@pytest.mark.parametrize("window", [256 * 1024, 100], ids=["frames pass whole", "frames pass in pieces"])
async def test_a_start_is_given_up_at_each_turn(monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    monkeypatch.setattr("utilityvm.testing.guest._WINDOW", window)
    of, guests = service({"forever": forever, "echo": echo})
    async with asyncio.timeout(BOUND), await create(of) as vm:
        await vm.start()
        turns, finished = 0, False
        while not finished:
            starting = asyncio.create_task(vm.create_process(["forever", "x" * 500]))  # noqa: TID251 (cancelled below)
            for _ in range(turns):
                await asyncio.sleep(0)
            finished, turns = starting.done(), turns + 1
            starting.cancel()
            await asyncio.wait([starting])
            if not starting.cancelled():
                process = starting.result()
                await process.kill()
                await process.close()
            said = await vm.create_process(["echo", "still here"])
            assert (await said.stdout.read(), await said.wait()) == (b"still here", 1), turns
            await said.close()
        assert turns > 10, "the start had no turns to be given up at"
        while not all(process.done() for process in guests[0]._processes.values()):
            await asyncio.sleep(0)


async def test_an_answer_that_comes_as_its_caller_gives_up_is_undone() -> None:
    """The answer lies in the caller's future, which has not run since."""
    of, guests = service({"forever": forever})
    async with asyncio.timeout(BOUND), await create(of) as vm:
        await vm.start()
        assert vm._guest is not None
        bridge = vm._guest.client.bridge
        on_frame = bridge._on_frame
        starting = asyncio.create_task(vm.create_process(["forever"]))  # noqa: TID251 (cancelled below)

        def answer_then_cancel(frame: object) -> None:
            on_frame(frame)  # type: ignore[arg-type]
            starting.cancel()

        bridge._on_frame = answer_then_cancel  # type: ignore[method-assign]
        await asyncio.wait([starting])
        bridge._on_frame = on_frame  # type: ignore[method-assign]
        assert starting.cancelled()
        (process,) = guests[0]._processes.values()
        await asyncio.wait([process])
        assert process.cancelled()
