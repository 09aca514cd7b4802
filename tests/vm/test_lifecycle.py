"""The life of a real VM: each way to begin and to end, at every moment, with a typed reason, in bounded time and nothing left."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from pathlib import Path

import pytest

from utilityvm import (
    ConnectionLost,
    HostError,
    Process,
    StateError,
    UtilityVM,
    UtilityVMError,
    create_lcow,
    default_options_lcow,
)
from utilityvm.boot.files import BootFiles
from utilityvm.compute.ports import ExitHow
from utilityvm.vm.life import State
from utilityvm.wire import gcs

from .once import once
from .running import LIMIT, Done, line, of_vm, qemu_of, run, sh

Make = Callable[..., Awaitable[UtilityVM]]


@pytest.fixture
def make(boot_files: BootFiles) -> Make:
    """Create a small VM; the arguments are options."""

    async def create(**options: object) -> UtilityVM:
        small: dict[str, object] = {"boot_files_path": str(boot_files.folder), "memory_size_in_mb": 256, "processor_count": 1}
        return await create_lcow(default_options_lcow(**small | options))

    return create


@asynccontextmanager
async def started(vm: UtilityVM) -> AsyncIterator[UtilityVM]:
    async with asyncio.timeout(LIMIT), vm:
        await vm.start()
        yield vm
    assert of_vm(vm.id) == []


def refused(vm: UtilityVM, what: str) -> AbstractContextManager[object]:
    return pytest.raises(StateError, match=f"^vm {vm.id}: cannot {what} while {vm.state}$")


# -- what may be done when ----------------------------------------------------------------------------------------------


async def test_a_vm_that_was_never_started_is_closed_without_a_trace(make: Make) -> None:
    vm = await make()
    assert vm.state is State.CREATED
    with refused(vm, "run a process"):
        await vm.create_process(["true"])
    with refused(vm, "report its exit"):
        _ = vm.exit_error
    assert of_vm(vm.id) == []
    await vm.close()
    await vm.close()
    assert (vm.state, vm.exit_error, (await vm.wait()).how) == (State.CLOSED, None, ExitHow.TERMINATED)
    with refused(vm, "start"):
        await vm.start()


async def test_a_vm_that_was_terminated_before_its_start_cannot_be_started(make: Make) -> None:
    async with await make() as vm:
        await vm.terminate()
        assert vm.state is State.STOPPED
        with refused(vm, "start"):
            await vm.start()


async def test_the_life_of_a_vm(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "utilityvm")
    async with started(await make(exec_command_line="/bin/gcs -v4 -log-format json -loglevel debug", owner="me")) as vm:
        assert vm.state is State.RUNNING
        assert (vm.os, vm.owner, vm.is_oci, vm.processor_count) == ("linux", "me", False, 1)
        assert (vm.physically_backed, vm.devices_physically_backed) == (False, False)
        with refused(vm, "start"):
            await vm.start()
        with refused(vm, "report its exit"):
            _ = vm.exit_error
        assert await run(vm, "echo", "after a refused start") == Done(0, b"after a refused start\n")
        await vm.terminate()
        assert (vm.state, vm.exit_error, (await vm.wait()).how) == (State.STOPPED, None, ExitHow.TERMINATED)
        await vm.terminate()
        for call, what in ((vm.start(), "start"), (vm.create_process(["true"]), "run a process")):
            with refused(vm, what):
                await call
    assert vm.exit_error is None
    with refused(vm, "run a process"):
        await vm.create_process(["true"])
    said = [record for record in caplog.records if record.name == "utilityvm.guest"]
    assert [record for record in said if "bridge negotiated" in record.getMessage()]
    assert all(f"uvm-id={vm.id}" in record.getMessage() for record in said)
    assert [record for record in caplog.records if getattr(record, "event", "") == "vm.start.done"]


# -- ends ---------------------------------------------------------------------------------------------------------------


async def end_by(vm: UtilityVM, end: Callable[[], Awaitable[object]]) -> Process:
    """Let a VM end while somebody waits for a process in it, for its output, and for the VM: all are told."""
    process = await vm.create_process(["sh", "-c", "echo ready; exec sleep 1000"], stdin=True)
    assert await line(process) == b"ready\n"
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        waiting = [group.create_task(outcome(work)) for work in (process.wait(), process.stdout.read())]
        ended = group.create_task(vm.wait())
        await end()
    assert vm.state is State.STOPPED
    for task in waiting:
        assert isinstance(task.result(), ConnectionLost), task.result()
    assert ended.result() == await vm.wait()
    with pytest.raises(ConnectionLost):
        await process.kill()
    with pytest.raises(ConnectionLost):
        await process.stdin.write(b"x")
    await process.close()
    return process


async def outcome(work: Awaitable[object]) -> object:
    try:
        return await work
    except UtilityVMError as error:
        return error


async def in_guest(vm: UtilityVM, script: str) -> None:
    """Run what ends the VM: whether its process was still reported to have started is open."""
    with suppress(ConnectionLost):
        await vm.create_process(["sh", "-c", script], stdout=False, stderr=False)


@pytest.mark.parametrize(
    ("script", "how", "says"),
    [
        ("/bin/busybox poweroff -f", ExitHow.POWERED_OFF, ""),
        ("/bin/busybox reboot -f", ExitHow.RESET, "the guest reset itself"),
        ("echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger", ExitHow.PANICKED, "the guest's kernel panicked: Kernel panic"),
    ],
)
async def test_a_guest_ends_its_vm(make: Make, script: str, how: ExitHow, says: str) -> None:
    async with started(await make()) as vm:
        await end_by(vm, lambda: in_guest(vm, script))
        assert (await vm.wait()).how is how
        error = vm.exit_error
        assert str(error or "").startswith(f"vm {vm.id}: {says}" if says else "")
        assert error is None or isinstance(error, HostError)
        assert how is not ExitHow.PANICKED or "sysrq triggered crash" in str(error)


@pytest.mark.parametrize("call", [gcs.SHUTDOWN_GRACEFUL, gcs.SHUTDOWN_FORCED], ids=lambda call: call.name)
async def test_the_agent_powers_the_vm_off_when_the_host_asks(make: Make, call: gcs.Call[gcs.Request, gcs.Response]) -> None:
    async with started(await make()) as vm:
        assert vm._guest is not None
        vm._guest.client.bridge.notify(call, gcs.Request())
        assert ((await vm.wait()).how, vm.exit_error) == (ExitHow.POWERED_OFF, None)


async def test_a_vm_is_terminated_while_others_wait(make: Make) -> None:
    async with started(await make()) as vm:
        await end_by(vm, vm.terminate)
        assert (vm.exit_error, (await vm.wait()).how) == (None, ExitHow.TERMINATED)


async def test_a_killed_qemu_is_told_to_all_who_wait(make: Make) -> None:
    async with started(await make()) as vm:

        async def kill() -> None:
            os.kill(qemu_of(vm.id), signal.SIGKILL)

        await end_by(vm, kill)
        assert (await vm.wait()).how is ExitHow.KILLED
        assert isinstance(vm.exit_error, HostError)
        assert "killed by signal 9" in vm.exit_error.message


# -- coming between -----------------------------------------------------------------------------------------------------

MOMENTS: dict[str, Callable[[UtilityVM], bool]] = {
    "at once": lambda _: True,
    "when QEMU has been spawned": lambda vm: bool(of_vm(vm.id)),
    "when the guest sends its log": lambda vm: vm._output is not None,
    "when the guest has dialled the bridge": lambda vm: gcs.BRIDGE_PORT not in vm._listeners,
}


async def begin(vm: UtilityVM, moment: str) -> asyncio.Task[None]:
    starting = asyncio.create_task(vm.start())  # noqa: TID251 (awaited by the test)
    await asyncio.sleep(0)
    while not MOMENTS[moment](vm) and not starting.done():
        await asyncio.sleep(0.001)
    return starting


@pytest.mark.parametrize("moment", [*once(*list(MOMENTS)[:-1]), list(MOMENTS)[-1]])
async def test_closing_a_vm_that_is_starting(make: Make, moment: str) -> None:
    vm = await make()
    async with asyncio.timeout(LIMIT):
        starting = await begin(vm, moment)
        await vm.close()
        with pytest.raises(UtilityVMError) as caught:
            await starting
    assert isinstance(caught.value, HostError | StateError), repr(caught.value)
    assert (vm.state, vm.exit_error, of_vm(vm.id)) == (State.CLOSED, None, [])


@pytest.mark.parametrize("moment", [*once(*list(MOMENTS)[:-1]), list(MOMENTS)[-1]])
async def test_giving_up_a_start_ends_the_vm(make: Make, moment: str) -> None:
    async with asyncio.timeout(LIMIT), await make() as vm:
        starting = await begin(vm, moment)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert (vm.state, vm.exit_error, of_vm(vm.id)) == (State.STOPPED, None, [])


async def test_terminating_a_vm_that_is_starting(make: Make) -> None:
    async with asyncio.timeout(LIMIT), await make() as vm:
        starting = await begin(vm, "when QEMU has been spawned")
        await vm.terminate()
        with pytest.raises(HostError, match="ended while starting"):
            await starting
        assert (vm.state, vm.exit_error) == (State.STOPPED, None)


# -- boots that fail ----------------------------------------------------------------------------------------------------


async def failure(vm: UtilityVM) -> HostError:
    async with asyncio.timeout(LIMIT), vm:
        with pytest.raises(HostError) as caught:
            await vm.start()
        assert vm.state is State.STOPPED
        return caught.value


def other_folder(tmp_path: Path, boot_files: BootFiles, initrd: bytes | None = None) -> str:
    """Make a folder that nobody has checked, with an initrd of ours if it is given."""
    (tmp_path / "vmlinux").symlink_to(boot_files.vmlinux)
    if initrd is None:
        (tmp_path / "initrd.img").symlink_to(boot_files.initrd)
    else:
        (tmp_path / "initrd.img").write_bytes(initrd)
    return str(tmp_path)


async def test_a_kernel_without_a_root_panics_and_the_error_has_its_console(make: Make, boot_files: BootFiles, tmp_path: Path) -> None:
    error = await failure(await make(boot_files_path=other_folder(tmp_path, boot_files, b"not an archive\n" * 5000)))
    assert "the guest's kernel panicked, while waiting for the guest to ask for entropy" in error.message
    assert "last lines of its console:\n" in error.message
    assert error.message.count("Unable to mount root fs") == 1


async def test_boot_options_that_leave_no_init_panic(make: Make) -> None:
    vm = await make(kernel_boot_options="rdinit=/nonexistent init=/nonexistent")
    error = await failure(vm)
    assert "the guest's kernel panicked" in error.message
    assert "Kernel panic - not syncing" in error.message
    assert vm.exit_error is not None
    assert "Kernel panic" in vm.exit_error.message


async def test_an_agent_that_the_guest_does_not_have_is_missed_by_name(make: Make) -> None:
    error = await failure(await make(exec_command_line="/bin/nothing --at-all"))
    assert "ended while starting (powered_off)" in error.message
    assert "utilityvm: program /bin/nothing: no such file or directory" in error.message


# -- options ------------------------------------------------------------------------------------------------------------


async def test_two_vms_in_one_process_do_not_touch_each_other(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """One with an odd size of memory and more processors than there are; the other ends first."""
    async with asyncio.timeout(LIMIT), await make() as other, await make(memory_size_in_mb=255, processor_count=1000) as vm:
        adjusted = [record.getMessage() for record in caplog.records if getattr(record, "event", "") == "plan.adjusted"]
        count = len(os.sched_getaffinity(0))
        assert vm.processor_count == count
        assert [f"requested=1000 assigned={count}" in adjusted[0], "requested=255 assigned=256" in adjusted[1]] == [True, True]
        async with asyncio.TaskGroup() as group:
            group.create_task(vm.start())
            group.create_task(other.start())
        assert vm.id != other.id
        assert vm.runtime_id != other.runtime_id
        await sh(vm, "echo vm > /tmp/name")
        assert (await run(other, "ls", "/tmp")).out == b""
        waiting = await vm.create_process(["cat"], stdin=True)
        await other.close()
        await waiting.stdin.write_eof()
        assert await waiting.wait() == 0
        await waiting.close()
        assert (await run(vm, "cat", "/tmp/name")).out == b"vm\n"
        assert (await run(vm, "nproc")).out == b"%d\n" % count
        total = int((await run(vm, "grep", "MemTotal", "/proc/meminfo")).out.split()[1])
        assert 180 << 10 < total < 256 << 10


async def test_a_vm_without_a_guest_connection_runs_and_is_terminated(make: Make) -> None:
    async with started(await make(use_guest_connection=False)) as vm:
        assert vm.state is State.RUNNING
        with pytest.raises(StateError, match="cannot run a process while without a guest connection"):
            await vm.create_process(["true"])
        await vm.terminate()
        assert vm.exit_error is None


async def test_the_console_is_a_socket_with_a_shell_on_it(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "console"
    await _leave_stale_socket(path)
    async with started(await make(console_pipe=str(path))) as vm:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"\necho $((6 * 7)) answers\n")
        said = b""
        async with asyncio.timeout(LIMIT):
            while b"42 answers" not in said:
                data = await reader.read(4096)
                assert data, f"the console ended after {said!r}"
                said += data
        assert await run(vm, "echo", "beside it") == Done(0, b"beside it\n")
        await vm.close()
        assert not path.exists()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def _leave_stale_socket(path: Path) -> None:
    server = await asyncio.start_unix_server(lambda _reader, _writer: None, path)
    server.close()
    await server.wait_closed()
    assert path.is_socket()  # noqa: ASYNC240


# -- the owner ----------------------------------------------------------------------------------------------------------

OWNER = """
import asyncio, sys
from utilityvm import create_lcow, default_options_lcow
async def main():
    options = default_options_lcow(boot_files_path=sys.argv[1], id=sys.argv[2], memory_size_in_mb=256, processor_count=1)
    async with await create_lcow(options) as vm:
        await vm.start()
        process = await vm.create_process(["sleep", "1000"])
        print("running", flush=True)
        await process.wait()
