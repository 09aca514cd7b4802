"""A compute system, call by call: every way in which each can go, and nothing left open."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from tests.hcs.harness import ANSWER, AT_ONCE, HOLD, SILENT, StandIn
from utilityvm.compute.hcs.system import HcsSystem, Notice
from utilityvm.kit.errors import ConnectionLost, DeadlineExceeded, Exists, HcsError, NotFound, StateError
from utilityvm.kit.ids import VmId
from utilityvm.schema.document import ComputeSystem, VirtualMachine

VM = VmId("vm-1")
MACHINE = ComputeSystem(owner="me", virtual_machine=VirtualMachine(stop_on_reset=True), should_terminate_on_last_handle_closed=True)
REFUSED = 0x80070057


async def made(hcs: StandIn, **timeouts: float) -> HcsSystem:
    return (await hcs.service(**timeouts).create(VM, MACHINE)).system


async def running(hcs: StandIn, **timeouts: float) -> HcsSystem:
    system = await made(hcs, **timeouts)
    await system.start()
    return system


@dataclass(frozen=True)
class Operation:
    function: str
    name: str
    within: str
    call: Callable[[HcsSystem], Awaitable[None]]
    paused: bool = False
    started: bool = True


OPERATIONS = [
    Operation("HcsStartComputeSystem", "System::Start", "start", lambda system: system.start(), started=False),
    Operation("HcsPauseComputeSystem", "System::Pause", "pause", lambda system: system.pause()),
    Operation("HcsResumeComputeSystem", "System::Resume", "resume", lambda system: system.resume(), paused=True),
    Operation("HcsSaveComputeSystem", "System::Save", "save", lambda system: system.save({"SaveType": "AsTemplate"}), paused=True),
]
each = pytest.mark.parametrize("what", OPERATIONS, ids=lambda what: what.name)


async def ready(hcs: StandIn, what: Operation, **timeouts: float) -> HcsSystem:
    system = await made(hcs, **timeouts)
    if what.started:
        await system.start()
    if what.paused:
        await system.pause()
    return system


async def test_the_service_gets_the_document_as_it_was_made_and_all_is_let_go_of(hcs: StandIn) -> None:
    machine = await hcs.service().create(VM, MACHINE)
    assert hcs.document() == {
        "Owner": "me",
        "VirtualMachine": {"StopOnReset": True},
        "ShouldTerminateOnLastHandleClosed": True,
    }
    assert machine.runtime_id == "00000000-0000-4000-8000-0000000000a0"
    await machine.close()
    await machine.close()
    order = [name for name in hcs.names if "Close" in name or "Unregister" in name]
    assert order == ["HcsUnregisterComputeSystemCallback", "HcsCloseComputeSystem"]


async def test_text_beyond_the_first_plane_passes_both_ways(hcs: StandIn) -> None:
    hcs.script("HcsCreateComputeSystem", REFUSED, '{"ErrorMessage":"ist ungültig: 𝄞"}')
    with pytest.raises(HcsError, match="ist ungültig: 𝄞"):
        await hcs.service().create(VM, ComputeSystem(owner="Ω 𝄞", virtual_machine=VirtualMachine()))
    assert hcs.document()["Owner"] == "Ω 𝄞"


@each
async def test_an_operation_is_done_when_the_service_says_so(hcs: StandIn, what: Operation) -> None:
    system = await ready(hcs, what)
    async with asyncio.TaskGroup() as group:
        with hcs.holding_notes():
            doing = group.create_task(caught(what.call(system)))
            await hcs.noted()
            done, _ = await asyncio.wait([doing], timeout=0.05)
            assert not done, "nothing has been said"
        assert await doing is None
    await system.close()


@each
async def test_an_operation_that_succeeds_at_once_waits_for_nothing(hcs: StandIn, what: Operation) -> None:
    system = await ready(hcs, what)
    hcs.script(what.function, how=AT_ONCE)
    before = hcs.names.count(what.function)
    await what.call(system)
    assert hcs.names.count(what.function) == before + 1
    await system.close()


@each
async def test_a_refusal_has_the_operation_the_code_and_the_events(hcs: StandIn, what: Operation) -> None:
    system = await ready(hcs, what)
    events = '{"Message":"because","Provider":"p","EventId":7,"Flags":1,"Source":"s"},{"StackTrace":"at x"}'
    hcs.script(what.function, REFUSED, f'{{"Error":-2147024809,"ErrorMessage":"no","ErrorEvents":[{events}]}}')
    with pytest.raises(HcsError) as caught:
        await what.call(system)
    assert str(caught.value) == (
        f"{what.name} vm-1: no (0x57)\n[Event Detail: because Provider: p EventID: 7 flags: 1 Source: s]\n[Event Detail: Stack Trace: at x]"
    )
    assert (caught.value.hresult, caught.value.operation) == (0x57, what.name)
    await system.close()


@each
async def test_a_failure_that_is_notified_is_raised(hcs: StandIn, what: Operation) -> None:
    system = await ready(hcs, what)
    hcs.script(what.function, 0xC0370109, how=0)
    with pytest.raises(HcsError, match=rf"^{what.name} vm-1: the operation timed out \(0xc0370109\)$"):
        await what.call(system)
    await system.close()


@each
async def test_silence_ends_at_the_operations_own_deadline(hcs: StandIn, what: Operation) -> None:
    system = await ready(hcs, what, **{what.within: 0.02})
    hcs.script(what.function, how=SILENT)
    with pytest.raises(
        DeadlineExceeded, match=rf"^{what.name} vm-1: timeout waiting for notification: the service said nothing for 0.02 s$"
    ):
        await what.call(system)
    await system.close()


@each
async def test_an_end_or_the_services_loss_comes_before_what_was_waited_for(hcs: StandIn, what: Operation) -> None:
    for kind, words in ((Notice.EXITED, "unexpected container exit"), (Notice.DISCONNECTED, "lost communication with compute service")):
        system = await ready(hcs, what)
        hcs.script(what.function, how=SILENT | HOLD)
        async with asyncio.TaskGroup() as group:
            doing = group.create_task(caught(what.call(system)))
            await hcs.held()
            hcs.notify(kind, 0xC0370106)
            hcs.release()
        error = doing.result()
        assert isinstance(error, ConnectionLost)
        assert words in str(error) or "it has ended already" in str(error)
        assert isinstance(await caught(what.call(system)), ConnectionLost), "an ended system was used"
        await system.close()


@each
async def test_a_close_while_it_waits_ends_the_waiting(hcs: StandIn, what: Operation) -> None:
    system = await ready(hcs, what)
    hcs.script(what.function, how=SILENT | HOLD)
    async with asyncio.TaskGroup() as group:
        doing = group.create_task(caught(what.call(system)))
        await hcs.held()
        closing = group.create_task(system.close())
        await asyncio.sleep(0)
        hcs.release()  # the handle is closed only when the call has returned: counted at the end
    assert closing.done()
    assert isinstance(doing.result(), StateError)
    for refused in (what.call(system), system.properties(), system.modify({}), system.wait()):
        assert isinstance(await caught(refused), StateError)
    assert not await system.terminate()
    assert not await system.shutdown()


@pytest.mark.parametrize("code", [0xC0370110, 0xC037010E, 0x80370110, 0x8037010E])
async def test_ending_what_has_ended_or_does_not_exist_is_a_success(hcs: StandIn, code: int) -> None:
    system = await running(hcs)
    hcs.script("HcsTerminateComputeSystem", code)
    hcs.script("HcsShutdownComputeSystem", code)
    assert not await system.terminate()
    assert not await system.shutdown()
    await system.close()


async def test_a_refused_end_is_told(hcs: StandIn) -> None:
    system = await running(hcs)
    hcs.script("HcsTerminateComputeSystem", 0x80070005)
    with pytest.raises(HcsError, match=r"System::Terminate vm-1: access is denied \(0x5\)") as caught_:
        await system.terminate()
    assert "Hyper-V Administrators" in caught_.value.hint
    await system.close()


async def test_shutdown_asks_and_the_end_is_told_once(hcs: StandIn) -> None:
    system = await running(hcs)
    assert await system.shutdown()
    first = await system.wait()
    hcs.notify(Notice.EXITED, 0xC0370106, "again")
    hcs.settle()
    await asyncio.sleep(0)
    assert await system.wait() == first
    assert first.data == '{"ExitType":"GracefulExit"}'
    await system.close()


async def test_a_notification_after_the_close_finds_nobody(hcs: StandIn) -> None:
    system = await running(hcs)
    await system.close()
    for kind in Notice:
        hcs.notify(kind, forced=True)
    hcs.settle()
    await asyncio.sleep(0)
    assert system.ended is None


async def test_a_creation_that_fails_leaves_no_system(hcs: StandIn) -> None:
    service = hcs.service(create=0.02)
    for script, kind in (
        ((REFUSED, "", ANSWER), HcsError),
        ((0xC037010F, "", ANSWER), Exists),
        ((0, "", ANSWER), HcsError),  # a success without a handle
        ((0xC0370109, "", 0), HcsError),
        ((0, "", SILENT), DeadlineExceeded),
    ):
        hcs.script("HcsCreateComputeSystem", *script)
        with pytest.raises(kind):
            await service.create(VM, MACHINE)
        assert hcs.counts.open == 0
    assert hcs.names[-3:] == ["HcsTerminateComputeSystem", "HcsUnregisterComputeSystemCallback", "HcsCloseComputeSystem"]


async def test_a_system_that_does_not_tell_its_runtime_id_is_ended(hcs: StandIn) -> None:
    for hresult, text in ((REFUSED, ""), (0, "{}"), (0, "not JSON")):
        hcs.script("HcsGetComputeSystemProperties", hresult, text)
        with pytest.raises(Exception, match="vm-1|answer"):
            await hcs.service().create(VM, MACHINE)
        assert hcs.counts.open == 0
        assert hcs.names[-3] == "HcsTerminateComputeSystem"


async def test_a_creation_that_cannot_be_watched_is_undone(hcs: StandIn) -> None:
    hcs.script("HcsRegisterComputeSystemCallback", REFUSED)
    with pytest.raises(HcsError, match="WatchComputeSystem vm-1"):
        await hcs.service().create(VM, MACHINE)
    assert hcs.names[-2:] == ["HcsTerminateComputeSystem", "HcsCloseComputeSystem"]


async def test_a_creation_that_is_given_up_is_undone_when_the_service_returns(hcs: StandIn) -> None:
    hcs.script("HcsCreateComputeSystem", how=HOLD)
    creating = asyncio.get_running_loop().create_task(hcs.service().create(VM, MACHINE))
    await hcs.held()
    creating.cancel()
    assert isinstance(await caught(creating), asyncio.CancelledError)
    hcs.script("HcsCloseComputeSystem", how=HOLD)
    hcs.release()
    await hcs.held()
    assert hcs.names[-2:] == ["HcsTerminateComputeSystem", "HcsCloseComputeSystem"]
    hcs.release()
    await hcs.closed()  # by a thread that is nobody's to wait for


async def test_a_system_of_somebody_else_is_opened_and_left_alone(hcs: StandIn) -> None:
    service = hcs.service()
    machine = await service.create(VM, MACHINE)
    other = await service.open(VM)
    await other.start()
    await other.close()
    assert (await machine.system.properties()).count('"Running"') == 1
    await machine.close()
    with pytest.raises(NotFound, match="System::Open vm-1: there is no such virtual machine or container"):
        await service.open(VM)


async def test_a_container_is_created_in_the_system_that_hosts_it(hcs: StandIn) -> None:
    system = await hcs.service().create_container("c1", VM, {"OciBundlePath": "/c"}, owner="me")
    assert hcs.document() == {
        "Owner": "me",
        "SchemaVersion": {"Major": 2, "Minor": 1},
        "HostingSystemId": "vm-1",
        "HostedSystem": {"OciBundlePath": "/c"},
        "ShouldTerminateOnLastHandleClosed": True,
    }
    await system.start()
    await system.terminate()
    await system.wait()
    await system.close()


async def test_the_service_enumerates_tells_and_is_changed(hcs: StandIn) -> None:
    service = hcs.service()
    hcs.script("HcsEnumerateComputeSystems", 0, '[{"Id":"a","State":"Running","Unknown":1}]')
    assert [(found.id, found.state) for found in await service.enumerate(owners=["me"])] == [("a", "Running")]
    assert hcs.document("HcsEnumerateComputeSystems") == {"Owners": ["me"]}
    assert await service.enumerate() == []
    assert await service.service_properties("ProcessorTopology") == '{"Properties":[{"LogicalProcessorCount":8}]}'
    await service.modify_service({"PropertyType": "CpuGroup"})
    assert hcs.document("HcsModifyServiceSettings") == {"PropertyType": "CpuGroup"}
    for name in ("HcsEnumerateComputeSystems", "HcsGetServiceProperties", "HcsModifyServiceSettings"):
        hcs.script(name, REFUSED, "words that are not JSON")
    for refused in (service.enumerate(), service.service_properties("x"), service.modify_service({})):
        with pytest.raises(HcsError, match="words that are not JSON"):
            await refused


async def test_modify_is_done_when_it_returns(hcs: StandIn) -> None:
    system = await running(hcs)
    await system.modify({"ResourcePath": "VirtualMachine/x", "RequestType": "Add"})
    assert hcs.document("HcsModifyComputeSystem") == {"ResourcePath": "VirtualMachine/x", "RequestType": "Add"}
    hcs.script("HcsModifyComputeSystem", 0xC037010D)
    with pytest.raises(HcsError, match="System::Modify vm-1: the document is invalid"):
        await system.modify({})
    await system.close()


async def test_ending_does_not_wait_behind_a_call_that_hangs(hcs: StandIn) -> None:
    system = await running(hcs)
    hcs.script("HcsModifyComputeSystem", how=HOLD | ANSWER)
    async with asyncio.TaskGroup() as group:
        hanging = group.create_task(system.modify({}))
        await hcs.held()
        hanging.cancel()
        await system.terminate()
        await system.wait()
        hcs.release()
    await system.close()


async def caught(call: Awaitable[object]) -> BaseException | None:
    try:
        await call
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 (what it is, is the question)
        return error
    return None
