"""A pool of real virtual machines."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from utilityvm import Pool, Template, open_template, sync
from utilityvm.boot.files import BootFiles
from utilityvm.kit.ids import new_guid
from utilityvm.sync.loop import loop_thread

from .running import LIMIT, of_vm, qemu_of, sh
from .small import OLD, a_template_vm

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module", autouse=True)
def _loop() -> None:
    """Begin the process's loop thread, which stays, before descriptors are counted."""
    loop_thread()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def template(boot_files: BootFiles) -> AsyncIterator[Template]:
    name = f"test-{new_guid()}"
    async with await a_template_vm(boot_files, name) as vm:
        await vm.start()
        assert (await sh(vm, f"{OLD}; echo warm >/tmp/warm")).code == 0
        await vm.save_as_template()
    made = await open_template(name)
    yield made
    await made.remove()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not holds():
            await asyncio.sleep(0)


async def test_vms_are_handed_out_as_clones_that_know_the_time_and_others_are_made_for_them(template: Template) -> None:
    async with Pool(template, ready=2, max=3) as pool:
        assert pool.stats().idle == 2
        random = set()
        for _ in range(4):
            async with await pool.acquire(timeout=LIMIT) as vm:
                assert (await sh(vm, "cat /tmp/warm; echo used >/tmp/warm")).out == b"warm\n"
                assert abs(float((await sh(vm, "date +%s")).out) - time.time()) < 3
                random.add((await sh(vm, "cat /proc/sys/kernel/random/uuid")).out)
        assert len(random) == 4
        await until(lambda: (pool.stats().idle, pool.stats().lent) == (2, 0))


async def test_a_vm_that_is_idle_uses_no_processor(template: Template) -> None:
    async with Pool(template, ready=1, max=2) as pool:
        (idle,) = [member.there for member in pool._idle]
        before = (await idle.stats()).processor_ns
        async with await template.clone() as other:
            await other.start()
            begin = time.perf_counter()
            await sh(other, "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done")
            passed = time.perf_counter() - begin
        assert (await idle.stats()).processor_ns - before < 0.02e9 * max(1, passed)


async def test_a_vm_whose_hypervisor_is_killed_while_it_is_idle_is_replaced(template: Template) -> None:
    async with Pool(template, ready=1, max=1) as pool:
        (idle,) = [member.there for member in pool._idle]
        os.kill(qemu_of(idle.id), signal.SIGKILL)
        async with await pool.acquire(timeout=LIMIT) as vm:
            assert vm is not idle
            assert (await sh(vm, "cat /tmp/warm")).out == b"warm\n"
        assert pool.stats().lost + pool.stats().unfit == 1


@pytest.mark.parametrize("made_so_far", [None, "created", "starting"])
async def test_a_pool_is_closed_while_a_vm_is_being_made_and_no_hypervisor_is_left(template: Template, made_so_far: str | None) -> None:
    def there() -> set[str | None]:
        return {member.vm and member.vm.state.value for member in pool._members if member.state == "being made"}

    async with Pool(template, ready=1, max=3) as pool:
        await pool.acquire(timeout=LIMIT)
        await until(lambda: bool(there()))
        await until(lambda: made_so_far in there() or not there())
        ids = [member.vm.id for member in pool._members if member.vm is not None]
    assert ids
    assert [of_vm(vm_id) for vm_id in ids] == [[]] * len(ids)


async def test_a_pool_is_used_without_await(template: Template) -> None:
    def script() -> bytes:
        with sync.Pool(sync.open_template(template.id), ready=1, max=2) as pool:
            vm = pool.acquire()
            said = vm.run(["cat", "/tmp/warm"]).stdout
            pool.release(vm)
            assert vm.state == "closed"
            return said

    assert await asyncio.to_thread(script) == b"warm\n"
