"""Passing a process's output on, and collecting it: to the end, and no further than the bounds."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from msgspec.structs import force_setattr

from utilityvm.guest import collect
from utilityvm.guest.collect import Completed, relay, run_process
from utilityvm.guest.process import Process, start_process
from utilityvm.guest.spec import ProcessSpec
from utilityvm.kit.aio import Scope
from utilityvm.kit.errors import ConnectionLost, DeadlineExceeded, GuestError, OutputLimitExceeded
from utilityvm.testing.guest import FakeGuest, Program

from .conftest import Connect, Rig


async def speak(guest: FakeGuest, program: Program) -> int:
    assert program.stdout is not None
    assert program.stderr is not None
    await guest.write(program.stdout, program.argv[1].encode())
    await guest.write(program.stderr, b"oh")
    return 7


async def cat(guest: FakeGuest, program: Program) -> int:
    assert program.stdin is not None
    assert program.stdout is not None
    while data := await program.stdin.read():
        await guest.write(program.stdout, data)
    return 0


async def say_and_stay(guest: FakeGuest, program: Program) -> int:
    assert program.stdout is not None
    await guest.write(program.stdout, b"so far")
    await asyncio.Event().wait()
    return 0


async def pour(guest: FakeGuest, program: Program) -> int:
    assert program.stdout is not None
    while True:
        await guest.write(program.stdout, bytes(1000))


class Orphanage:
    """A program that ends at once and leaves its output to a child of its own, which writes what it is told to."""

    def __init__(self, write: Callable[[FakeGuest, Program], Awaitable[None]]) -> None:
        self._write, self.scope = write, Scope("orphans")

    async def __call__(self, guest: FakeGuest, program: Program) -> int:
        left = Program(program.argv, program.stdin, program.stdout, program.stderr)
        self.scope.start("child", self._child(guest, left))
        # The fake shuts what the program holds at its end; the child holds these still.
        for name in ("stdin", "stdout", "stderr"):
            force_setattr(program, name, None)
        return 5

    async def _child(self, guest: FakeGuest, program: Program) -> None:
        await self._write(guest, program)


def start(rig: Rig, *argv: str, stdin: bool = False) -> Callable[[], Awaitable[Process]]:
    async def begin() -> Process:
        return await start_process(await rig.client(), rig.stdio, ProcessSpec(argv=argv, stdin=stdin), "vm t")

    return begin


async def run(rig: Rig, *argv: str, data: bytes | None = None, limit: int = 1000, timeout: float | None = None) -> Completed:
    return await run_process(start(rig, *argv, stdin=data is not None), argv[0], data=data or b"", limit=limit, timeout=timeout)


def killed(rig: Rig) -> list[bool]:
    return [process.cancelled() for process in rig.guest._processes.values()]


async def test_output_errors_and_exit_code_are_collected(connect: Connect) -> None:
    async with connect({"speak": speak}) as rig:
        assert await run(rig, "speak", "x" * 1000) == Completed(7, b"x" * 1000, b"oh")
        assert killed(rig) == [False]
        assert rig.transport._streams.keys() == {stream for stream in rig.transport._streams if stream[1] == 0x4000_0000}


async def test_input_larger_than_every_buffer_passes_while_output_is_taken(connect: Connect) -> None:
    async with connect({"cat": cat}) as rig:
        data = bytes(range(256)) * 20_000
        assert await run(rig, "cat", data=data, limit=len(data)) == Completed(0, data, b"")


async def test_a_program_that_does_not_want_its_input_is_no_failure(connect: Connect) -> None:
    async with connect({"speak": speak}) as rig:
        assert (await run(rig, "speak", "", data=bytes(5_000_000))).exit_code == 7


async def test_one_byte_beyond_the_limit_kills_it_and_the_error_has_the_rest(connect: Connect) -> None:
    async with connect({"speak": speak, "pour": pour}) as rig:
        with pytest.raises(OutputLimitExceeded, match="speak: more than 9 bytes of output; it was killed") as caught:
            await run(rig, "speak", "0123456789", limit=9)
        assert (caught.value.stdout, caught.value.hint != "") == (b"012345678", True)


async def test_a_program_that_never_stops_talking_is_killed_at_the_limit(connect: Connect) -> None:
    async with connect({"pour": pour}) as rig:
        with pytest.raises(OutputLimitExceeded) as caught:
            await run(rig, "pour", limit=1_234_567)
        assert caught.value.stdout == bytes(1_234_567)
        assert killed(rig) == [True]


async def test_at_the_deadline_it_is_killed_and_the_error_has_what_it_said(connect: Connect) -> None:
    async with connect({"stay": say_and_stay}) as rig:
        with pytest.raises(DeadlineExceeded, match=r"stay: not done within 0\.2 s; it was killed") as caught:
            await run(rig, "stay", timeout=0.2)
        assert caught.value.stdout == b"so far"
        assert killed(rig) == [True]


async def test_a_deadline_during_the_start_leaves_no_process(connect: Connect) -> None:
    async with connect({"stay": say_and_stay}) as rig:
        client, go = await rig.client(), asyncio.Event()
        execute = rig.guest._execute

        async def late(request: dict[str, object]) -> dict[str, object]:
            await go.wait()
            return await execute(request)

        rig.guest._execute = late  # type: ignore[method-assign]
        with pytest.raises(DeadlineExceeded):
            await run_process(
                lambda: start_process(client, rig.stdio, ProcessSpec(argv=("stay",)), "vm t"), "stay", data=b"", limit=10, timeout=0.1
            )
        assert not rig.guest._processes
        go.set()
        while killed(rig) != [True]:
            await asyncio.sleep(0.001)


async def test_a_process_that_survives_its_kill_is_not_waited_for(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "KILL_TIMEOUT", 0.1)

    async def stubborn(_guest: FakeGuest, _program: Program) -> int:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()
        return 0

    async with connect({"stubborn": stubborn}) as rig:
        with pytest.raises(DeadlineExceeded, match="stubborn: not done within"):
            await run(rig, "stubborn", timeout=0.1)
        (process,) = rig.guest._processes.values()
        assert not process.done()


async def test_a_caller_that_gives_up_leaves_no_process(connect: Connect) -> None:
    async with connect({"stay": say_and_stay}) as rig:
        running = asyncio.create_task(run(rig, "stay"))  # noqa: TID251 (cancelled)
        while not rig.guest._processes:
            await asyncio.sleep(0.001)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        while killed(rig) != [True]:
            await asyncio.sleep(0.001)


async def test_a_program_that_is_not_there_is_the_guests_error(connect: Connect) -> None:
    async with connect() as rig:
        with pytest.raises(GuestError, match="no such program"):
            await run(rig, "nothing")


async def test_a_guest_that_goes_is_told_as_such(connect: Connect) -> None:
    async with connect({"stay": say_and_stay}) as rig:
        running = asyncio.create_task(run(rig, "stay"))  # noqa: TID251 (awaited)
        while not rig.guest._processes:
            await asyncio.sleep(0.001)
        rig.transport.close()
        with pytest.raises(ConnectionLost):
            await running


async def test_output_that_a_child_holds_open_in_silence_is_given_up(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "SILENCE", 0.1)
    held = asyncio.Event()

    async def silent(guest: FakeGuest, program: Program) -> None:
        assert program.stdout is not None
        await guest.write(program.stdout, b"late")
        held.set()
        await asyncio.Event().wait()

    orphanage = Orphanage(silent)
    async with connect({"parent": orphanage}) as rig:
        assert await run(rig, "parent") == Completed(5, b"late", b"")
        assert held.is_set()
        await orphanage.scope.aclose()


async def test_output_that_a_child_fills_for_ever_is_given_up(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "AFTER_EXIT", 3_000_000)

    async def endless(guest: FakeGuest, program: Program) -> None:
        await pour(guest, program)

    orphanage = Orphanage(endless)
    async with connect({"parent": orphanage}) as rig:
        done = await run(rig, "parent", limit=100_000_000)
        assert 3_000_000 <= len(done.stdout) < 4_000_000
        await orphanage.scope.aclose()


async def test_a_slow_reader_of_ours_loses_nothing_after_the_end(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "SILENCE", 0.02)

    async def speak_long(guest: FakeGuest, program: Program) -> int:
        return await speak(guest, Program(("speak", "x" * 400_000), None, program.stdout, program.stderr))

    async with connect({"speak": speak_long}) as rig:
        process, whole = await start(rig, "speak")(), bytearray()

        async def slow(data: bytes) -> None:
            await asyncio.sleep(0.05)
            whole.extend(data)

        assert await relay(process, stdout=slow, stderr=slow) == 7
        assert len(whole) == 400_002
        await process.close()


async def test_a_sink_that_fails_ends_it(connect: Connect) -> None:
    async with connect({"stay": say_and_stay}) as rig:
        process = await start(rig, "stay")()

        async def full(_data: bytes) -> None:
            raise OSError("no room")

        with pytest.raises(OSError, match="no room"):
            await relay(process, stdout=full, stderr=full)
        assert not process.ended
        await process.close()
