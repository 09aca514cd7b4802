"""A VM that is used for long: many processes and much data, and nothing is left of either on the host or in the guest."""

import asyncio
from dataclasses import asdict

from tests.vm.counting import KINDS, MIB, assert_nothing_left, count, short_processes, through_cat

from utilityvm import UtilityVM

from .conftest import Record

PROCESSES = 10_000
SIZE = 1024 * MIB
WARM_UP = 1000
"""Processes until the heaps of both sides have their size: the agent's is collected first at 4 MiB."""

STEP = 2500


async def test_ten_thousand_short_processes_leave_nothing(vm: UtilityVM, record: Record) -> None:
    clock = asyncio.get_running_loop().time
    await short_processes(vm, range(WARM_UP))
    await count(vm)
    counts, begin = [await count(vm)], clock()
    for first in range(0, PROCESSES, STEP):
        await short_processes(vm, range(first, first + STEP))
        counts.append(await count(vm))
    told = {"processes": PROCESSES, "kinds": len(KINDS), "seconds": round(clock() - begin, 1)}
    record("processes", {**told, "counted_every": STEP, "counts": [asdict(one) for one in counts]})
    assert_nothing_left(counts[0], counts[-1], host_memory=2048, guest_memory=2048)


async def test_a_gigabyte_each_way_arrives_whole_and_leaves_nothing(vm: UtilityVM, record: Record) -> None:
    clock = asyncio.get_running_loop().time
    await through_cat(vm, 64 * MIB)
    await count(vm)
    before, begin = await count(vm), clock()
    sent, came = await through_cat(vm, SIZE)
    seconds, after = clock() - begin, await count(vm)
    record("stdio", {"mib_each_way": SIZE // MIB, "seconds": round(seconds, 1), "before": asdict(before), "after": asdict(after)})
    assert sent == came
    assert_nothing_left(before, after, host_memory=4096, guest_memory=4096)
