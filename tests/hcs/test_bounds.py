"""Notifications at bad moments, many calls at once, and calls that never return: nothing hangs, and in the end nothing is left."""

import asyncio

import pytest

from tests.hcs.harness import ANSWER, HOLD, StandIn
from tests.hcs.test_system import MACHINE, REFUSED, VM, caught, made, running
from utilityvm.compute.hcs import machine as machines
from utilityvm.compute.hcs import process as processes
from utilityvm.compute.hcs import system as systems
from utilityvm.compute.hcs.machine import HcsMachine
from utilityvm.compute.hcs.service import CALLS, ENDING_CALLS
from utilityvm.compute.hcs.system import HcsSystem, Notice
from utilityvm.compute.life import State
from utilityvm.compute.ports import ExitHow
from utilityvm.guest.spec import ProcessSpec
from utilityvm.kit.errors import ConnectionLost, DeadlineExceeded, HcsError, StateError
from utilityvm.schema.document import ComputeSystem, GuestConnection, VirtualMachine
from utilityvm.schema.process import ProcessParameters

SHORT = 0.05
HOSTED = ComputeSystem(virtual_machine=VirtualMachine(guest_connection=GuestConnection()))


@pytest.fixture
def hurried_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "CLOSE_TIMEOUT", SHORT)


@pytest.fixture
def hurried_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systems, "CLOSE_TIMEOUT", SHORT)


async def hosted(hcs: StandIn) -> HcsMachine:
    """A VM whose guest the service itself has reached."""
    machine = await hcs.service().create(VM, HOSTED)
    await machine.start()
    await machine.connect()
    return machine


# -- notifications ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Notice.EXITED, Notice.DISCONNECTED])
async def test_a_notification_during_the_close_is_waited_for_and_reaches_nobody(hcs: StandIn, kind: Notice) -> None:
    system = await running(hcs)
    async with asyncio.TaskGroup() as group, hcs.notifying(kind):
        hcs.script("HcsUnregisterComputeSystemCallback", how=HOLD)
        closing = group.create_task(system.close())
        await hcs.held()
        hcs.release()
        assert "HcsCloseComputeSystem" not in hcs.names
        assert not closing.done()
    hcs.settle()
    await asyncio.sleep(0)
    assert system.ended is None
    assert hcs.names[-1] == "HcsCloseComputeSystem"


async def test_a_notification_of_a_process_during_its_close_is_waited_for_and_reaches_nobody(hcs: StandIn) -> None:
    system = await running(hcs)
    process = await hcs.service().create_process(system, ProcessParameters())
    async with asyncio.TaskGroup() as group, hcs.notifying(Notice.PROCESS_EXITED, of_process=True):
        hcs.script("HcsUnregisterProcessCallback", how=HOLD)
        group.create_task(process.close())
        await hcs.held()
        hcs.release()
        assert "HcsCloseProcess" not in hcs.names
    hcs.settle()
    await asyncio.sleep(0)
    assert "HcsGetProcessProperties" not in hcs.names, "its end was asked after"
    assert isinstance(await caught(process.wait()), StateError)
    await system.close()


async def test_notifications_that_nobody_expects_or_that_come_twice_change_nothing(hcs: StandIn) -> None:
    system = await made(hcs)
    for kind in (Notice.CREATED, Notice.PAUSED, Notice.RESUMED, Notice.SAVED, Notice.STARTED, 77):
        for status in (0, 0xC0370109):
            hcs.notify(kind, status, "words")
    hcs.settle()
    await asyncio.sleep(0)
    await system.start()
    await system.pause()
    await system.resume()
    assert system.ended is None
    for kind in (Notice.DISCONNECTED, Notice.EXITED, Notice.DISCONNECTED):
        hcs.notify(kind)
    assert (await system.wait()).disconnected, "a later word changed how it ended"
    await system.close()


def test_a_notification_after_the_loop_has_ended_finds_nobody(hcs: StandIn) -> None:
    async def open_both() -> tuple[HcsSystem, processes.HcsProcess]:
        system = await running(hcs)
        return system, await hcs.service().create_process(system, ProcessParameters())

    with asyncio.Runner() as runner:
        system, process = runner.run(open_both())
    hcs.notify(Notice.EXITED)
    hcs.notify(Notice.PROCESS_EXITED, of_process=True)
    hcs.settle()
    process._handle.close()
    system.handle.close()


# -- many calls -------------------------------------------------------------------------------------------------------------------


async def test_so_many_calls_run_at_once_and_what_ends_the_system_does_not_wait_behind_them(hcs: StandIn) -> None:
    system = await running(hcs)
    for _ in range(CALLS):
        hcs.script("HcsModifyComputeSystem", how=HOLD)
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(system.modify({})) for _ in range(CALLS + 5)]
        await hcs.held(CALLS)
        calls[-1].cancel()
        assert await system.terminate(), "the end waited behind what it ends"
        assert hcs.names.count("HcsModifyComputeSystem") == CALLS
        hcs.release()
    assert hcs.names.count("HcsModifyComputeSystem") == CALLS + 4, "who had given up while waiting has called all the same"
    await system.close()


async def test_so_many_ends_run_at_once(hcs: StandIn) -> None:
    system = await running(hcs)
    for _ in range(ENDING_CALLS):
        hcs.script("HcsShutdownComputeSystem", how=HOLD)
    async with asyncio.TaskGroup() as group:
        for _ in range(ENDING_CALLS + 3):
            group.create_task(system.shutdown())
        await hcs.held(ENDING_CALLS)
        assert hcs.names.count("HcsShutdownComputeSystem") == ENDING_CALLS
        hcs.release()
    assert hcs.names.count("HcsShutdownComputeSystem") == ENDING_CALLS + 3
    await system.close()


