"""What `soak_cgroup2` runs on a host with control groups of version 2: shares of busy programs, measured by the kernel's own clock."""

import os
import subprocess  # noqa: TID251 (programs that are busy)
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from utilityvm.compute.qemu.cgroup import Cgroups, VmGroup
from utilityvm.compute.qemu.share import Share
from utilityvm.kit.errors import Unsupported
from utilityvm.kit.ids import VmId

TOP = Path("/sys/fs/cgroup")
SECONDS = 10.0
USER = 1000
BUSY = """
import os, sys
for path in sys.argv[1:]:
    open(path, "w").write("0")
os.sched_setaffinity(0, {0})  # the kernel forgets it when a process comes into a group
print(flush=True)
while True:
    pass
"""
TICKS = os.sysconf("SC_CLK_TCK")


def used(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@contextmanager
def busy(group: VmGroup) -> Iterator[int]:
    """Within it a program is in the group that does nothing but use one processor, the first."""
    words = [sys.executable, "-c", BUSY, *group.entries]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout
            child.stdout.readline()
            assert group.pids() == {child.pid}
            yield child.pid
        finally:
            child.kill()


def measured(*pids: int) -> list[float]:
    """Return what part of a processor each process gets."""
    began, before = time.monotonic(), [used(pid) for pid in pids]
    time.sleep(SECONDS)  # noqa: TID251 (this is how long is measured)
    after, seconds = [used(pid) for pid in pids], time.monotonic() - began
    return [(last - first) / seconds for first, last in zip(before, after, strict=True)]


def shares(groups: Cgroups, who: str) -> None:
    """A limit of half a processor, weights of two to one, both changed while the programs run; nothing is left."""
    half, twice = Share(count=1, limit=50_000), Share(count=1, weight=200)
    groups.check(half)
    with ExitStack() as stack:
        one, other = (groups.make(VmId(name), half) for name in ("one", "other"))
        stack.callback(one.close)
        stack.callback(other.close)
        first = stack.enter_context(busy(one))
        (part,) = measured(first)
        print(f"{who}: a limit of 50 000 gives {part:.3f} of a processor", flush=True)
        assert 0.45 <= part <= 0.55, part
        second = stack.enter_context(busy(other))
        one.give(twice)
        other.give(Share(count=1, weight=100))
        more, less = measured(first, second)
        print(f"{who}: weights of 200 and 100 give {more / less:.2f} : 1", flush=True)
        assert 1.7 <= more / less <= 2.3, (more, less)
    assert not [path for path in TOP.glob("**/utilityvm/*") if path.is_dir()], "a group was left"


def delegated() -> None:
    """A user to whom a part of the tree is delegated, as systemd does it, has shares too; another is refused by name."""
    part = TOP / "part"
    (part / "session").mkdir(parents=True)
    for folder in (TOP, part):
        (folder / "cgroup.subtree_control").write_text("+cpu")
    for path in (part, part / "cgroup.procs", part / "cgroup.subtree_control", part / "session", part / "session" / "cgroup.procs"):
        os.chown(path, USER, USER)
    (part / "session" / "cgroup.procs").write_text("0")
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)
    shares(Cgroups(), "a user")


def refused() -> None:
    """Without such a part a user is refused by the name of what was asked for."""
    os.setresuid(USER, USER, USER)
    with pytest.raises(Unsupported, match="Weight: needs a control group") as caught:
        Cgroups().check(Share(count=1, weight=200))
    print(f"a user without: {caught.value.message}", flush=True)


def in_a_child(what: str) -> None:
    subprocess.run([sys.executable, __file__, what], check=True)


def main() -> None:
    subprocess.run(["mount", "-t", "cgroup2", "none", str(TOP)], check=True)  # noqa: S607 (as the host's init does)
    shares(Cgroups(), "root")
    groups = Cgroups()
    groups.create_group("narrow", cap=0.25)
    group = groups.make(VmId("inside"), Share(count=1, group="narrow"))
    with busy(group) as pid:
        (part,) = measured(pid)
        print(f"root: a CPU group's cap of 0.25 gives {part:.3f} of a processor", flush=True)
        assert 0.2 <= part <= 0.3, part
    group.close()
    groups.remove_group("narrow")
    in_a_child("refused")
    in_a_child("delegated")
    print("ALL OF IT HOLDS", flush=True)


if __name__ == "__main__":
    {"": main, "refused": refused, "delegated": delegated}[sys.argv[1] if len(sys.argv) > 1 else ""]()
