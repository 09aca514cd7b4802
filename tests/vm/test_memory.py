"""A VM's memory as its host sees it: what is resident, what is locked, what goes back, what comes while it runs."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from utilityvm import InvalidOptions, Unsupported, UtilityVM, create_lcow, default_options_lcow
from utilityvm.boot.files import BootFiles
from utilityvm.compute.qemu import service
from utilityvm.kit.locked import why_not_locked

from .running import LIMIT, of_vm, sh

MIB = 1 << 20
CANNOT_LOCK = why_not_locked(1024 * MIB)


@asynccontextmanager
async def running(boot_files: BootFiles, **options: object) -> AsyncIterator[UtilityVM]:
    """A VM with one processor, and 1 GiB of memory unless told otherwise."""
    options = {"memory_size_in_mb": 1024, "processor_count": 1, **options}
    async with await create_lcow(default_options_lcow(boot_files_path=str(boot_files.folder), **options)) as vm:
        await vm.start()
        yield vm


async def unique_mib(vm: UtilityVM) -> int:
    """Return what of the host's memory is the VM's alone."""
    unique = (await vm.stats()).unique
    assert unique is not None
    return unique // MIB


async def fill(vm: UtilityVM, mib: int) -> None:
    """Let the guest use so much memory, until `free`."""
    assert (await sh(vm, f"dd if=/dev/zero of=/dev/shm/x bs=1M count={mib}")).code == 0


async def free(vm: UtilityVM) -> None:
    assert (await sh(vm, "rm /dev/shm/x")).code == 0


async def test_memory_is_resident_once_it_is_touched_and_stays_without_the_hint(boot_files: BootFiles) -> None:
    mib = 450  # more than the boot has left free: a guest takes what it has used before first, and that is resident already
    async with running(boot_files) as vm:
        before = await unique_mib(vm)
        await fill(vm, mib)
        touched = await unique_mib(vm)
        await free(vm)
        await asyncio.sleep(5)  # more than a guest with the hint waits before it tells
        after = await unique_mib(vm)
    print(f"of 1024 MiB: {before} MiB resident after the boot, {touched} with {mib} in use, {after} when they were freed")
    assert before < mib
    assert touched > mib
    assert after >= touched - mib / 2  # a host that reclaims what is idle takes some of it; with the hint nine tenths are back


async def test_with_the_hint_freed_memory_returns_to_the_host(boot_files: BootFiles) -> None:
    mib = 300
    async with running(boot_files, enable_cold_discard_hint=True) as vm:
        await fill(vm, mib)
        touched = await unique_mib(vm)
        await free(vm)
        async with asyncio.timeout(LIMIT):
            while (now := await unique_mib(vm)) > touched - mib * 0.9:
                await asyncio.sleep(0.5)
    print(f"{touched} MiB resident with {mib} in use, {now} after they were freed")


@pytest.mark.skipif(bool(CANNOT_LOCK), reason=CANNOT_LOCK)
async def test_physically_backed_memory_is_resident_and_locked_from_the_start(boot_files: BootFiles) -> None:
    before = locked_kib()
    async with running(boot_files, allow_overcommit=False) as vm:
        told = await vm.stats()
        assert told.unique is not None
        assert told.unique >= told.working_set == 1024 * MIB
        assert locked_kib() - before == 1024 * 1024
        with pytest.raises(Unsupported, match="AllowOvercommit false"):
            await vm.update_memory(2048 * MIB)
    assert locked_kib() == before


async def test_memory_that_may_not_be_locked_is_refused_by_name_before_anything_starts(
    boot_files: BootFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not CANNOT_LOCK:
        monkeypatch.setattr(service, "why_not_locked", lambda size: f"{size} bytes are too many")
    options = default_options_lcow(
        boot_files_path=str(boot_files.folder), memory_size_in_mb=1024, allow_overcommit=False, id="uvm-test-locked"
    )
    with pytest.raises(Unsupported, match=r"Memory\.AllowOvercommit: false: 1024 MiB cannot be locked: "):
        await create_lcow(options)
    assert of_vm("uvm-test-locked") == []


async def test_the_holes_for_devices_are_where_they_were_asked_for(boot_files: BootFiles) -> None:
    async with running(boot_files, memory_size_in_mb=2560, low_mmio_gap_in_mb=2048, high_mmio_gap_in_mb=4096) as vm:
        places = (await sh(vm, "grep -E 'System RAM|PCI Bus' /proc/iomem")).out.decode()
    memory = [line.split(" : ")[0] for line in places.splitlines() if "System RAM" in line]
    assert memory[-1] == f"100000000-{(4096 + 512) * MIB - 1:x}"
    assert int(memory[-2].split("-")[1], 16) < 2048 * MIB
    holes = [line.split(" : ")[0] for line in places.splitlines() if "PCI Bus 0000:00" in line]
    begin, end = max(tuple(int(word, 16) for word in hole.split("-")) for hole in holes)
    assert end + 1 - begin == 4096 * MIB


async def total_mib(vm: UtilityVM) -> int:
    """Return the guest's own figure."""
    return int((await sh(vm, "grep MemTotal /proc/meminfo")).out.split()[1]) // 1024


async def test_memory_grows_and_shrinks_while_the_vm_runs(boot_files: BootFiles) -> None:
    async with running(boot_files, memory_size_in_mb=256) as vm:
        small, least = await unique_mib(vm), await total_mib(vm)
        for mib in (1024, 514, 2048):
            await vm.update_memory(mib * MIB - 1)
            assert await vm.get_assigned_memory_in_bytes() == mib * MIB
            assert await total_mib(vm) - least == pytest.approx(mib - 256, abs=1)
        assert (await sh(vm, "mount -o remount,size=1g /dev/shm")).code == 0  # it is half of what there was at the boot
        await fill(vm, 1000)
        assert await unique_mib(vm) - small >= 1000 - 256, "more than all that the boot may have left resident and free"
        await free(vm)
        await vm.update_memory(256 * MIB)
        assert (await total_mib(vm), await vm.get_assigned_memory_in_bytes()) == (least, 256 * MIB)
        assert await unique_mib(vm) - small < 300, "what was given back is still the host's"


async def test_memory_that_cannot_be_given_or_taken_is_refused_by_name_and_all_stays(boot_files: BootFiles) -> None:
    host_mib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB
    async with running(boot_files, memory_size_in_mb=256) as vm:
        with pytest.raises(Unsupported, match="254 MiB: is less than the 256 MiB that the machine was booted with"):
            await vm.update_memory(254 * MIB)
        with pytest.raises(Unsupported, match="the machine can have at most"):
            await vm.update_memory((host_mib + 1024) * MIB)
        with pytest.raises(InvalidOptions, match="less than nothing"):
            await vm.update_memory(-1)
        assert await vm.get_assigned_memory_in_bytes() == 256 * MIB
        await vm.update_memory(512 * MIB)
        assert await vm.get_assigned_memory_in_bytes() == 512 * MIB


def locked_kib() -> int:
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmLck")).split()[1])
