"""Children: their ends, their last words, and that none outlives its owner."""

import asyncio
import os
import random
import signal
import sys
import textwrap
import time
from pathlib import Path

import pytest

from utilityvm.kit.child import OUTPUT_KEPT, Child, Tail
from utilityvm.kit.enclosure import OPEN, Enclosure
from utilityvm.kit.errors import NotFound

NAMESPACE = Enclosure(setpriv=("--no-new-privs",), unshare=("--user", "--map-root-user", "--keep-caps"))
JAIL = Enclosure(unshare=NAMESPACE.unshare, inside=("bwrap", "--unshare-pid", "--die-with-parent", "--dev-bind", "/", "/", "--"))
AROUND = pytest.mark.parametrize("around", [OPEN, NAMESPACE, JAIL], ids=["open", "namespace", "jail"])


async def ended(child: Child) -> int:
    async with asyncio.timeout(10):
        return await child.wait()


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", -15), ("kill -KILL $$", -9)])
@pytest.mark.parametrize("around", [OPEN, JAIL], ids=["open", "jail"])
async def test_the_code_is_how_it_ended(script: str, code: int, around: Enclosure) -> None:
    child = Child(["sh", "-c", script], enclosure=around)
    assert await ended(child) == code
    assert child.code == code


async def test_many_may_wait() -> None:
    child = Child(["sh", "-c", "exit 3"])
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(ended(child)) for _ in range(3)]
    assert [task.result() for task in waiting] == [3, 3, 3]


async def test_kill_ends_it_and_again_does_nothing() -> None:
    child = Child(["sleep", "60"])
    assert child.code is None
    child.kill()
    assert await ended(child) == -signal.SIGKILL
    child.kill()


def below(pid: int) -> list[int]:
    """Return the processes below `pid`, the deepest last."""
    children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [found for child in children for found in (child, *below(child))]


async def test_it_is_in_its_groups_before_it_is_anything_else(tmp_path: Path) -> None:
    files = [tmp_path / "first group", tmp_path / "second"]
    child = Child(["cat", *map(str, files)], enclosure=Enclosure(groups=tuple(map(str, files))))
    assert await ended(child) == 0
    assert child.output.data == b"0\n0\n"


async def test_what_cannot_enter_its_group_does_not_run(tmp_path: Path) -> None:
    child = Child(["echo", "ran"], enclosure=Enclosure(groups=(str(tmp_path / "missing/cgroup.procs"),)))
    assert await ended(child) != 0
    assert b"ran" not in child.output.data
    assert b"missing/cgroup.procs" in child.output.data


@AROUND
async def test_nothing_is_left_of_a_killed_child_when_its_end_is_heard_of(around: Enclosure) -> None:
    reading, writing = os.pipe()
    child = Child(["sh", "-c", f"echo >/proc/self/fd/{writing}; exec sleep 60"], pass_fds=[writing], enclosure=around)
    os.close(writing)
    assert await asyncio.to_thread(os.read, reading, 1) == b"\n"
    os.close(reading)
    pids = [child.pid, *below(child.pid)]
    assert len(pids) == {OPEN: 1, NAMESPACE: 2, JAIL: 4}[around]
    child.kill()
    assert await ended(child) == -signal.SIGKILL
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]  # noqa: ASYNC240


@AROUND
async def test_a_child_killed_at_any_moment_of_its_start_is_gone_or_goes(around: Enclosure) -> None:
    mark = f"2000.{os.getpid()}"
    for moment in range(25):
        child = Child(["sleep", mark], enclosure=around)
        await asyncio.sleep(moment / 1000)
        child.kill()
        assert await ended(child) == -signal.SIGKILL
    await gone(mark, "after they were killed")


async def test_a_namespace_goes_with_what_was_spawned_whoever_kills_it() -> None:
    mark = f"3000.{os.getpid()}"
    child = Child(["sleep", mark], enclosure=JAIL)
    while len(below(child.pid)) < 3:
        await asyncio.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    assert await ended(child) == -signal.SIGKILL
    await gone(mark, "after what was spawned was killed")


async def test_what_comes_first_is_done_or_the_child_does_not_run() -> None:
    child = Child(["sh", "-c", "ulimit -c; ulimit -n"], enclosure=Enclosure(first=("ulimit -c 0", "ulimit -n 99")))
    assert (await ended(child), child.output.text(2)) == (0, "0\n99")
    child = Child(["echo", "ran"], enclosure=Enclosure(first=("false",)))
    assert (await ended(child), child.output.text(1)) == (1, "")


