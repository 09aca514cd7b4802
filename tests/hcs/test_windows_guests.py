"""VMs with Windows guests on a host that says that it is Windows: from `create_wcow` to the close, by either way to the guest."""

import asyncio
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.hcs.agent import EXIT_CODE, WindowsAgent
from tests.hcs.harness import StandIn
from utilityvm import OptionsLCOW, OptionsWCOW, UtilityVM, create_lcow, create_wcow
from utilityvm.compute.hcs.calls import Hcs
from utilityvm.compute.hcs.files import WindowsFiles
from utilityvm.kit.errors import HcsError, InvalidOptions, Unsupported
from utilityvm.options.builds import EVERYTHING
from utilityvm.vm import compose
from utilityvm.vm.life import State
from utilityvm.wire import gcs
from utilityvm.wire.services import WINDOWS_BRIDGE_PORT, WINDOWS_HOST, service_id

LAYERS = (r"C:\base", r"C:\scratch")


@pytest.fixture
def windows(hcs: StandIn, drive: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A host that says that it is Windows to whoever chooses the driver; its service and files are the stand-in's."""
    (drive / r"C:\base\UtilityVM").touch()
    (drive / r"C:\base\UtilityVM\SystemTemplate.vhdx").write_bytes(b"disk")
    (drive / r"C:\scratch").touch()
    version = SimpleNamespace(build=EVERYTHING)
    monkeypatch.setattr(compose, "sys", SimpleNamespace(platform="win32", getwindowsversion=lambda: version))
    monkeypatch.setattr("utilityvm.compute.hcs.service.HcsService", hcs.service)
    monkeypatch.setattr("utilityvm.compute.hcs.files.WindowsFiles", lambda: WindowsFiles(Hcs(hcs.abi)))
    return hcs


async def hosted(**options: object) -> UtilityVM:
    """A running VM whose agent the service itself reaches."""
    vm = await create_wcow(OptionsWCOW(id="w", layer_folders=LAYERS, external_guest_connection=False, **options))  # type: ignore[arg-type]
    await vm.start()
    return vm


async def test_its_agent_dials_us_and_runs_a_process(windows: StandIn) -> None:
    async def dial(service: str) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, windows.sockets.path(vm.runtime_id, service))
        return sock

    vm = await create_wcow(OptionsWCOW(id="w", layer_folders=LAYERS))
    agent = WindowsAgent(dial)
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(agent.run(service_id(WINDOWS_BRIDGE_PORT)))
        async with vm:
            await vm.start()
            done = await vm.run(["cmd.exe", "/c", "a b"], input=b" and input")
    assert (done.stdout, done.exit_code) == (b'cmd.exe /c "a b" and input', EXIT_CODE)
    requests = dict(agent.asked)
    assert requests[gcs.MODIFY.word]["Request"]["Settings"] == {"LocalAddress": vm.runtime_id, "ParentAddress": WINDOWS_HOST}
    assert "HcsCreateProcess" not in windows.names, "the service was asked for what the agent does"
    assert windows.names.index("HcsCreateComputeSystem") < windows.names.index("HcsStartComputeSystem")
    assert vm.state is State.CLOSED


async def test_the_service_reaches_its_agent_and_runs_processes(windows: StandIn) -> None:
    async with asyncio.timeout(20), await hosted() as vm:
        process = await vm.create_process(["cmd.exe", "/c", "a b"], env={"A": "1"}, user="ContainerUser", stdin=True)
        assert windows.document("HcsCreateProcess") == {
            "CommandLine": 'cmd.exe /c "a b"',
            "User": "ContainerUser",
            "WorkingDirectory": "C:\\",
            "Environment": {"A": "1"},
            "CreateStdInPipe": True,
            "CreateStdOutPipe": True,
            "CreateStdErrPipe": True,
        }
        await process.stdin.write(b"in")
        assert await asyncio.to_thread(os.read, windows.end_of(process.pid, 0), 9) == b"in"
        os.write(windows.end_of(process.pid, 1), b"out")
        for which in range(3):
            os.close(windows.end_of(process.pid, which))
        windows.exit(process.pid, 3)
        assert await process.stdout.read() == b"out"
        assert await process.wait() == 3
        await process.close()


async def test_a_signal_to_its_process_is_an_event_of_the_console_and_nine_ends_it(windows: StandIn) -> None:
    async with asyncio.timeout(20), await hosted() as vm:
        for signal, event in ((1, "CtrlClose"), (2, "CtrlC"), (3, "CtrlBreak"), (15, "CtrlShutdown")):
            process = await vm.create_process(["x"], stdout=False, stderr=False)
            assert await process.kill(signal, group=True)
            assert windows.document("HcsSignalProcess") == {"Signal": event}
            assert await process.wait() == 143
        process = await vm.create_process("x  as it is", stdout=False, stderr=False)
        assert windows.document("HcsCreateProcess")["CommandLine"] == "x  as it is"
        with pytest.raises(InvalidOptions, match="Windows has nothing like it"):
            await process.kill(10)
        assert await process.kill()
        assert await process.wait() == 137
        assert "HcsTerminateProcess" in windows.names


async def test_a_vm_that_the_service_refuses_to_end_is_let_go_of_all_the_same(windows: StandIn) -> None:
    vm = await hosted()
    for _ in range(2):
        windows.script("HcsTerminateComputeSystem", 0x80070005)
    with pytest.raises(HcsError, match="System::Terminate w: access is denied"):
        await vm.close()
    assert vm.state is State.CLOSED
    await vm.wait()
    assert windows.counts.open == 0


async def test_a_linux_vm_is_created_by_the_same_service_and_without_a_jail(windows: StandIn, drive: Path) -> None:
    for name in ("kernel", "initrd.img"):
        (drive / rf"C:\boot\{name}").touch()
    options = OptionsLCOW(id="l", boot_files_path=r"C:\boot", kernel_file="kernel")
    with pytest.raises(Unsupported, match="a jail is required"):
        await create_lcow(options, require_jail=True)
    vm = await create_lcow(options)
    assert windows.document()["VirtualMachine"]["Chipset"]["LinuxKernelDirect"]["KernelFilePath"] == r"C:\boot\kernel"
    await vm.close()
