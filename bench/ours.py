"""Our side's session: the same commands as `raw/driver.py`, answered through the library.

usage: ours.py MEMORY_MIB CPUS [IMAGES]
"""

from __future__ import annotations

import asyncio
import gc
import sys
from contextlib import AsyncExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from raw.serving import serve_beside

import utilityvm
from utilityvm.kit.trace import span

if TYPE_CHECKING:
    from utilityvm import OptionsLCOW, UtilityVM

CHUNK = 64 << 10


async def round_trip(vm: UtilityVM) -> float:
    with span("bench.trip") as measured:
        process = await vm.create_process(["/bin/busybox", "true"], stdin=False, stdout=True, stderr=False)
        assert await process.stdout.read() == b""
        assert await process.wait() == 0
        await process.close()
    return measured.us / 1e6


async def out(vm: UtilityVM, size: int) -> float:
    with span("bench.out") as measured:
        argv = ["/bin/busybox", "dd", "if=/dev/zero", "bs=64k", f"count={size // CHUNK}"]
        process = await vm.create_process(argv, stdin=False, stdout=True, stderr=False)
        left = size
        while data := await process.stdout.read(1 << 20):
            left -= len(data)
        assert left == 0
        assert await process.wait() == 0
        await process.close()
    return measured.us / 1e6


async def into(vm: UtilityVM, size: int) -> float:
    chunk = bytes(CHUNK)
    with span("bench.into") as measured:
        process = await vm.create_process(["/bin/busybox", "dd", "of=/dev/null", "bs=64k"], stdin=True, stdout=False, stderr=False)
        for _ in range(size // CHUNK):
            await process.stdin.write(chunk)
        await process.stdin.write_eof()
        assert await process.wait() == 0
        await process.close()
    return measured.us / 1e6


async def idle_memory(options: OptionsLCOW, count: int) -> float:
    """Return the MB of this process that one more idle VM takes, all but the first, whose code and buffers the others share."""
    async with AsyncExitStack() as stack:
        held = []
        for _ in range(count + 1):
            vm = await stack.enter_async_context(await utilityvm.create_lcow(options))
            await vm.start()
            process = await vm.create_process(["/bin/busybox", "true"])
            assert await process.wait() == 0
            await process.close()
            gc.collect()
            held.append(private_bytes())
    return (held[-1] - held[0]) / count / 1e6


def private_bytes() -> int:
    """Return the memory that only this process has."""
    rows = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(row.split()[1]) for row in rows if row.startswith(("Private_Clean", "Private_Dirty")))


async def scsi(vm: UtilityVM, image: Path) -> float:
    with span("bench.scsi") as measured:
        await vm.scsi.add(str(image), "/m", read_only=True)
    await vm.scsi.remove(str(image))
    return measured.us / 1e6


async def pmem(vm: UtilityVM, image: Path) -> float:
    with span("bench.pmem") as measured:
        await vm.vpmem.add(str(image))
    await vm.vpmem.remove(str(image))
    return measured.us / 1e6


images = count()


async def answer(vm: UtilityVM, command: str, number: int) -> list[float]:
    match command:
        case "scsi":
            return [await scsi(vm, Path(sys.argv[3], "0.img")) for _ in range(number)]
        case "pmem":
            return [await pmem(vm, Path(sys.argv[3], f"{next(images)}.img")) for _ in range(number)]
        case "round_trips":
            return [await round_trip(vm) for _ in range(number)]
        case "out":
            return [await out(vm, number)]
        case "in":
            return [await into(vm, number)]
        case "idle_memory":
            return [await idle_memory(vm.options, number)]
    raise ValueError(command)


async def main() -> None:
    memory, cpus = map(int, sys.argv[1:3])
    vm = await utilityvm.create_lcow(utilityvm.default_options_lcow(memory_size_in_mb=memory, processor_count=cpus))
    async with vm:
        await vm.start()
        await serve_beside(partial(answer, vm))


if __name__ == "__main__":
    asyncio.run(main())
