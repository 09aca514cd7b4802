"""Processes of a system: their streams, their ends, and nothing left of those that nobody wants."""

import asyncio
import os
from contextlib import suppress

import pytest

from tests.hcs.harness import ANSWER, HOLD, SILENT, StandIn
from tests.hcs.test_system import REFUSED, VM, caught, running
from utilityvm.compute.hcs import process as processes
from utilityvm.compute.hcs.process import UNKNOWN_CODE, HcsProcess
from utilityvm.compute.hcs.service import HcsService
from utilityvm.compute.hcs.system import HcsSystem, Notice
from utilityvm.guest.spec import ProcessSpec
from utilityvm.kit.errors import ConnectionLost, HcsError, StateError
from utilityvm.schema.document import ComputeSystem, GuestConnection, VirtualMachine
from utilityvm.schema.process import ProcessParameters
from utilityvm.schema.properties import PropertyType

ALL = ProcessParameters(command_args=["sh"], create_std_in_pipe=True, create_std_out_pipe=True, create_std_err_pipe=True)


async def process_in(hcs: StandIn, parameters: ProcessParameters = ALL) -> tuple[HcsService, HcsSystem, HcsProcess]:
    system = await running(hcs)
    service = hcs.service()
    return service, system, await service.create_process(system, parameters)


def let_go(hcs: StandIn, pid: int) -> None:
    for which in range(3):
        with suppress(OSError):
            os.close(hcs.end_of(pid, which))


async def test_its_streams_carry_bytes_both_ways_and_its_exit_code_is_the_services(hcs: StandIn) -> None:
    _, system, process = await process_in(hcs)
    assert hcs.document("HcsCreateProcess") == {
        "CommandArgs": ["sh"],
        "CreateStdInPipe": True,
        "CreateStdOutPipe": True,
        "CreateStdErrPipe": True,
    }
    await process.stdin.write(b"in")
    await process.stdin.write_eof()
    assert await asyncio.to_thread(os.read, hcs.end_of(process.pid, 0), 99) == b"in"
    for which, stream in ((1, process.stdout), (2, process.stderr)):
        os.write(hcs.end_of(process.pid, which), b"out")
        os.close(hcs.end_of(process.pid, which))
        assert await stream.read() == b"out"
    os.close(hcs.end_of(process.pid, 0))
    hcs.exit(process.pid, 7)
    assert [await process.wait(), await process.wait()] == [7, 7]
    await process.close()
    await process.close()
    assert hcs.names[-2:] == ["HcsUnregisterProcessCallback", "HcsCloseProcess"]
    await system.close()


async def test_streams_that_were_not_asked_for_end_at_once(hcs: StandIn) -> None:
    _, system, process = await process_in(hcs, ProcessParameters(command_args=["true"]))
    assert (await process.stdout.read(), await process.stderr.read()) == (b"", b"")
    with pytest.raises(BrokenPipeError):
        await process.stdin.write(b"x")
    await process.close()
    await system.close()


async def test_what_is_modified_is_what_the_service_knows(hcs: StandIn) -> None:
    _, system, process = await process_in(hcs, ProcessParameters())
    await process.resize(height=40, width=120)
    assert hcs.document("HcsModifyProcess") == {"Operation": "ConsoleSize", "ConsoleSize": {"Height": 40, "Width": 120}}
    await process.close_stdin()
    assert hcs.document("HcsModifyProcess") == {"Operation": "CloseHandle", "CloseHandle": {"Handle": "StdIn"}}
    hcs.script("HcsModifyProcess", REFUSED)
    with pytest.raises(HcsError, match=rf"Process::Modify vm-1:{process.pid}"):
        await process.close_stdin()
    await process.close()
    await system.close()


async def test_a_signal_is_delivered_once_and_kill_ends_it(hcs: StandIn) -> None:
    service, system, process = await process_in(hcs, ProcessParameters())
    assert await process.signal({"Signal": 15})
    assert hcs.document("HcsSignalProcess") == {"Signal": 15}
    assert await process.wait() == 143
    assert not await process.signal({"Signal": 15})
    assert not await process.kill()
    other = await service.create_process(system, ProcessParameters())
    assert await other.kill()
    assert await other.wait() == 137
    hcs.script("HcsTerminateProcess", 0x80070005)
    with pytest.raises(HcsError, match="access is denied"):
        await other.kill()
    await process.close()
    await other.close()
    await system.close()


@pytest.mark.parametrize("code", [0xC0370105, 0xC037010E, 0x80070490])
async def test_where_the_word_of_its_end_is_missing_a_failed_signal_ends_the_waiting(
    hcs: StandIn, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "GUARD", 0.01)
    _, system, process = await process_in(hcs, ProcessParameters())
    hcs.script("HcsSignalProcess", code)
    assert not await process.signal({"Signal": 9})
    assert await process.wait() == UNKNOWN_CODE
    await process.close()
    await system.close()


@pytest.mark.parametrize(
    ("hresult", "properties"),
    [(0, '{"ExitCode":3,"LastWaitResult":258}'), (0, "no JSON"), (REFUSED, "")],
    ids=["unwaited", "garbage", "refused"],
)
async def test_an_exit_code_that_the_service_does_not_know_is_minus_one(hcs: StandIn, hresult: int, properties: str) -> None:
    _, system, process = await process_in(hcs, ProcessParameters())
    hcs.script("HcsGetProcessProperties", hresult, properties)
    hcs.exit(process.pid, 3)
    assert await process.wait() == UNKNOWN_CODE
    await process.close()
    await system.close()


