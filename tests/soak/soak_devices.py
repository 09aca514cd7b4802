"""A thousand disks and layers that come and go, some refused, some given up: nothing of them is left in host, QEMU or guest."""

import asyncio
import os
from dataclasses import asdict
from pathlib import Path

import pytest
from tests.vm.counting import assert_nothing_left, count
from tests.vm.disks import erofs, ext4
from tests.vm.running import of_vm, qemu_of

from utilityvm import GuestError, UtilityVM

from .conftest import Record

CYCLES = 1000
WARM_UP = 40
KINDS = 5


async def cycle(vm: UtilityVM, number: int, folder: Path) -> None:
    """Let a disk or a layer come and go."""
    disks = [str(folder / f"{name}.img") for name in ("a", "b")]
    match number % KINDS:
        case 0:
            await vm.scsi.add(disks[0], "/d/a")
            said = await vm.run(["sh", "-c", f"cat /d/a/last 2>/dev/null; echo {number} >/d/a/last"])
            assert said.stdout == (b"%d\n" % (number - KINDS) if number else b"")
            await vm.scsi.remove(disks[0])
        case 1:
            async with asyncio.TaskGroup() as group:
                for disk in disks:
                    group.create_task(vm.scsi.add(disk, f"/d{disk}"))
            for disk in disks:
                await vm.scsi.remove(disk)
        case 2:
            await vm.vpmem.add(str(folder / "layer.img"))
            await vm.vpmem.remove(str(folder / "layer.img"))
        case 3:
            with pytest.raises(GuestError):
                await vm.scsi.add(str(folder / "empty.img"), "/d/e")
        case _:
            async with asyncio.TaskGroup() as group:
                adding = group.create_task(vm.scsi.add(disks[0], "/d/a"))
                await asyncio.sleep(0.001 * (number % 30))
                adding.cancel()
            if not adding.cancelled():
                await vm.scsi.remove(disks[0])


async def test_a_thousand_devices_leave_nothing(vm: UtilityVM, record: Record, tmp_path: Path) -> None:
    for name in ("a", "b"):
        ext4(tmp_path / f"{name}.img", 4)
    (tmp_path / "empty.img").write_bytes(bytes(1 << 20))
    erofs(tmp_path / "layer.img", {"f": b"x"})

    def of_qemu() -> tuple[int, int]:
        return len(os.listdir(f"/proc/{qemu_of(vm.id)}/fd")), len(of_vm(vm.id))  # noqa: PTH208 (they are counted)

    clock = asyncio.get_running_loop().time
    for number in range(WARM_UP):
        await cycle(vm, number, tmp_path)
    before, qemu, begin = await count(vm), of_qemu(), clock()
    for number in range(WARM_UP, WARM_UP + CYCLES):
        await cycle(vm, number, tmp_path)
    seconds, after = clock() - begin, await count(vm)
    assert vm.scsi.disks == ()
    assert (await vm.run(["sh", "-c", "ls /d /sys/class/scsi_disk; grep -c ' /d/' /proc/mounts"])).stdout.split()[-1] == b"0"
    record("devices", {"cycles": CYCLES, "seconds": round(seconds, 1), "before": asdict(before), "after": asdict(after), "qemu": of_qemu()})
    assert of_qemu() == qemu
    assert_nothing_left(before, after, host_memory=4096, guest_memory=8192)
