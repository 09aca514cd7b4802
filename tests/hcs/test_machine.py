"""A VM of the host service as the floors above use it: made of options, dialled by its guest, seen on its console."""

import asyncio
import socket
from pathlib import Path

import pytest

from tests.hcs.harness import SILENT, StandIn
from utilityvm.compute.hcs._abi import Abi, find_dll, windows
from utilityvm.compute.hcs.calls import Hcs
from utilityvm.compute.hcs.console import KEPT
from utilityvm.compute.hcs.ending import Ended, exit_status
from utilityvm.compute.hcs.files import WindowsFiles
from utilityvm.compute.hcs.hvsocket import Hypersockets
from utilityvm.compute.hcs.machine import HcsMachine
from utilityvm.compute.hcs.pipes import NamedPipes
from utilityvm.compute.hcs.service import HcsService
from utilityvm.compute.hcs.system import Notice
from utilityvm.compute.hcs.timeouts import VARIABLES, Timeouts, timeouts_of
from utilityvm.compute.ports import ExitHow, ExitStatus
from utilityvm.guest.transport import BACKLOG
from utilityvm.kit.errors import ConnectionLost, DeadlineExceeded, HcsError, HostError, InvalidOptions, NotFound, Unsupported
from utilityvm.kit.ids import VmId
from utilityvm.options import builds
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.options.wcow import OptionsWCOW
from utilityvm.schema.devices import ComPort, Devices
from utilityvm.schema.document import ComputeSystem, VirtualMachine
from utilityvm.vm.compose import create_lcow_on_hcs, create_wcow_on_hcs
from utilityvm.wire.services import WINDOWS_BRIDGE_PORT, service_id

VM = VmId("vm-1")
MACHINE = ComputeSystem(virtual_machine=VirtualMachine())


def boot_files(drive: Path) -> None:
    for name in ("kernel", "initrd.img"):
        (drive / rf"C:\boot\{name}").touch()


async def dial(hcs: StandIn, machine: HcsMachine, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, hcs.sockets.path(machine.runtime_id, service_id(port)))
    return sock


async def test_a_guests_dials_are_streams_with_an_end_in_each_direction(hcs: StandIn) -> None:
    machine, loop = await hcs.service().create(VM, MACHINE), asyncio.get_running_loop()
    listener = machine.listen(0x4000_0000, once=True)
    with await dial(hcs, machine, 0x4000_0000) as guest:
        stream = await listener.accept()
        await stream.write(b"from the host")
        assert await loop.sock_recv(guest, 99) == b"from the host"
        await loop.sock_sendall(guest, b"from the guest")
        assert await stream.read(8) == b"from the"
        guest.shutdown(socket.SHUT_WR)
        assert await stream.read() == b" guest"
        await stream.write(b"still")
        await stream.write_eof()
        await stream.write_eof()
        with pytest.raises(BrokenPipeError):
            await stream.write(b"more")
        assert await loop.sock_recv(guest, 99) == b"still"
        assert await loop.sock_recv(guest, 99) == b""
    stream.close()
    stream.close()
    await machine.close()


async def test_much_data_passes_in_order_while_both_ends_are_slow(hcs: StandIn) -> None:
    machine, loop = await hcs.service().create(VM, MACHINE), asyncio.get_running_loop()
    listener = machine.listen(5)
    data = bytes(range(256)) * 16384

    async def echo(guest: socket.socket) -> None:
        while chunk := await loop.sock_recv(guest, 1 << 16):
            await loop.sock_sendall(guest, chunk)
        guest.shutdown(socket.SHUT_WR)

    async def write() -> None:
        await stream.write(data)
        await stream.write_eof()

    with await dial(hcs, machine, 5) as guest:
        stream = await listener.accept()
        async with asyncio.TaskGroup() as group:
            group.create_task(echo(guest))
            group.create_task(write())
            assert await stream.read() == data
    stream.close()
    await machine.close()


async def test_a_machine_that_is_closed_ends_streams_dials_and_listeners(hcs: StandIn) -> None:
    machine = await hcs.service().create(VM, MACHINE)
    listener = machine.listen(7)
    dials = [await dial(hcs, machine, 7) for _ in range(3)]
    stream = await listener.accept()
    await machine.close()
    for call in (stream.read(1), stream.write(b"x"), listener.accept()):
        with pytest.raises(ConnectionLost):
            await call
    for sock in dials:
        assert await asyncio.get_running_loop().sock_recv(sock, 1) == b""
        sock.close()