async def test_an_end_that_is_told_twice_or_after_the_close_changes_nothing(hcs: StandIn) -> None:
    _, system, process = await process_in(hcs, ProcessParameters())
    hcs.exit(process.pid, 1)
    assert await process.wait() == 1
    hcs.notify(Notice.PROCESS_EXITED, of_process=True)
    hcs.settle()
    await process.close()
    hcs.notify(Notice.PROCESS_EXITED, of_process=True, forced=True)
    hcs.settle()
    assert await process.wait() == 1
    assert hcs.names.count("HcsGetProcessProperties") == 1
    await system.close()


async def test_whoever_waits_is_told_of_the_systems_end_the_services_loss_or_the_close(hcs: StandIn) -> None:
    async def ends(kind: type[Exception]) -> HcsProcess:
        process = await hcs.service().create_process(system, ProcessParameters())
        waiting.append(group.create_task(caught(process.wait())))
        expected.append(kind)
        return process

    waiting: list[asyncio.Task[BaseException | None]] = []
    expected: list[type[Exception]] = []
    system = await running(hcs)
    async with asyncio.TaskGroup() as group:
        closed = await ends(StateError)
        await closed.close()
        lost = await ends(ConnectionLost)
        hcs.notify(Notice.DISCONNECTED, of_process=True)
        ended = await ends(ConnectionLost)
        await system.terminate()
    assert [type(task.result()) for task in waiting] == expected
    for process in (lost, ended):
        await process.close()
    await system.close()


async def test_a_creation_that_fails_or_cannot_be_watched_leaves_no_process_and_no_stream(hcs: StandIn) -> None:
    system = await running(hcs)
    service = hcs.service()
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    hcs.script("HcsCreateProcess", REFUSED)
    with pytest.raises(HcsError, match="System::CreateProcess vm-1"):
        await service.create_process(system, ALL)
    hcs.script("HcsRegisterProcessCallback", REFUSED)
    with pytest.raises(HcsError, match="WatchProcess vm-1:100"):
        await service.create_process(system, ALL)
    hcs.pipes.fails = OSError(24, "too many")
    with pytest.raises(OSError, match="too many"):
        await service.create_process(system, ALL)
    for pid in (100, 101):
        let_go(hcs, pid)
    await asyncio.sleep(0)
    assert set(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208
    assert hcs.names.count("HcsTerminateProcess") == 2
    await system.close()


async def test_a_creation_that_is_given_up_ends_the_process(hcs: StandIn) -> None:
    system = await running(hcs)
    hcs.script("HcsCreateProcess", how=HOLD)
    creating = asyncio.get_running_loop().create_task(hcs.service().create_process(system, ALL))
    await hcs.held()
    creating.cancel()
    await caught(creating)
    hcs.script("HcsCloseProcess", how=HOLD)
    hcs.release()
    await hcs.held()
    assert hcs.names[-2:] == ["HcsTerminateProcess", "HcsCloseProcess"]
    hcs.release()
    await system.close()
    await hcs.closed()  # by a thread that is nobody's to wait for
    let_go(hcs, 100)


async def test_a_process_is_opened_by_its_id_with_the_streams_that_are_left(hcs: StandIn) -> None:
    service, system, process = await process_in(hcs, ProcessParameters())
    other = await service.open_process(system, process.pid)
    await other.open_streams()
    os.write(hcs.end_of(process.pid, 1), b"late")
    os.close(hcs.end_of(process.pid, 1))
    assert await other.stdout.read() == b"late"
    assert not (await other.status()).exited
    await other.kill()
    assert [await process.wait(), await other.wait()] == [137, 137]
    with pytest.raises(HcsError, match="System::OpenProcess vm-1"):
        await service.open_process(system, 9999)
    for opened in (process, other):
        await opened.close()
    await system.close()


async def test_with_an_internal_guest_connection_the_service_reaches_the_guest_and_runs_processes(hcs: StandIn) -> None:
    document = ComputeSystem(virtual_machine=VirtualMachine(guest_connection=GuestConnection(use_vsock=True)))
    machine = await hcs.service().create(VM, document)
    hcs.script("HcsStartComputeSystem", how=SILENT)
    await machine.start()
    async with asyncio.TaskGroup() as group:
        connecting = group.create_task(machine.connect())
        assert isinstance(await caught(machine.create_process(ProcessSpec(argv=("x",)))), StateError)
        assert not connecting.done()
        hcs.notify(Notice.STARTED)
    process = await machine.create_process(ProcessSpec(argv=("cat", "-"), env=(("A", "1"),), stdin=True))
    assert hcs.document("HcsCreateProcess")["Environment"] == {"A": "1"}
    os.write(hcs.end_of(process.pid, 1), b"last words")
    hcs.exit(process.pid, 5)
    assert await process.wait() == 5
    await hcs.called("HcsCloseProcess")  # the service forgets it, its output can still be read
    let_go(hcs, process.pid)
    assert await process.stdout.read() == b"last words"
    assert not await process.kill()
    await process.close()
    told = '{"Id":"vm-1","RuntimeId":"A","State":"Running","Memory":{"VirtualMachineMemory":{"AssignedMemory":7}}}'
    hcs.script("HcsGetComputeSystemProperties", 0, told, ANSWER)
    memory = (await machine.properties(frozenset({PropertyType.MEMORY}))).memory
    assert memory is not None
    assert memory.virtual_machine_memory is not None
    assert memory.virtual_machine_memory.assigned_memory == 7
    assert hcs.document("HcsGetComputeSystemProperties") == {"PropertyTypes": ["Memory", "GuestConnection"]}
    unfinished = await machine.create_process(ProcessSpec(argv=("sleep",)))
    await machine.close()
    assert isinstance(await caught(unfinished.wait()), ConnectionLost)
    let_go(hcs, unfinished.pid)
    await unfinished.close()
