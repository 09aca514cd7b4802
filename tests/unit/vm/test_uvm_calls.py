"""Every public call in every state of a VM: what the table lists is done, anything else is refused and changes nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from utilityvm.compute.ports import ExitHow
from utilityvm.kit.errors import ConnectionLost, GuestError, HostError, InvalidOptions, StateError, Unsupported
from utilityvm.schema.properties import PropertyType
from utilityvm.schema.requests import ModifySettingRequest
from utilityvm.testing.compute import FakeMachine
from utilityvm.testing.guest import FakeGuest, Program
from utilityvm.vm import end, uvm
from utilityvm.vm.life import LIFE, Do, State
from utilityvm.vm.uvm import UtilityVM

from .fake import create, echo, service


async def exit_error(vm: UtilityVM) -> object:
    return vm.exit_error


async def sleep(vm: UtilityVM) -> None:
    try:
        await vm.save("/nowhere")
    except Unsupported:  # a guest connection of the service's own
        await vm.terminate()


async def fork(vm: UtilityVM) -> None:
    with suppress(Unsupported):  # a guest connection of the service's own
        async with await vm.fork() as forked:
            assert [child.state for child in forked.children] == [State.CREATED]


async def listen(vm: UtilityVM) -> None:
    vm.listen(5).close()


CALLS: dict[Do, Callable[[UtilityVM], Awaitable[object]]] = {
    Do.START: UtilityVM.start,
    Do.USE: lambda vm: vm.create_process(["echo"]),
    Do.LISTEN: listen,
    Do.PAUSE: UtilityVM.pause,
    Do.RESUME: UtilityVM.resume,
    Do.PROPERTIES: UtilityVM.properties,
    Do.ASK: lambda vm: vm.properties(PropertyType.PROCESS_LIST),
    Do.STATISTICS: UtilityVM.stats,
    Do.MODIFY: lambda vm: vm.modify(ModifySettingRequest(resource_path="VirtualMachine/Devices/Scsi/0/Attachments/0", request_type="Add")),
    Do.SAVE: UtilityVM.save_as_template,
    Do.SLEEP: sleep,
    Do.FORK: fork,
    Do.DUMP_STACKS: UtilityVM.dump_stacks,
    Do.CLOSE_GCS: UtilityVM.close_gcs_connection,
    Do.WAIT: UtilityVM.wait,
    Do.EXIT_ERROR: exit_error,
    Do.TERMINATE: UtilityVM.terminate,
    Do.CLOSE: UtilityVM.close,
}
"""Each event that a caller causes."""

ENDING = {Do.TERMINATE, Do.SAVE, Do.SLEEP}
BY_ITSELF = {Do.STARTED, Do.KEEP, Do.EXIT}
HOSTED = pytest.mark.parametrize("hosted", [False, True], ids=["external", "internal"])


@pytest.fixture(autouse=True)
def _short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(end, "EXIT_TIMEOUT", 0.05)
    monkeypatch.setattr(uvm, "DRAIN_TIMEOUT", 0.05)


@asynccontextmanager
async def a_vm_that_is(state: State, *, hosted: bool) -> AsyncIterator[UtilityVM]:
    """Make a VM and bring it into `state`. A starting one stays that: its guest does nothing."""
    of, _ = service({"echo": echo})
    of.stays = state is State.SAVED
    if state is State.STARTING:
        of = type(of)()
    async with (
        asyncio.timeout(10),
        await create(of, external_guest_connection=not hosted, is_template=True) as vm,
        asyncio.TaskGroup() as group,
    ):
        if state is State.STARTING:
            starting = group.create_task(start_that_ends(vm))
            while not of.machines[0].ports or of.machines[0].state != "running":
                await asyncio.sleep(0)
        elif state is not State.CREATED:
            await vm.start()
        if state is State.PAUSED:
            await vm.pause()
        if state is State.SAVED:
            await vm.save_as_template()
        if state is State.STOPPED:
            await vm.terminate()
        if state is State.CLOSED:
            await vm.close()
        assert vm.state is state
        yield vm
        if state is State.STARTING:
            starting.cancel()


async def start_that_ends(vm: UtilityVM) -> None:
    with pytest.raises((ConnectionLost, Exception)):
        await vm.start()


def test_every_event_is_a_call_or_happens_by_itself() -> None:
    assert set(CALLS) | BY_ITSELF == set(Do)


@HOSTED
@pytest.mark.parametrize("do", CALLS)
@pytest.mark.parametrize("state", State)
async def test_a_call_does_what_the_table_says(state: State, do: Do, *, hosted: bool) -> None:
    async with a_vm_that_is(state, hosted=hosted) as vm:
        if (state, do) not in LIFE:
            with pytest.raises(StateError, match=f"^vm fake: cannot {do.value} while {state.value}$"):
                await CALLS[do](vm)
            assert vm.state is state
            return
        if do is Do.START:
            await vm.start()
            assert vm.state is State.RUNNING
        elif do is Do.WAIT and state not in {State.STOPPED, State.CLOSED}:
            waiting = asyncio.ensure_future(vm.wait())  # noqa: TID251 (awaited below)
            await vm.terminate()
            assert (await waiting).how is ExitHow.TERMINATED
        else:
            await CALLS[do](vm)
            assert vm.state is (State.STOPPED if do in ENDING and state is not State.CLOSED else LIFE[state, do])


@HOSTED
@pytest.mark.parametrize("state", State)
async def test_a_vm_can_be_closed_in_every_state_and_again(state: State, *, hosted: bool) -> None:
    async with a_vm_that_is(state, hosted=hosted) as vm:
        for _ in range(2):
            await vm.close()
        assert vm.state is State.CLOSED
        assert (await vm.wait()).how is ExitHow.TERMINATED
        assert vm.exit_error is None


@HOSTED
@pytest.mark.parametrize("do", [Do.PAUSE, Do.RESUME, Do.ASK, Do.CLOSE_GCS, Do.TERMINATE, Do.CLOSE])
async def test_a_call_that_is_given_up_at_any_turn_leaves_a_vm_that_can_be_closed(do: Do, *, hosted: bool) -> None:
    for turns in range(12):
        async with a_vm_that_is(State.PAUSED if do is Do.RESUME else State.RUNNING, hosted=hosted) as vm:
            calling = asyncio.ensure_future(CALLS[do](vm))  # noqa: TID251 (awaited below)
            for _ in range(turns):
                await asyncio.sleep(0)
            calling.cancel()
            await asyncio.wait([calling])
            carried_out = LIFE[State.PAUSED if do is Do.RESUME else State.RUNNING, do]
            assert vm.state in {State.RUNNING, State.PAUSED, State.STOPPED, carried_out}
        assert vm.state is State.CLOSED
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_paused_vm_runs_on_and_its_processes_with_it() -> None:
    of, _ = service()
    async with asyncio.timeout(10), await create(of) as vm:
        await vm.start()
        await vm.pause()
        with pytest.raises(StateError, match="cannot run a process while paused"):
            await vm.create_process(["echo"])
        await vm.resume()
        process = await vm.create_process(["echo", "a"])
        assert (await process.stdout.read(), await process.wait()) == (b"a", 1)


def _is_told(guest: FakeGuest) -> list[object]:
    return [request["ResourceType"] for _, request in guest.modified if isinstance(request, dict)]


async def test_a_guest_is_told_the_time_when_that_is_wanted_of_its_resumption() -> None:
    of, guests = service()
    async with asyncio.timeout(10), await create(of) as vm:
        await vm.start()
        with pytest.raises(StateError, match="cannot resume while running"):
            await vm.resume(set_clock=True)
        await vm.pause()
        await vm.resume()
        assert _is_told(guests[0]) == []
        await vm.pause()
        await vm.resume(set_clock=True)
        assert _is_told(guests[0]) == ["VirtualMachineIdentity"]
        assert vm.state is State.RUNNING


@asynccontextmanager
async def paused(takes: Callable[[object], Awaitable[str | None]]) -> AsyncIterator[tuple[UtilityVM, FakeMachine]]:
    """A VM that stands still, whose guest takes changes like this."""
    of, guests = service()
    async with asyncio.timeout(10), await create(of) as vm:
        await vm.start()
        await vm.pause()
        guests[0].modifying = takes
        yield vm, of.machines[0]


async def test_a_guest_that_does_not_take_the_time_runs_on() -> None:
    async def refuse(_request: object) -> str:
        return "it is always six o'clock"

    async with paused(refuse) as (vm, _):
        with pytest.raises(GuestError, match="always six o'clock"):
            await vm.resume(set_clock=True)
        assert vm.state is State.RUNNING
        assert await (await vm.create_process(["echo", "a"])).stdout.read() == b"a"


async def test_a_vm_without_a_guest_connection_of_its_own_stays_paused_when_its_guest_should_be_told_the_time() -> None:
    of, _ = service()
    async with asyncio.timeout(10), await create(of, external_guest_connection=False) as vm:
        await vm.start()
        await vm.pause()
        with pytest.raises(StateError, match="without a guest connection"):
            await vm.resume(set_clock=True)
        assert vm.state is State.PAUSED


async def test_a_vm_that_cannot_run_on_does_not_wait_for_its_guest_to_take_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stuck() -> None:
        raise HostError("the machine does not run on")

    async def silent(_request: object) -> None:
        await asyncio.Event().wait()

    async with paused(silent) as (vm, machine):
        with monkeypatch.context() as broken:
            broken.setattr(machine, "resume", stuck)
            with pytest.raises(HostError, match="does not run on"):
                await vm.resume(set_clock=True)
        assert vm.state is State.PAUSED


async def test_who_gives_up_waits_for_the_vm_to_run_on_and_not_for_its_guest_to_take_the_time() -> None:
    asked = asyncio.Event()

    async def silent(_request: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    async with paused(silent) as (vm, _):
        async with asyncio.TaskGroup() as group:
            resuming = group.create_task(vm.resume(set_clock=True))
            await asked.wait()
            resuming.cancel()
        assert vm.state is State.RUNNING
        assert (await vm.run(["echo", "a"])).stdout == b"a"


@HOSTED
async def test_while_a_vm_is_paused_no_deadline_of_its_guest_passes(monkeypatch: pytest.MonkeyPatch, *, hosted: bool) -> None:
    of, guests = service()
    async with asyncio.timeout(60), await create(of, external_guest_connection=not hosted) as vm:
        await vm.start()
        loop, ahead = asyncio.get_running_loop(), 0.0
        real = loop.time
        process = await vm.create_process(["echo"])
        answer, guests[0]._answer = guests[0]._answer, lambda *_: asyncio.Event().wait()  # type: ignore[assignment, method-assign]
        killing = asyncio.ensure_future(process.kill())  # noqa: TID251 (awaited below)
        for _ in range(5):
            await asyncio.sleep(0)
        await vm.pause()
        with monkeypatch.context() as later:
            ahead = 30.0
            later.setattr(loop, "time", lambda: real() + ahead)
            later.setattr("utilityvm.guest.bridge.CALL_TIMEOUT", 1.0)
            for _ in range(5):
                await asyncio.sleep(0)
        assert not killing.done()
        assert vm.state is State.PAUSED
        await vm.resume()
        killing.cancel()
        guests[0]._answer = answer  # type: ignore[method-assign]


# -- the guest connection -----------------------------------------------------------------------------------------------


async def test_after_its_guest_connection_is_closed_the_vm_runs_and_nothing_can_be_asked() -> None:
    async def forever(_guest: object, _program: object) -> int:
        await asyncio.Event().wait()
        return 0

    of, _ = service({"forever": forever})
    async with asyncio.timeout(10), await create(of) as vm:
        await vm.start()
        process = await vm.create_process(["forever"])
        await vm.close_gcs_connection()
        with pytest.raises(ConnectionLost):
            await process.wait()
        assert (vm.state, of.machines[0].state) == (State.RUNNING, "running")
        with pytest.raises(StateError, match="cannot run a process while without a guest connection"):
            await vm.create_process(["forever"])
        with pytest.raises(StateError, match="without a guest connection"):
            await vm.properties(PropertyType.MEMORY)
        assert await vm.dump_stacks() == ""
        assert (await vm.properties()).guest_connection_info is None


async def test_a_start_whose_guest_connection_is_closed_meanwhile_fails_and_ends_the_vm() -> None:
    of, _ = service()
    async with asyncio.timeout(10), await create(of) as vm:
        await vm.close_gcs_connection()
        await vm.start()  # without a listener there is none to wait for
        with pytest.raises(StateError, match="without a guest connection"):
            await vm.create_process(["echo"])


@HOSTED
async def test_a_vm_tells_of_itself_and_of_its_guest(*, hosted: bool) -> None:
    of, _ = service({"echo": echo})
    async with asyncio.timeout(10), await create(of, owner="me", external_guest_connection=not hosted) as vm:
        created = await vm.properties()
        assert (created.id, created.owner, created.system_type, created.state) == ("fake", "me", "VirtualMachine", "Created")
        assert created.guest_connection_info is None
        await vm.start()
        running = await vm.properties(PropertyType.MEMORY, PropertyType.PROCESS_LIST)
        assert (running.state, running.runtime_id) == ("Running", vm.runtime_id)
        assert running.guest_connection_info is not None
        assert running.guest_connection_info.protocol_version == 4
        assert running.memory is not None
        await vm.terminate()
        assert (await vm.properties()).stopped


async def within_five_seconds(call: Callable[[UtilityVM], Awaitable[object]], vm: UtilityVM) -> None:
    async with asyncio.timeout(5):
        await call(vm)


def test_a_call_from_another_event_loop_is_refused_and_waits_for_nothing() -> None:
    async def make() -> UtilityVM:
        of, _ = service({"echo": echo})
        return await create(of)

    vm = asyncio.run(make())
    for do, call in CALLS.items():
        if do is not Do.EXIT_ERROR:  # it waits for nothing
            with pytest.raises(StateError, match=f"^vm fake: cannot {do.value} while it belongs to another event loop$") as caught:
                asyncio.run(within_five_seconds(call, vm))
            assert "utilityvm.sync" in caught.value.hint
    assert vm.state is State.CREATED


async def test_a_callers_mistake_is_told_before_anything_is_sent() -> None:
    begun: list[Program] = []

    async def program(_guest: FakeGuest, program: Program) -> int:
        begun.append(program)
        return 0

    of, _ = service({"echo": program})
    async with asyncio.timeout(10), await create(of) as vm:
        await vm.start()
        with pytest.raises(InvalidOptions, match="'Nonsense' is not a valid PropertyType: there are Memory, ProcessList"):
            await vm.properties("Nonsense")  # type: ignore[arg-type]
        with pytest.raises(InvalidOptions, match="input is str, not bytes"):
            await vm.run(["echo"], input="text")  # type: ignore[arg-type]
        with pytest.raises(InvalidOptions, match="env is list, not a mapping of names to values"):
            await vm.run(["echo"], env=["A=b"])  # type: ignore[arg-type]
        assert begun == []
        await vm.run(["echo"], input=b"")
        assert [program.stdin is not None for program in begun] == [True]


async def test_the_driver_keeps_an_internal_guest_connection() -> None:
    of, _ = service()
    async with asyncio.timeout(10), await create(of, external_guest_connection=False) as vm:
        await vm.start()
        connection = of.machines[0].document.virtual_machine
        assert connection is not None
        assert connection.guest_connection is not None
        process = await vm.create_process(["echo", "a", "b"])
        assert (await process.stdout.read(), await process.wait()) == (b"a b", 2)
        assert await vm.dump_stacks() == ""
        await vm.close_gcs_connection()
        assert await (await vm.create_process(["echo"])).wait() == 0


async def test_an_internal_guest_connection_that_is_lost_ends_the_vm_and_is_its_error() -> None:
    of, _ = service(answers={})
    async with asyncio.timeout(10), await create(of, external_guest_connection=False) as vm:
        await vm.start()
        of.machines[0]._guest_lost(ConnectionLost("the agent closed the bridge"))
        assert (await vm.wait()).how is ExitHow.DISCONNECTED
        assert str(vm.exit_error) == "vm fake: its guest agent is gone: the agent closed the bridge"
