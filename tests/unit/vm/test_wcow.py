"""VMs with Windows guests over the fake compute service: what is done for them first, their start, what is refused here."""

import asyncio
from pathlib import Path

import pytest
from tests.unit.vm.fake import service

from utilityvm import OptionsWCOW, UtilityVM, create_wcow, default_options_wcow, load_options_wcow
from utilityvm.kit.errors import HostError, InvalidOptions, NotFound, Unsupported
from utilityvm.kit.ids import VmId
from utilityvm.options.paths import PathFlavour
from utilityvm.options.resources import ScsiMount
from utilityvm.options.wcow import TemplateConfigWCOW
from utilityvm.plan.facts import Counted, Facts, Platform
from utilityvm.testing.compute import RUNTIME_ID, FakeComputeService
from utilityvm.testing.files import FakeHostFiles
from utilityvm.testing.guest import FakeGuest, Program
from utilityvm.vm.compose import create_planned_wcow
from utilityvm.vm.life import State
from utilityvm.wire.services import WINDOWS_BRIDGE_PORT, WINDOWS_HOST

LAYERS = ("L:\\top", "L:\\base", "S:\\one")
TEMPLATE_DISK, SCRATCH = "L:\\base\\UtilityVM\\SystemTemplate.vhdx", "S:\\one\\sandbox.vhdx"
FACTS = Facts(
    platform=Platform.HYPERV,
    path_flavour=PathFlavour.WINDOWS,
    processors=Counted(logical_processors=4),
    files_present=frozenset({"L:\\base\\UtilityVM"}),
    unique="7",
)


def disks(*forbidden: str) -> FakeHostFiles:
    return FakeHostFiles({TEMPLATE_DISK}, forbidden=set(forbidden))


async def create(of: FakeComputeService, files: FakeHostFiles, **options: object) -> UtilityVM:
    return await create_planned_wcow(OptionsWCOW(layer_folders=LAYERS, **options), VmId("w"), FACTS, of, files)  # type: ignore[arg-type]


async def test_the_scratch_is_made_and_the_vm_may_open_it_before_the_vm_is_created() -> None:
    of, files = FakeComputeService(), disks()
    async with await create(of, files) as vm:
        assert files.asked == [("make_folder", "S:\\one"), ("copy", TEMPLATE_DISK, SCRATCH), ("grant_access", "w", SCRATCH)]
        assert (vm.os, vm.physically_backed, of.machines[0].ports) == ("windows", False, [WINDOWS_BRIDGE_PORT])


async def test_without_leave_to_open_it_no_copy_stays_and_no_vm_is_created() -> None:
    of, files = FakeComputeService(), disks(SCRATCH)
    with pytest.raises(HostError, match="^failed to create scratch: access to "):
        await create(of, files)
    assert files.asked[-1] == ("remove", SCRATCH)
    assert (SCRATCH in files.present, of.machines) == (False, [])


async def test_a_disk_that_cannot_be_copied_is_told_with_both_names_and_nothing_is_created() -> None:
    of = FakeComputeService()
    with pytest.raises(HostError) as caught:
        await create(of, FakeHostFiles())
    assert str(caught.value).startswith(f"failed to create scratch: failed CopyFileW Win32 call from '{TEMPLATE_DISK}' to '{SCRATCH}': ")
    assert of.machines == []


async def test_layers_without_a_utility_vm_are_refused_before_anything_is_done() -> None:
    files = disks()
    with pytest.raises(NotFound, match="utility VM folder could not be found in layers$"):
        await create_planned_wcow(OptionsWCOW(layer_folders=("a", "b")), VmId("w"), FACTS, FakeComputeService(), files)
    assert files.asked == []


async def test_a_start_waits_for_the_agent_alone_and_tells_it_its_address() -> None:
    of, guests = service()
    async with asyncio.timeout(10), await create(of, disks()) as vm:
        await vm.start()
        assert guests[0].entropy == b""
        assert guests[0].modified[0][1] == {
            "RequestType": "Update",
            "ResourceType": "HvSocket",
            "Settings": {"LocalAddress": RUNTIME_ID, "ParentAddress": WINDOWS_HOST},
        }


