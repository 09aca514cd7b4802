"""Devices of the host: what this host refuses, and the guest's half with an emulated device in the place of one of the host's.

Whether a real one comes through VFIO needs an IOMMU: `tests/soak/soak_vfio.py` emulates a host that has one.
"""

import asyncio
import os
from pathlib import Path

import pytest

from utilityvm import UtilityVM, create_lcow, default_options_lcow
from utilityvm.boot.files import BootFiles
from utilityvm.compute.qemu.modify import pmem_place
from utilityvm.compute.qemu.pci import look_at
from utilityvm.compute.qemu.system import QemuMachine
from utilityvm.kit.errors import GuestError, InvalidOptions, NotFound, Unsupported
from utilityvm.kit.locked import why_not_locked
from utilityvm.schema.guest_requests import GuestRequest, LCOWMappedVPCIDevice
from utilityvm.schema.requests import ModifySettingRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")

NONE = "0000:00:1e.7"
CANNOT_LOCK = why_not_locked(256 << 20)
PLACE = 64 + 3


async def refused(boot_files: BootFiles, device: str, **options: object) -> None:
    wanted = default_options_lcow(
        boot_files_path=str(boot_files.folder), memory_size_in_mb=256, assigned_devices=(device,), allow_overcommit=False, **options
    )
    await (await create_lcow(wanted)).close()


async def test_a_running_vm_says_why_it_cannot_be_given_a_device_and_runs_on(vm: UtilityVM) -> None:
    with pytest.raises(Unsupported, match=f"VirtualPci/.*: {NONE}: AllowOvercommit is true"):
        await vm.vpci.assign(NONE)
    assert vm.vpci.devices == ()
    assert (await vm.run(["true"])).exit_code == 0


@pytest.mark.skipif(bool(CANNOT_LOCK), reason=CANNOT_LOCK)
async def test_a_device_that_is_not_there_is_refused_before_anything_starts(boot_files: BootFiles) -> None:
    with pytest.raises(NotFound, match=rf'VirtualPci\["[0-9a-f-]+"\]: PCI device {NONE}: this host has none at this address'):
        await refused(boot_files, NONE)
    with pytest.raises(InvalidOptions, match="is no PCI address"):
        await refused(boot_files, "nvme0")


@pytest.mark.skipif(bool(CANNOT_LOCK), reason=CANNOT_LOCK)
@pytest.mark.skipif(look_at("", Path("/")).iommu or not Path("/sys/bus/pci/devices").exists(), reason="for a host without an IOMMU")
async def test_a_device_of_a_host_without_an_iommu_is_refused_with_what_to_turn_on(boot_files: BootFiles) -> None:
    device = min(os.listdir("/sys/bus/pci/devices"))  # noqa: PTH208 (names are what is compared)
    with pytest.raises(Unsupported, match=f"PCI device {device}: no IOMMU is at work on this host") as caught:
        await refused(boot_files, device)
    assert "intel_iommu=on" in caught.value.hint


async def tell(vm: UtilityVM, place: int | None) -> None:
    """Tell the guest that a device has come."""
    settings: object = LCOWMappedVPCIDevice(vmbus_guid="g") if place is None else {"VMBusGUID": "g", "Place": place}
    told = GuestRequest(request_type="Add", resource_type="VPCIDevice", settings=settings)
    await vm.modify(ModifySettingRequest(guest_request=told))


async def test_the_guest_waits_for_a_device_in_its_place(vm: UtilityVM) -> None:
    machine = vm._system
    assert isinstance(machine, QemuMachine)
    assert machine._monitor is not None
    bridge, slot = pmem_place(PLACE)
    words = {"driver": "edu", "id": "card", "bus": f"bridge{bridge}", "addr": f"{slot:#x}"}
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(tell(vm, PLACE))
        await vm.run(["true"])
        assert not waiting.done(), "nothing has come"
        await machine._monitor.execute("device_add", words)
    found = await vm.run(["sh", "-c", f"cat /sys/bus/pci/devices/0000:00:{0x10 + bridge:02x}.0/*:{slot:02x}.0/vendor"])
    assert found.stdout == b"0x1234\n"
    await tell(vm, PLACE)
    await machine._monitor.unplug("card")


async def test_a_guest_without_vmbus_says_that_it_needs_the_place(vm: UtilityVM) -> None:
    with pytest.raises(GuestError, match="VMBusGUID g: this guest has no VMBus; a device is found by its Place"):
        await tell(vm, None)
