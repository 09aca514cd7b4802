"""What the kernel tells of a QEMU, read from a /proc of ordinary files."""

import os
from pathlib import Path

import pytest

from utilityvm.cli.stats import rows
from utilityvm.compute.qemu.usage import Found, Usage, family, find, qemu_below, storage_of, usage_of
from utilityvm.kit.errors import HostError, NotFound
from utilityvm.schema.statistics import StorageStats

ARGV = ["/usr/bin/qemu-system-x86_64", "-name", "vm-1", "-smp", "3", "-m", "512M,maxmem=2G"]
PORT = "virtserialport,chardev=sockets,name=org.utilityvm.hvsocket"
ROLLUP = "55d0-7ffd ---p 00000000 00:00 0 [rollup]\nRss: 900 kB\nPss: 700 kB\nPrivate_Clean: 100 kB\nPrivate_Dirty: 400 kB\n"


def process(proc: Path, pid: int, argv: list[str], *, children: str = "", group: str = "/") -> None:
    folder = proc / str(pid)
    (folder / "task" / str(pid)).mkdir(parents=True)
    (folder / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in argv))
    (folder / "cgroup").write_text(f"9:pids:/\n1:cpu:{group}\n")
    (folder / "task" / str(pid) / "children").write_text(children)
    (folder / "smaps_rollup").write_text(ROLLUP)
    tick = os.sysconf("SC_CLK_TCK")
    fields = ["S", *["0"] * 10, str(2 * tick), str(tick), *["0"] * 6, str(50 * tick)]
    (folder / "stat").write_text(f"{pid} (a ) name) {' '.join(fields)}\n")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "uptime").write_text("60.00 1.00\n")
    process(tmp_path, 10, ["setpriv", "--", *ARGV, "-device", PORT], children="11 ")
    process(tmp_path, 11, ["bwrap", "--", *ARGV, "-device", PORT], children="12 ")
    process(tmp_path, 12, [*ARGV, "-device", PORT], group="/a/utilityvm/@g/vm-1")
    process(tmp_path, 20, ["/usr/bin/qemu-system-x86_64", "-name", "somebody-else", "-m", "1G"])
    process(tmp_path, 30, [])
    return tmp_path


def test_vms_are_found_by_their_qemu_and_by_nothing_around_it(proc: Path) -> None:
    assert find(proc) == [Found("vm-1", 12, 3, 512 << 20, False, "/a/utilityvm/@g/vm-1")]


def test_memory_that_its_owner_has_locked_is_told(proc: Path) -> None:
    process(proc, 40, [*ARGV, "-object", "memory-backend-file,id=ram0,prealloc=on", "-device", PORT])
    assert [(found.pid, found.locked, found.group) for found in find(proc)] == [(12, False, "/a/utilityvm/@g/vm-1"), (40, True, "")]


def test_what_was_spawned_leads_to_qemu(proc: Path) -> None:
    assert family(10, proc) == {10, 11, 12}
    assert qemu_below(10, proc) == 12
    with pytest.raises(NotFound, match="process 20: no QEMU runs below it"):
        qemu_below(20, proc)
    assert family(99, proc) == set()


def test_the_kernels_figures_are_told_in_nanoseconds_and_bytes(proc: Path) -> None:
    assert usage_of(12, proc=proc) == Usage(3 * 10**9, 10 * 10**9, 700 << 10, 500 << 10)
    assert usage_of(12, locked=8 << 10, proc=proc) == Usage(3 * 10**9, 10 * 10**9, 704 << 10, 508 << 10)
    with pytest.raises(NotFound, match="process 99"):
        usage_of(99, proc=proc)


def test_all_disks_are_added_up_and_what_is_no_disk_is_not() -> None:
    def entry(number: int, qdev: str) -> dict[str, object]:
        stats = {"rd_operations": number, "rd_bytes": 10 * number, "wr_operations": 2 * number, "wr_bytes": 20 * number, "other": 7}
        return {"stats": stats, "qdev": qdev, "node-name": "n"}

    told = storage_of([entry(1, "/machine/a"), entry(2, "/machine/b"), {**entry(4, ""), "parent": {}}])
    assert told == StorageStats(read_count_normalized=3, read_size_bytes=30, write_count_normalized=6, write_size_bytes=60)
    assert storage_of([]) == StorageStats()
    with pytest.raises(HostError, match="query-blockstats"):
        storage_of({"no": "list"})


def test_a_row_has_the_share_of_the_time_between_two_measurements() -> None:
    found = Found("vm", 1, 2, 1 << 30, False, "")
    second = 10**9
    before = {1: (found, Usage(5 * second, 10 * second, 0, 0)), 3: (found, Usage(0, 0, 0, 0))}
    after = {1: (found, Usage(6 * second, 14 * second, 3 << 20, 1 << 20)), 2: (found, Usage(second, 2 * second, 0, 0))}
    one, new = rows(before, after)
    assert (one.processor_percent, new.processor_percent) == (25.0, 50.0)
    assert one.words() == ("vm", "25.0 %", "3.0 MiB", "1.0 MiB", "1024.0 MiB", "2", "0:00:14")
