"""How long VMs stand still when they are forked: one that booted, a sandbox, whose VM goes on from a template, and both made for it.

usage: forking.py MEMORY_MIB CPUS

Says `ready` when all four run, each with DIRTY_MIB of random bytes in a file in its memory, then answers one command a line on stdin,
each with one line of JSON:

    KIND N    seconds of pause of each of N forks one after another: kinds are plain, forkable, sandbox and forkable_sandbox
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack

from raw.serving import serve_beside

import utilityvm

DIRTY_MIB = 50


def dirty(folder: str) -> list[str]:
    return ["sh", "-c", f"dd if=/dev/urandom of={folder}/dirty bs=1M count={DIRTY_MIB}"]


async def of_vm(vm: utilityvm.UtilityVM) -> float:
    async with await vm.fork() as forked:
        return forked.pause


async def of_sandbox(box: utilityvm.Sandbox) -> float:
    (child,) = await box.fork()
    await child.close()
    return child.stages["pause"]


async def main() -> None:
    memory, cpus = map(int, sys.argv[1:3])
    size = {"memory_size_in_mb": memory, "processor_count": cpus}
    async with AsyncExitStack() as alive:
        vms: dict[str, utilityvm.UtilityVM] = {}
        boxes: dict[str, utilityvm.Sandbox] = {}
        for forkable, plain, sandbox in ((False, "plain", "sandbox"), (True, "forkable", "forkable_sandbox")):
            options = utilityvm.default_options_lcow(forkable=forkable, **size)
            vms[plain] = vm = await alive.enter_async_context(await utilityvm.create_lcow(options))
            await vm.start()
            assert (await vm.run(["mount", "-t", "tmpfs", "tmpfs", "/mnt"])).exit_code == 0
            assert (await vm.run(dirty("/mnt"))).exit_code == 0
            made = utilityvm.Sandbox("busybox", options=size, forkable=forkable, tmpfs=("/mnt",))
            boxes[sandbox] = box = await alive.enter_async_context(made)
            assert (await box.run(*dirty("/mnt"))).exit_code == 0

        async def answer(kind: str, number: int) -> list[float]:
            return [await (of_vm(vms[kind]) if kind in vms else of_sandbox(boxes[kind])) for _ in range(number)]

        await serve_beside(answer)


asyncio.run(main())
