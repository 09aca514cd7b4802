"""A guest whose GCS is not our agent's: one that behaves like the original's, beside our init, reaching the host by AF_VSOCK."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from msgspec.json import encode

from utilityvm import GuestError, HostError, UtilityVM, create_lcow, default_options_lcow
from utilityvm.boot.files import BootFiles
from utilityvm.compute.ports import ExitHow

from .foreign import PATH, beside_the_agent
from .running import LIMIT, Done, ended, of_vm

pytestmark = pytest.mark.asyncio(loop_scope="module")

GCS = f"{PATH} gcs -v4 -log-format json -disable-time-sync"


@pytest.fixture(scope="module")
def folder(boot_files: BootFiles, tmp_path_factory: pytest.TempPathFactory) -> str:
    return beside_the_agent(boot_files, tmp_path_factory.mktemp("foreign"))


async def create(folder: str, command_line: str = GCS, **options: object) -> UtilityVM:
    given: dict[str, object] = {
        "boot_files_path": folder,
        "memory_size_in_mb": 256,
        "processor_count": 1,
        "exec_command_line": command_line,
    }
    return await create_lcow(default_options_lcow(**given | options))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def foreign(folder: str) -> AsyncIterator[UtilityVM]:
    async with await create(folder, kernel_boot_options="uvm.cgroup=1") as vm:
        await vm.start()
        yield vm


async def test_it_is_negotiated_with_and_starts_processes(foreign: UtilityVM) -> None:
    told = await foreign.properties()
    assert b"NamespaceAddRequestSupported" in encode(told)
    assert await ended(await foreign.create_process(["sh", "-c", "echo out; echo err >&2; exit 7"])) == Done(7, b"out\n", b"err\n")


@pytest.mark.parametrize("env", [{}, {"HANDSHAKE": "1"}], ids=["the program owns its streams", "its streams are relayed"])
async def test_input_reaches_a_process_and_its_end_too(foreign: UtilityVM, env: dict[str, str]) -> None:
    async with asyncio.timeout(LIMIT):
        process = await foreign.create_process(["/bin/sh", "-c", "wc -c; echo done >&2"], stdin=True, env={"PATH": "/bin"} | env)
        await process.stdin.write(b"x" * 3_000_000)
        await process.stdin.write_eof()
        assert await ended(process) == Done(0, b"3000000\n", b"done\n")


async def test_the_exit_is_told_after_the_handshake_that_ends_each_output(foreign: UtilityVM) -> None:
    async with asyncio.timeout(LIMIT):
        process = await foreign.create_process(["/bin/sh", "-c", "cat; exit 3"], stdin=True, env={"PATH": "/bin", "HANDSHAKE": "1"})
        await process.stdin.write(b"to the end")
        await process.stdin.write_eof()
        assert await process.stdout.read() == b"to the end"
        assert await process.stderr.read() == b""
        assert await process.wait() == 3
        await process.close()


async def test_many_processes_run_at_once(foreign: UtilityVM) -> None:
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(foreign, number)) for number in range(12)]
    assert [task.result() for task in tasks] == [Done(number, f"{number}\n".encode()) for number in range(12)]


async def one(vm: UtilityVM, number: int) -> Done:
    return await ended(await vm.create_process(["/bin/sh", "-c", f"echo {number}; exit {number}"]))


async def test_what_it_cannot_do_is_its_own_refusal(foreign: UtilityVM) -> None:
    with pytest.raises(GuestError, match="function not supported"):
        await foreign.dump_stacks()
    with pytest.raises(GuestError, match="failed to call Start"):
        await foreign.create_process(["/no/such/program"])
    assert (await one(foreign, 1)).code == 1


async def test_its_programs_reach_our_listeners_by_the_same_way(foreign: UtilityVM) -> None:
    async with asyncio.timeout(LIMIT):
        listener = foreign.listen(77)
        process = await foreign.create_process([PATH, "send", "77", "5"])
        stream = await listener.accept()
        assert await stream.read() == bytes(range(5))
        await stream.write(b"heard")
        await stream.write_eof()
        assert await ended(process) == Done(0, b"heard")
        listener.close()


async def test_control_groups_of_version_1_are_there_on_request(foreign: UtilityVM) -> None:
    values = "cat memory/x/memory.limit_in_bytes cpu/x/cpu.shares && grep -c ' - cgroup ' /proc/self/mountinfo"
    script = f"cd /sys/fs/cgroup && mkdir memory/x cpu/x && {values}"
    code, out, err = await ended(await foreign.create_process(["/bin/sh", "-c", script]))
    assert (code, err) == (0, b"")
    limit, shares, count = map(int, out.split())
    assert limit > 1 << 40
    assert shares == 1024
    assert count >= 8


async def test_its_drivers_are_there_without_being_asked_for(foreign: UtilityVM) -> None:
    code, out, _ = await ended(
        await foreign.create_process(["/bin/sh", "-c", "cat /proc/filesystems; ls /sys/bus/virtio/drivers /sys/bus/nd/drivers"])
    )
    assert code == 0
    assert {b"ext4", b"overlay", b"9p", b"virtio_scsi", b"virtio_net", b"virtio_pmem"} <= set(out.split())


async def test_its_errors_reach_the_host_by_the_log_port(folder: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "utilityvm.guest"):
        async with asyncio.timeout(LIMIT), await create(folder, forward_stdout=True) as vm:
            await vm.start()
            assert (await one(vm, 0)).code == 0
    started = [record.getMessage() for record in caplog.records if "GCS started" in record.getMessage()]
    assert len(started) == 1
    assert "-disable-time-sync" in started[0]


async def test_the_machine_ends_with_it(folder: str) -> None:
    async with asyncio.timeout(LIMIT), await create(folder) as vm:
        await vm.start()
        process = await vm.create_process(["/bin/sh", "-c", "sleep 100"])
        await vm.create_process(["/bin/sh", "-c", "kill -9 $(pidof foreign)"])
        assert (await vm.wait()).how in {ExitHow.POWERED_OFF, ExitHow.TERMINATED}  # whichever of the two notices first
        await process.close()
    assert of_vm(vm.id) == []


@pytest.mark.parametrize(
    ("command_line", "options", "says"),
    [
        ("/bin/no-such-gcs -v4", {}, "utilityvm: program /bin/no-such-gcs: no such file or directory"),
        ("/bin/false", {}, "utilityvm: program /bin/false: ended with exit code 1"),
        ("gcs -v4", {}, "the program after /bin/vsockexec must be an absolute path, not gcs"),
        (GCS, {"kernel_boot_options": "uvm.cgroups=1"}, "utilityvm: kernel command line: unknown word uvm.cgroups=1"),
    ],
    ids=["missing", "fails", "no path", "unknown word"],
)
async def test_what_cannot_be_started_ends_the_boot_with_its_reason(
    folder: str, command_line: str, options: dict[str, object], says: str
) -> None:
    async with asyncio.timeout(LIMIT), await create(folder, command_line, **options) as vm:
        with pytest.raises(HostError) as caught:
            await vm.start()
        assert says in caught.value.message
