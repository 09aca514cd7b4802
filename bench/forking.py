"""How long VMs stand still when they are forked: one that booted, one that goes on from a template (as sandboxes'
do), and both made for it.

usage: forking.py MEMORY_MIB CPUS

Says `ready` when all four run, each with DIRTY_MIB of random bytes in a file in its memory, then answers one command a line on stdin,
each with one line of JSON:

    KIND N    seconds of pause of each of N forks one after another: kinds are plain, forkable, clone and forkable_clone
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack

import utilityvm

DIRTY_MIB = 50


async def warmed(vm: utilityvm.UtilityVM) -> utilityvm.UtilityVM:
    await vm.start()
    write = f"mount -t tmpfs -o size={DIRTY_MIB + 1}m t /mnt; dd if=/dev/urandom of=/mnt/dirty bs=1M count={DIRTY_MIB}"
    assert (await vm.run(["sh", "-c", write])).exit_code == 0
    return vm


async def pauses(vm: utilityvm.UtilityVM, number: int) -> list[float]:
    took: list[float] = []
    for _ in range(number):
        async with await vm.fork() as forked:
            took.append(forked.pause)
    return took


async def main() -> None:
    memory, cpus = map(int, sys.argv[1:3])
    size = {"memory_size_in_mb": memory, "processor_count": cpus}
    of_boot = utilityvm.default_options_lcow(id=f"bench-{os.getpid()}", is_template=True, **size)
    async with await utilityvm.create_lcow(of_boot) as vm:
        await vm.start()
        await vm.save_as_template()
    template = await utilityvm.open_template(of_boot.id)
    try:
        async with AsyncExitStack() as alive:
            vms: dict[str, utilityvm.UtilityVM] = {}
            for forkable, plain, clone in ((False, "plain", "clone"), (True, "forkable", "forkable_clone")):
                options = utilityvm.default_options_lcow(forkable=forkable, **size)
                for kind, made in ((plain, utilityvm.create_lcow(options)), (clone, template.clone(forkable=forkable))):
                    vms[kind] = await warmed(await alive.enter_async_context(await made))
            print("ready", flush=True)
            while line := await asyncio.to_thread(sys.stdin.readline):
                kind, number = line.split()
                print(json.dumps(await pauses(vms[kind], int(number))), flush=True)
    finally:
        await template.remove()


asyncio.run(main())
