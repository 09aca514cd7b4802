"""What every driver must do. A test module gives each of `CASES` a `Driver` and expects no exception."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Protocol

from utilityvm.compute.ports import ExitHow, Machine
from utilityvm.guest.spec import ProcessSpec
from utilityvm.kit.errors import ConnectionLost, Exhausted, HostError, StateError, Unsupported
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.schema.properties import PropertyType
from utilityvm.store.devices import Devices
from utilityvm.testing.kernels import Then

_PORT: Final = 0x4000_0000
_MOMENTS: Final = 6  # turns of the event loop after which something comes between


class Driver(Protocol):
    """What a driver's test module provides."""

    async def create(self, then: Then) -> Machine:
        """Create a machine, with an id of its own, whose guest does `then` when it has started."""
        ...


async def a_guest_that_powers_off_ends_its_machine(driver: Driver) -> None:
    """A power-off is a good end."""
    machine = await driver.create(Then.POWER_OFF)
    await machine.start()
    status = await machine.wait()
    expect(status.how is ExitHow.POWERED_OFF, f"a power-off is reported as {status}")
    expect(status.error("vm") is None, "a power-off is an error")
    await machine.close()
    expect(await machine.wait() == status, "closing changed how it ended")


async def a_guest_that_resets_itself_ends_its_machine(driver: Driver) -> None:
    """A reset is an end, and an error."""
    machine = await driver.create(Then.RESET)
    await machine.start()
    status = await machine.wait()
    await machine.close()
    expect(status.how is ExitHow.RESET, f"a reset is reported as {status}")
    expect(isinstance(status.error("vm"), HostError), "a reset is no error")


async def terminate_ends_it_for_all_who_wait(driver: Driver) -> None:
    """Terminating twice is terminating once; nobody is left waiting."""
    machine = await driver.create(Then.HANG)
    await machine.start()
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(machine.wait()) for _ in range(3)]
        await machine.terminate()
        await machine.terminate()
    expect({task.result().how for task in waiting} == {ExitHow.TERMINATED}, "those who waited were told different ends")
    await machine.close()


async def a_second_start_is_refused_and_changes_nothing(driver: Driver) -> None:
    """Also after the end, and after the close."""
    machine = await driver.create(Then.HANG)
    await machine.start()
    await _refused(machine)
    await machine.terminate()
    await _refused(machine)
    await machine.close()
    await _refused(machine)
    expect((await machine.wait()).how is ExitHow.TERMINATED, "a refused start changed how it ended")


async def a_machine_that_never_started_can_be_ended(driver: Driver) -> None:
    """Terminate and close are possible before start, and start is not possible after them."""
    terminated, closed = await driver.create(Then.HANG), await driver.create(Then.HANG)
    await terminated.terminate()
    await closed.close()
    for machine in (terminated, closed):
        expect((await machine.wait()).how is ExitHow.TERMINATED, "it does not count as terminated")
        await _refused(machine)
        await machine.close()
        await machine.close()


async def it_can_be_closed_at_any_moment_of_its_start(driver: Driver) -> None:
    """Whether the start was first or is refused, everything is over afterwards."""
    for turns in range(_MOMENTS):
        machine = await driver.create(Then.HANG)
        async with asyncio.TaskGroup() as group:
            group.create_task(_start_that_may_fail(machine))
            await _turns(turns)
            await machine.close()
        expect((await machine.wait()).how is ExitHow.TERMINATED, f"closed {turns} turns into its start it is not terminated")
        await machine.close()


async def a_cancelled_start_leaves_nothing(driver: Driver) -> None:
    """At whatever moment the cancellation comes."""
    for turns in range(_MOMENTS):
        machine = await driver.create(Then.HANG)
        async with asyncio.TaskGroup() as group:
            starting = group.create_task(machine.start())
            await _turns(turns)
            starting.cancel()
        await machine.terminate()
        expect((await machine.wait()).how is ExitHow.TERMINATED, f"a start cancelled after {turns} turns is not terminated")
        await machine.close()


