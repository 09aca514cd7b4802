"""The QEMU driver with real machines: each way to end is told from the others, and nothing is left of any.

What needs no Linux boots a kernel of a hundred bytes, so most of this takes a fraction of a second each.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from utilityvm.boot.files import BootFiles
from utilityvm.compute.life import State
from utilityvm.compute.ports import ExitHow, ExitStatus
from utilityvm.compute.qemu.service import QemuService
from utilityvm.compute.qemu.system import QemuMachine
from utilityvm.kit.errors import Exists, HostError, NotFound, QmpError, Unsupported
from utilityvm.kit.ids import VmId
from utilityvm.schema.devices import ComPort, Devices, Scsi
from utilityvm.schema.document import (
    Chipset,
    ComputeSystem,
    LinuxKernelDirect,
    Memory,
    Processor,
    Topology,
    VirtualMachine,
)
from utilityvm.testing.kernels import Then, kernel

from .running import below

pytestmark = pytest.mark.vm

BOOT = 60.0  # seconds in which a real kernel has come to its end even on a slow host without KVM
QUICK = 20.0  # the same for one of a hundred bytes


def document(kernel_path: Path, *, initrd: str = "", line: str = "", console: str = "", scsi: int = 0) -> ComputeSystem:
    return ComputeSystem(
        should_terminate_on_last_handle_closed=True,
        virtual_machine=VirtualMachine(
            stop_on_reset=True,
            chipset=Chipset(
                linux_kernel_direct=LinuxKernelDirect(kernel_file_path=str(kernel_path), init_rd_path=initrd, kernel_cmd_line=line)
            ),
            compute_topology=Topology(memory=Memory(size_in_mb=256, allow_overcommit=True), processor=Processor(count=1)),
            devices=Devices(
                com_ports={"0": ComPort(named_pipe=console)} if console else {}, scsi={str(number): Scsi() for number in range(scsi)}
            ),
        ),
    )


Tiny = Callable[..., Path]


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    """Write a kernel of a hundred bytes and return its path."""

    def write(then: Then, line: str = "hello\n") -> Path:
        path = tmp_path / "kernel"
        path.write_bytes(kernel(line, then))
        return path

    return write


@pytest.fixture
def service(tmp_path: Path) -> QemuService:
    """A service that emulates: a kernel of a hundred bytes is no proof of KVM, and trying costs seconds."""
    return QemuService(cache=tmp_path / "cache", environ={**os.environ, "UVM_ACCEL": "tcg"})


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> QemuService:
    """A service that uses KVM where it works."""
    return QemuService(cache=tmp_path_factory.mktemp("probed"))


async def run(machine: QemuMachine, within: float = QUICK) -> ExitStatus:
    """Run a machine to its end."""
    try:
        await machine.start()
        async with asyncio.timeout(within):
            return await machine.wait()
    except TimeoutError:
        pytest.fail(f"it has not ended in {within:g} s; its console:\n{machine.console_tail()}")
    finally:
        await machine.close()


async def spoken(machine: QemuMachine, text: str = "hello") -> None:
    """Wait until the guest has said `text` on its console."""
    async with asyncio.timeout(QUICK):
        while text not in machine.console_tail():
            await asyncio.sleep(0.01)


def pid_of(machine: QemuMachine) -> int:
    assert machine._child is not None
    return machine._child.pid


def spawned(machine: QemuMachine) -> list[int]:
    """Return the machine's processes, QEMU last."""
    return [pid_of(machine), *below(pid_of(machine))]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# -- with a real kernel -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("init", "how", "says"),
    [("poweroff -f", ExitHow.POWERED_OFF, ""), ("reboot -f", ExitHow.RESET, ""), ("true", ExitHow.PANICKED, "Attempted to kill init")],
)
async def test_linux_ends_its_machine(boot_files: BootFiles, probed: QemuService, init: str, how: ExitHow, says: str) -> None:
    line = f"console=ttyS0 panic=-1 quiet rdinit=/bin/busybox -- {init}"
    vmlinux = boot_files.folder / "vmlinux"
    machine = await probed.create(VmId("linux"), document(vmlinux, initrd=str(boot_files.initrd), line=line, scsi=4))
    status = await run(machine, within=BOOT)
    assert status.how is how, status
    assert says in status.detail
    if how is ExitHow.PANICKED:
        assert status.detail.startswith("Kernel panic - not syncing")
        assert "Attempted to kill init" in machine.console_tail()
        assert "panicked: Kernel panic - not syncing" in str(status.error("vm linux"))


