"""A VM over a fake machine with a fake guest: what it asks of both, and what it tells when they fail."""

import asyncio
import json
import logging
import os
import socket

import pytest

from utilityvm.compute.ports import ExitHow, ExitStatus
from utilityvm.guest.transport import GuestStream
from utilityvm.kit.errors import (
    ConnectionLost,
    DeadlineExceeded,
    Exhausted,
    GuestError,
    HostError,
    InvalidOptions,
    NotFound,
    ProtocolError,
    StateError,
    Unsupported,
)
from utilityvm.testing.compute import RUNTIME_ID, FakeComputeService
from utilityvm.testing.guest import FakeGuest, Program
from utilityvm.vm import end, uvm
from utilityvm.vm.life import State
from utilityvm.vm.processes import DEFAULT_ENVIRONMENT
from utilityvm.vm.uvm import UtilityVM
from utilityvm.wire import gcs
from utilityvm.wire.packets import STREAM, Op

from .fake import create, echo, service


async def forever(_guest: FakeGuest, _program: Program) -> int:
    await asyncio.Event().wait()
    return 0


@pytest.fixture(autouse=True)
def _short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests wait for in vain, they wait for briefly."""
    monkeypatch.setattr(end, "EXIT_TIMEOUT", 0.05)
    monkeypatch.setattr(uvm, "DRAIN_TIMEOUT", 0.05)


# -- a good life --------------------------------------------------------------------------------------------------------


async def test_a_vm_starts_runs_a_process_and_closes() -> None:
    of, guests = service()
    async with await create(of, owner="me", processor_count=9) as vm:
        assert (vm.state, vm.id, vm.owner, vm.runtime_id, vm.processor_count) == (State.CREATED, "fake", "me", RUNTIME_ID, 4)
        await vm.start()
        assert vm.state is State.RUNNING
        process = await vm.create_process(["echo", "a", "b"])
        assert (await process.stdout.read(), await process.wait()) == (b"a b", 2)
        await process.close()
    assert (vm.state, vm.exit_error, (await vm.wait()).how) == (State.CLOSED, None, ExitHow.TERMINATED)
    (machine,) = of.machines
    assert machine.ports[:3] == [gcs.ENTROPY_PORT, gcs.LOG_PORT, gcs.BRIDGE_PORT]
    assert machine.document.owner == "me"
    assert len(guests) == 1


async def test_each_guest_gets_entropy_of_its_own() -> None:
    of, guests = service()
    for _ in range(2):
        async with await create(of) as vm:
            await vm.start()
    first, second = (guest.entropy for guest in guests)
    assert len(first) == len(second) == gcs.ENTROPY_BYTES
    assert first != second


async def test_the_guests_log_is_ours(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "utilityvm")
    of, _ = service(log=b'{"level":"warning","msg":"hot","degrees":"90"}\nnot json\n')
    async with await create(of) as vm:
        await vm.start()
    said = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "utilityvm.guest"]
    assert [level for level, _ in said] == ["WARNING", "ERROR"]
    assert said[0][1].startswith("hot degrees=90 uvm-id=fake")
    assert said[1][1].startswith("not json uvm-id=fake")


async def test_another_handler_reads_the_log_to_its_end() -> None:
    whole: list[bytes] = []

    async def handler(stream: GuestStream) -> None:
        try:
            while data := await stream.read(1000):
                whole.append(data)
        except ConnectionLost:
            whole.append(b"<lost>")

    of, _ = service(log=b"line\n" * 1000)
    async with await create(of, output_handler=handler) as vm:
        await vm.start()
        while sum(map(len, whole)) < 5000:
            await asyncio.sleep(0)
    assert b"".join(whole) == b"line\n" * 1000 + b"<lost>"


async def test_a_log_handler_that_fails_is_told_and_the_vm_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(_stream: GuestStream) -> None:
        raise ValueError("no disk")

    of, _ = service()
    async with await create(of, output_handler=handler) as vm:
        await vm.start()
        process = await vm.create_process(["echo"])
        assert await process.wait() == 0
    (record,) = [record for record in caplog.records if getattr(record, "event", "") == "vm.output.failed"]
    assert "no disk" in record.getMessage()


async def test_a_log_handler_that_does_not_end_holds_the_close_up_for_a_moment_only() -> None:
    async def handler(_stream: GuestStream) -> None:
        await asyncio.Event().wait()

    of, _ = service()
    async with asyncio.timeout(5), await create(of, output_handler=handler) as vm:
        await vm.start()


async def test_without_forwarding_and_guest_connection_only_entropy_is_listened_for() -> None:
    of, _ = service()
    async with await create(of, forward_stderr=False, use_guest_connection=False) as vm:
        await vm.start()
        assert of.machines[0].ports == [gcs.ENTROPY_PORT]
        assert vm.state is State.RUNNING
        with pytest.raises(StateError, match="cannot run a process while without a guest connection"):
            await vm.create_process(["echo"])


async def test_what_a_process_is_given_by_default_and_by_name() -> None:
    seen: list[dict[str, object]] = []
    of, guests = service()
    async with await create(of) as vm:
        await vm.start()
        execute = guests[0]._execute

        async def spy(request: dict[str, object]) -> dict[str, object]:
            settings = request["Settings"]
            assert isinstance(settings, dict)
            seen.append(json.loads(settings["ProcessParameters"]))
            return await execute(request)

        guests[0]._execute = spy  # type: ignore[method-assign]
        for words in ({}, {"env": {"A": "1", "EMPTY": ""}, "cwd": "/tmp", "user": "nobody", "stdin": True, "console_size": (24, 80)}):
            process = await vm.create_process(["echo"], **words)  # type: ignore[arg-type]
            await process.wait()
            await process.close()
    plain, full = seen
    assert plain == {
        "CommandArgs": ["echo"],
        "WorkingDirectory": "/",
        "Environment": dict(DEFAULT_ENVIRONMENT),
        "CreateStdOutPipe": True,
        "CreateStdErrPipe": True,
    }
    assert full == {
        "CommandArgs": ["echo"],
        "WorkingDirectory": "/tmp",
        "Environment": {"A": "1", "EMPTY": ""},
        "User": "nobody",
        "EmulateConsole": True,
        "ConsoleSize": [24, 80],
        "CreateStdInPipe": True,
        "CreateStdOutPipe": True,
    }


async def test_a_command_that_cannot_be_sent_is_refused_and_the_vm_goes_on() -> None:
    of, _ = service()
    async with await create(of) as vm:
        await vm.start()
        before = of.machines[0].ports.copy()
        with pytest.raises(InvalidOptions, match="argv is empty"):
            await vm.create_process([])
        with pytest.raises(InvalidOptions, match="is not UTF-8"):
            await vm.create_process(["echo", os.fsdecode(b"\xff")])
        with pytest.raises(InvalidOptions, match="at most 64512"):
            await vm.create_process(["echo", "x" * 70_000])
        assert of.machines[0].ports == before, "something was sent"
        with pytest.raises(GuestError, match="no such program"):
            await vm.create_process(["nothing"])
        process = await vm.create_process(["echo"])
        assert await process.wait() == 0


# -- failures -----------------------------------------------------------------------------------------------------------


async def test_a_failed_create_says_what_was_being_created() -> None:
    with pytest.raises(HostError, match="^error while creating the compute system: broken$"):
        await create(FakeComputeService(create_fails=HostError("broken")))
    with pytest.raises(Unsupported, match="^too new$"):
        await create(FakeComputeService(create_fails=Unsupported("too new")))


async def test_missing_boot_files_say_how_to_build_them() -> None:
    with pytest.raises(NotFound, match="^kernel: '/boot/other' not found$") as caught:
        await create(FakeComputeService(), kernel_file="other")
    assert "uvm boot-files build" in caught.value.hint


async def test_a_failed_start_of_the_machine_ends_the_vm() -> None:
    async with await create(FakeComputeService(start_fails=Exhausted("no memory"))) as vm:
        with pytest.raises(Exhausted, match="^no memory$"):
            await vm.start()
        assert vm.state is State.STOPPED
        assert isinstance(vm.exit_error, HostError)
        with pytest.raises(StateError):
            await vm.start()


@pytest.mark.parametrize(
    ("silent_after", "phase"),
    [
        (0, "the guest to ask for entropy (port 1)"),
        (1, "the guest to ask for entropy (port 1)"),
        (2, "the guest's log stream (port 109)"),
        (3, "the guest agent to dial the bridge"),
        (4, "the guest agent's answer to the first call"),
    ],
)
async def test_a_guest_that_falls_silent_is_given_up_and_the_error_says_where(
    monkeypatch: pytest.MonkeyPatch, silent_after: int, phase: str
) -> None:
    """The guest answers the transport reset and dials three times. Of these packets the first so many pass, and no others at all."""
    monkeypatch.setattr(uvm, "START_TIMEOUT", 0.1)
    passed = 0

    def tamper(_sock: socket.socket, data: bytes) -> bytes:
        nonlocal passed
        control, operation = data[28:30] != STREAM.to_bytes(2, "little"), data[30]
        counts = control or operation == Op.REQUEST.value
        passed += counts
        return data if counts and passed <= silent_after else b""

    of, _ = service(tamper=tamper)
    async with asyncio.timeout(10), await create(of) as vm:
        with pytest.raises(DeadlineExceeded) as caught:
            await vm.start()
        assert caught.value.message == f"vm fake: not ready within 0.1 s: waiting for {phase}\nits console said nothing"
        assert vm.state is State.STOPPED


async def test_a_machine_that_ends_while_starting_is_told_with_its_console() -> None:
    of = FakeComputeService()

    async def panics(sock: socket.socket) -> ExitStatus:
        of.machines[0].console += ["before", "Kernel panic - not syncing: test"]
        sock.close()
        return ExitStatus(ExitHow.PANICKED, "Kernel panic - not syncing: test")

    of.guest = panics
    async with await create(of) as vm:
        with pytest.raises(HostError) as caught:
            await vm.start()
    assert caught.value.message == (
        "vm fake: the guest's kernel panicked, while waiting for the guest to ask for entropy (port 1)\n"
        "last lines of its console:\nbefore\nKernel panic - not syncing: test"
    )
    assert isinstance(vm.exit_error, HostError)


async def test_what_the_hypervisor_said_is_told_beside_the_console() -> None:
    of = FakeComputeService()

    async def fails(_sock: socket.socket) -> ExitStatus:
        return ExitStatus(ExitHow.FAILED, "qemu: no such file", 1)

    of.guest = fails
    async with await create(of) as vm:
        with pytest.raises(HostError, match=r"failed with exit code 1, .*: qemu: no such file\nits console said nothing$"):
            await vm.start()


@pytest.mark.parametrize(("mib", "told"), [(118, True), (120, False)])
async def test_a_guest_that_ends_while_starting_with_too_little_memory_is_told_as_that(mib: int, told: bool) -> None:
    of = FakeComputeService()

    async def resets(_sock: socket.socket) -> ExitStatus:
        return ExitStatus(ExitHow.RESET)

    of.guest = resets
    async with await create(of, memory_size_in_mb=mib) as vm:
        with pytest.raises(HostError, match="the guest reset itself") as caught:
            await vm.start()
    assert caught.value.hint == (
        f"it has {mib} MiB of memory, and a Linux guest needs 120 beside what is run: memory_size_in_mb, --memory" if told else ""
    )


async def test_a_guest_of_another_protocol_is_refused() -> None:
    of, _ = service(answers={gcs.NEGOTIATE.word: b'{"Result":0,"Version":3}'})
    async with await create(of) as vm:
        with pytest.raises(ProtocolError, match="unexpected version 3"):
            await vm.start()
        assert vm.state is State.STOPPED


async def test_a_guest_that_breaks_the_protocol_while_starting_is_told_as_that() -> None:
    def tamper(_sock: socket.socket, data: bytes) -> bytes:
        answers = data[20:24] == gcs.BRIDGE_PORT.to_bytes(4, "little") and data[30] == Op.RW.value
        return data[:48] + b"\xff" * 4 + data[52:] if answers else data  # the size in the frame's header

    of, _ = service(tamper=tamper)
    async with asyncio.timeout(10), await create(of) as vm:
        with pytest.raises(ProtocolError, match="invalid message size 4294967295"):
            await vm.start()
        assert isinstance(vm.exit_error, ProtocolError)


async def started(of: FakeComputeService) -> UtilityVM:
    vm = await create(of)
    await vm.start()
    return vm


async def test_a_guest_that_powers_off_ends_its_vm_without_an_error() -> None:
    of, guests = service({"forever": forever})
    async with await started(of) as vm:
        process = await vm.create_process(["forever"])
        guests[0]._sock.shutdown(socket.SHUT_RDWR)
        assert (await vm.wait()).how is ExitHow.POWERED_OFF
        assert (vm.state, vm.exit_error) == (State.STOPPED, None)
        with pytest.raises(ConnectionLost):
            await process.wait()
        with pytest.raises(StateError, match="cannot run a process while stopped"):
            await vm.create_process(["echo"])


async def test_a_machine_that_fails_is_the_vms_exit_error() -> None:
    of, _ = service()
    async with await started(of) as vm:
        of.machines[0].end(ExitStatus(ExitHow.KILLED, code=9))
        assert (await vm.wait()).how is ExitHow.KILLED
        assert str(vm.exit_error) == "vm fake: its hypervisor was killed by signal 9"


async def test_a_lost_bridge_ends_the_vm_which_is_of_no_use_without() -> None:
    of, guests = service()
    async with asyncio.timeout(10), await started(of) as vm:
        (bridge,) = [connection for (port, _), connection in guests[0]._connections.items() if port == gcs.BRIDGE_PORT]
        await guests[0].shut(bridge)
        await vm.wait()
        assert vm.state is State.STOPPED
        assert isinstance(vm.exit_error, ConnectionLost)
        assert "the guest agent closed the bridge" in vm.exit_error.message


async def test_a_guest_that_breaks_the_protocol_is_ended_for_it() -> None:
    of, guests = service()
    async with asyncio.timeout(10), await started(of) as vm:
        await guests[0].send_raw(b"\xff" * 44)
        await vm.wait()
        assert vm.state is State.STOPPED
        assert isinstance(vm.exit_error, ProtocolError)


# -- coming between -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", range(12))
async def test_closing_while_starting(turns: int) -> None:
    of, _ = service()
    async with asyncio.timeout(10):
        vm = await create(of)
        starting = asyncio.create_task(vm.start())  # noqa: TID251 (awaited below)
        for _ in range(turns):
            await asyncio.sleep(0)
        await vm.close()
        await asyncio.wait([starting])
    assert isinstance(starting.exception(), HostError | StateError | ConnectionLost | None)
    assert (vm.state, vm.exit_error) == (State.CLOSED, None)


@pytest.mark.parametrize("turns", range(12))
async def test_giving_up_a_start(turns: int) -> None:
    of, _ = service()
    async with asyncio.timeout(10), await create(of) as vm:
        starting = asyncio.create_task(vm.start())  # noqa: TID251 (awaited below)
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait([starting])
        assert starting.cancelled()
        assert vm.state in {State.STOPPED, State.CREATED}, "at the first turn it had not begun"


async def test_two_closes_at_once_are_one() -> None:
    of, _ = service()
    vm = await started(of)
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(vm.close())
    assert vm.state is State.CLOSED


async def test_a_close_that_is_cancelled_completes() -> None:
    of, _ = service()
    vm = await started(of)
    closing = asyncio.create_task(vm.close())  # noqa: TID251 (awaited below)
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    assert of.machines[0].state == "closed"


async def test_all_who_wait_are_told() -> None:
    of, _ = service({"echo": echo})
    async with await started(of) as vm:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            waiting = [group.create_task(vm.wait()) for _ in range(3)]
            await vm.terminate()
        assert {task.result().how for task in waiting} == {ExitHow.TERMINATED}


async def test_ending_a_vm_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvm, "CLEANUP_TIMEOUT", 0.05)
    of, _ = service()
    async with asyncio.timeout(10), await started(of) as vm:
        (machine,) = of.machines
        terminate = machine.terminate

        async def hang() -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(type(machine), "terminate", lambda _self: hang())
        with pytest.raises(DeadlineExceeded, match=r"vm fake: .* within 0\.05 s"):
            await vm.terminate()
        monkeypatch.undo()
        await terminate()


async def test_a_program_of_the_guest_reaches_the_owner_by_a_port_of_its_choice() -> None:
    of, guests = service({"echo": echo})
    async with asyncio.timeout(10), await create(of) as vm:
        listener = vm.listen(5000)
        await vm.start()
        assert 5000 in guests[0].listening
        async with asyncio.TaskGroup() as group:
            dialling = group.create_task(guests[0].dial(5000))
            stream = await listener.accept()
        await guests[0].write(dialling.result(), b"from the guest")
        assert await stream.read(100) == b"from the guest"
        listener.close()
        stream.close()
        refused = await guests[0].dial(5000)
        assert refused.refused


@pytest.mark.parametrize("port", [0, -1, 0xFFFF_FFFF, True, "5", 1.5, 1, 109, 564, 0x4000_0000, 0x4000_0001, 0x7FFF_FFFF])
async def test_what_is_no_port_or_the_vms_own_cannot_be_listened_on(port: object) -> None:
    async with await create(service()[0]) as vm:
        with pytest.raises(InvalidOptions, match=r"^port "):
            vm.listen(port)  # type: ignore[arg-type]
        vm.listen(0x8000_0000).close()