async def a_cancelled_close_is_still_carried_out(driver: Driver) -> None:
    """Cancelling the caller of a cleanup does not cancel the cleanup."""
    for turns in range(_MOMENTS):
        machine = await driver.create(Then.HANG)
        await machine.start()
        async with asyncio.TaskGroup() as group:
            closing = group.create_task(machine.close())
            await _turns(turns + 1)
            closing.cancel()
        expect((await machine.wait()).how is ExitHow.TERMINATED, f"a close cancelled after {turns + 1} turns ended nothing")
        await machine.close()


async def a_paused_machine_stands_still_until_it_is_resumed(driver: Driver) -> None:
    """Each of the two is refused where it would change nothing; what it says of itself follows."""
    machine = await driver.create(Then.HANG)
    expect(await refuses(machine.pause()), "it was paused before its start")
    await machine.start()
    expect(await refuses(machine.resume()), "it was resumed while it ran")
    for _ in range(2):
        await machine.pause()
        expect((await machine.properties()).state == "Paused", "it does not say that it is paused")
        expect(await refuses(machine.pause()), "it was paused twice")
        await machine.resume()
        expect((await machine.properties()).state == "Running", "it does not say that it runs")
    await machine.close()


async def a_paused_machine_can_be_ended(driver: Driver) -> None:
    """By terminate and by close, and neither pause nor resume is possible afterwards."""
    for end in ("terminate", "close"):
        machine = await driver.create(Then.HANG)
        await machine.start()
        await machine.pause()
        await getattr(machine, end)()
        expect((await machine.wait()).how is ExitHow.TERMINATED, f"{end} did not end a paused machine")
        expect(await refuses(machine.resume()) and await refuses(machine.pause()), "an ended machine was paused or resumed")
        await machine.close()


async def a_cancelled_pause_is_carried_out(driver: Driver) -> None:
    """At whatever moment the cancellation comes, the state is known, and the machine can run on."""
    for turns in range(_MOMENTS):
        machine = await driver.create(Then.HANG)
        await machine.start()
        async with asyncio.TaskGroup() as group:
            pausing = group.create_task(machine.pause())
            await _turns(turns)
            pausing.cancel()
        state = (await machine.properties()).state
        expect(state in ({"Running", "Paused"} if turns == 0 else {"Paused"}), f"a pause cancelled after {turns} turns left it {state}")
        if state == "Paused":
            await machine.resume()
        await machine.close()


async def a_machine_tells_of_itself_until_it_is_closed(driver: Driver) -> None:
    """Who it is does not change; in what state it is does."""
    machine = await driver.create(Then.POWER_OFF)
    created = await machine.properties()
    expect((created.system_type, created.state, created.runtime_id) == ("VirtualMachine", "Created", machine.runtime_id), f"{created}")
    await machine.start()
    await machine.wait()
    stopped = await machine.properties()
    expect((stopped.id, stopped.state, stopped.stopped) == (created.id, "Stopped", True), f"{stopped}")
    await machine.close()
    expect(await refuses(machine.properties()), "a closed machine told of itself")


async def without_an_internal_guest_connection_there_is_no_guest_to_ask(driver: Driver) -> None:
    """It is said, not waited for."""
    machine = await driver.create(Then.HANG)
    expect(await refuses(machine.create_process(ProcessSpec(argv=("true",)))), "a process was run before the start")
    await machine.start()
    expect(await refuses(machine.connect()), "it connected without a wish for it")
    expect(await refuses(machine.create_process(ProcessSpec(argv=("true",)))), "a process was run in a guest without an agent")
    expect(await refuses(machine.properties(frozenset({PropertyType.MEMORY}))), "a guest without an agent told of its memory")
    await machine.close()


async def many_may_close_at_once(driver: Driver) -> None:
    """The second close waits as the first does."""
    machine = await driver.create(Then.HANG)
    await machine.start()
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(machine.close())
    await machine.close()


