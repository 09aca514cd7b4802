"""Programs of a template go on in each clone, which takes their streams over: on two clones of one template."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from utilityvm import (
    ConnectionLost,
    GuestError,
    InvalidOptions,
    Process,
    StateError,
    Template,
    UtilityVM,
    open_template,
)
from utilityvm.boot.files import BootFiles
from utilityvm.kit.ids import new_guid

from .running import LIMIT, ended, line, sh
from .small import a_template_vm, two_clones

pytestmark = pytest.mark.asyncio(loop_scope="module")

ANSWERS = "echo ready; while read word; do echo $word; echo $word >&2; done; echo over; exit 7"
NUMBERS = 200_000
WHOLE = b"".join(b"%d\n" % number for number in range(1, NUMBERS + 1))
UNREAD = b"0123456789abcdef" * 81_920  # more than a pipe takes


@dataclass(frozen=True)
class Warmed:
    """A template, the processes in it by what they are for, and what its own host has got of them."""

    template: Template
    pids: Mapping[str, int]
    got: dict[str, bytes] = field(default_factory=dict)


async def started(vm: UtilityVM) -> dict[str, Process]:
    """Start the programs, and wait until each is where it is to stand still."""
    programs = {
        "pipes": await vm.create_process(["sh", "-c", ANSWERS], stdin=True),
        "terminal": await vm.create_process(["sh", "-c", f"stty -echo; {ANSWERS}"], stdin=True, console_size=(24, 80)),
        "numbers": await vm.create_process(["sh", "-c", f"seq 1 {NUMBERS}; exit 3"]),
        "unread": await vm.create_process(["sh", "-c", "read go </run/go; wc -c"], stdin=True),
        "given up": await vm.create_process(["sh", "-c", "read word; yes $word; echo never"], stdin=True),
        "mute": await vm.create_process(["sh", "-c", "exec sleep 1000"], stdout=False, stderr=False),
    }
    for name in ("pipes", "terminal"):
        assert await line(programs[name]) in {b"ready\n", b"ready\r\n"}
        await programs[name].stdin.write(b"template\n")
        assert await line(programs[name]) in {b"template\n", b"template\r\n"}
    assert await programs["pipes"].stderr.read(9) == b"template\n"
    assert await line(programs["terminal"]) == b"template\r\n"  # its errors
    await programs["unread"].stdin.write(UNREAD)
    return programs


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def warmed(boot_files: BootFiles) -> AsyncIterator[Warmed]:
    """A template with programs that wait for who attaches them."""
    async with await a_template_vm(boot_files, f"test-{new_guid()}") as vm:
        await vm.start()
        assert await vm.detached_processes() == ()
        assert (await sh(vm, "mkfifo /run/go")).code == 0
        programs = await started(vm)
        got = {"numbers": await programs["numbers"].stdout.read(1000)}
        with pytest.raises(GuestError, match="waits for no host"):
            await vm.attach_process(programs["pipes"].pid)
        await vm.save_as_template()
        with suppress(ConnectionLost):
            while True:  # what had come before its VM stood still
                got["numbers"] += await programs["numbers"].stdout.read(65_536)
    found = Warmed(await open_template(vm.id), {name: one.pid for name, one in programs.items()}, got)
    yield found
    await found.template.remove()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(warmed: Warmed) -> AsyncIterator[Sequence[UtilityVM]]:
    """Two clones of it, that run."""
    async with two_clones(warmed.template) as clones:
        yield clones


async def attached(pair: Sequence[UtilityVM], warmed: Warmed, name: str) -> list[Process]:
    return [await vm.attach_process(warmed.pids[name]) for vm in pair]


async def test_what_can_be_attached_is_told(pair: Sequence[UtilityVM], warmed: Warmed) -> None:
    for vm in pair:
        told = {one.pid: one for one in await vm.detached_processes()}
        assert set(told) == set(warmed.pids.values())
        assert told[warmed.pids["terminal"]].terminal
        assert not told[warmed.pids["pipes"]].terminal
        assert told[warmed.pids["mute"]].name == "sleep"
        assert all(not one.ended and one.container_id == "" for one in told.values())


async def test_a_program_with_pipes_answers_each_clone_on_its_own_streams_and_has_an_exit_code_in_each(
    pair: Sequence[UtilityVM], warmed: Warmed
) -> None:
    both = await attached(pair, warmed, "pipes")
    for word, process in zip((b"one\n", b"two\n"), both, strict=True):
        await process.stdin.write(word)
        assert await line(process) == word
        assert await process.stderr.read(4) == word
    await both[0].stdin.write_eof()
    done = await ended(both[0])
    assert (done.code, done.out, done.err) == (7, b"over\n", b"")
    await both[1].stdin.write(b"still\n")
    assert await line(both[1]) == b"still\n"
    assert await both[1].kill(15)
    assert (await ended(both[1])).code == 143


async def test_a_program_with_a_terminal_answers_each_clone(pair: Sequence[UtilityVM], warmed: Warmed) -> None:
    for word, process in zip((b"one", b"two"), await attached(pair, warmed, "terminal"), strict=True):
        await process.resize(height=30, width=90)
        await process.stdin.write(word + b"\n\x04")
        done = await ended(process)
        assert (done.code, done.out, done.err) == (7, word + b"\r\n" + word + b"\r\nover\r\n", b"")


async def test_output_that_was_under_way_is_neither_lost_nor_doubled(pair: Sequence[UtilityVM], warmed: Warmed) -> None:
    assert 1000 <= len(warmed.got["numbers"]) < len(WHOLE)
    for process in await attached(pair, warmed, "numbers"):
        done = await ended(process)
        assert done.code == 3
        assert warmed.got["numbers"] + done.out == WHOLE


async def test_input_that_was_under_way_is_read_before_what_the_clone_writes(pair: Sequence[UtilityVM], warmed: Warmed) -> None:
    for more, (vm, process) in enumerate(zip(pair, await attached(pair, warmed, "unread"), strict=True)):
        assert (await sh(vm, "echo >/run/go")).code == 0
        await process.stdin.write(b"x" * more)
        await process.stdin.write_eof()
        done = await ended(process)
        assert (done.code, done.out.strip()) == (0, b"%d" % (len(UNREAD) + more))


async def test_streams_that_are_not_wanted_are_given_up(pair: Sequence[UtilityVM], warmed: Warmed) -> None:
    for vm in pair:
        process = await vm.attach_process(warmed.pids["given up"], stdin=True, stdout=False, stderr=False)
        await process.stdin.write(b"word\n")
        assert await process.stdout.read() == b""
        used = "awk '{ print $14 + $15 }' /proc/$(pidof yes)/stat"  # it does not stand still at a full pipe
        async with asyncio.timeout(LIMIT):
            while not (seen := (await sh(vm, used)).out.strip()) or int(seen) < 10:
                pass
        await process.kill(group=True)
        assert await process.wait(timeout=LIMIT) == 137


async def test_a_program_that_ended_before_it_was_attached_has_its_code_and_its_last_words(warmed: Warmed) -> None:
    async with await warmed.template.clone() as vm:
        await vm.start()
        pid = warmed.pids["numbers"]
        assert (await sh(vm, f"kill -9 {pid}; while test -e /proc/{pid}; do :; done")).code == 0
        [told] = [one for one in await vm.detached_processes() if one.pid == pid]
        assert told.ended
        done = await ended(await vm.attach_process(pid))
        assert done.code == 137
        assert done.out
        assert WHOLE.startswith(warmed.got["numbers"] + done.out)


async def test_what_cannot_be_attached_is_refused_by_name(pair: Sequence[UtilityVM], warmed: Warmed) -> None:
    vm = pair[0]
    with pytest.raises(InvalidOptions, match="numbers from 1"):
        await vm.attach_process(0)
    with pytest.raises(GuestError, match="no such process"):
        await vm.attach_process(2_000_000_000)
    process = await vm.attach_process(warmed.pids["mute"])
    assert await process.stdout.read() == b""
    with pytest.raises(GuestError, match="waits for no host"):
        await vm.attach_process(process.pid)
    assert await process.kill()
    assert await process.wait(timeout=LIMIT) == 137
    with pytest.raises(BrokenPipeError):
        await process.stdin.write(b"x")
    async with await warmed.template.clone() as idle:
        with pytest.raises(StateError):
            await idle.attach_process(process.pid)


async def test_a_fork_takes_programs_over_while_the_vm_that_was_forked_keeps_its_own(warmed: Warmed) -> None:
    async with await warmed.template.clone() as vm:
        await vm.start()
        own = await vm.attach_process(warmed.pids["pipes"])
        async with await vm.fork(2) as forked:
            await own.stdin.write(b"parent\n")
            assert await line(own) == b"parent\n"
            for word, child in zip((b"one\n", b"two\n"), forked.children, strict=True):
                await child.start()
                process = await child.attach_process(own.pid)
                await process.stdin.write(word)
                assert await line(process) == word
                assert warmed.pids["unread"] in {one.pid for one in await child.detached_processes()}  # the clone had not taken it either
        await own.stdin.write_eof()
        done = await ended(own)
        assert (done.code, done.out, done.err) == (7, b"over\n", b"parent\n")
