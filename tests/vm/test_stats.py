"""What a VM uses, told by the VM and by `uvm stats`; and the bounds of its disks, measured by these figures."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from utilityvm import UtilityVM, create_lcow, default_options_lcow
from utilityvm.boot.files import BootFiles
from utilityvm.kit.proc import run_tool

from .disks import MIB, ext4
from .running import LIMIT, qemu_of, sh

WINDOW = 3.0  # seconds that a measurement takes
UVM = (sys.executable, "-m", "utilityvm")


@asynccontextmanager
async def running(boot_files: BootFiles, **options: object) -> AsyncIterator[UtilityVM]:
    options = {"memory_size_in_mb": 256, "processor_count": 1, **options}
    async with await create_lcow(default_options_lcow(boot_files_path=str(boot_files.folder), **options)) as vm:
        await vm.start()
        yield vm


async def measured(vm: UtilityVM) -> tuple[float, float]:
    """Return how many operations, and how many bytes, all disks of the VM did in a second."""
    begin, before = time.monotonic(), (await vm.stats()).storage
    await asyncio.sleep(WINDOW)
    after, passed = (await vm.stats()).storage, time.monotonic() - begin
    assert before is not None
    assert after is not None
    count = after.read_count_normalized + after.write_count_normalized - before.read_count_normalized - before.write_count_normalized
    size = after.read_size_bytes + after.write_size_bytes - before.read_size_bytes - before.write_size_bytes
    return count / passed, size / passed


async def test_a_vm_tells_what_it_uses(boot_files: BootFiles, tmp_path: Path) -> None:
    async with running(boot_files) as vm:
        await vm.scsi.add(str(ext4(tmp_path / "a.img")), "/d")
        before = await vm.stats()
        assert (
            await sh(vm, "dd if=/dev/zero of=/d/x bs=64k count=64 conv=fsync; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
        ).code == 0
        after = await vm.stats()
        await vm.pause()
        paused = await vm.stats()
        await vm.resume()
    assert before.uptime_ns is not None
    assert after.uptime_ns is not None
    assert 0 < before.processor_ns < after.processor_ns
    assert 0 < before.uptime_ns < after.uptime_ns
    assert after.unique is not None
    assert 64 * MIB < after.unique <= after.working_set
    assert before.storage is not None
    assert after.storage is not None
    assert after.storage.write_size_bytes - before.storage.write_size_bytes >= 4 * MIB
    assert after.memory.assigned_memory == 256 * MIB // 4096
    assert after.guest is not None
    assert 0 < after.guest.available_memory < after.guest.assigned_memory < after.memory.assigned_memory
    assert paused.guest is None
    assert paused.memory == after.memory


async def test_the_command_line_finds_this_users_vms_without_any_record(boot_files: BootFiles) -> None:
    async with running(boot_files, id="uvm-test-stats") as vm:
        busy = await vm.create_process(["sh", "-c", "echo spinning; while :; do :; done"])
        await busy.stdout.read(1)
        words = (*UVM, "stats", "--no-stream", "--interval", "2")
        as_json = json.loads(await asyncio.to_thread(run_tool, (*words, "--json"), within=LIMIT))
        lines = (await asyncio.to_thread(run_tool, words, within=LIMIT)).splitlines()
        (row,) = [row for row in as_json if row["id"] == vm.id]
        assert (row["pid"], row["memory_bytes"], row["processors"]) == (qemu_of(vm.id), 256 * MIB, 1)
        assert 10 < row["processor_percent"] < 130
        assert 64 * MIB < row["unique_memory_bytes"] <= row["host_memory_bytes"] < 1024 * MIB
        assert row["processor_ns"] < row["uptime_ns"] * 1.3
        assert lines[0].split() == ["VM", "CPU", "HOST", "MEMORY", "UNIQUE", "MEMORY", "CPUS", "UPTIME"]
        assert len([line for line in lines if line.startswith("uvm-test-stats ") and "256.0 MiB" in line]) == 1
    assert "uvm-test-stats" not in run_tool(words, within=LIMIT)


@pytest.mark.parametrize("option", ["storage_qos_iops_maximum", "storage_qos_bandwidth_maximum"])
async def test_a_bound_holds_for_all_disks_together(boot_files: BootFiles, tmp_path: Path, option: str) -> None:
    bound = 100 if "iops" in option else 2 * MIB
    async with running(boot_files, **{option: bound}) as vm:
        for name in ("a", "b"):
            await vm.scsi.add(str(ext4(tmp_path / f"{name}.img", 64)), f"/{name}")
        size = "4k" if "iops" in option else "64k"
        script = f"while :; do dd if=$0 of=/dev/null bs={size} iflag=direct 2>/dev/null; done"
        readers = [await vm.create_process(["sh", "-c", script, f"/dev/sd{letter}"]) for letter in "ab"]
        await asyncio.sleep(2)  # what was saved up is used up
        operations, size_bytes = await measured(vm)
        for reader in readers:
            await reader.kill(group=True)
    got = operations if "iops" in option else size_bytes
    print(f"{option}={bound}: {got:.1f} a second, by two disks")
    assert got == pytest.approx(bound, rel=0.1)
