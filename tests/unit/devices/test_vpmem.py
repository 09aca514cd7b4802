"""Persistent memory: slots, sizes, what stays reserved where a device cannot be unplugged; and layers, which fall back to SCSI."""

from typing import Any

import pytest

from utilityvm.devices.layers import Bus, ImageLayer
from utilityvm.devices.ports import Seen
from utilityvm.devices.vpmem import PMemDevice
from utilityvm.kit.errors import Exists, GuestError, HostError, NotFound, NoVPMem
from utilityvm.options.lcow import RootFSType
from utilityvm.plan.facts import Platform

from .fake import World, running

SLOT = "VirtualMachine/Devices/VirtualPMem/Devices/"


def files(world: World, *names: str, size: int = 1) -> None:
    world.seen |= {name: Seen(folder=False, size=size, identity=(name, 1)) for name in names}


async def test_a_device_has_a_slot_that_is_free_again_where_it_can_be_unplugged() -> None:
    async with running(Platform.HYPERV) as world:
        files(world, "/a", "/b")
        assert await world.vm.vpmem.add("/a") == PMemDevice(0, "/a", "/run/layers/p0")
        assert (await world.vm.vpmem.add("/a")).references == 2
        assert (await world.vm.vpmem.add("/b")).guest_path == "/run/layers/p1"
        await world.vm.vpmem.remove("/a")
        assert [device.references for device in world.vm.vpmem.devices] == [1, 1]
        await world.vm.vpmem.remove("/a")
        assert world.asked == [
            f"host Add {SLOT}0",
            "guest Add VPMemDevice",
            f"host Add {SLOT}1",
            "guest Add VPMemDevice",
            "guest Remove VPMemDevice",
            f"host Remove {SLOT}0",
        ]
        assert (await world.vm.vpmem.add("/b")).slot == 1
        with pytest.raises(NotFound, match="^not attached$"):
            await world.vm.vpmem.remove("/a")


async def test_on_qemu_a_removed_device_stays_with_its_file_and_is_used_again_for_it() -> None:
    async with running(vpmem_device_count=2) as world:
        files(world, "/a", "/b", "/c")
        await world.vm.vpmem.add("/a")
        await world.vm.vpmem.remove("/a")
        assert world.asked == [f"host Add {SLOT}0", "guest Add VPMemDevice", "guest Remove VPMemDevice"]
        assert world.vm.vpmem.devices == (PMemDevice(0, "/a", "", 0, "reserved"),)
        assert (await world.vm.vpmem.add("/b")).slot == 1
        with pytest.raises(NoVPMem, match="^no available location$") as caught:
            await world.vm.vpmem.add("/c")
        assert "has 2 devices, 1 of them reserved" in caught.value.hint
        assert (await world.vm.vpmem.add("/a")).slot == 0
        assert world.asked[-1] == "guest Add VPMemDevice"
        assert [device.state for device in world.vm.vpmem.devices] == ["attached", "attached"]


async def test_a_reserved_device_is_not_taken_for_another_file_of_the_same_name() -> None:
    async with running() as world:
        files(world, "/a")
        await world.vm.vpmem.add("/a")
        await world.vm.vpmem.remove("/a")
        world.seen["/a"] = Seen(folder=False, size=1, identity=("/a", 2))
        assert (await world.vm.vpmem.add("/a")).slot == 1


async def test_on_qemu_a_device_that_the_guest_refuses_stays_reserved() -> None:
    async with running() as world:
        files(world, "/a")
        world.guest = lambda _: "bad image"
        with pytest.raises(GuestError, match="^uvm::AddVPMEM: failed to modify utility VM configuration: guest modify: .*bad image$"):
            await world.vm.vpmem.add("/a")
        assert world.vm.vpmem.devices == (PMemDevice(0, "/a", "", 0, "reserved"),)
        world.guest = lambda _: None
        assert (await world.vm.vpmem.add("/a")).slot == 0
        assert world.asked == [f"host Add {SLOT}0", "guest Add VPMemDevice", "guest Add VPMemDevice"]


