"""Many clones of one template: a thousand that go through a pool leave nothing, idle ones cost no processor, hundreds alive all answer."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import asdict
from statistics import median

import pytest_asyncio
from tests.vm.running import of_vm, qemu_of

from utilityvm import Pool, Template, create_lcow, default_options_lcow, open_template
from utilityvm.vm.uvm import UtilityVM

from .conftest import Record
from .soak_vms import Held, assert_nothing_adds_up, held, told_by_quarters

THROUGH_A_POOL = 1000
WARM_UP = 12
IDLE = 20
IDLE_SECONDS = 30.0
ALIVE = 300


@pytest_asyncio.fixture
async def template() -> AsyncIterator[Template]:
    name = f"soak-{os.getpid()}"
    async with await create_lcow(default_options_lcow(id=name, is_template=True, memory_size_in_mb=256, processor_count=1)) as vm:
        await vm.start()
        await vm.run(["true"])
        await vm.save_as_template()
    made = await open_template(name)
    yield made
    await made.remove()


async def use(pool: Pool, number: int) -> None:
    """Let a VM of the pool live once; each of four ends in another way."""
    vm = await pool.acquire(timeout=120)
    assert (await vm.run(["echo", str(number)])).stdout == b"%d\n" % number
    match number % 4:
        case 0:
            await vm.close()
        case 1:
            await vm.terminate()
            await pool.release(vm)
        case 2:
            os.kill(qemu_of(vm.id), signal.SIGKILL)
            await vm.wait()
            await pool.release(vm)
        case _:
            await pool.release(vm)
    assert of_vm(vm.id) == []


async def test_a_thousand_vms_go_through_a_pool_and_leave_nothing(template: Template, record: Record) -> None:
    clock = asyncio.get_running_loop().time
    async with Pool(template, ready=2, max=4) as pool:
        for number in range(WARM_UP):
            await use(pool, number)
    before, begin, quarters = held(), clock(), list[Held]()
    async with Pool(template, ready=2, max=4) as pool:
        for number in range(THROUGH_A_POOL):
            if number % (THROUGH_A_POOL // 4) == 0:
                quarters.append(held())
            await use(pool, number)
        quarters.append(held())
        told = pool.stats()
    seconds, after = clock() - begin, held()
    assert (told.acquired, told.failed, told.lost, told.unfit) == (THROUGH_A_POOL, 0, 0, 0)
    measured = {"vms": THROUGH_A_POOL, "seconds": round(seconds, 1), "before": asdict(before), "after": asdict(after)}
    record("pools", {**measured, **told_by_quarters(quarters)})
    assert after.countable == before.countable
    assert_nothing_adds_up(quarters, THROUGH_A_POOL)


async def test_a_pool_that_nobody_asks_uses_less_than_two_percent_of_a_processor(template: Template, record: Record) -> None:
    async with Pool(template, ready=IDLE, max=IDLE) as pool:
        vms = [member.there for member in pool._idle]
        before, ours, begin = await processor(vms), time.process_time(), time.monotonic()
        await asyncio.sleep(IDLE_SECONDS)
        spent, passed = await processor(vms) - before, time.monotonic() - begin
        share = (spent / 1e9 + time.process_time() - ours) / passed
    record("pool-idle", {"vms": IDLE, "seconds": IDLE_SECONDS, "share_of_a_processor": round(share, 4)})
    assert share < 0.02


async def processor(vms: list[UtilityVM]) -> int:
    return sum([(await vm.stats()).processor_ns for vm in vms])


async def test_hundreds_of_clones_are_alive_and_each_answers(template: Template, record: Record) -> None:
    async with AsyncExitStack() as alive:
        begin, vms, before = time.monotonic(), list[UtilityVM](), held()
        for _ in range(ALIVE):
            vm = await alive.enter_async_context(await template.clone())
            await vm.start()
            vms.append(vm)
        started, ours, took = time.monotonic() - begin, held().memory - before.memory, list[float]()
        for vm in vms:
            begin = time.monotonic()
            assert (await vm.run(["true"])).exit_code == 0
            took.append(time.monotonic() - begin)
        told = [await vm.stats() for vm in vms]
    measured = {"vms": ALIVE, "started_seconds": round(started, 1), "median_answer": median(took), "longest_answer": max(took)}
    sizes = {"median_working_set": median(each.working_set for each in told), "median_unique": median(each.unique or 0 for each in told)}
    record("clones-alive", {**measured, **sizes, "ours": ours * 1024 / ALIVE})
    assert max(took) <= 2