async def test_its_words_are_kept_and_bounded() -> None:
    child = Child(["sh", "-c", "echo out; echo err >&2; exit 1"])
    await ended(child)
    assert child.output.text(5) == "out\nerr"
    child = Child(["sh", "-c", "yes 0123456789 | head -c 1000000; echo; echo the end"])
    await ended(child)
    assert len(child.output.data) == OUTPUT_KEPT
    assert child.output.text(1) == "the end"


async def test_its_output_may_go_elsewhere_and_its_errors_are_kept(tmp_path: Path) -> None:
    with (tmp_path / "output").open("wb") as file:
        child = Child(["sh", "-c", "echo out; echo err >&2"], stdout=file.fileno())
        assert await ended(child) == 0
    assert (child.output.text(5), (tmp_path / "output").read_text()) == ("err", "out\n")


async def test_a_grandchild_that_keeps_the_output_open_delays_nothing(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    child = Child(["sh", "-c", f"sleep 60 & echo $! > {pid_file}; echo words"])
    assert await ended(child) == 0
    assert child.output.text(1) == "words"
    os.kill(int(pid_file.read_text()), signal.SIGKILL)


async def test_it_reads_nothing_and_has_a_session_of_its_own() -> None:
    child = Child(["sh", "-c", "cat; cut -d' ' -f6 /proc/$$/stat; echo $$"])
    await ended(child)
    session, pid = child.output.text(2).splitlines()
    assert session == pid == str(child.pid)


async def test_it_gets_the_descriptors_that_are_passed_and_no_others() -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    child = Child(["sh", "-c", f"echo hello > /proc/self/fd/{writing}; ls /proc/self/fd | tr '\\n' ' '"], pass_fds=[writing])
    await ended(child)
    os.close(writing)
    with os.fdopen(reading) as file:
        assert file.read() == "hello\n"
    assert {int(fd) for fd in child.output.text(1).split()} - {0, 1, 2, writing} <= {3}  # 3: the folder that ls reads


async def test_a_missing_program_is_told_by_its_code() -> None:
    child = Child(["no-such-program"])
    assert await ended(child) == 127
    assert "no-such-program: not found" in child.output.text(1)


async def test_a_host_without_setpriv_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(NotFound, match="^setpriv: command not found$") as caught:
        Child(["true"])
    assert caught.value.hint == "install the package util-linux"
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


async def test_nothing_is_left_open() -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(5):
        await ended(Child(["true"]))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


OWNER = """
import asyncio
from utilityvm.kit.child import Child
from utilityvm.kit.enclosure import Enclosure
async def main():
    print("spawning", flush=True)
    while True:
        for _ in range(3):
            Child(["sleep", "{mark}"], enclosure={around})
        await asyncio.sleep(0)
asyncio.run(main())
"""


def sleepers(mark: str) -> list[int]:
    """Return the processes on the way to, or at, ``sleep MARK``: all have the mark as their last word."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if words[-2:-1] == [mark.encode()] and state != "Z":
            found.append(int(folder.name))
    return found


async def gone(mark: str, when: str) -> None:
    """Wait until no process has the mark."""
    deadline = time.monotonic() + 30  # a busy disk lets a program wait for its pages
    while left := sleepers(mark):
        assert time.monotonic() < deadline, f"{left} are there {when}"
        await asyncio.sleep(0.01)


@AROUND
async def test_no_child_outlives_an_owner_killed_while_it_spawns(around: Enclosure) -> None:
    seed = int.from_bytes(os.urandom(4))
    print("seed", seed)
    chance = random.Random(seed)  # noqa: S311 (moments, not secrets)
    for attempt in range(12):
        mark = f"{1000 + attempt}.{os.getpid()}"
        script = textwrap.dedent(OWNER).replace("{mark}", mark).replace("{around}", repr(around))
        owner = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
        assert owner.stdout is not None
        await owner.stdout.readline()
        await asyncio.sleep(chance.random() * 0.03)
        owner.kill()
        await owner.wait()
        await gone(mark, f"after their owner, with seed {seed}")


def test_a_tail_keeps_the_newest() -> None:
    tail = Tail(5)
    for piece in (b"ab", b"cd", b"ef", b"", b"0123456789"):
        tail.add(piece)
    assert tail.data == b"56789"
