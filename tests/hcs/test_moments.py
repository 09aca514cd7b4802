"""A VM that is asked or changed at the moment at which it ends."""

import asyncio

import pytest

from tests.hcs.harness import ANSWER, HOLD, SILENT, StandIn
from tests.hcs.test_bounds import HOSTED, hosted
from tests.hcs.test_system import MACHINE, VM, caught
from utilityvm.compute.hcs.machine import HcsMachine
from utilityvm.compute.hcs.system import Notice
from utilityvm.compute.life import State
from utilityvm.compute.ports import ExitHow
from utilityvm.guest.spec import ProcessSpec
from utilityvm.kit.errors import ConnectionLost, DeadlineExceeded, HcsError, StateError
from utilityvm.schema.properties import PropertyType

PROPERTIES = "HcsGetComputeSystemProperties"


async def running(hcs: StandIn, **timeouts: float) -> HcsMachine:
    machine = await hcs.service(**timeouts).create(VM, MACHINE)
    await machine.start()
    return machine


async def test_a_refused_answer_is_told_while_it_runs_and_the_last_one_is_kept_when_it_ended_meanwhile(hcs: StandIn) -> None:
    machine = await running(hcs)
    hcs.script(PROPERTIES, 0x80070005)
    with pytest.raises(HcsError, match="System::Properties vm-1: access is denied"):
        await machine.properties()
    hcs.script(PROPERTIES, 0xC037010E, how=ANSWER | HOLD)
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(machine.properties())
        await hcs.held()
        await machine.terminate()
        hcs.release()
    assert (asking.result().state, asking.result().stopped) == ("Stopped", True)
    await machine.close()


async def test_the_guest_of_a_vm_that_has_ended_is_not_asked(hcs: StandIn) -> None:
    machine = await hosted(hcs)
    await machine.terminate()
    before = len(hcs.calls)
    assert isinstance(await caught(machine.properties(frozenset({PropertyType.MEMORY}))), StateError)
    assert len(hcs.calls) == before
    await machine.close()


async def test_without_a_guest_connection_of_the_services_it_is_not_connected_to(hcs: StandIn) -> None:
    machine = await running(hcs)
    assert isinstance(await caught(machine.connect()), StateError)
    await machine.close()


async def test_a_vm_that_ends_while_it_is_paused_was_not_paused(hcs: StandIn) -> None:
    machine = await running(hcs)
    hcs.script("HcsPauseComputeSystem", how=SILENT)
    async with asyncio.TaskGroup() as group:
        pausing = group.create_task(caught(machine.pause()))
        ended = group.create_task(machine.wait())
        await hcs.called("HcsPauseComputeSystem")
        hcs.notify(Notice.EXITED, 0xC0370106)
    assert isinstance(pausing.result(), ConnectionLost)
    assert ended.result().how is ExitHow.UNEXPECTED
    assert machine.state is State.STOPPED
    await machine.close()


async def test_a_pause_that_the_service_does_not_return_from_is_given_up(hcs: StandIn) -> None:
    machine = await running(hcs, pause=0.01)
    hcs.script("HcsPauseComputeSystem", how=HOLD | SILENT)
    with pytest.raises(DeadlineExceeded, match="vm vm-1: the service did not pause it within 1.01 s"):
        await machine.pause()
    hcs.release()
    await machine.close()


async def test_whoever_starts_what_another_ends_is_refused(hcs: StandIn) -> None:
    machine = await hcs.service().create(VM, MACHINE)
    hcs.script("HcsStartComputeSystem", how=HOLD | SILENT)
    async with asyncio.TaskGroup() as group:
        starting = group.create_task(caught(machine.start()))
        await hcs.held()
        ending = group.create_task(machine.terminate())
        await hcs.called("HcsTerminateComputeSystem")
        hcs.release()
    assert isinstance(starting.result(), StateError)
    assert ending.done()
    assert (await machine.wait()).how is ExitHow.TERMINATED
    await machine.close()


async def test_the_terminal_of_a_process_that_the_service_started_is_resized(hcs: StandIn) -> None:
    machine = await hosted(hcs)
    process = await machine.create_process(ProcessSpec(argv=("sh",), stdout=False, stderr=False, console_size=(24, 80)))
    assert hcs.document("HcsCreateProcess")["ConsoleSize"] == [24, 80]
    await process.resize(height=40, width=120)
    assert hcs.document("HcsModifyProcess") == {"Operation": "ConsoleSize", "ConsoleSize": {"Height": 40, "Width": 120}}
    await machine.close()


def test_calls_that_return_after_the_loop_has_ended_are_undone(hcs: StandIn) -> None:
    """Who asked is gone: what the service has created is ended, and closed."""

    async def give_up() -> None:
        hcs.script("HcsCreateComputeSystem", how=HOLD)
        creating = asyncio.get_running_loop().create_task(hcs.service().create(VM, HOSTED))
        await hcs.held()
        creating.cancel()
        await caught(creating)

    with asyncio.Runner() as runner:
        runner.run(give_up())
    hcs.script("HcsCloseComputeSystem", how=HOLD)
    hcs.release()
    hcs.library.standin_wait_held(1)
    assert hcs.names[-2:] == ["HcsTerminateComputeSystem", "HcsCloseComputeSystem"]
    hcs.release()
    hcs.library.standin_wait_closed()