async def test_a_device_that_the_host_refuses_leaves_its_slot_free() -> None:
    async with running() as world:
        files(world, "/a")
        world.host = lambda _: HostError("no memory")
        with pytest.raises(HostError, match="failed to modify utility VM configuration: no memory$"):
            await world.vm.vpmem.add("/a")
        assert world.vm.vpmem.devices == ()


async def test_what_is_too_large_or_not_there_takes_no_slot() -> None:
    async with running(vpmem_size_bytes=2 << 20) as world:
        files(world, "/fits", size=2 << 20)
        files(world, "/large", size=(2 << 20) + 1)
        await world.vm.vpmem.add("/fits")
        with pytest.raises(NoVPMem, match="^layer size is to large for VPMEM max size$") as caught:
            await world.vm.vpmem.add("/large")
        assert "/large has 2097153 bytes, a device at most 2097152" in caught.value.hint
        with pytest.raises(NotFound, match="^/none: no such file or folder$"):
            await world.vm.vpmem.add("/none")
        assert len(world.vm.vpmem.devices) == 1


async def test_the_disk_that_the_guest_runs_from_has_the_first_slot_and_cannot_be_removed() -> None:
    async with running(Platform.HYPERV, preferred_root_fs_type=RootFSType.VHD, root_fs_file="initrd.img") as world:
        files(world, "/a")
        assert world.vm.vpmem.devices == (PMemDevice(0, "/boot/initrd.img", "/", 1, "root"),)
        assert (await world.vm.vpmem.add("/a")).slot == 1
        with pytest.raises(Exists, match="^vm fake: /boot/initrd.img is the disk that the guest runs from: it cannot be removed$"):
            await world.vm.vpmem.remove("/boot/initrd.img")
        assert "host Remove" not in " ".join(world.asked)


# -- layers -------------------------------------------------------------------------------------------------------------


async def test_a_layer_is_persistent_memory_where_there_is_room() -> None:
    async with running() as world:
        files(world, "/a")
        layer = await world.vm.layers.add("/a")
        assert layer == ImageLayer("/a", "/run/layers/p0", Bus.VPMEM)
        await world.vm.layers.remove(layer)
        assert world.vm.vpmem.devices[0].state == "reserved"


@pytest.mark.parametrize(
    ("options", "size", "reason"),
    [
        ({"vpmem_device_count": 0}, 1, "no available location"),
        ({"vpmem_size_bytes": 2 << 20}, 3 << 20, "layer size is to large for VPMEM max size"),
    ],
)
async def test_a_layer_without_room_is_a_scsi_disk_and_says_why(options: dict[str, Any], size: int, reason: str) -> None:
    async with running(**options) as world:
        files(world, "/a", "/b", size=size)
        layer = await world.vm.layers.add("/a")
        assert layer == ImageLayer("/a", "/run/mounts/m1", Bus.SCSI, reason)
        assert await world.vm.layers.add("/a") == layer
        assert (await world.vm.layers.add("/b")).guest_path == "/run/mounts/m2"
        assert (world.vm.scsi.disk("/a").read_only, world.vm.scsi.disk("/a").references) == (True, 2)
        for _ in range(2):
            await world.vm.layers.remove(layer)
        with pytest.raises(NotFound):
            world.vm.scsi.disk("/a")


async def test_any_other_failure_of_a_layer_is_no_reason_for_another_bus() -> None:
    async with running() as world:
        files(world, "/a")
        world.host = lambda _: HostError("no memory")
        with pytest.raises(HostError, match="no memory"):
            await world.vm.layers.add("/a")
        assert world.asked == [f"host Add {SLOT}0"]


async def test_layers_become_one_root_and_are_parted_again() -> None:
    async with running() as world:
        await world.vm.layers.combine_lcow(["/run/layers/p0", "/run/layers/p1"], "/scratch", "/root")
        await world.vm.layers.remove_combined("/root")
        assert world.asked == ["guest Add CombinedLayers", "guest Remove CombinedLayers"]
        assert world.guest_requests()[0]["Settings"] == {
            "ContainerRootPath": "/root",
            "Layers": [{"Path": "/run/layers/p0"}, {"Path": "/run/layers/p1"}],
            "ScratchPath": "/scratch",
        }
