"""A hundred containers in one VM, with volumes, mounts and limits, some killed, some given up: nothing of them is left anywhere."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
from tests.vm.counting import assert_nothing_left, count
from tests.vm.running import of_vm, qemu_of
from tests.vm.test_containers import MIB, spec

from utilityvm import GuestError, UtilityVM
from utilityvm.containers.volumes import volume_file
from utilityvm.images.store import ImageStore
from utilityvm.store.layout import Layout

from .conftest import Record

CONTAINERS = 100
WARM_UP = 12
KINDS = 6


@pytest.fixture
def layers(tmp_path: Path) -> Sequence[Path]:
    """The layers of the image that comes with the boot files, which all may read."""
    tmp_path.chmod(0o755)
    return ImageStore(tmp_path / "images", {"busybox": Layout.of_user().boot_files / "busybox.tar"}).get("busybox").layers


async def one(vm: UtilityVM, number: int, layers: Sequence[Path], volume: str, folder: Path) -> None:
    """Let a container come and go."""
    name = f"c{number}"
    mounts = [
        {"destination": "/v", "type": "volume", "source": volume, "options": ["size=32m"]},
        {"destination": "/h", "type": "bind", "source": str(folder)},
    ]
    match number % KINDS:
        case 0:
            async with await vm.create_container(name, spec("sh", "-c", f"echo {number}; exit 7"), layers=layers) as container:
                process = await container.start()
                assert (await process.stdout.read(), (await container.wait()).exit_code) == (b"%d\n" % number, 7)
        case 1:
            wanted = spec("sh", "-c", f"echo {number} >>/v/log", mounts=mounts)
            async with await vm.create_container(name, wanted, layers=layers) as container:
                await container.start()
                assert (await container.wait()).exit_code == 0
        case 2:
            async with await vm.create_container(name, spec(), layers=layers, scratch_size_in_bytes=64 * MIB) as container:
                await container.start()
                await container.update({"memory": {"limit": 32 * MIB}})
                assert (await container.run(["echo", "x"])).stdout == b"x\n"
                await container.kill()
                assert (await container.wait()).exit_code == 137
        case 3:
            limits = {"resources": {"memory": {"limit": 12 * MIB, "swap": 12 * MIB}}}
            async with await vm.create_container(name, spec("tail", "/dev/zero", linux=limits), layers=layers) as container:
                await container.start()
                assert (await container.wait()).oom_killed
        case 4:
            with pytest.raises(GuestError):
                async with await vm.create_container(name, spec("/missing"), layers=layers) as container:
                    await container.start()
        case _:
            creating = asyncio.ensure_future(vm.create_container(name, spec(), layers=layers))  # noqa: TID251 (awaited below)
            await asyncio.sleep(0.003 * (number % 97))
            creating.cancel()
            await asyncio.wait([creating])
            if not creating.cancelled():
                await creating.result().close()


async def test_a_hundred_containers_in_one_vm_leave_nothing(vm: UtilityVM, record: Record, layers: Sequence[Path], tmp_path: Path) -> None:
    volume, folder = f"soak-{os.getpid()}", tmp_path / "folder"
    folder.mkdir()

    def of_qemu() -> tuple[int, int]:
        return len(os.listdir(f"/proc/{qemu_of(vm.id)}/fd")), len(of_vm(vm.id))  # noqa: PTH208 (they are counted)

    async def of_guest() -> bytes:
        listing = "ls -A /run/gcs/c /run/mounts /run/layers /sys/fs/cgroup/containers; wc -l </proc/mounts"
        return (await vm.run(["sh", "-c", listing])).stdout

    clock = asyncio.get_running_loop().time
    try:
        for number in range(WARM_UP):
            await one(vm, number, layers, volume, folder)
        before, qemu, guest, begin = await count(vm), of_qemu(), await of_guest(), clock()
        for number in range(WARM_UP, WARM_UP + CONTAINERS):
            await one(vm, number, layers, volume, folder)
        seconds, after = clock() - begin, await count(vm)
        await vm._containers.settled()
        assert (vm.containers, vm.scsi.disks, vm.plan9.shares) == ((), (), ())
        measured = {"containers": CONTAINERS, "seconds": round(seconds, 1), "before": asdict(before), "after": asdict(after)}
        record("containers", measured)
        assert (of_qemu(), await of_guest()) == (qemu, guest)
        assert_nothing_left(before, after, host_memory=8192, guest_memory=16_384)
    finally:
        volume_file(Layout.of_user(), volume).unlink(missing_ok=True)