async def test_what_linux_says_is_on_the_console_socket(boot_files: BootFiles, probed: QemuService, tmp_path: Path) -> None:
    console = tmp_path / "console"
    vmlinux = boot_files.folder / "vmlinux"
    machine = await probed.create(VmId("console"), document(vmlinux, line="console=ttyS0 panic=-1 loglevel=5", console=str(console)))
    try:
        await machine.start()
        reader, writer = await asyncio.open_unix_connection(console)
        async with asyncio.timeout(BOOT):
            said = await reader.read()
            status = await machine.wait()
        writer.close()
    finally:
        await machine.close()
    assert b"Linux version" in said or b"Kernel panic" in said
    assert status.how is ExitHow.PANICKED
    assert not console.exists()


# -- with a kernel of a hundred bytes -------------------------------------------------------------------------------------------


async def test_an_early_reset_is_told_from_a_panic(service: QemuService, tiny: Tiny) -> None:
    assert await run(await service.create(VmId("reset"), document(tiny(Then.RESET)))) == ExitStatus(ExitHow.RESET, "hello")
    machine = await service.create(VmId("panic"), document(tiny(Then.RESET, "Kernel panic - not syncing: test\n")))
    assert await run(machine) == ExitStatus(ExitHow.PANICKED, "Kernel panic - not syncing: test")


@pytest.mark.parametrize(
    ("number", "said"), [(signal.SIGKILL, ""), (signal.SIGSEGV, ""), (signal.SIGABRT, ""), (signal.SIGTERM, "terminating on signal 15")]
)
async def test_a_killed_qemu_is_an_error_with_the_signal(service: QemuService, tiny: Tiny, number: int, said: str) -> None:
    machine = await service.create(VmId("killed"), document(tiny(Then.HANG)))
    try:
        await machine.start()
        await spoken(machine)
        os.kill(spawned(machine)[-1], number)
        async with asyncio.timeout(QUICK):
            status = await machine.wait()
    finally:
        await machine.close()
    assert (status.how, status.code) == (ExitHow.KILLED, number)
    assert said in status.detail
    assert f"killed by signal {number}" in str(status.error("vm killed"))


async def test_a_qemu_that_refuses_its_arguments_is_an_error_with_its_words(service: QemuService, tmp_path: Path) -> None:
    rubbish = tmp_path / "kernel"
    rubbish.write_text("not a kernel")
    status = await run(await service.create(VmId("refused"), document(rubbish)))
    assert (status.how, status.code) == (ExitHow.FAILED, 1)
    assert "kernel" in status.detail
    assert status.detail in str(status.error("vm refused"))


async def test_a_missing_qemu_is_refused_at_create(tmp_path: Path, tiny: Tiny) -> None:
    service = QemuService(cache=tmp_path, environ={"PATH": "/nowhere"})
    with pytest.raises(Unsupported, match="qemu-system-x86_64: no such program") as caught:
        await service.create(VmId("missing"), document(tiny(Then.HANG)))
    assert "install the package qemu-system-x86" in caught.value.hint


async def test_a_qemu_that_is_gone_by_the_start_is_an_error(service: QemuService, tiny: Tiny, tmp_path: Path) -> None:
    program = tmp_path / "qemu"
    program.write_text("#!/bin/sh\necho QEMU emulator version 7.2.0\n")
    program.chmod(0o755)
    service = QemuService(cache=tmp_path / "cache", environ={"UVM_QEMU": str(program), "UVM_ACCEL": "tcg"})
    machine = await service.create(VmId("gone"), document(tiny(Then.HANG)))
    program.unlink()
    status = await run(machine)
    assert (status.how, status.code) == (ExitHow.FAILED, 127)
    assert "not found" in status.detail


async def test_a_start_that_fails_ends_the_machine(tmp_path: Path, service: QemuService, tiny: Tiny) -> None:
    console = tmp_path / "console"
    console.touch()
    machine = await service.create(VmId("start"), document(tiny(Then.HANG), console=str(console)))
    with pytest.raises(Exists, match="which is not a socket"):
        await machine.start()
    assert machine.state is State.STOPPED
    status = await machine.wait()
    assert status.how is ExitHow.FAILED
    assert "which is not a socket" in status.detail
    await machine.close()
    assert console.is_file()


async def test_a_host_without_setpriv_fails_the_start(service: QemuService, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = await service.create(VmId("setpriv"), document(tiny(Then.HANG)))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotFound, match="setpriv: command not found"):
        await machine.start()
    assert (await machine.wait()).how is ExitHow.FAILED
    await machine.close()


async def test_what_is_typed_reaches_the_guest(service: QemuService, tiny: Tiny, tmp_path: Path) -> None:
    console = tmp_path / "console"
    machine = await service.create(VmId("typed"), document(tiny(Then.ECHO), console=str(console)))
    try:
        await machine.start()
        await spoken(machine)
        reader, writer = await asyncio.open_unix_connection(console)
        async with asyncio.timeout(QUICK):
            for byte in (b"a", b"b", b"c"):  # the kernel's loop has no room for more than the port holds
                writer.write(byte)
                assert await reader.readexactly(1) == byte
        writer.close()
        await writer.wait_closed()
    finally:
        await machine.close()
    assert machine.console_tail().endswith("abc")


