"""What a container must do, whoever speaks to its guest and whichever agent that has. `conformance` has the suite of the drivers."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Final, Protocol

from utilityvm.containers.container import Container
from utilityvm.containers.life import ContainerState
from utilityvm.kit.errors import Exists, GuestError, InvalidOptions
from utilityvm.testing.conformance import expect, refuses
from utilityvm.vm.uvm import UtilityVM
from utilityvm.wire.gcs import NotificationType

_WITHIN: Final = 60.0


class What(StrEnum):
    """What a program does."""

    SLEEP = "run until it is killed"
    SAY = "say `hello` and end with 3"
    COPY = "say what it is told"
    MISSING = "not be there"


class ContainerDriver(Protocol):
    """What a test module provides: a VM that runs, and programs in its containers."""

    vm: UtilityVM

    async def create(self, name: str, what: What) -> Container:
        """Create a container whose first process does that."""
        ...

    def program(self, what: What) -> list[str]:
        """Return a program that does that, for `Container.exec`."""
        ...


async def a_container_runs_to_its_end_and_tells_it(driver: ContainerDriver) -> None:
    """What the first process says and its exit code; and it is not deleted by its end."""
    async with await driver.create("c", What.SAY) as container:
        expect(container.state is ContainerState.CREATED, "it is not created after its creation")
        process = await container.start()
        expect(await process.stdout.read() == b"hello", "its words are lost")
        told = await container.wait(timeout=_WITHIN)
        expect((told.exit_code, told.how) == (3, NotificationType.UNEXPECTED_EXIT), f"it ended by itself with 3, and {told} is told")
        expect(await container.wait() == told, "another end is told the second time")
        expect([container.state] == [ContainerState.STOPPED], "it is not stopped after its end")
    expect(driver.vm.containers == (), "it is still among the VM's containers")


async def more_processes_run_in_it_beside_the_first(driver: ContainerDriver) -> None:
    """Each with streams of its own; a missing program changes nothing."""
    async with await driver.create("c", What.SLEEP) as container:
        first = await container.start()
        done = await container.run(driver.program(What.COPY), input=b"x" * 70_000, timeout=_WITHIN)
        expect((done.exit_code, done.stdout) == (0, b"x" * 70_000), "what was told did not come back")
        try:
            await container.exec(driver.program(What.MISSING))
        except GuestError:
            pass
        else:
            expect(False, "a missing program was started")
        expect(await container.pids() == (first.pid,), "its processes are not its first one alone")
        expect(not first.ended, "the first process has ended with another")


async def it_is_ended_by_a_signal_to_one_or_to_all(driver: ContainerDriver) -> None:
    """The end of the first process is the end of the others."""
    for everything in (False, True):
        async with await driver.create("c", What.SLEEP) as container:
            await container.start()
            other = await container.exec(driver.program(What.SLEEP))
            expect(await container.kill(9, all=everything), "the signal was not delivered")
            expect((await container.wait(timeout=_WITHIN)).exit_code == 137, "it was killed, and another exit code is told")
            expect(await other.wait(timeout=_WITHIN) == 137, "a process outlived its container")
            expect(await refuses(container.kill()), "a container that has ended was signalled")


async def it_stands_still_until_it_is_resumed(driver: ContainerDriver) -> None:
    """And is ended whether it stands still or not."""
    async with await driver.create("c", What.SLEEP) as container:
        expect(await refuses(container.pause()), "it was paused before its start")
        await container.start()
        for _ in range(2):
            await container.pause()
            expect(await refuses(container.pause()) and await refuses(container.exec(["true"])), "it moves while it stands still")
            await container.resume()
            expect(await refuses(container.resume()), "it was resumed while it ran")
        await container.pause()


async def its_limits_change_while_it_runs_and_it_tells_of_itself(driver: ContainerDriver) -> None:
    """A wrong limit is refused before it is sent."""
    async with await driver.create("c", What.SLEEP) as container:
        await container.start()
        await container.update({"pids": {"limit": 30}, "memory": {"limit": 64 << 20}})
        try:
            await container.update({"pids": {"limit": "many"}})
        except InvalidOptions:
            pass
        else:
            expect(False, "a limit that is no number was taken")
        told = await container.stats()
        expect(told.pids is not None and told.pids.current == 1, f"it has one process, and tells {told.pids}")


async def a_name_is_one_containers_at_a_time(driver: ContainerDriver) -> None:
    """It is free after the deletion, also of one that never ran."""
    for _ in range(2):
        container = await driver.create("c", What.SLEEP)
        try:
            await driver.create("c", What.SLEEP)
        except Exists:
            pass
        else:
            expect(False, "two containers have one name")
        await container.delete()
        expect(await refuses(container.start()), "a deleted container was started")


async def many_run_side_by_side(driver: ContainerDriver) -> None:
    """None disturbs another."""

    async def one(number: int) -> None:
        async with await driver.create(f"c{number}", What.SAY) as container:
            process = await container.start()
            expect(await process.stdout.read() == b"hello", "its words are lost")
            expect((await container.wait(timeout=_WITHIN)).exit_code == 3, "another exit code is told")

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(one(number))


async def one_that_is_given_up_in_its_creation_leaves_its_name(driver: ContainerDriver) -> None:
    """At whatever moment; the VM runs on."""
    for turns in (0, 1, 5, 20, 60, 150):
        async with asyncio.TaskGroup() as group:
            creating = group.create_task(driver.create("c", What.SLEEP))
            for _ in range(turns):
                await asyncio.sleep(0)
            creating.cancel()
        if not creating.cancelled():
            await creating.result().close()
        async with asyncio.timeout(_WITHIN):
            while True:  # what was created after its caller had gone is deleted in its own time
                try:
                    container = await driver.create("c", What.SAY)
                    break
                except (Exists, GuestError):
                    await asyncio.sleep(0.05)
        async with container:
            await (await container.start()).stdout.read()


CASES: Final[tuple[Callable[[ContainerDriver], Awaitable[None]], ...]] = (
    a_container_runs_to_its_end_and_tells_it,
    more_processes_run_in_it_beside_the_first,
    it_is_ended_by_a_signal_to_one_or_to_all,
    it_stands_still_until_it_is_resumed,
    its_limits_change_while_it_runs_and_it_tells_of_itself,
    a_name_is_one_containers_at_a_time,
    many_run_side_by_side,
    one_that_is_given_up_in_its_creation_leaves_its_name,
)
"""Every case."""
