"""The tables of a VM on QEMU, with a guest that mounts."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from utilityvm import create_lcow, default_options_lcow
from utilityvm.boot.files import BootFiles
from utilityvm.devices.layers import Bus
from utilityvm.kit.errors import Exists, GuestError, NotFound, NoVPMem
from utilityvm.vm.uvm import UtilityVM

from .disks import MIB, erofs, ext4

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_disks_are_shared_used_again_and_grown(vm: UtilityVM, tmp_path: Path) -> None:
    disks = [str(ext4(tmp_path / f"{name}.img")) for name in "abc"]
    async with asyncio.TaskGroup() as group:
        for number, path in enumerate(disks):
            group.create_task(vm.scsi.add(path, f"/mnt/{number}"))
    assert sorted(disk.lun for disk in vm.scsi.disks) == [0, 1, 2]
    assert (await vm.scsi.add(disks[0], "/mnt/0")).references == 2
    with pytest.raises(Exists, match="guest_path is '/mnt/0', not '/other'"):
        await vm.scsi.add(disks[0], "/other")
    await vm.run(["sh", "-c", "echo kept > /mnt/0/file"])
    os.truncate(disks[0], 32 * MIB)
    await vm.scsi.grow(disks[0])
    assert int((await vm.run(["sh", "-c", "df -k /mnt/0 | awk 'END { print $2 }'"])).stdout) > 24 * 1024
    for _ in range(2):
        await vm.scsi.remove(disks[0])
    with pytest.raises(NotFound, match="^not attached$"):
        await vm.scsi.remove(disks[0])
    again = await vm.scsi.add(disks[0], "/mnt/again", read_only=True)
    assert again.lun == 0
    assert (await vm.run(["cat", "/mnt/again/file"])).stdout == b"kept\n"
    for path in disks:
        await vm.scsi.remove(path)


async def test_a_disk_that_the_guest_cannot_mount_leaves_its_place_free(vm: UtilityVM, tmp_path: Path) -> None:
    empty = tmp_path / "empty.img"
    empty.write_bytes(bytes(MIB))
    with pytest.raises(GuestError, match="^failed to modify UVM with new SCSI mount: guest modify: "):
        await vm.scsi.add(str(empty), "/mnt")
    assert vm.scsi.disks == ()
    good = str(ext4(tmp_path / "good.img"))
    assert (await vm.scsi.add(good, "/mnt")).lun == 0
    await vm.scsi.remove(good)


async def test_a_removed_layer_stays_with_its_device_and_an_odd_one_is_a_scsi_disk(vm: UtilityVM, tmp_path: Path) -> None:
    even = erofs(tmp_path / "even.img", {"file": b"even"})
    odd = erofs(tmp_path / "odd.img", {"file": b"odd"})
    os.truncate(odd, odd.stat().st_size + 4096)
    for _ in range(2):
        layer = await vm.layers.add(str(even))
        assert (layer.bus, layer.guest_path) == (Bus.VPMEM, "/run/layers/p0")
        assert (await vm.run(["cat", f"{layer.guest_path}/file"])).stdout == b"even"
        await vm.layers.remove(layer)
        assert [device.state for device in vm.vpmem.devices] == ["reserved"]
    other = await vm.layers.add(str(odd))
    assert (other.bus, other.guest_path) == (Bus.SCSI, "/run/mounts/m1")
    assert "not a multiple of 2 MiB" in other.fell_back
    assert (await vm.run(["cat", f"{other.guest_path}/file"])).stdout == b"odd"
    await vm.layers.remove(other)
    assert vm.scsi.disks == ()


async def test_all_128_devices_of_persistent_memory_can_be_had(boot_files: BootFiles, tmp_path: Path) -> None:
    layer = erofs(tmp_path / "layer.img", {"file": b"layer"})
    images = [shutil.copy(layer, tmp_path / f"{number}.img") for number in range(128)]
    options = default_options_lcow(boot_files_path=str(boot_files.folder), memory_size_in_mb=512, processor_count=1, vpmem_device_count=128)
    async with await create_lcow(options) as machine:
        await machine.start()
        for image in images:
            await machine.vpmem.add(str(image))
        assert {device.state for device in machine.vpmem.devices} == {"attached"}
        done = await machine.run(["sh", "-c", "cat /run/layers/p*/file"])
        assert done.stdout == b"layer" * 128
        with pytest.raises(NoVPMem, match="^no available location$"):
            await machine.vpmem.add(str(layer))
