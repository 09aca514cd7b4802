"""Our side of clones: a template of a VM, and the library's call to the end of a first process in its clone.

usage: cloning.py MEMORY_MIB CPUS

Says `ready` when the template is saved, then answers one command a line on stdin, each with one line of JSON:

    clone N    seconds of each of N clones
    first N    the same of N clones, each as the first of its process: before QEMU 8.2 the template's memory is copied for it
    many N     seconds from the first of N clones being asked for to the end of the last one's first process; all are alive then
    acquire N  seconds in which a pool hands out each of N clones, one after another when all that are wanted are ready
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from raw.serving import serve_beside

import utilityvm
from utilityvm.kit.trace import span
from utilityvm.vm import compose

if TYPE_CHECKING:
    from utilityvm import Template, UtilityVM

READY = 4  # VMs of the pool
AT_ONCE = 4  # of many clones, that start at one time
ROUND_TRIPS = 3  # in the template before it is saved, as on the raw side


async def first_process(vm: UtilityVM) -> None:
    process = await vm.create_process(["/bin/busybox", "true"], stdin=False, stdout=True, stderr=False)
    assert await process.stdout.read() == b""
    assert await process.wait() == 0
    await process.close()


async def clone(template: Template) -> float:
    with span("bench.clone") as measured:
        vm = await template.clone()
        try:
            await vm.start()
            await first_process(vm)
        except BaseException:
            await vm.close()
            raise
    await vm.close()
    return measured.us / 1e6


async def first(template: Template) -> float:
    compose._MEMORIES.close()
    return await clone(template)


async def many(template: Template, number: int) -> float:
    turn = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with turn:
            vm = await alive.enter_async_context(await template.clone())
            await vm.start()
            await first_process(vm)

    async with AsyncExitStack() as alive:
        with span("bench.many") as measured:
            async with asyncio.TaskGroup() as starting:
                for _ in range(number):
                    starting.create_task(one())
    return measured.us / 1e6


async def acquire(template: Template, number: int) -> list[float]:
    took: list[float] = []
    async with utilityvm.Pool(template, ready=READY, max=2 * READY) as pool:
        while len(took) < number:
            while pool.stats().idle < READY:  # noqa: ASYNC110 (that it is full is told to nobody)
                await asyncio.sleep(0.01)
            with span("bench.acquire") as measured:
                vm = await pool.acquire()
            took.append(measured.us / 1e6)
            async with vm:
                await first_process(vm)
    return took


async def answer(template: Template, command: str, number: int) -> list[float]:
    match command:
        case "clone":
            return [await clone(template) for _ in range(number)]
        case "first":
            return [await first(template) for _ in range(number)]
        case "many":
            return [await many(template, number)]
        case "acquire":
            return await acquire(template, number)
    raise ValueError(command)


async def main() -> None:
    memory, cpus = map(int, sys.argv[1:3])
    options = utilityvm.default_options_lcow(id=f"bench-{os.getpid()}", is_template=True, memory_size_in_mb=memory, processor_count=cpus)
    async with await utilityvm.create_lcow(options) as vm:
        await vm.start()
        for _ in range(ROUND_TRIPS):
            await first_process(vm)
        await vm.save_as_template()
    template = await utilityvm.open_template(options.id)
    try:
        await serve_beside(partial(answer, template))
    finally:
        await template.remove()


if __name__ == "__main__":
    asyncio.run(main())
