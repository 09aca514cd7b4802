"""Shares of the host's processors, measured: what the kernel says a VM's QEMU used."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from tests.pidfds import all_ended

from utilityvm import Process, UtilityVM, create_lcow, default_options_lcow
from utilityvm.boot.files import BootFiles
from utilityvm.compute.qemu.cgroup import Cgroups
from utilityvm.compute.qemu.share import Share
from utilityvm.kit.errors import NotFound, Unsupported
from utilityvm.kit.proc import run_tool
from utilityvm.schema.requests import ProcessorLimits

from .running import LIMIT, of_vm, qemu_of, run

WINDOW = 3.0  # seconds that a measurement takes
SPIN = ("sh", "-c", "echo spinning; while :; do :; done")
TICK = os.sysconf("SC_CLK_TCK")


def lacks() -> str:
    try:
        Cgroups().check(Share(count=1, weight=100))
    except Unsupported as error:
        return error.message
    return ""


LACKS = lacks()
needs_groups = pytest.mark.skipif(bool(LACKS), reason=LACKS)


@pytest.fixture
def before_others() -> Iterator[None]:
    """Let VMs with a share have it whatever else this host does: what is measured are bounds, not a busy host's leftovers."""
    folder = Path(Cgroups()._trees()[0].ours)
    file = next(file for file in (folder / "cpu.shares", folder / "cpu.weight") if file.exists())
    usual = file.read_text()
    file.write_text("262144" if file.name == "cpu.shares" else "10000")
    yield
    file.write_text(usual)


@asynccontextmanager
async def busy(boot_files: BootFiles, **options: object) -> AsyncIterator[UtilityVM]:
    """A VM with one processor that never rests."""
    wanted = default_options_lcow(boot_files_path=str(boot_files.folder), memory_size_in_mb=256, processor_count=1, **options)
    async with await create_lcow(wanted) as vm:
        await vm.start()
        process: Process = await vm.create_process(SPIN)
        await process.stdout.read(1)
        yield vm


def used(vm: UtilityVM) -> float:
    """Return the seconds of processor time that the VM's QEMU has used."""
    fields = Path(f"/proc/{qemu_of(vm.id)}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


async def measured(*vms: UtilityVM) -> list[float]:
    """Return the share of a processor that each used over a while."""
    begin, before = time.monotonic(), [used(vm) for vm in vms]
    await asyncio.sleep(WINDOW)
    after = [used(vm) for vm in vms]
    return [(last - first) / (time.monotonic() - begin) for first, last in zip(before, after, strict=True)]


def groups_of(vm_id: str) -> list[Path]:
    """Return the VM's control groups in the hierarchy that has processors' time."""
    return list(Cgroups()._trees()[0].ours.glob(f"**/{vm_id}"))


@needs_groups
@pytest.mark.usefixtures("before_others")
async def test_a_limit_of_half_gives_half_a_processor_also_when_it_is_changed(boot_files: BootFiles) -> None:
    async with busy(boot_files, processor_limit=50_000) as vm:
        (half,) = await measured(vm)
        await vm.update_cpu_limits(ProcessorLimits(limit=25_000))
        (quarter,) = await measured(vm)
        await vm.update_cpu_limits(ProcessorLimits())
        (whole,) = await measured(vm)
    print(f"limit 50 000: {half:.3f}, 25 000: {quarter:.3f}, none: {whole:.3f} of a processor")
    assert half == pytest.approx(0.5, abs=0.05)
    assert quarter == pytest.approx(0.25, abs=0.05)
    assert whole > 0.7
    assert groups_of(vm.id) == []


@needs_groups
@pytest.mark.usefixtures("before_others")
async def test_a_weight_of_200_beside_100_gives_two_to_one_also_when_they_are_changed(boot_files: BootFiles) -> None:
    cgroups = Cgroups()
    core = max(os.sched_getaffinity(0))
    cgroups.create_group("uvm-test-core", affinity=str(core))
    try:
        async with AsyncExitStack() as stack:
            heavy, light = [
                await stack.enter_async_context(busy(boot_files, cpu_group_id="UVM-test-core", processor_weight=weight))
                for weight in (200, 100)
            ]
            first = await measured(heavy, light)
            await heavy.update_cpu_limits(ProcessorLimits(weight=100))
            await light.update_cpu_limits(ProcessorLimits(weight=300))
            second = await measured(heavy, light)
            (group,) = [group for group in cgroups.groups() if group.name == "uvm-test-core"]
            assert set(group.vms) == {heavy.id, light.id}
            affinity = {os.sched_getaffinity(qemu_of(vm.id)) == {core} for vm in (heavy, light)}
    finally:
        cgroups.remove_group("uvm-test-core")
    print(f"200 beside 100: {first[0] / first[1]:.2f} to one; 100 beside 300: one to {second[1] / second[0]:.2f}")
    assert affinity == {True}
    assert first[0] / first[1] == pytest.approx(2, rel=0.15)
    assert second[1] / second[0] == pytest.approx(3, rel=0.15)


@needs_groups
async def test_a_running_vm_joins_a_cpu_group_and_leaves_it(boot_files: BootFiles) -> None:
    cgroups, before = Cgroups(), os.sched_getaffinity(0)
    cgroups.create_group("uvm-test-join", cap=1, affinity=str(min(before)))
    try:
        async with busy(boot_files) as vm:
            await _joins_and_leaves(vm, before)
            left = groups_of(vm.id)
        assert left[0].name == vm.id
        assert groups_of(vm.id) == []
    finally:
        cgroups.remove_group("uvm-test-join")


async def _joins_and_leaves(vm: UtilityVM, before: set[int]) -> None:
    assert groups_of(vm.id) == []
    with pytest.raises(NotFound, match="'uvm-test-none'"):
        await vm.set_cpu_group("uvm-test-none")
    assert groups_of(vm.id) == []
    await vm.set_cpu_group("uvm-test-join")
    (group,) = groups_of(vm.id)
    assert group.parent.name == "@uvm-test-join"
    assert {*of_vm(vm.id)} <= {int(word) for word in (group / "cgroup.procs").read_text().split()}
    assert os.sched_getaffinity(qemu_of(vm.id)) == {min(before)}
    await vm.release_cpu_group()
    assert [group.parent.name for group in groups_of(vm.id)] == ["utilityvm"]
    assert os.sched_getaffinity(qemu_of(vm.id)) == before
    assert (await run(vm, "true")).code == 0


@needs_groups
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("limits", "said"),
    [(ProcessorLimits(reservation=5), "Reservation 5"), (ProcessorLimits(maximum_frequency_mhz=3000), "MaximumFrequencyMHz 3000")],
)
async def test_what_no_control_group_can_do_is_refused_by_name(vm: UtilityVM, limits: ProcessorLimits, said: str) -> None:
    with pytest.raises(Unsupported, match=said):
        await vm.update_cpu_limits(limits)


