"""Hundreds of VMs, one after the other and a few at a time: nothing of them is left in the process that owned them, nor on the host."""

import asyncio
import gc
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.vm.running import of_vm

from utilityvm import create_lcow, default_options_lcow

from .conftest import Record

VMS = 500
AT_A_TIME = 2
WARM_UP = 10
GROWTH = 2048
"""KiB that the second half of a campaign may add: what is kept for each VM adds up, what Python's memory finds its size by does not.

It takes memory from the kernel a MiB at a time, so less would be a matter of luck.
"""


@dataclass(frozen=True, slots=True)
class Held:
    """What this process holds; memory is in KiB."""

    fds: int
    tasks: int
    threads: int
    children: int
    memory: int


def held() -> Held:
    gc.collect()
    threads = list(Path("/proc/self/task").iterdir())
    (resident,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:")]
    return Held(
        fds=len(os.listdir("/proc/self/fd")),  # noqa: PTH208 (numbers, not paths)
        tasks=len(asyncio.all_tasks()),
        threads=len(threads),
        children=sum(len((thread / "children").read_text().split()) for thread in threads),
        memory=int(resident.split()[1]),
    )


async def life(number: int) -> None:
    """Let a VM live once; every third ends in another way."""
    async with await create_lcow(default_options_lcow(id=f"soak-{os.getpid()}-{number}", memory_size_in_mb=128, processor_count=1)) as vm:
        await vm.start()
        process = await vm.create_process(["echo", str(number)])
        assert await process.stdout.read() == b"%d\n" % number
        assert await process.wait() == 0
        match number % 3:
            case 0:
                await process.close()
            case 1:
                await vm.terminate()
            case _:
                await vm.pause()
    assert of_vm(vm.id) == []


async def lives(numbers: range) -> None:
    """A task for each would be memory of the test's own: a few take the numbers in turn."""
    rest = iter(numbers)

    async def worker() -> None:
        for number in rest:
            await life(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_A_TIME):
            group.create_task(worker())


async def test_five_hundred_vms_leave_nothing(record: Record) -> None:
    clock = asyncio.get_running_loop().time
    await lives(range(WARM_UP))
    before, begin, memory = held(), clock(), list[int]()
    for first in range(0, VMS, VMS // 4):
        memory.append(held().memory)
        await lives(range(first, first + VMS // 4))
    seconds, after = clock() - begin, held()
    measured = {"vms": VMS, "at_a_time": AT_A_TIME, "seconds": round(seconds, 1), "before": asdict(before), "after": asdict(after)}
    record("vms", {**measured, "memory_at_each_quarter": memory})
    told = f"before {before}, after {after}, at each quarter {memory}"
    assert (after.fds, after.tasks, after.threads, after.children) == (before.fds, before.tasks, before.threads, before.children), told
    assert after.memory - memory[2] <= GROWTH, told
