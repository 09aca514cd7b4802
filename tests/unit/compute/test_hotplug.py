"""Plugging disks and persistent memory into a QEMU that is played: each step may fail, and what was done before is taken back."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.unit.compute.qemu import Qemu, played

from utilityvm.compute.qemu.hotplug import Hotplug
from utilityvm.compute.qemu.pins import Pins
from utilityvm.kit.errors import ConnectionLost, Exists, InvalidOptions, NotFound, NoVPMem, QmpError, Unsupported
from utilityvm.schema.requests import ModifySettingRequest

DISK = "VirtualMachine/Devices/Scsi/0/Attachments/5"
PMEM = "VirtualMachine/Devices/VirtualPMem/Devices/33"
PLUG_DISK = ["add-fd", "blockdev-add", "device_add"]
PLUG_PMEM = ["add-fd", "object-add", "device_add"]


@asynccontextmanager
async def rig(*, other_user: bool = False, root: str = "") -> AsyncIterator[tuple[Hotplug, Qemu]]:
    async with played() as (monitor, qemu):
        hotplug = Hotplug(monitor, "vm x", controllers=1, pmem=64, other_user=other_user, root=root, pins=Pins(0, os.getpid))
        yield hotplug, qemu
        hotplug.close()


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "disk.img"
    path.write_bytes(b"")
    os.truncate(path, 4 << 20)
    path.chmod(0o644)
    return str(path)


def disk(kind: str, path: str = "", **settings: object) -> ModifySettingRequest:
    return ModifySettingRequest(resource_path=DISK, request_type=kind, settings={"Type": "VirtualDisk", "Path": path} | settings)


def pmem(kind: str, path: str = "") -> ModifySettingRequest:
    return ModifySettingRequest(resource_path=PMEM, request_type=kind, settings={"HostPath": path, "ReadOnly": True, "ImageFormat": "Vhd1"})


def other(path: str) -> ModifySettingRequest:
    return ModifySettingRequest(resource_path=path, request_type="Add")


async def test_a_disk_goes_in_and_out_by_steps(image: str) -> None:
    async with rig() as (hotplug, qemu):
        await hotplug.modify(disk("Add", image))
        assert qemu.heard == PLUG_DISK
        assert os.path.samestat(os.fstat(qemu.fds[0]), os.stat(image))  # noqa: PTH116 (a descriptor is compared)
        assert qemu.arguments[1]["file"] == {"driver": "file", "filename": "/dev/fdset/1"}
        assert qemu.arguments[2]["lun"] == 5
        assert (qemu.arguments[2]["werror"], qemu.arguments[2]["rerror"]) == ("report", "report")  # a full disk stops no VM
        qemu.heard.clear()
        await hotplug.modify(disk("Remove"))
        assert qemu.heard == ["device_del", "blockdev-del", "remove-fd"]
        with pytest.raises(NotFound):
            await hotplug.modify(disk("Remove"))


DISKS = (disk, PLUG_DISK, ["blockdev-del", "remove-fd"])
PMEMS = (pmem, PLUG_PMEM, ["object-del", "remove-fd"])


@pytest.mark.parametrize("step", [0, 1, 2])
@pytest.mark.parametrize("kind", [DISKS, PMEMS], ids=["disk", "pmem"])
async def test_a_step_that_fails_is_taken_back_and_the_slot_is_free(
    image: str, kind: tuple[Callable[[str, str], ModifySettingRequest], list[str], list[str]], step: int
) -> None:
    request_, plug, undo = kind
    async with rig() as (hotplug, qemu):
        qemu.fails = plug[step]
        with pytest.raises(QmpError, match="no"):
            await hotplug.modify(request_("Add", image))
        assert qemu.heard == plug[: step + 1] + undo[len(undo) - step :]
        qemu.fails = ""
        await hotplug.modify(request_("Add", image))


@pytest.mark.parametrize("step", ["device_del", "blockdev-del", "remove-fd"])
async def test_a_removal_that_fails_goes_on_from_there(image: str, step: str) -> None:
    async with rig() as (hotplug, qemu):
        await hotplug.modify(disk("Add", image))
        qemu.heard.clear()
        qemu.fails = step
        with pytest.raises(QmpError):
            await hotplug.modify(disk("Remove"))
        with pytest.raises(Exists):
            await hotplug.modify(disk("Add", image))
        qemu.fails = ""
        await hotplug.modify(disk("Remove"))
        assert qemu.heard.count(step) == 2
        assert len(qemu.heard) == 4
        await hotplug.modify(disk("Add", image))


@pytest.mark.parametrize("step", [*PLUG_DISK, "device_del"])
async def test_a_qemu_that_dies_is_a_lost_connection(image: str, step: str) -> None:
    async with rig() as (hotplug, qemu):
        qemu.dies = step
        if step == "device_del":
            await hotplug.modify(disk("Add", image))
        with pytest.raises(ConnectionLost):
            await hotplug.modify(disk("Remove" if step == "device_del" else "Add", image))


async def test_changes_of_one_slot_wait_for_each_other_and_those_of_others_do_not(image: str) -> None:
    async with rig() as (hotplug, qemu), asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(hotplug.modify(disk("Add", image)))
            group.create_task(hotplug.modify(disk("Remove")))
        group.create_task(hotplug.modify(pmem("Add", image)))
    assert qemu.heard.count("device_add") == 4


async def test_persistent_memory_stays_and_serves_the_same_file_again(image: str, tmp_path: Path) -> None:
    async with rig() as (hotplug, qemu):
        await hotplug.modify(pmem("Add", image))
        assert qemu.arguments[1]["mem-path"] == "/proc/self/fd/21"
        assert qemu.arguments[2] == {
            "driver": "virtio-pmem-pci",
            "id": "pmem33",
            "memdev": "pmem33-memory",
            "bus": "bridge1",
            "addr": "0x3",
        }
        qemu.heard.clear()
        await hotplug.modify(pmem("Remove"))
        await hotplug.modify(pmem("Add", image))
        assert qemu.heard == []
        with pytest.raises(Exists, match="is still"):
            await hotplug.modify(pmem("Add", str(tmp_path / "other")))


async def test_a_raw_disk_grows_to_what_its_file_has_become(image: str) -> None:
    async with rig() as (hotplug, qemu):
        with pytest.raises(NotFound):
            await hotplug.modify(disk("Update"))
        await hotplug.modify(disk("Add", image))
        os.truncate(image, 8 << 20)
        await hotplug.modify(disk("Update"))
        assert qemu.arguments[-1] == {"node-name": "scsi0-5-disk", "size": 8 << 20}


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (
            ModifySettingRequest(resource_path="VirtualMachine/Devices/Scsi/1/Attachments/0", request_type="Add"),
            InvalidOptions,
            "has 1 SCSI",
        ),
        (
            ModifySettingRequest(resource_path="VirtualMachine/Devices/Scsi/0/Attachments/64", request_type="Add"),
            InvalidOptions,
            "64 disks",
        ),
        (ModifySettingRequest(resource_path=PMEM.replace("33", "64"), request_type="Add"), InvalidOptions, "at most 64"),
        (ModifySettingRequest(resource_path="VirtualMachine/Cat", request_type="Add"), Unsupported, "VirtualMachine/Cat"),
        (
            ModifySettingRequest(resource_path="VirtualMachine/Devices/ComPorts/0", request_type="Update"),
            Unsupported,
            "a serial port is part",
        ),
        (ModifySettingRequest(resource_path=r"VirtualMachine/Devices/MappedPipes/\\.\pipe\x", request_type="Add"), Unsupported, "Windows'"),
        (disk("PreAdd"), Unsupported, "PreAdd"),
        (disk("Add", "relative"), InvalidOptions, "no absolute path"),
        (disk("Add", "/x", Type="ExtensibleVirtualDisk"), Unsupported, "ExtensibleVirtualDisk"),
        (disk("Add", "/x", CachingMode="Cached"), Unsupported, "CachingMode"),
        (disk("Add", "/x", ReadOnly="yes"), InvalidOptions, "Settings"),
        (ModifySettingRequest(resource_path=PMEM, request_type="Add", settings={"HostPath": "/x"}), Unsupported, "ReadOnly false"),
    ],
)
async def test_what_cannot_be_is_refused_before_qemu_hears_of_it(
    request_: ModifySettingRequest, error: type[Exception], words: str
) -> None:
    async with rig() as (hotplug, qemu):
        with pytest.raises(error, match=words):
            await hotplug.modify(request_)
        assert qemu.heard == []


async def test_persistent_memory_must_fit_and_be_readable(image: str) -> None:
    async with rig(other_user=True) as (hotplug, qemu):
        os.chmod(image, 0o600)  # noqa: PTH101 (in a loop)
        with pytest.raises(NoVPMem, match="a user of its own"):
            await hotplug.modify(pmem("Add", image))
        os.truncate(image, (2 << 20) + 4096)
        with pytest.raises(NoVPMem, match="multiple of 2 MiB"):
            await hotplug.modify(pmem("Add", image))
        assert qemu.heard == []


@pytest.mark.parametrize("kind", ["Add", "Remove"])
async def test_the_guests_root_comes_once_and_stays(image: str, kind: str) -> None:
    async with rig(root="pmem33") as (hotplug, qemu):
        await hotplug.modify(pmem("Add", image))
        with pytest.raises(Exists, match=f"{PMEM}: is the root file system that the guest runs from, and stays"):
            await hotplug.modify(pmem(kind, image))
        assert qemu.heard == PLUG_PMEM


async def test_of_a_root_it_is_not_said_that_a_disk_would_do(image: str) -> None:
    os.truncate(image, 3 << 20)
    for root, said in (("pmem33", False), ("pmem0", True)):
        async with rig(root=root) as (hotplug, _):
            with pytest.raises(NoVPMem) as caught:
                await hotplug.modify(pmem("Add", image))
            assert ("SCSI disk" in caught.value.hint) is said