async def test_dials_that_nobody_accepts_are_bounded(hcs: StandIn) -> None:
    machine, loop = await hcs.service().create(VM, MACHINE), asyncio.get_running_loop()
    listener = machine.listen(7)
    dials = [await dial(hcs, machine, 7) for _ in range(BACKLOG + 1)]
    ends = [loop.create_task(loop.sock_recv(sock, 1)) for sock in dials]
    done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 1, "more than one dial too many was refused"
    listener.close()
    await asyncio.wait(ends)
    for sock in dials:
        sock.close()
    again = machine.listen(8)
    again.close()
    await machine.close()


async def test_an_address_that_windows_refuses_is_an_error_with_the_port(hcs: StandIn) -> None:
    machine = await hcs.service().create(VM, MACHINE)
    hcs.sockets.fails = OSError(13, "Permission denied")
    with pytest.raises(HostError, match="vm vm-1: cannot listen for the guest's port 0x9: Permission denied"):
        machine.listen(9)
    await machine.close()


async def test_a_serial_console_is_kept_and_shown_to_one_client_on_the_pipe_that_was_asked_for(hcs: StandIn) -> None:
    asked = r"\\.\pipe\debug"
    document = ComputeSystem(virtual_machine=VirtualMachine(devices=Devices(com_ports={"0": ComPort(named_pipe=asked)})))
    machine = await hcs.service().create(VM, document)
    name = hcs.document()["VirtualMachine"]["Devices"]["ComPorts"]["0"]["NamedPipe"]
    assert name.startswith(r"\\.\pipe\uvm-console-")
    vm_reader, vm = await asyncio.open_unix_connection(hcs.pipes.path(name))
    reader, client = await asyncio.open_unix_connection(hcs.pipes.path(asked))
    second_reader, second = await asyncio.open_unix_connection(hcs.pipes.path(asked))
    assert await second_reader.read() == b"", "a second client was let in"
    vm.write(b"Kernel panic\x1b[2J\n")
    assert await reader.readline() == b"Kernel panic\x1b[2J\n"
    assert machine.console_tail() == "Kernel panic[2J"
    client.write(b"typed")
    assert await vm_reader.read(5) == b"typed"
    client.close()
    vm.write(bytes(2 * KEPT) + b"\nnewest\n")
    await vm.drain()
    while not machine.console_tail().endswith("newest"):
        await asyncio.sleep(0)
    assert len(machine.console_tail()) <= KEPT
    await machine.close()
    assert await vm_reader.read() == b""
    for writer in (vm, client, second):
        writer.close()
    assert machine.console_tail().endswith("newest")


@pytest.mark.parametrize("fails", ["HcsStartComputeSystem"])
async def test_a_start_that_is_refused_is_the_machines_end(hcs: StandIn, fails: str) -> None:
    machine = await hcs.service().create(VM, MACHINE)
    hcs.script(fails, 0xC0370102)
    with pytest.raises(HcsError, match="System::Start vm-1: the virtual machine could not be started: Hyper-V is not installed"):
        await machine.start()
    assert (await machine.wait()).how is ExitHow.FAILED
    await machine.close()


async def test_a_start_without_a_word_is_given_up_and_the_machine_ended(hcs: StandIn) -> None:
    machine = await hcs.service(start=0.02).create(VM, MACHINE)
    hcs.script("HcsStartComputeSystem", how=SILENT)
    with pytest.raises(DeadlineExceeded):
        await machine.start()
    assert "HcsTerminateComputeSystem" in hcs.names
    await machine.close()


async def test_an_end_that_the_service_does_not_tell_again_is_still_an_end(hcs: StandIn) -> None:
    machine = await hcs.service().create(VM, MACHINE)
    await machine.start()
    hcs.script("HcsTerminateComputeSystem", 0xC037010E)
    await machine.terminate()
    assert (await machine.wait()).how is ExitHow.TERMINATED
    await machine.close()


async def test_a_lost_service_is_told_as_what_it_is(hcs: StandIn) -> None:
    machine = await hcs.service().create(VM, MACHINE)
    await machine.start()
    hcs.notify(Notice.DISCONNECTED)
    status = await machine.wait()
    assert str(status.error("vm x")) == "vm x: it ended unexpectedly: lost communication with compute service"
    await machine.close()


