"""The tables of a VM that is saved, and of one that goes on from it; on a fake service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from msgspec import structs

from tests.unit.vm.fake import create, service
from utilityvm.devices.layers import Bus, ImageLayer
from utilityvm.devices.ports import Seen
from utilityvm.kit.errors import NotFound, StateError, UtilityVMError
from utilityvm.options.lcow import OptionsLCOW, TemplateConfig
from utilityvm.schema.devices import Plan9Share
from utilityvm.store.devices import Devices, DiskRecord, PmemRecord, ShareRecord
from utilityvm.testing.compute import FakeMachine
from utilityvm.testing.guest import FakeGuest
from utilityvm.vm.uvm import UtilityVM

from .fake import running

TEMPLATE = Devices(
    disks=(DiskRecord(controller=0, lun=3, host_path="t:scsi0-3", guest_path="/run/mounts/m2", read_only=False, options=("discard",)),),
    pmem=(
        PmemRecord(slot=0, host_path="/layer", guest_path="/run/layers/p0", references=2),
        PmemRecord(slot=1, host_path="/old", references=0),
    ),
    shares=(ShareRecord(name="4", host_path="/folder", guest_path="/run/share", read_only=True, allowed_names=("f",)),),
    mount_points=2,
    share_names=5,
)


def look(path: str) -> Seen:
    if path == "/gone":
        raise NotFound(f"{path}: no such file or folder")
    return Seen(folder=False, size=1, identity=path)


async def test_what_a_vm_has_been_given_is_recorded_when_it_is_saved() -> None:
    async with running(is_template=True) as world:
        world.seen |= {path: look(path) for path in ("/layer", "/old")}
        vm = world.vm
        await vm.layers.add("/layer")
        await vm.layers.add("/layer")
        await vm.vpmem.add("/old")
        await vm.vpmem.remove("/old")
        await vm.scsi.add("/a.img", vm.layers.mount_point(), options=("discard",))
        await vm.plan9.add("/folder", "/run/share", read_only=True, allowed_names=["f"])
        await vm.save_as_template()
        assert world.machine.kept == Devices(
            disks=(
                DiskRecord(controller=0, lun=0, host_path="/a.img", guest_path="/run/mounts/m1", read_only=False, options=("discard",)),
            ),
            pmem=TEMPLATE.pmem,
            shares=(structs.replace(TEMPLATE.shares[0], name="0"),),
            mount_points=1,
            share_names=1,
        )


async def test_what_is_on_its_way_keeps_a_vm_from_being_saved() -> None:
    async with running(is_template=True) as world:
        world.hung.clear()
        async with asyncio.TaskGroup() as group:
            adding = group.create_task(world.vm.scsi.add("/a.img", "/mnt"))
            while "guest Add MappedVirtualDisk" not in world.asked:
                await asyncio.sleep(0)
            with pytest.raises(StateError, match="^vm fake: SCSI disk /a.img: cannot be recorded while attaching$"):
                await world.vm.save_as_template()
            world.hung.set()
        assert adding.result().lun == 0
        await world.vm.save_as_template()


@asynccontextmanager
async def a_clone(inherited: Devices = TEMPLATE) -> AsyncIterator[tuple[UtilityVM, FakeMachine, list[FakeGuest]]]:
    of, guests = service(ours=True)
    of.inherited = inherited
    config = TemplateConfig(uvm_id="t", create_options=OptionsLCOW(boot_files_path="/boot"))
    async with asyncio.timeout(60), await create(of, looking=look, is_clone=True, template_config=config) as vm:
        yield vm, of.machines[0], guests


async def test_the_tables_of_a_clone_are_its_templates() -> None:
    async with a_clone() as (vm, machine, guests):
        await vm.start()
        (disk,) = vm.scsi.disks
        assert (disk.host_path, disk.lun, disk.options, disk.state) == ("t:scsi0-3", 3, ("discard",), "attached")
        assert [(device.host_path, device.references, device.state) for device in vm.vpmem.devices] == [
            ("/layer", 2, "attached"),
            ("/old", 0, "reserved"),
        ]
        layer = ImageLayer("/layer", "/run/layers/p0", Bus.VPMEM)
        for _ in range(2):
            await vm.layers.remove(layer)
        assert (await vm.vpmem.add("/old")).slot == 1, "it is plugged in already"
        assert (await vm.vpmem.add("/new")).slot == 2
        await vm.scsi.remove("t:scsi0-3")
        with pytest.raises(NotFound):
            await vm.scsi.remove("t:scsi0-3")
        assert vm.layers.mount_point() == "/run/mounts/m3"
        assert (await vm.plan9.add("/other", "/run/other")).name == "5"
        paths = [request.resource_path.removeprefix("VirtualMachine/Devices/") for request in machine.requests]
        assert paths == ["Plan9/Shares", "VirtualPMem/Devices/2", "Scsi/0/Attachments/3", "Plan9/Shares"]
        assert [request["ResourceType"] for _, request in told(guests)][:2] == ["MappedDirectory", "VirtualMachineIdentity"]


def told(guests: list[FakeGuest]) -> list[tuple[str, dict[str, object]]]:
    return guests[0].modified  # type: ignore[return-value]  # JSON of requests


async def test_a_clone_mounts_its_folders_anew_before_its_programs_hear_that_they_are_anothers() -> None:
    async with a_clone() as (vm, machine, guests):
        await vm.start()
        (request,) = machine.requests
        assert isinstance(request.settings, Plan9Share)
        assert (request.request_type, request.settings.path, request.settings.allowed_files) == ("Add", "/folder", ["f"])
        mounted = told(guests)[0][1]
        assert (mounted["RequestType"], mounted["ResourceType"]) == ("Update", "MappedDirectory")
        assert mounted["Settings"] == {"MountPath": "/run/share", "Port": 564, "ShareName": "4", "ReadOnly": True}


async def test_a_folder_that_cannot_be_served_again_fails_the_start() -> None:
    async with a_clone() as (vm, machine, _):
        machine.refuses = lambda _: NotFound("/folder: no such folder")
        with pytest.raises(UtilityVMError, match="/folder: no such folder"):
            await vm.start()
        assert vm.state == "stopped"


async def test_a_layer_whose_file_goes_while_a_clone_is_made_is_there_all_the_same() -> None:
    gone = PmemRecord(slot=0, host_path="/gone", guest_path="/run/layers/p0")
    async with a_clone(Devices(pmem=(gone,))) as (vm, machine, _):
        await vm.start()
        await vm.vpmem.remove("/gone")
        assert [(device.host_path, device.state) for device in vm.vpmem.devices] == [("/gone", "reserved")]
        assert (await vm.vpmem.add("/new")).slot == 1
        assert len(machine.requests) == 1
