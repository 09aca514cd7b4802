"""What a host and a guest hold, counted before and after work of which nothing may be left; and that work."""

import asyncio
import gc
import hashlib
import os
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from utilityvm import GuestError, UtilityVM

CHUNK = 256 * 1024
MIB = 1 << 20

# The runtime of the agent's language opens a poller of its own, an eventpoll and a pipe, once and whenever it likes.
# Processes end while they are counted: awk would give up at the first that is not there any more.
_IN_GUEST = """
set -- /proc/[0-9]*/status; cat "$@" 2>/dev/null >/tmp/counted
echo $(awk '$1 == "Name:" { name = $2 } $1 == "PPid:" && $2 != 2 { print name }' /tmp/counted); rm /tmp/counted
grep -l '^State:.Z' /proc/[0-9]*/status | wc -l
ls -l /proc/1/fd | awk '/ -> / { n++ } /eventpoll/ { pollers++ } END { print n - (pollers > 1 ? 3 : 0) }'
awk '$1 == "VmRSS:" { print $2 }' /proc/1/status
awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo
"""


@dataclass(frozen=True, slots=True)
class Count:
    """Memory is in KiB. `guest_processes` are those that are not the kernel's, by name; `guest_fds` and `guest_agent` are PID 1's."""

    host_fds: int
    host_tasks: int
    host_threads: int
    host_children: int
    guest_processes: str
    guest_zombies: int
    guest_fds: int
    host_memory: int
    guest_agent: int
    guest_available: int


async def count(vm: UtilityVM) -> Count:
    """Count what we and the guest of `vm` hold, the counting's own process included."""
    told = await vm.run(["sh", "-c", _IN_GUEST])
    gc.collect()
    names, *numbers = told.stdout.decode().splitlines()
    return _counted(" ".join(sorted(names.split())), *map(int, numbers))


def _counted(processes: str, zombies: int, fds: int, agent: int, available: int) -> Count:
    threads = list(Path("/proc/self/task").iterdir())
    return Count(
        host_fds=len(os.listdir("/proc/self/fd")),  # noqa: PTH208 (numbers, not paths)
        host_tasks=len(asyncio.all_tasks()),
        host_threads=len(threads),
        host_children=sum(len((thread / "children").read_text().split()) for thread in threads),
        guest_processes=processes,
        guest_zombies=zombies,
        guest_fds=fds,
        host_memory=_resident(),
        guest_agent=agent,
        guest_available=available,
    )


def _resident() -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1])


def assert_nothing_left(before: Count, after: Count, *, host_memory: int, guest_memory: int) -> None:
    """Fail unless all that can be counted is as it was, and memory grew by no more than so many KiB."""
    told = f"\nbefore {before}\nafter  {after}"
    kept = {name: number for name, number in asdict(after).items() if number != getattr(before, name)}
    assert not kept.keys() - {"host_memory", "guest_agent", "guest_available"}, told
    assert after.host_memory - before.host_memory <= host_memory, told
    assert after.guest_agent - before.guest_agent <= guest_memory, told
    assert before.guest_available - after.guest_available <= guest_memory, told


# -- short processes ----------------------------------------------------------------------------------------------------


async def _plain(vm: UtilityVM, number: int) -> None:
    process = await vm.create_process(["sh", "-c", f"echo {number}; exit {number % 256}"])
    assert await process.stdout.read() == b"%d\n" % number
    assert await process.wait() == number % 256
    await process.close()


async def _fed(vm: UtilityVM, number: int) -> None:
    done = await vm.run("cat", input=b"%d" % number)
    assert (done.exit_code, done.stdout) == (0, b"%d" % number)


async def _terminal(vm: UtilityVM, number: int) -> None:
    process = await vm.create_process(["echo", str(number)], stdin=True, console_size=(24, 80))
    assert await process.stdout.read() == b"%d\r\n" % number
    assert await process.wait() == 0
    await process.close()


async def _killed(vm: UtilityVM, _number: int) -> None:
    process = await vm.create_process(["sleep", "1000"], stdin=True, user="nobody")
    assert await process.kill(15)
    assert await process.wait() == 143
    await process.close()


async def _never_closed(vm: UtilityVM, _number: int) -> None:
    process = await vm.create_process(["true"], stdin=True)
    assert await process.wait() == 0


async def _missing(vm: UtilityVM, number: int) -> None:
    with pytest.raises(GuestError):
        await vm.run([f"/no/such/program-{number}"])


KINDS: tuple[Callable[[UtilityVM, int], Awaitable[None]], ...] = (_plain, _fed, _terminal, _killed, _never_closed, _missing)


async def short_processes(vm: UtilityVM, numbers: range) -> None:
    """Run a process of each kind in turn, one after the other."""
    for number in numbers:
        await KINDS[number % len(KINDS)](vm, number)


# -- streams ------------------------------------------------------------------------------------------------------------


async def through_cat(vm: UtilityVM, size: int) -> tuple[str, str]:
    """Send `size` bytes through a program and back, both at the same time; return the digests of what was sent and what came."""
    process = await vm.create_process(["cat"], stdin=True)
    sent, came = hashlib.sha256(), hashlib.sha256()
    piece = os.urandom(CHUNK - 8)

    async def feed() -> None:
        for number in range(size // CHUNK):  # no two alike: none may be lost, doubled or moved
            data = number.to_bytes(8) + piece
            sent.update(data)
            await process.stdin.write(data)
        await process.stdin.write_eof()

    async with asyncio.TaskGroup() as group:
        group.create_task(feed())
        while data := await process.stdout.read(MIB):
            came.update(data)
    assert await process.wait() == 0
    await process.close()
    return sent.hexdigest(), came.hexdigest()
