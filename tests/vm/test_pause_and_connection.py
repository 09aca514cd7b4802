"""Real VMs that stand still, and both kinds of guest connection."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from utilityvm import ConnectionLost, PropertyType, StateError, UtilityVM, create_lcow, default_options_lcow
from utilityvm.boot.files import BootFiles
from utilityvm.compute.ports import ExitHow
from utilityvm.vm.life import State

from .running import LIMIT, Done, line, qemu_of, run, sh

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONNECTIONS = pytest.mark.parametrize("external", [True, False], ids=["external", "internal"])
STILL = 0.5
"""Seconds for which a VM is watched standing still."""


async def create(boot_files: BootFiles, *, external: bool) -> UtilityVM:
    options = default_options_lcow(
        boot_files_path=str(boot_files.folder), memory_size_in_mb=256, processor_count=1, external_guest_connection=external
    )
    return await create_lcow(options)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[True, False], ids=["external", "internal"])
async def connected(request: pytest.FixtureRequest, boot_files: BootFiles) -> AsyncIterator[UtilityVM]:
    """A VM with a connection of each kind, which no test ends."""
    async with await create(boot_files, external=request.param) as machine:
        await machine.start()
        yield machine


def processor_time(pid: int) -> float:
    """Return the seconds that a process has used."""
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 (of the kernel)
        user, system = file.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def test_a_paused_vm_uses_no_processor_and_runs_on_where_it_was(connected: UtilityVM) -> None:
    async with asyncio.timeout(LIMIT):
        busy = await connected.create_process(["sh", "-c", "echo busy; while :; do :; done"])
        assert await line(busy) == b"busy\n"
        await connected.pause()
        assert (await connected.properties()).state == "Paused"
        pid, began = qemu_of(connected.id), time.monotonic()
        used = processor_time(pid)
        await asyncio.sleep(STILL)
        assert processor_time(pid) - used < (time.monotonic() - began) / 4
        with pytest.raises(StateError, match="cannot run a process while paused"):
            await run(connected, "true")
        await connected.resume()
        assert await busy.kill()
        assert await busy.wait() == 137
        assert await run(connected, "echo", "on") == Done(0, b"on\n")
        await busy.close()


async def test_the_guests_clock_stands_still_with_it(connected: UtilityVM) -> None:
    async with asyncio.timeout(LIMIT):
        before, began = float((await sh(connected, "cut -d' ' -f1 /proc/uptime")).out), time.monotonic()
        await connected.pause()
        await asyncio.sleep(2 * STILL)
        await connected.resume()
        after, took = float((await sh(connected, "cut -d' ' -f1 /proc/uptime")).out), time.monotonic() - began
        assert after - before < took - STILL


async def test_a_vm_tells_of_itself_and_asks_its_guest(connected: UtilityVM) -> None:
    async with asyncio.timeout(LIMIT):
        process = await connected.create_process(["sleep", "1000"])
        told = await connected.properties(PropertyType.MEMORY, PropertyType.PROCESS_LIST)
        assert (told.id, told.state, told.runtime_os_type) == (connected.id, "Running", "linux")
        assert told.guest_connection_info is not None
        assert told.memory is not None
        assert told.memory.virtual_machine_memory is not None
        memory = told.memory.virtual_machine_memory
        assert 100 << 20 < memory.available_memory * 4096 < memory.assigned_memory * 4096 <= 256 << 20
        assert [entry.process_id for entry in told.process_list] == [process.pid]
        await process.kill()
        await process.close()


async def test_the_agent_tells_what_its_threads_do_where_it_can_be_asked(connected: UtilityVM) -> None:
    told = await connected.dump_stacks()
    assert "goroutine" in told if connected.options.external_guest_connection else told == ""


async def test_a_guest_that_is_told_the_time_when_it_runs_on_knows_it(connected: UtilityVM) -> None:
    async with asyncio.timeout(LIMIT):
        await connected.pause()
        await asyncio.sleep(5 * STILL)
        await connected.resume()
        assert int((await sh(connected, "date +%s")).out) < time.time() - 4 * STILL
        await connected.pause()
        if not connected.options.external_guest_connection:
            with pytest.raises(StateError, match="without a guest connection"):
                await connected.resume(set_clock=True)
            await connected.resume()
            return
        await connected.resume(set_clock=True)
        asked = time.time()
        assert int((await sh(connected, "date +%s")).out) > asked - 3 * STILL


@CONNECTIONS
async def test_a_paused_vm_is_closed(boot_files: BootFiles, *, external: bool) -> None:
    async with asyncio.timeout(LIMIT), await create(boot_files, external=external) as vm:
        await vm.start()
        await vm.pause()
    assert (vm.state, vm.exit_error) == (State.CLOSED, None)


async def test_a_paused_vm_whose_qemu_is_killed_says_so(boot_files: BootFiles) -> None:
    async with asyncio.timeout(LIMIT), await create(boot_files, external=True) as vm:
        await vm.start()
        await vm.pause()
        os.kill(qemu_of(vm.id), signal.SIGKILL)
        assert (await vm.wait()).how is ExitHow.KILLED
        with pytest.raises(StateError, match="cannot resume while stopped"):
            await vm.resume()


async def test_without_its_guest_connection_a_vm_runs_on(boot_files: BootFiles) -> None:
    async with asyncio.timeout(LIMIT), await create(boot_files, external=True) as vm:
        await vm.start()
        process = await vm.create_process(["sh", "-c", "echo here; read word; echo $word"], stdin=True)
        assert await line(process) == b"here\n"
        await vm.close_gcs_connection()
        with pytest.raises(ConnectionLost, match="bridge closed"):
            await process.wait()
        await process.stdin.write(b"still here\n")
        assert await line(process) == b"still here\n"
        assert vm.state is State.RUNNING
        await process.close()


async def test_with_an_internal_connection_the_vms_own_end_is_told_rather_than_the_agents(boot_files: BootFiles) -> None:
    async with asyncio.timeout(LIMIT), await create(boot_files, external=False) as vm:
        await vm.start()
        process = await vm.create_process(["sh", "-c", "echo c >/proc/sysrq-trigger"])
        with pytest.raises(ConnectionLost):
            await process.wait()
        assert (await vm.wait()).how is ExitHow.PANICKED
        await process.close()