@needs_groups
async def test_an_unknown_cpu_group_is_refused_before_anything_starts(boot_files: BootFiles) -> None:
    options = default_options_lcow(boot_files_path=str(boot_files.folder), cpu_group_id="uvm-test-nobody", id="uvm-test-refused")
    with pytest.raises(NotFound, match="'uvm-test-nobody'"):
        await create_lcow(options)
    assert of_vm("uvm-test-refused") == []


@needs_groups
async def test_the_group_of_a_killed_owner_is_swept_by_the_next_command_and_a_running_vm_s_stays(boot_files: BootFiles) -> None:
    words = ["-m", "utilityvm", "boot", "--memory", "256", "--cpus", "1", "--processor-weight", "100", "--id", "uvm-test-orphan"]
    options = default_options_lcow(boot_files_path=str(boot_files.folder), memory_size_in_mb=256, processor_count=1, processor_weight=100)
    async with await create_lcow(options) as other:
        await other.start()
        owner = await asyncio.create_subprocess_exec(
            *(sys.executable, *words, "--", "sh", "-c", "echo up; exec sleep 600"), stdout=asyncio.subprocess.PIPE
        )
        assert owner.stdout is not None
        async with asyncio.timeout(LIMIT):
            assert await owner.stdout.readline() == b"up\n"
        qemu = os.pidfd_open(qemu_of("uvm-test-orphan"))
        os.kill(owner.pid, signal.SIGKILL)
        await owner.wait()
        assert len(groups_of("uvm-test-orphan")) == 1
        await all_ended([qemu])
        run_tool([sys.executable, "-m", "utilityvm", "cpugroup", "list"], within=LIMIT)
        assert groups_of("uvm-test-orphan") == []
        assert len(groups_of(other.id)) == 1
    assert groups_of(other.id) == []


@pytest.mark.skipif(not LACKS, reason="this user may make control groups")
async def test_without_the_right_a_share_is_refused_by_name_before_anything_starts(boot_files: BootFiles) -> None:
    for option, field in (("processor_limit", "Limit"), ("processor_weight", "Weight")):
        options = default_options_lcow(boot_files_path=str(boot_files.folder), id="uvm-test-refused", **{option: 5000})
        with pytest.raises(Unsupported, match=f"{field}: needs a control group"):
            await create_lcow(options)
    options = default_options_lcow(boot_files_path=str(boot_files.folder), id="uvm-test-refused", cpu_group_id="any")
    with pytest.raises(Unsupported, match="CpuGroup: needs a control group"):
        await create_lcow(options)
    assert of_vm("uvm-test-refused") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="the one before shows it")
async def test_another_user_is_refused_by_name() -> None:
    check = "from utilityvm.compute.qemu.cgroup import *; Cgroups().make(VmId('x'), Share(count=1, limit=5))"
    words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", sys.executable, "-c", check]
    said = run_tool(["sh", "-c", '"$@" 2>&1', "sh", *words], within=LIMIT, codes=(1,))
    assert "Unsupported: Limit: needs a control group, and this user (uid 65534) may change none with the cpu controller" in said
