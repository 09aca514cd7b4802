"""What `soak_vfio` runs on a host with an IOMMU: a device is refused for each reason that the host has, then given, taken, given again."""

import asyncio
import os
import subprocess  # noqa: TID251 (lines that a user is told to type)
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import utilityvm
from utilityvm.compute.qemu import jail_probe, monitor, probe
from utilityvm.kit.errors import HostError, NotFound, QmpError, StateError, Unsupported, UtilityVMError
from utilityvm.vm import uvm

SPARE, BUSY, ON_DISK, GROUP_OF_USERS = sys.argv[1], sys.argv[2], sys.argv[3].encode(), 1000
BEGAN = time.monotonic()
SLOW = 900  # emulation in emulation


def say(what: str) -> None:
    print(f"[{time.monotonic() - BEGAN:.0f} s] {what}", flush=True)


async def refused(kind: type[UtilityVMError], words: str, device: str = SPARE) -> str:
    """Ask for a VM with the device, be refused, and return what to do about it."""
    try:
        await (await create(device)).close()
    except kind as error:
        return told(error, words)
    raise AssertionError(f"{device} was not refused")


def told(error: UtilityVMError, words: str) -> str:
    """Hold a refusal to its words, and return what to do about it."""
    assert words in error.message, error.message
    say(f"refused: {error.message}")
    return error.hint


def type_it(lines: list[str]) -> None:
    """Do what a hint says, but for loading the module, which the host has done."""
    for line in lines:
        subprocess.run(["sh", "-c", line], check=True)  # noqa: S607 (as a user would)


def let_in() -> None:
    """Let a group open the node of the device."""
    (node,) = (path for path in Path("/dev/vfio").iterdir() if path.name != "vfio")
    os.chown(node, -1, GROUP_OF_USERS)
    node.chmod(0o660)


async def create(device: str) -> utilityvm.UtilityVM:
    options = utilityvm.default_options_lcow(memory_size_in_mb=256, processor_count=1, allow_overcommit=False, assigned_devices=(device,))
    return await utilityvm.create_lcow(options)


@asynccontextmanager
async def running() -> AsyncIterator[utilityvm.UtilityVM]:
    async with await create(SPARE) as vm:
        await vm.start()
        say(f"runs in {', '.join(vm.jail.layers)}; lacks {dict(vm.jail.lacks)}")
        yield vm


async def read_by_dma(vm: utilityvm.UtilityVM) -> None:
    """Let the guest read what the device writes into its memory."""
    look = "for host in /sys/class/scsi_host/host*; do echo '0 0 -' >$host/scan; done; sleep 2"
    done = await vm.run(["sh", "-c", f"{look}; for disk in /sys/block/sd*; do head -c {len(ON_DISK)} /dev/${{disk##*/}}; echo; done"])
    assert ON_DISK in done.stdout, done
    say("the guest has read the device's disk")


async def main() -> None:
    jail_probe._TRIAL = monitor.UNPLUG_TIMEOUT = monitor.ANSWER_TIMEOUT = probe._VERSION_TRIAL = uvm.START_TIMEOUT = SLOW  # type: ignore[misc]
    await refused(NotFound, "this host has none at this address", "0000:00:1e.7")
    hint = await refused(StateError, "cannot be given to a VM while bound to the driver virtio-pci")
    type_it(hint.split("; ")[1:])
    await refused(HostError, "QEMU, which is a user of its own, may not open /dev/vfio/")
    let_in()
    async with running() as vm:
        await vm.scsi.add("/tmp/empty.img")  # the driver comes with the first disk
        await read_by_dma(vm)
        try:
            await vm.vpci.assign(BUSY)
        except Unsupported as error:
            told(error, "QEMU opens /dev/vfio by its path")
        else:
            raise AssertionError(f"{BUSY} was not refused")
        await vm.vpci.remove(SPARE)
        say("the device is gone")
        await vm.vpci.assign(SPARE)
        await read_by_dma(vm)
        async with await create(SPARE) as other:
            try:
                await other.start()
            except QmpError as error:
                told(error, "Device or resource busy")
            else:
                raise AssertionError("a device was given to two VMs")
        await read_by_dma(vm)
    print("ALL OF IT HOLDS", flush=True)


Path("/tmp/empty.img").write_bytes(bytes(4 << 20))
asyncio.run(main())