# -- calls that do not return -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("hurried_system")
async def test_a_call_that_does_not_return_does_not_hold_the_close_and_the_handle_follows_it(hcs: StandIn) -> None:
    system = await running(hcs)
    hcs.script("HcsModifyComputeSystem", how=HOLD)
    hanging = asyncio.get_running_loop().create_task(system.modify({}))
    await hcs.held()
    with pytest.raises(DeadlineExceeded, match=r"^System::Close vm-1: the service did not let go of it within 0.05 s$"):
        await system.close()
    assert isinstance(await caught(system.wait()), StateError)
    assert "HcsCloseComputeSystem" not in hcs.names, "a handle was closed under a call"
    hcs.release()
    await hanging
    await hcs.closed()


@pytest.mark.usefixtures("hurried_process")
async def test_a_process_whose_call_does_not_return_is_given_up_and_its_handle_follows(hcs: StandIn) -> None:
    system = await running(hcs)
    process = await hcs.service().create_process(system, ProcessParameters())
    hcs.script("HcsModifyProcess", how=HOLD)
    hanging = asyncio.get_running_loop().create_task(process.close_stdin())
    await hcs.held()
    with pytest.raises(DeadlineExceeded, match=r"^Process::Close vm-1:100: the service did not let go of it within 0.05 s$"):
        await process.close()
    assert isinstance(await caught(process.wait()), StateError)
    hcs.release()
    await hanging
    await system.close()
    await hcs.closed()


@pytest.mark.usefixtures("hurried_system")
async def test_a_vm_that_the_service_does_not_end_is_closed_and_told_as_ended(hcs: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "CLEANUP", 10 * SHORT)
    machine = await hcs.service().create(VM, MACHINE)
    await machine.start()
    listener = machine.listen(7)
    hcs.script("HcsTerminateComputeSystem", how=HOLD)
    with pytest.raises(DeadlineExceeded, match="vm vm-1: the service was asked to end it and has not after 0.5 s|did not let go"):
        await machine.close()
    assert (await machine.wait()).how is ExitHow.TERMINATED
    assert machine.state is State.CLOSED
    assert isinstance(await caught(listener.accept()), ConnectionLost)
    await machine.close()
    hcs.release()
    await hcs.closed()


async def test_a_vm_that_the_service_refuses_to_end_is_closed_all_the_same(hcs: StandIn) -> None:
    machine = await hcs.service().create(VM, MACHINE)
    await machine.start()
    hcs.script("HcsTerminateComputeSystem", 0x80070005)
    with pytest.raises(HcsError, match="System::Terminate vm-1: access is denied"):
        await machine.close()
    assert (await machine.wait()).how is ExitHow.TERMINATED
    assert hcs.counts.open == 0


@pytest.mark.usefixtures("hurried_process")
async def test_processes_that_are_not_let_go_of_do_not_keep_the_vm(hcs: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    machine = await hosted(hcs)
    for _ in range(3):
        await machine.create_process(ProcessSpec(argv=("sleep",), stdout=False, stderr=False))
    for _ in range(3):
        hcs.script("HcsUnregisterProcessCallback", how=HOLD)
    await machine.close()
    assert [record.getMessage().split()[0] for record in caplog.records].count("hcs.process.close") == 3
    assert hcs.names[-1] == "HcsCloseComputeSystem"
    hcs.release()
    await hcs.closed()


@pytest.mark.usefixtures("hurried_system")
async def test_a_registration_that_does_not_return_is_given_up_and_undone_when_it_does(
    hcs: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systems, "REGISTER_TIMEOUT", SHORT)
    hcs.script("HcsRegisterComputeSystemCallback", how=HOLD)
    with pytest.raises(DeadlineExceeded, match=r"^Watch vm-1: the service did not return within 0.05 s$"):
        await hcs.service().create(VM, MACHINE)
    hcs.release()
    await hcs.closed()
    assert hcs.names[-2:] == ["HcsUnregisterComputeSystemCallback", "HcsCloseComputeSystem"]


async def test_a_registration_that_cannot_be_ended_does_not_keep_the_handle(hcs: StandIn) -> None:
    system = await running(hcs)
    hcs.script("HcsUnregisterComputeSystemCallback", REFUSED)
    with pytest.raises(HcsError, match="Unwatch vm-1"):
        await system.close()
    assert hcs.names[-1] == "HcsCloseComputeSystem"


async def test_a_start_that_is_refused_because_it_has_ended_is_its_end_although_nobody_says_so(
    hcs: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machines, "EXIT_TIMEOUT", SHORT)
    machine = await hcs.service().create(VM, MACHINE)
    hcs.script("HcsStartComputeSystem", 0xC0370110, how=ANSWER)
    with pytest.raises(ConnectionLost, match="System::Start vm-1"):
        await machine.start()
    assert (await machine.wait()).how is ExitHow.UNEXPECTED
    await machine.close()


async def test_a_call_that_takes_long_is_told_of_once(hcs: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    service = hcs.service(slow=SHORT / 10)
    hcs.script("HcsEnumerateComputeSystems", how=HOLD)
    asking = asyncio.get_running_loop().create_task(service.enumerate())
    await hcs.held()
    await asyncio.sleep(SHORT)
    hcs.release()
    assert await asking == []
    told = [record.getMessage() for record in caplog.records if "hcs.call.slow" in record.getMessage()]
    assert len(told) == 1
    assert "has not returned from: enumerate" in told[0]
