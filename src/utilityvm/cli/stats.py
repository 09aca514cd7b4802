"""`uvm stats`: what this user's VMs use of the host, by the host's own figures."""

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING, Final

import msgspec

from utilityvm.cli.table import table
from utilityvm.cli.values import seconds

if TYPE_CHECKING:
    from utilityvm.compute.qemu.usage import Found, Usage

_HEAD: Final = ("VM", "CPU", "HOST MEMORY", "UNIQUE", "MEMORY", "CPUS", "UPTIME")
_CLEAR: Final = "\x1b[H\x1b[J"
_SECOND: Final = 10**9


class Row(msgspec.Struct, frozen=True):
    """One VM, as it was measured; `processor_percent` is of one processor, over the time since the measurement before."""

    id: str
    pid: int
    control_group: str
    processor_percent: float
    processor_ns: int
    host_memory_bytes: int
    unique_memory_bytes: int
    memory_bytes: int
    processors: int
    uptime_ns: int

    def words(self) -> tuple[str, ...]:
        """Return the row of the table."""
        sizes = (_mib(size) for size in (self.host_memory_bytes, self.unique_memory_bytes, self.memory_bytes))
        return (self.id, f"{self.processor_percent:.1f} %", *sizes, str(self.processors), _age(self.uptime_ns // _SECOND))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's command line."""
    parser.description = (
        "Print what each running VM of this user uses: processor time (100 % is one processor), memory of the host (what is shared with "
        "others by its part), what of it is nobody else's, the memory and processors that it was started with. VMs are found by their "
        "processes; nothing needs to run for it. Goes on until Ctrl-C."
    )
    parser.add_argument("--json", action="store_true", help="print JSON, a line with a list of all VMs for each measurement")
    parser.add_argument("--no-stream", action="store_true", help="measure once, over one interval, and end")
    parser.add_argument("--interval", type=seconds, default=1.0, metavar="SECONDS", help="time between measurements (default: 1)")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if sys.platform == "win32":
        from utilityvm.kit.errors import Unsupported

        raise Unsupported("uvm stats: finds VMs on Linux only", hint="from Python: vm.stats()")
    from utilityvm.compute.qemu.cgroup import Cgroups

    Cgroups().sweep()
    asyncio.run(_measure(args))
    return 0


async def _measure(args: argparse.Namespace) -> None:
    before = _now()
    while True:
        await asyncio.sleep(args.interval)
        after = _now()
        _show(rows(before, after), as_json=args.json, again=not args.no_stream)
        if args.no_stream:
            return
        before = after


def _now() -> "dict[int, tuple[Found, Usage]]":
    from utilityvm.compute.qemu.usage import find, usage_of
    from utilityvm.kit.errors import NotFound

    found: dict[int, tuple[Found, Usage]] = {}
    for vm in find():
        try:
            found[vm.pid] = vm, usage_of(vm.pid, locked=vm.memory if vm.locked else 0)
        except NotFound:  # it has just ended
            continue
    return found


def rows(before: "dict[int, tuple[Found, Usage]]", after: "dict[int, tuple[Found, Usage]]") -> list[Row]:
    """Return a row for each VM that runs now. Of one that is new, all its time is counted."""
    made: list[Row] = []
    for pid, (vm, now) in after.items():
        last = before[pid][1] if pid in before and before[pid][0].id == vm.id else None
        spent, passed = now.processor_ns - (last.processor_ns if last else 0), now.uptime_ns - (last.uptime_ns if last else 0)
        made.append(
            Row(
                id=vm.id,
                pid=pid,
                control_group=vm.group,
                processor_percent=round(100 * spent / passed, 1) if passed > 0 else 0.0,
                processor_ns=now.processor_ns,
                host_memory_bytes=now.resident,
                unique_memory_bytes=now.unique,
                memory_bytes=vm.memory,
                processors=vm.processors,
                uptime_ns=now.uptime_ns,
            )
        )
    return made


def _show(found: list[Row], *, as_json: bool, again: bool) -> None:
    if as_json:
        import msgspec

        print(msgspec.json.encode(found).decode(), flush=True)
        return
    lines = table(_HEAD, [row.words() for row in found])
    print((_CLEAR if again and sys.stdout.isatty() else "") + "\n".join(lines), flush=True)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"


def _age(whole: int) -> str:
    days, rest = divmod(whole, 86_400)
    clock = f"{rest // 3600}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{days} d {clock}" if days else clock
