"""Disks and persistent memory given to a running VM and taken away, on the real thing."""

import asyncio
import fcntl
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec import structs

from utilityvm import (
    ConnectionLost,
    GuestError,
    HostError,
    NoVPMem,
    UtilityVM,
    create_lcow,
    default_options_lcow,
)
from utilityvm.boot.files import BootFiles
from utilityvm.compute.qemu.monitor import Monitor
from utilityvm.devices import resources
from utilityvm.guest.client import GuestClient
from utilityvm.kit.errors import Exists, InvalidOptions
from utilityvm.schema.guest_requests import GuestRequest

from .disks import MIB, converted, disk, erofs, ext4, loop_device, pmem, xfs
from .once import once
from .running import LIMIT, qemu_of, sh, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def clean(vm: UtilityVM) -> AsyncIterator[UtilityVM]:
    """The module's VM, which every test leaves as it was: without a disk."""
    yield vm
    done = await sh(vm, "ls /sys/class/scsi_disk 2>/dev/null; grep ' /d/' /proc/mounts")
    assert done.out == b"", "the test left a disk"


async def test_a_disk_is_mounted_written_and_keeps_what_was_written(clean: UtilityVM, tmp_path: Path) -> None:
    image = ext4(tmp_path / "a.img")
    for said in (b"", b"hello\n"):
        await clean.modify(disk("Add", 0, image, "/d/a"))
        assert (await sh(clean, "cat /d/a/x; echo hello >/d/a/x")).out == said
        await clean.modify(disk("Remove", 0, image, "/d/a"))
    assert (await sh(clean, "ls -d /d/a")).code != 0, "the folder was left"


@pytest.mark.asyncio(loop_scope="function")
async def test_the_driver_scans_nothing_when_it_is_loaded_and_hears_of_disks_from_the_first_on(
    boot_files: BootFiles, tmp_path: Path
) -> None:
    options = default_options_lcow(boot_files_path=str(boot_files.folder), memory_size_in_mb=256, processor_count=1)
    async with await create_lcow(options) as vm:
        await vm.start()
        await vm.modify(resources.drivers())
        mode = "cat /sys/module/scsi_mod/parameters/scan"
        assert (await sh(vm, mode)).out == b"manual\n", "the module did not get what the kernel's line has for it"
        await vm.modify(disk("Add", 1, ext4(tmp_path / "a.img"), "/d/a"))
        assert (await sh(vm, mode)).out == b"sync\n"
        unheard = disk("Add", 0, ext4(tmp_path / "b.img"), "")
        await vm.modify(structs.replace(unheard, guest_request=None))
        await until(vm, "ls -d /sys/bus/scsi/devices/*:0:0:0/block/sd*")


async def test_disks_of_every_format_come_to_their_place_at_the_same_time(clean: UtilityVM, tmp_path: Path) -> None:
    raw = ext4(tmp_path / "r.img")
    images = [
        raw,
        converted(raw, "qcow2", ".qcow2"),
        converted(raw, "vhdx", ".vhdx"),
        converted(raw, "vpc", ".vhd", "-o", "force_size=on"),
        converted(raw, "vpc", ".fixed.vhd", "-o", "subformat=fixed,force_size=on"),
        xfs(tmp_path / "x.img"),
        erofs(tmp_path / "e.img", {"f": b"layer"}),
        *(ext4(tmp_path / f"{number}.img") for number in range(3)),
    ]
    luns = {number * 7: image for number, image in enumerate(images)}
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        for lun, image in luns.items():
            group.create_task(clean.modify(disk("Add", lun, image, f"/d/{lun}", read_only=image.name == "e.img")))
    mounts = (await sh(clean, "grep ' /d/' /proc/mounts | cut -d' ' -f2,3 | sort")).out.decode().splitlines()
    kinds = {35: "xfs", 42: "erofs"}
    assert mounts == sorted(f"/d/{lun} {kinds.get(lun, 'ext4')}" for lun in luns)
    assert (await sh(clean, "cat /d/42/f")).out == b"layer"
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        for lun, image in luns.items():
            group.create_task(clean.modify(disk("Remove", lun, image, f"/d/{lun}")))


async def test_a_read_only_disk_is_not_written_by_the_guest_nor_by_its_root(clean: UtilityVM, tmp_path: Path) -> None:
    image = ext4(tmp_path / "a.img")
    image.chmod(0o444)
    before = image.read_bytes()
    await clean.modify(disk("Add", 3, image, "/d/a", read_only=True))
    assert (await sh(clean, "touch /d/a/x; echo x >/dev/sda")).err.count(b"\n") == 2
    await clean.modify(disk("Remove", 3, image, "/d/a"))
    assert image.read_bytes() == before


