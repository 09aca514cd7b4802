"""What a real boot tells: the guest's log with its time, the spans of its boot, the waterfall."""

import asyncio
import json
import logging
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from utilityvm import create_lcow, default_options_lcow
from utilityvm.boot.files import BootFiles
from utilityvm.kit.trace import Recorder, Span, listen

from .running import LIMIT, run

STRETCHES = ["machine.start", "boot.kernel", "boot.init", "boot.agent", "bridge.negotiate"]


async def test_a_boot_is_told_without_gaps_and_the_guests_log_by_the_guests_clock(
    boot_files: BootFiles, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "utilityvm")
    recorder = Recorder()
    stop = listen(recorder)
    options = default_options_lcow(boot_files_path=str(boot_files.folder), memory_size_in_mb=256, processor_count=1)
    before = time.time()
    async with asyncio.timeout(LIMIT), await create_lcow(options) as vm:
        await vm.start()
        clock = float((await run(vm, "cut", "-d ", "-f1", "/proc/uptime")).out)
        asked = time.perf_counter_ns()
    stop()
    spans = {span.name: span for span in recorder.spans}
    stretches = [spans[name] for name in STRETCHES]
    assert all(before.end == after.start for before, after in pairwise(stretches))
    assert all(span.parent is spans["vm.start"] for span in stretches)
    assert measured_alike(spans["boot.kernel"], clock, asked)
    said = [record for record in caplog.records if record.name == "utilityvm.guest"]
    assert [record.getMessage().split(" uvm-id")[0] for record in said[:3]] == [
        "guest connection begins",
        "bridge connected",
        "bridge negotiated",
    ]
    for record in said:
        told = record.__dict__
        assert (told["vm_id"], told["fields"]["uvm-id"], record.created) == (vm.id, vm.id, told["vm_time"])
        assert before - 3600 < told["vm_time"] < told["received"] + 3600  # the guest's clock is the host's to the second, and drifts


def measured_alike(kernel: Span, uptime: float, asked: int) -> bool:
    """Whether the kernel's boot fits with the uptime that a program in the guest has read, less than the time of its own start later."""
    return 0 < kernel.us < (asked - kernel.start) / 1000 and uptime * 1e9 <= asked - kernel.start + 10_000_000


async def test_the_command_line_draws_the_waterfall_and_writes_it_as_json(boot_files: BootFiles, tmp_path: Path) -> None:
    file = tmp_path / "timeline.json"
    words = ["boot", "--timeline", "--timeline-json", file, "--memory", "256", "--cpus", "1", "--boot-files-path", boot_files.folder]
    uvm = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "utilityvm", *map(str, words), "--", "echo", "hi", stdout=-1, stderr=-1, stdin=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(LIMIT):
        out, err = await uvm.communicate()
    assert (uvm.returncode, out) == (0, b"hi\n"), err
    rows = err.decode().splitlines()
    rows = rows[next(number for number, row in enumerate(rows) if row.startswith("timeline of ")) :]
    assert [row[:22].rstrip() for row in rows[2:-1]] == [
        *("probe", "plan", "create", "QEMU exec", "kernel", "init", "agent", "negotiated"),
        *("first process started", "first process ended", "close"),
    ]
    assert rows[-1].startswith("kernel, init and agent are by the guest's clock, to within ")
    spans = {span["name"]: span for span in json.loads(file.read_text())}
    assert spans["vm.start"]["us"] >= sum(spans[name]["us"] for name in STRETCHES)
    assert spans["process.run"]["fields"].keys() == {"vm", "pid"}