async def test_a_process_has_one_command_line_and_signals_are_events_of_its_console() -> None:
    async def echo(guest: FakeGuest, program: Program) -> int:
        assert program.stdout is not None
        await guest.write(program.stdout, " ".join(program.argv).encode())
        return len(program.argv)

    async def stay(guest: FakeGuest, program: Program) -> int:  # noqa: ARG001
        await asyncio.Event().wait()
        return 0

    of, guests = service({"cmd.exe": echo, "stay": stay}, windows=True)
    async with asyncio.timeout(10), await create(of, disks()) as vm:
        await vm.start()
        done = await vm.run(["cmd.exe", "/c", r"C:\Program Files\x", 'say "hi"'])
        assert (done.stdout, done.exit_code) == (rb'cmd.exe /c "C:\Program Files\x" "say \"hi\""', 6)
        assert (await vm.run("cmd.exe /c  dir")).stdout == b"cmd.exe /c  dir", "a line is nobody's to change"
        process = await vm.create_process(["stay"], stdout=False, stderr=False)
        with pytest.raises(InvalidOptions, match="signal 10: Windows has nothing like it; it knows 1, 2, 3, 9, 15"):
            await process.kill(10)
        await process.kill(2)
        await process.kill(group=True)
        assert guests[0].signals == [{"Signal": "CtrlC"}, None]
        with pytest.raises(InvalidOptions, match="cannot name a program on Windows"):
            await vm.run(['a"b'])


async def test_it_is_not_told_the_time_when_it_runs_on_and_who_asks_for_that_hears_so() -> None:
    of, guests = service(windows=True)
    async with asyncio.timeout(10), await create(of, disks()) as vm:
        await vm.start()
        told = len(guests[0].modified)
        await vm.pause()
        with pytest.raises(Unsupported, match="vm w: set_clock: a Windows guest takes the time from its host service"):
            await vm.resume(set_clock=True)
        assert (vm.state, len(guests[0].modified)) == (State.PAUSED, told)
        await vm.resume()


async def test_an_agent_that_the_service_reaches_is_not_listened_for() -> None:
    of = FakeComputeService()
    async with await create(of, disks(), external_guest_connection=False) as vm:
        assert of.machines[0].ports == []
        assert vm.os == "windows"


async def test_a_clone_gets_copies_of_the_templates_disks_in_new_folders() -> None:
    of, files = FakeComputeService(), FakeHostFiles({"S:\\t\\sandbox.vhdx", "D:\\data.vhdx"})
    resources = (
        ScsiMount(host_path="S:\\t\\sandbox.vhdx", attachment_type="VirtualDisk"),
        ScsiMount(host_path="D:\\data.vhdx", controller=0, lun=1),
        ScsiMount(host_path="D:\\shared.vhdx", lun=2, read_only=True),
    )
    template = TemplateConfigWCOW(
        uvm_id="t", resources=resources, create_options=OptionsWCOW(layer_folders=(*LAYERS[:2], "S:\\t"), is_template=True)
    )
    async with await create(of, files, is_clone=True, template_config=template) as vm:
        assert [what for what, *_ in files.asked] == ["make_folder", "copy", "grant_access", "make_folder", "copy", "grant_access"]
        assert files.asked[3:5] == [
            ("make_folder", "S:\\one\\clone-mount-0-17"),
            ("copy", "D:\\data.vhdx", "S:\\one\\clone-mount-0-17\\data.vhdx"),
        ]
        machine = of.documents[0].virtual_machine
        assert machine is not None
        assert machine.restore_state is not None
        assert machine.restore_state.template_system_id == "t"
        assert machine.devices is not None
        told = {lun: (disk.type, disk.path, disk.read_only) for lun, disk in machine.devices.scsi["0"].attachments.items()}
        assert told == {
            "0": ("VirtualDisk", SCRATCH, False),
            "1": ("VirtualDisk", "S:\\one\\clone-mount-0-17\\data.vhdx", False),
            "2": ("VirtualDisk", "D:\\shared.vhdx", True),
        }
        assert vm.options.is_clone


async def test_here_such_a_vm_is_refused_before_anything_is_created() -> None:
    """One error that says what is missing."""
    with pytest.raises(Unsupported, match=r"^vm w: a VM with a Windows guest needs Windows and its Host Compute Service \(HCS\)") as caught:
        await create_wcow(OptionsWCOW(id="w", layer_folders=LAYERS))
    assert caught.value.hint == "uvm document wcow prints its document on any host"


def test_options_come_from_keywords_and_files(tmp_path: Path) -> None:
    file = tmp_path / "vm.toml"
    file.write_text("layer_folders = ['a', 'b']\nmemory_size_in_mb = 4096\n")
    assert load_options_wcow(file, memory_size_in_mb=512) == default_options_wcow(layer_folders=["a", "b"], memory_size_in_mb=512)