async def one_who_stops_waiting_disturbs_nobody(driver: Driver) -> None:
    """A cancelled wait is forgotten."""
    machine = await driver.create(Then.HANG)
    await machine.start()
    async with asyncio.TaskGroup() as group:
        staying, leaving = group.create_task(machine.wait()), group.create_task(machine.wait())
        await _turns(2)
        leaving.cancel()
        await machine.terminate()
    expect(staying.result().how is ExitHow.TERMINATED, "the one who stayed was not told")
    await machine.close()


async def listeners_end_with_their_machine(driver: Driver) -> None:
    """Whoever waits for a guest's dial learns that there will be none; a port has one listener."""
    for start in (True, False):
        machine = await driver.create(Then.HANG)
        listener = machine.listen(_PORT)
        with suppress(Exhausted):
            machine.listen(_PORT)
            expect(False, "a port that is taken was given away")
        if start:
            await machine.start()
        async with asyncio.TaskGroup() as group:
            accepting = group.create_task(_accept_fails(listener.accept()))
            await _turns(2)
            await machine.close()
        expect(accepting.result(), "an accept outlived its machine")
        expect(await _accept_fails(machine.listen(_PORT + 1).accept()), "an ended machine can be dialled")


async def a_machine_has_a_runtime_id_and_a_console_from_the_start(driver: Driver) -> None:
    """Addresses are made of the one before anything runs; the other is empty until then."""
    machine = await driver.create(Then.HANG)
    guid = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    expect(re.fullmatch(guid, machine.runtime_id) is not None, f"{machine.runtime_id} is no GUID")
    expect(machine.console_tail() == "", "the console spoke before the start")
    await machine.close()


async def a_machine_that_was_not_made_to_be_saved_is_not_and_runs_on(driver: Driver) -> None:
    """Whether the driver could save another."""
    machine = await driver.create(Then.HANG)
    await machine.start()
    try:
        await machine.save(OptionsLCOW(), Devices)
    except Unsupported:
        await machine.pause()
        await machine.resume()
    else:
        expect(False, "it was saved")
    await machine.close()


CASES: Final[tuple[Callable[[Driver], Awaitable[None]], ...]] = (
    a_guest_that_powers_off_ends_its_machine,
    a_guest_that_resets_itself_ends_its_machine,
    terminate_ends_it_for_all_who_wait,
    a_second_start_is_refused_and_changes_nothing,
    a_machine_that_never_started_can_be_ended,
    it_can_be_closed_at_any_moment_of_its_start,
    a_cancelled_start_leaves_nothing,
    a_cancelled_close_is_still_carried_out,
    a_paused_machine_stands_still_until_it_is_resumed,
    a_paused_machine_can_be_ended,
    a_cancelled_pause_is_carried_out,
    a_machine_tells_of_itself_until_it_is_closed,
    without_an_internal_guest_connection_there_is_no_guest_to_ask,
    many_may_close_at_once,
    one_who_stops_waiting_disturbs_nobody,
    listeners_end_with_their_machine,
    a_machine_has_a_runtime_id_and_a_console_from_the_start,
    a_machine_that_was_not_made_to_be_saved_is_not_and_runs_on,
)
"""Every case."""


def expect(truth: bool, otherwise: str) -> None:
    """Fail with a sentence unless something is true.

    Raises:
        AssertionError: it is not.
    """
    if not truth:
        raise AssertionError(otherwise)


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def _refused(machine: Machine) -> None:
    expect(await refuses(machine.start()), "a start was not refused")


async def refuses(call: Awaitable[object]) -> bool:
    """Await a call, and say whether it was refused because of the machine's state."""
    try:
        await call
    except StateError:
        return True
    return False


async def _start_that_may_fail(machine: Machine) -> None:
    with suppress(StateError):
        await machine.start()


async def _accept_fails(accepting: Awaitable[object]) -> bool:
    try:
        await accepting
    except ConnectionLost:
        return True
    return False