@pytest.mark.parametrize(
    ("ended", "status"),
    [
        (Ended(), ExitStatus(ExitHow.POWERED_OFF)),
        (Ended(0, '{"ExitType":"GracefulExit"}'), ExitStatus(ExitHow.POWERED_OFF)),
        (Ended(0, "garbage"), ExitStatus(ExitHow.POWERED_OFF)),
        (
            Ended(0xC0370106),
            ExitStatus(ExitHow.UNEXPECTED, "the virtual machine or container exited unexpectedly (0xc0370106)", 0xC0370106),
        ),
        (Ended(0, '{"ExitType":"ForcedExit"}'), ExitStatus(ExitHow.UNEXPECTED, '{"ExitType":"ForcedExit"}')),
        (
            Ended(0, '{"Status":-1070137082,"Attribution":[{"WindowsCrash":{"DumpFile":"d"}}]}'),
            ExitStatus(
                ExitHow.PANICKED,
                "the virtual machine or container exited unexpectedly (0xc0370106): "
                '{"Status":-1070137082,"Attribution":[{"WindowsCrash":{"DumpFile":"d"}}]}',
            ),
        ),
        (Ended(0, '{"Attribution":[{"InvalidTripleFault":{}}]}'), ExitStatus(ExitHow.RESET, '{"Attribution":[{"InvalidTripleFault":{}}]}')),
        (
            Ended(0, '{"Attribution":[{"WorkerExit":{"ExitCode":1}}]}'),
            ExitStatus(ExitHow.UNEXPECTED, '{"Attribution":[{"WorkerExit":{"ExitCode":1}}]}'),
        ),
    ],
)
def test_how_it_ended_is_read_from_the_services_words(ended: Ended, status: ExitStatus) -> None:
    assert exit_status(ended, terminated=False) == status
    assert exit_status(ended, terminated=True) == ExitStatus(ExitHow.TERMINATED)


# -- from options -----------------------------------------------------------------------------------------------------------------


async def test_a_linux_vm_is_planned_for_hyper_v_with_the_services_processors(hcs: StandIn, drive: Path) -> None:
    boot_files(drive)
    options = OptionsLCOW(id="vm-1", boot_files_path=r"C:\boot", kernel_file="kernel", processor_count=64)
    hcs.script("HcsGetServiceProperties", 0, '{"Properties":[{"LogicalProcessorCount":6}]}')
    vm = await create_lcow_on_hcs(options, hcs.service(), WindowsFiles(Hcs(hcs.abi)), builds.EVERYTHING)
    document = hcs.document()
    assert hcs.document("HcsGetServiceProperties") == {"PropertyTypes": ["ProcessorTopology"]}
    assert document["VirtualMachine"]["ComputeTopology"]["Processor"]["Count"] == 6
    direct = document["VirtualMachine"]["Chipset"]["LinuxKernelDirect"]
    assert direct["KernelFilePath"] == r"C:\boot\kernel"
    assert "pmtmr=0" in direct["KernelCmdLine"]
    assert vm.runtime_id.startswith("00000000-")
    await vm.close()


async def test_without_boot_files_or_the_services_answer_nothing_is_created(hcs: StandIn, drive: Path) -> None:
    options = OptionsLCOW(boot_files_path=r"C:\boot", kernel_file="kernel")
    with pytest.raises(NotFound, match="kernel"):
        await create_lcow_on_hcs(options, hcs.service(), WindowsFiles(Hcs(hcs.abi)), builds.EVERYTHING)
    boot_files(drive)
    hcs.script("HcsGetServiceProperties", 0x80070005)
    with pytest.raises(HostError, match=r"failed to get host processor information: .*access is denied"):
        await create_lcow_on_hcs(options, hcs.service(), WindowsFiles(Hcs(hcs.abi)), builds.EVERYTHING)
    assert "HcsCreateComputeSystem" not in hcs.names


async def test_a_windows_vm_has_its_scratch_copied_and_granted_before_it_is_created(hcs: StandIn, drive: Path) -> None:
    (drive / r"C:\base\UtilityVM").touch()
    (drive / r"C:\base\UtilityVM\SystemTemplate.vhdx").write_bytes(b"disk")
    (drive / r"C:\scratch").touch()
    options = OptionsWCOW(id="vm-1", layer_folders=(r"C:\base", r"C:\scratch"))
    vm = await create_wcow_on_hcs(options, hcs.service(), WindowsFiles(Hcs(hcs.abi)), builds.EVERYTHING)
    disk = r"C:\scratch\sandbox.vhdx"
    assert (drive / disk).read_bytes() == b"disk"
    assert ("GrantVmAccess", "vm-1", disk) in hcs.calls
    assert hcs.names.index("GrantVmAccess") < hcs.names.index("HcsCreateComputeSystem")
    assert (vm.runtime_id, service_id(WINDOWS_BRIDGE_PORT)) in hcs.sockets.asked
    await vm.close()


# -- files, access, layers --------------------------------------------------------------------------------------------------------


