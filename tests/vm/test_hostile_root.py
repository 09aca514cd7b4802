"""Root in a real guest turns on the guest connection: its VM ends with a typed error, and the VM beside it is untouched."""

import asyncio
import platform
import struct
from contextlib import suppress

import pytest

from utilityvm import ProtocolError, UtilityVM, UtilityVMError, create_lcow, default_options_lcow
from utilityvm.boot.files import BootFiles

from .running import LIMIT, Done, of_vm, run, sh

pytestmark = pytest.mark.asyncio(loop_scope="module")

_BASE = 0x40_0000
_CODE = bytes.fromhex(
    "b8 b2 01 00 00 bf 01 00 00 00 31 f6 0f 05 41 89 c4"  # r12 = pidfd_open(1, 0)
    "bb 03 00 00 00"  # ebx = 3
    "b8 b6 01 00 00 44 89 e7 89 de 31 d2 0f 05"  # 1: eax = pidfd_getfd(r12, ebx, 0)
    "85 c0 78 15"  # if eax < 0 goto 2
    "89 c7 b8 01 00 00 00 48 8d 35 17 00 00 00 ba 00 10 00 00 0f 05"  # write(eax, garbage, 4096)
    "ff c3 83 fb 40 7c d2"  # 2: ebx += 1; if ebx < 64 goto 1
    "b8 3c 00 00 00 31 ff 0f 05"  # exit(0)
)


def takes_the_carrier() -> bytes:
    """An ELF program that takes every descriptor of PID 1, of which one is the guest connection, and writes garbage to it."""
    size = 120 + len(_CODE) + 4096
    header = struct.pack("<4s5B7xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 0, 2, 62, 1, _BASE + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 4096)
    return header + load + _CODE + b"\xff" * 4096


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the program is written for x86-64")
async def test_garbage_on_the_carrier_ends_the_vm_and_leaves_the_other(vm: UtilityVM, boot_files: BootFiles) -> None:
    options = default_options_lcow(boot_files_path=str(boot_files.folder), memory_size_in_mb=256, processor_count=1)
    async with asyncio.timeout(LIMIT), await create_lcow(options) as hostile:
        await hostile.start()
        with suppress(UtilityVMError, BrokenPipeError):  # it has no end that anybody hears of
            process = await hostile.create_process(["sh", "-c", "cat >/x && chmod 755 /x && /x"], stdin=True)
            await process.stdin.write(takes_the_carrier())
            await process.stdin.write_eof()
            await process.wait()
        await hostile.wait()
        assert isinstance(hostile.exit_error, ProtocolError)
        assert await run(vm, "echo", "untouched") == Done(0, b"untouched\n")
    assert of_vm(hostile.id) == []


async def test_the_carriers_device_is_the_agents_alone(vm: UtilityVM) -> None:
    tried = await sh(vm, "port=$(grep -l hvsocket /sys/class/virtio-ports/*/name | cut -d/ -f5); echo garbage >/dev/$port")
    assert tried.code != 0
    assert b"busy" in tried.err.lower()
    assert await run(vm, "echo", "untouched") == Done(0, b"untouched\n")


async def test_garbage_in_the_place_of_shares_disturbs_nobody(vm: UtilityVM) -> None:
    ports = "for port in $(grep -L hvsocket /sys/class/virtio-ports/*/name | cut -d/ -f5); do"
    tried = await sh(vm, f"{ports} head -c 1000000 /dev/urandom >/dev/$port; done; echo done")
    assert tried.out == b"done\n"
    assert await run(vm, "echo", "untouched") == Done(0, b"untouched\n")