async def test_options_of_the_mount_hold(clean: UtilityVM, tmp_path: Path) -> None:
    image = ext4(tmp_path / "a.img")
    await clean.modify(disk("Add", 0, image, "/d/a", options=("noexec", "nodev", "rshared", "commit=7")))
    assert b"nodev,noexec" in (said := (await sh(clean, "grep ' /d/a' /proc/mounts")).out)
    assert b"commit=7" in said
    assert b"shared:" in (await sh(clean, "grep ' /d/a' /proc/self/mountinfo")).out
    await clean.modify(disk("Remove", 0, image, "/d/a"))
    with pytest.raises(GuestError, match="mounting /dev/sd. as ext4 on /d/a: invalid argument"):
        await clean.modify(disk("Add", 0, image, "/d/a", options=("no-such-option",)))


@pytest.mark.root("make block devices")
async def test_a_block_device_of_the_host_is_a_disk_of_the_guest(clean: UtilityVM, tmp_path: Path) -> None:
    image = ext4(tmp_path / "device.img")
    with loop_device(image) as device:
        with pytest.raises(InvalidOptions, match=f"{device}: is a block device: attach it as a physical disk"):
            await clean.scsi.add(device, "/d/p")
        with pytest.raises(InvalidOptions, match=f"{image}: is not a block device: only those are passed through"):
            await clean.scsi.add_physical_disk(str(image), "/d/p")
        await clean.scsi.add_physical_disk(device, "/d/p")
        assert (await sh(clean, "echo kept >/d/p/file && sync")).code == 0
        await clean.scsi.remove(device)
        await clean.scsi.add_physical_disk(device, "/d/p", read_only=True)
        done = await sh(clean, "cat /d/p/file; echo x >/d/p/other; dd if=/dev/zero of=/dev/sda bs=512 count=1")
        assert done.out == b"kept\n"
        assert done.code != 0
        await clean.scsi.remove(device)


async def test_a_disk_grows_under_its_file_system(clean: UtilityVM, tmp_path: Path) -> None:
    for image, size in ((ext4(tmp_path / "a.img"), 16), (xfs(tmp_path / "x.img"), 320)):
        await clean.modify(disk("Add", 0, image, "/d/a"))
        os.truncate(image, 2 * size * MIB)
        await clean.modify(disk("Update", 0, image, "/d/a"))
        blocks = int((await sh(clean, "df -k /d/a | tail -1 | awk '{print $2}'")).out)
        assert blocks > 1.5 * size * 1024
        await clean.modify(disk("Remove", 0, image, "/d/a"))


async def test_what_the_guest_cannot_mount_is_taken_back(clean: UtilityVM, tmp_path: Path) -> None:
    empty = tmp_path / "empty.img"
    empty.write_bytes(bytes(MIB))
    for _ in range(2):
        with pytest.raises(GuestError, match="has no file system that is known"):
            await clean.modify(disk("Add", 0, empty, "/d/a"))


async def test_a_disk_that_is_in_use_stays_and_can_be_removed_later(clean: UtilityVM, tmp_path: Path) -> None:
    image = ext4(tmp_path / "a.img")
    await clean.modify(disk("Add", 0, image, "/d/a"))
    process = await clean.create_process(["sleep", "1000"], cwd="/d/a")
    with pytest.raises(GuestError, match="unmounting /d/a: device or resource busy"):
        await clean.modify(disk("Remove", 0, image, "/d/a"))
    with pytest.raises(Exists):
        await clean.modify(disk("Add", 0, image, "/d/b"))
    await process.kill()
    await process.wait()
    await process.close()
    await clean.modify(disk("Remove", 0, image, "/d/a"))


async def test_one_file_is_not_written_by_two(clean: UtilityVM, tmp_path: Path) -> None:
    image = ext4(tmp_path / "a.img")
    await clean.modify(disk("Add", 0, image, "/d/a"))
    with pytest.raises(HostError, match="lock"):
        await clean.modify(disk("Add", 1, image, "/d/b"))
    await clean.modify(disk("Remove", 0, image, "/d/a"))


async def test_a_file_that_only_its_owner_may_read_is_attached(clean: UtilityVM, tmp_path: Path) -> None:
    image = ext4(tmp_path / "a.img")
    image.chmod(0o600)
    await clean.modify(disk("Add", 0, image, "/d/a"))
    await clean.modify(disk("Remove", 0, image, "/d/a"))


async def test_a_cancelled_addition_leaves_nothing(clean: UtilityVM, tmp_path: Path) -> None:
    image = ext4(tmp_path / "a.img")
    for delay in (0.0, 0.002, 0.01, 0.05):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(clean.modify(disk("Add", 0, image, "/d/a")))
            await asyncio.sleep(delay)
            task.cancel()
        if not task.cancelled():
            await clean.modify(disk("Remove", 0, image, "/d/a"))
        await clean.modify(disk("Add", 0, image, "/d/a"))
        await clean.modify(disk("Remove", 0, image, "/d/a"))