def disks(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in folder.rglob("disk")]


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "source"
    path.write_bytes(b"1")
    return str(path)


async def test_files_are_made_copied_and_removed_and_failures_name_them(hcs: StandIn, tmp_path: Path, source: str) -> None:
    files = WindowsFiles(Hcs(hcs.abi))
    folder, target = str(tmp_path / "a" / "b"), str(tmp_path / "a" / "b" / "disk")
    await files.make_folder(folder)
    await files.make_folder(folder)
    await files.copy(source, target)
    assert disks(tmp_path) == [b"1"]
    with pytest.raises(HostError, match=r"cannot copy .*missing to .*disk: No such file"):
        await files.copy(str(tmp_path / "missing"), target)
    assert not disks(tmp_path), "a copy that failed left something"
    await files.remove(target)
    for call in (files.remove(folder), files.make_folder(str(tmp_path / "source" / "x"))):
        with pytest.raises(HostError, match=r"cannot (remove|make the folder)"):
            await call


async def test_access_and_layers_go_to_the_service_and_its_refusals_come_back(hcs: StandIn) -> None:
    files = WindowsFiles(Hcs(hcs.abi))
    await files.grant_access(VM, r"c:\d.vhdx")
    await files.grant_group_access(r"c:\d.vhdx")
    await files.revoke_access(VM, r"c:\d.vhdx")
    await files.import_layer("l", "s", "{}")
    await files.export_layer("l", "t", "{}")
    await files.initialize_scratch("l", "{}")
    await files.attach_layer("l", "{}")
    await files.detach_layer("l")
    await files.destroy_layer("l")
    assert hcs.calls == [
        ("GrantVmAccess", "vm-1", r"c:\d.vhdx"),
        ("HcsGrantVmGroupAccess", r"c:\d.vhdx", ""),
        ("HcsRevokeVmAccess", "vm-1", r"c:\d.vhdx"),
        ("HcsImportLayer", "l", "s"),
        ("HcsExportLayer", "l", "t"),
        ("HcsInitializeWritableLayer", "l", "{}"),
        ("HcsAttachLayerStorageFilter", "l", "{}"),
        ("HcsDetachLayerStorageFilter", "l", ""),
        ("HcsDestroyLayer", "l", ""),
    ]
    hcs.script("GrantVmAccess", 0x80070005)
    hcs.script("HcsDestroyLayer", 0xC0370112)
    with pytest.raises(HcsError, match=r"GrantVmAccess vm-1 c:.d.vhdx: access is denied"):
        await files.grant_access(VM, r"c:\d.vhdx")
    with pytest.raises(HcsError, match="HcsDestroyLayer l: the layer is invalid"):
        await files.destroy_layer("l")
    with pytest.raises(InvalidOptions, match="zero character"):
        await files.grant_access(VM, "a\0b")


# -- the host ---------------------------------------------------------------------------------------------------------------------


def test_where_there_is_no_windows_it_is_said_what_is_missing(hcs: StandIn) -> None:
    with pytest.raises(Unsupported, match=r"^vmcompute.dll: a library of Windows, and this host is linux"):
        HcsService()
    with pytest.raises(Unsupported, match="computestorage.dll"):
        find_dll("computestorage.dll")
    with pytest.raises(Unsupported, match="AF_HYPERV"):
        Hypersockets()
    with pytest.raises(Unsupported, match="pipe handle 3"):
        NamedPipes().close(3)
    windows.cache_clear()
    with pytest.raises(Unsupported, match=r"too old.*no such function|HcsEnumerateComputeSystems: this Windows is too old"):
        Abi(lambda _name: type(hcs.library)(None))


def test_timeouts_are_read_from_the_originals_variables_or_refused_together() -> None:
    assert timeouts_of({}) == Timeouts() == Timeouts(create=240, start=240, pause=240, resume=240, save=240, slow=240)
    assert timeouts_of({"HCSSHIM_TIMEOUT_SYSTEMSTART": "7"}) == Timeouts(start=7)
    assert set(VARIABLES) == set(Timeouts.__struct_fields__)
    with pytest.raises(InvalidOptions) as caught:
        timeouts_of({"HCSSHIM_TIMEOUT_SYSTEMSAVE": "1.5", "HCSSHIM_TIMEOUT_SYSTEMPAUSE": "0", "HCSSHIM_TIMEOUT_SYSTEMCREATE": "9"})
    assert {problem.path for problem in caught.value.problems} == {"HCSSHIM_TIMEOUT_SYSTEMSAVE", "HCSSHIM_TIMEOUT_SYSTEMPAUSE"}