asyncio.run(main())
"""


async def test_within_two_seconds_of_its_owners_death_nothing_is_left(boot_files: BootFiles) -> None:
    vm_id = f"owned-{os.getpid()}"
    places = [Path(os.environ["TMPDIR"]), Path("/dev/shm"), Path("/run/utilityvm")]
    before = listing(places)
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, str(boot_files.folder), vm_id, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert owner.stdout is not None
    async with asyncio.timeout(LIMIT):
        assert await owner.stdout.readline() == b"running\n"
    files = open_files(qemu_of(vm_id))
    owner.kill()
    await owner.wait()
    async with asyncio.timeout(2):
        while of_vm(vm_id):
            await asyncio.sleep(0.01)
    assert listing(places) <= before
    left = {path for path in files if os.path.exists(path)} - {str(path) for path in boot_files.folder.iterdir()}  # noqa: PTH110, ASYNC240
    assert left <= {"/dev/null"}, "a file of the VM was left"


def listing(places: list[Path]) -> set[str]:
    return {str(path) for place in places if place.is_dir() for path in place.iterdir()}


def open_files(pid: int) -> set[str]:
    """Return what a process has open, by what the kernel calls it."""
    return {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}  # noqa: PTH115 (not paths)


LEFT_BEHIND = """
import asyncio, sys, time
from utilityvm import create_lcow, default_options_lcow
began = []
async def serve(name, running, hosted, work):
    small = {"memory_size_in_mb": 256, "processor_count": 1, "boot_files_path": sys.argv[2]}
    options = default_options_lcow(id=name, external_guest_connection=not hosted, **small)
    async with await create_lcow(options) as vm:
        await vm.start()
        running.release()
        await work(vm)
async def main():
    running = asyncio.Semaphore(0)
    works = [lambda vm: vm.wait(), lambda vm: vm.run(["sleep", "1000"])]
    tasks = [asyncio.ensure_future(serve(f"{sys.argv[1]}-{at}", running, at < 2, works[at % 2])) for at in range(4)]
    for _ in tasks:
        await running.acquire()
    await asyncio.sleep(0.5)
    began.append(time.monotonic())
asyncio.run(main())
print(time.monotonic() - began[0])
"""


@pytest.mark.once
async def test_vms_of_tasks_that_the_end_of_the_event_loop_cancels_are_closed_at_once(boot_files: BootFiles) -> None:
    """It cancels our own tasks together with theirs, so that nothing of ours may wait for another."""
    name = f"left-behind-{os.getpid()}"
    words = (sys.executable, "-c", LEFT_BEHIND, name, str(boot_files.folder))
    async with asyncio.timeout(2 * LIMIT):
        process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
        out, err = await process.communicate()
    assert process.returncode == 0
    assert b"Traceback" not in err, err.decode()
    assert float(out) < 3
    assert [of_vm(f"{name}-{at}") for at in range(4)] == [[], [], [], []]