async def test_layers_on_persistent_memory_are_mapped_and_stay_in_their_place(vm: UtilityVM, tmp_path: Path) -> None:
    layers = {number: erofs(tmp_path / f"{number}.img", {"number": b"%d" % number}) for number in (0, 1, 30, 31, 63)}
    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        for number, layer in layers.items():
            group.create_task(vm.modify(pmem("Add", number, layer, f"/l/{number}")))
    said = (await sh(vm, "for n in 0 1 30 31 63; do cat /l/$n/number; echo; done; grep -c 'dax=always' /proc/mounts")).out.split()
    assert said == [b"0", b"1", b"30", b"31", b"63", b"5"]
    for number, layer in layers.items():
        await vm.modify(pmem("Remove", number, layer, f"/l/{number}"))
    assert (await sh(vm, "ls /l")).out == b""
    await vm.modify(pmem("Add", 1, layers[1], "/l/1"))
    with pytest.raises(Exists, match="is still"):
        await vm.modify(pmem("Add", 0, layers[1], "/l/0"))
    await vm.modify(pmem("Remove", 1, layers[1], "/l/1"))


async def test_the_guest_cannot_write_a_layer(vm: UtilityVM, tmp_path: Path) -> None:
    layer = erofs(tmp_path / "l.img", {"f": b"layer" * 10_000})
    before = layer.read_bytes()
    await vm.modify(pmem("Add", 7, layer, "/l/7"))
    await sh(vm, "d=$(grep ' /l/7 ' /proc/mounts | cut -d' ' -f1); umount /l/7; dd if=/dev/zero of=$d bs=4096 count=4 conv=fsync")
    assert layer.read_bytes() == before
    await vm.modify(pmem("Remove", 7, layer, "/l/7"))


async def test_a_layer_of_an_odd_size_is_refused_with_what_to_do(vm: UtilityVM, tmp_path: Path) -> None:
    layer = erofs(tmp_path / "l.img", {"f": b""})
    os.truncate(layer, 2 * MIB + 4096)
    with pytest.raises(NoVPMem, match="multiple of 2 MiB") as refused:
        await vm.modify(pmem("Add", 9, layer, "/l/9"))
    assert "SCSI" in refused.value.hint


GUEST = "the guest's half"
COMES = {"blockdev-add": [], "device_add": [], GUEST: ["half detached"]}
GOES = {GUEST: ["attached"], "device_del": ["half detached"], "blockdev-del": ["half detached"]}
"""Steps of a disk on its way in and out, and where it was last known to be when QEMU ended there."""


@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.parametrize(
    ("goes", "step"),
    [*once(*((False, step) for step in COMES)), *once(*((True, step) for step in GOES if step != GUEST)), (True, GUEST)],
)
async def test_a_qemu_that_is_killed_at_any_step_is_an_error_and_the_table_has_what_was_last_known(
    boot_files: BootFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, goes: bool, step: str
) -> None:
    image = ext4(tmp_path / "a.img")
    options = default_options_lcow(boot_files_path=str(boot_files.folder), memory_size_in_mb=256, processor_count=1)
    async with asyncio.timeout(LIMIT), await create_lcow(options) as machine:
        await machine.start()
        if goes:
            await machine.scsi.add(str(image), "/d/a")
        killed = _killed_at(monkeypatch, step, qemu_of(machine.id))
        with pytest.raises((ConnectionLost, HostError)) as failed:
            await (machine.scsi.remove(str(image)) if goes else machine.scsi.add(str(image), "/d/a"))
        assert killed, "the step was not taken"
        assert machine.id in failed.value.message
        assert [known.state for known in machine.scsi.disks] == (GOES if goes else COMES)[step]
        await machine.wait()
    with image.open("r+b") as file:  # nobody has it any more
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _killed_at(monkeypatch: pytest.MonkeyPatch, step: str, pid: int) -> list[str]:
    """Have QEMU killed right before a step is taken; it is in the list then."""
    killed, execute, modify = list[str](), Monitor.execute, GuestClient.modify

    def kill() -> None:
        killed.append(step)
        os.kill(pid, signal.SIGKILL)

    async def command(monitor: Monitor, name: str, *args: object, **more: object) -> object:
        if name == step:
            kill()
        return await execute(monitor, name, *args, **more)  # type: ignore[arg-type]

    async def ask(client: GuestClient, request: GuestRequest) -> None:
        if step == GUEST:
            kill()
        await modify(client, request)

    monkeypatch.setattr(Monitor, "execute", command)
    monkeypatch.setattr(GuestClient, "modify", ask)
    return killed
