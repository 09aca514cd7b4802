"""Memory that stays in the host's memory."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from utilityvm.kit.errors import HostError
from utilityvm.kit.locked import LockedMemory, why_not_locked

MIB = 1 << 20


@pytest.fixture
def memory() -> Iterator[int]:
    fd = os.memfd_create("test", os.MFD_CLOEXEC)
    os.truncate(fd, 4 * MIB)
    yield fd
    os.close(fd)


def locked_kib() -> int:
    return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmLck")).split()[1])


async def test_all_of_it_is_there_and_locked_until_it_is_closed(memory: int) -> None:
    before = locked_kib()
    held = LockedMemory(memory, 4 * MIB)
    assert os.fstat(memory).st_blocks == 0
    await held.lock()
    assert os.fstat(memory).st_blocks * 512 == 4 * MIB
    assert locked_kib() - before == 4096
    held.close()
    assert locked_kib() == before
    held.close()


async def test_what_the_kernel_refuses_is_told(memory: int) -> None:
    os.truncate(memory, 4096)
    held = LockedMemory(memory, 4096)
    os.truncate(memory, 0)  # so that there is nothing to be locked
    with pytest.raises(HostError, match="cannot lock 0 MiB of memory: "):
        await held.lock()
    held.close()


def proc(folder: Path, *, capability: bool = False, first: bool = True, locked: int = 0) -> Path:
    (folder / "status").write_text(f"Name:\tx\nVmLck:\t{locked} kB\nCapEff:\t{1 << 14 if capability else 0:016x}\n")
    (folder / "uid_map").write_text(f"0 0 {4294967295 if first else 1}\n")
    return folder


def test_a_process_without_the_right_is_bound_by_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(4 * MIB, 8 * MIB)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: limits.append(wanted))
    refusal = why_not_locked(8 * MIB + 1, proc(tmp_path))
    assert refusal == "this process may lock 8192 KiB (RLIMIT_MEMLOCK), of which 0 are locked already"
    assert "of which 4096 are" in why_not_locked(5 * MIB, proc(tmp_path, locked=4096))
    assert "may lock 8192" in why_not_locked(9 * MIB, proc(tmp_path, capability=True, first=False))
    assert len(limits) == 1
    assert why_not_locked(8 * MIB, proc(tmp_path)) == ""
    assert limits[-1] == (8 * MIB, 8 * MIB)
    assert why_not_locked(1 << 40, proc(tmp_path, capability=True)) == ""
