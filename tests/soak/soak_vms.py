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
"""KiB that the second half of a campaign may add: Python takes a MiB at a time from the kernel, so less would be a matter of luck."""


@dataclass(frozen=True, slots=True)
class Held:
    """What this process holds: objects as Python's collector counts them, memory in KiB."""

    fds: int
    tasks: int
    threads: int
    children: int
    objects: int
    memory: int

    @property
    def countable(self) -> tuple[int, int, int, int]:
        """What must be the same before and after."""
        return self.fds, self.tasks, self.threads, self.children


def held() -> Held:
    gc.collect()
    threads = list(Path("/proc/self/task").iterdir())
    (resident,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:")]
    return Held(
        fds=len(os.listdir("/proc/self/fd")),  # noqa: PTH208 (numbers, not paths)
        tasks=len(asyncio.all_tasks()),
        threads=len(threads),
        children=sum(len((thread / "children").read_text().split()) for thread in threads),
        objects=len(gc.get_objects()),
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


def told_by_quarters(quarters: list[Held]) -> dict[str, object]:
    """What a campaign records of its beginning, its quarters and its end."""
    return {"memory_at_each_quarter": [held.memory for held in quarters], "objects_at_each_quarter": [held.objects for held in quarters]}


def assert_nothing_adds_up(quarters: list[Held], vms: int) -> None:
    """What is kept for each VM adds up in the second half of a campaign too, of which there are a beginning, three quarters and an end."""
    half, end = quarters[2], quarters[4]
    assert end.objects - half.objects < vms // 2, f"an object or more of each VM is left: {quarters}"
    assert end.memory - half.memory <= GROWTH, f"memory adds up: {quarters}"


async def test_five_hundred_vms_leave_nothing(record: Record) -> None:
    clock = asyncio.get_running_loop().time
    await lives(range(WARM_UP))
    quarters, begin = [held()], clock()
    for first in range(0, VMS, VMS // 4):
        await lives(range(first, first + VMS // 4))
        quarters.append(held())
    seconds, before, after = clock() - begin, quarters[0], quarters[4]
    measured = {"vms": VMS, "at_a_time": AT_A_TIME, "seconds": round(seconds, 1), "before": asdict(before), "after": asdict(after)}
    record("vms", {**measured, **told_by_quarters(quarters)})
    assert after.countable == before.countable
    assert_nothing_adds_up(quarters, VMS)