async def test_the_monitor_answers_and_refuses(service: QemuService, tiny: Tiny) -> None:
    machine = await service.create(VmId("monitor"), document(tiny(Then.HANG), scsi=2))
    try:
        await machine.start()
        assert machine._monitor is not None
        async with asyncio.timeout(QUICK):
            assert await machine._monitor.execute("query-name") == {"name": "monitor"}
            memory = await machine._monitor.execute("query-memory-size-summary")
            with pytest.raises(QmpError, match="QEMU refused device_del") as caught:
                await machine._monitor.execute("device_del", {"id": "nothing"})
    finally:
        await machine.close()
    assert memory == {"base-memory": 256 << 20, "plugged-memory": 0}
    assert caught.value.error_class == "DeviceNotFound"


async def test_terminate_leaves_no_process(service: QemuService, tiny: Tiny) -> None:
    machine = await service.create(VmId("terminate"), document(tiny(Then.HANG)))
    await machine.start()
    await spoken(machine)
    pids = spawned(machine)
    await machine.terminate()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)  # noqa: ASYNC240
    stopped = machine.state
    await machine.close()
    assert (stopped, machine.state) == (State.STOPPED, State.CLOSED)


async def test_a_failure_of_a_loop_of_ours_ends_the_machine(service: QemuService, tiny: Tiny) -> None:
    """It cannot happen, and must not hang anybody when it does."""

    async def fails() -> None:
        raise HostError("a bug")

    machine = await service.create(VmId("bug"), document(tiny(Then.HANG)))
    await machine.start()
    pid = pid_of(machine)
    machine._scope.start("bug", fails())
    async with asyncio.timeout(QUICK):
        status = await machine.wait()
    assert status.how is ExitHow.FAILED
    assert "a bug" in status.detail
    await machine.close()
    assert not Path(f"/proc/{pid}").exists()  # noqa: ASYNC240


async def test_many_machines_at_once(service: QemuService, tiny: Tiny) -> None:
    path = tiny(Then.POWER_OFF)
    machines = [await service.create(VmId(f"many-{number}"), document(path)) for number in range(8)]
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(run(machine, within=BOOT)) for machine in machines]
    assert {task.result().how for task in running} == {ExitHow.POWERED_OFF}
    assert len({machine.runtime_id for machine in machines}) == len(machines)


OWNER = """
import asyncio, sys
sys.path[:0] = {path!r}
from pathlib import Path
from tests.vm.test_qemu_driver import *
async def main():
    service = QemuService(cache=Path("cache"), environ={{**os.environ, "UVM_ACCEL": "tcg"}})
    machine = await service.create(VmId("owned"), document(Path("kernel").absolute(), console=str(Path("console").absolute())))
    await machine.start()
    await spoken(machine)
    print(*spawned(machine), flush=True)
    await machine.wait()
asyncio.run(main())
"""


async def an_owner_dies(home: Path) -> None:
    """Let a process own a running machine, with its files in `home`, and kill it; returns when QEMU is gone."""
    home.mkdir()  # noqa: ASYNC240
    (home / "kernel").write_bytes(kernel("hello\n", Then.HANG))
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER.format(path=sys.path), cwd=home, stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    async with asyncio.timeout(BOOT):
        pids = [int(word) for word in (await owner.stdout.readline()).split()]
    assert all(map(alive, pids))
    owner.kill()
    async with asyncio.timeout(2):
        await owner.wait()
        while any(map(alive, pids)):
            await asyncio.sleep(0.01)


async def test_within_two_seconds_of_its_owners_death_nothing_is_left(tmp_path: Path) -> None:
    shared = names(Path("/dev/shm"))
    home = tmp_path / "home"
    await an_owner_dies(home)
    assert names(home) == {"kernel", "cache", "console"}  # the user named the last one
    assert names(home / "cache") == {"qemu-version.json", "jail.json"}
    assert names(Path("/dev/shm")) <= shared


async def test_a_stale_console_of_a_dead_owner_is_replaced(service: QemuService, tiny: Tiny, tmp_path: Path) -> None:
    await an_owner_dies(tmp_path / "home")
    console = tmp_path / "home" / "console"
    assert console.is_socket()
    machine = await service.create(VmId("next"), document(tiny(Then.POWER_OFF), console=str(console)))
    assert (await run(machine)).how is ExitHow.POWERED_OFF
    assert not console.exists()
