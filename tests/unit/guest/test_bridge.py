import asyncio

import pytest

from utilityvm.guest.process import Process, start_process
from utilityvm.guest.spec import ProcessSpec
from utilityvm.kit.errors import ConnectionLost, DeadlineExceeded, GuestError, InvalidOptions, ProtocolError, Unknown
from utilityvm.testing.guest import FakeGuest, Program
from utilityvm.wire import gcs
from utilityvm.wire.frames import Frame, encode

from .conftest import Connect


async def hello(guest: FakeGuest, program: Program) -> int:
    if program.stdout:
        await guest.write(program.stdout, " ".join(program.argv).encode())
    if program.stderr:
        await guest.write(program.stderr, b"oh")
    return 7


async def cat(guest: FakeGuest, program: Program) -> int:
    if program.stdin is None or program.stdout is None:
        return 1
    while data := await program.stdin.read():
        await guest.write(program.stdout, data)
    return 0


async def forever(_guest: FakeGuest, _program: Program) -> int:
    await asyncio.Event().wait()
    return 0


async def test_a_process_has_output_errors_and_an_exit_code(connect: Connect) -> None:
    async with connect({"hello": hello}) as rig:
        process = await start_process(await rig.client(), rig.stdio, ProcessSpec(argv=("hello", "world")), "vm t")
        assert (await process.stdout.read(), await process.stderr.read(), await process.wait()) == (b"hello world", b"oh", 7)
        assert await process.wait() == 7
        await process.close()
        await process.close()


async def test_input_reaches_the_process_and_its_end_too(connect: Connect) -> None:
    async with connect({"cat": cat}) as rig:
        spec = ProcessSpec(argv=("cat",), stdin=True, stderr=False)
        process = await start_process(await rig.client(), rig.stdio, spec, "vm t")

        async def feed() -> None:
            await process.stdin.write(b"x" * 500_000)
            await process.stdin.write_eof()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(feed())
            assert len(await process.stdout.read()) == 500_000
        assert await process.stderr.read() == b""
        assert await process.wait() == 0


async def test_twenty_processes_at_once_keep_their_streams_apart(connect: Connect) -> None:
    async with connect({"hello": hello}) as rig:
        client = await rig.client()

        async def one(number: int) -> bytes:
            process = await start_process(client, rig.stdio, ProcessSpec(argv=("hello", str(number))), "vm t")
            return await process.stdout.read()

        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(one(number)) for number in range(20)]
        assert [task.result() for task in running] == [f"hello {number}".encode() for number in range(20)]


async def test_writing_to_a_stream_that_was_not_asked_for_is_a_broken_pipe(connect: Connect) -> None:
    async with connect({"hello": hello}) as rig:
        process = await start_process(await rig.client(), rig.stdio, ProcessSpec(argv=("hello",)), "vm t")
        with pytest.raises(BrokenPipeError, match="started without stdin"):
            await process.stdin.write(b"x")


async def test_a_program_that_is_not_there_is_the_guests_error_and_leaves_no_port(connect: Connect) -> None:
    async with connect() as rig:
        client = await rig.client()
        with pytest.raises(GuestError) as caught:
            await start_process(client, rig.stdio, ProcessSpec(argv=("nothing",)), "vm t")
        assert caught.value.result == gcs.FILE_NOT_FOUND
        async with asyncio.timeout(5):
            while rig.guest.listening & set(range(gcs.FIRST_STDIO_PORT, gcs.FIRST_STDIO_PORT + 10)):
                await asyncio.sleep(0)


async def test_a_killed_process_ends_and_a_second_signal_is_not_delivered(connect: Connect) -> None:
    async with connect({"forever": forever}) as rig:
        process = await start_process(await rig.client(), rig.stdio, ProcessSpec(argv=("forever",)), "vm t")
        assert await process.kill()
        assert await process.wait() == 137


async def test_a_wait_has_a_deadline_that_leaves_the_process_alone(connect: Connect) -> None:
    async with connect({"forever": forever}) as rig:
        process = await start_process(await rig.client(), rig.stdio, ProcessSpec(argv=("forever",)), "vm t")
        for _ in range(2):
            with pytest.raises(DeadlineExceeded, match=rf"vm t: process {process.pid} still runs after 0\.01 s"):
                await process.wait(timeout=0.01)
        assert not process.ended
        await process.kill()
        assert await process.wait(timeout=20) == 137


async def test_what_is_no_signal_or_size_is_refused_before_it_is_sent(connect: Connect) -> None:
    async with connect({"forever": forever}) as rig:
        process = await start_process(await rig.client(), rig.stdio, ProcessSpec(argv=("forever",)), "vm t")
        with pytest.raises(InvalidOptions, match="signal 0"):
            await process.kill(0)
        with pytest.raises(InvalidOptions, match="console_size"):
            await process.resize(height=-1, width=1)
        assert not process.ended


@pytest.mark.parametrize("read", [True, False])
async def test_a_guest_that_tells_the_end_only_after_we_closed_its_output_does_so(connect: Connect, read: bool) -> None:
    """Older agents end an output, wait for the host to close it as well, and report the process's exit only then."""
    closed: list[bytes] = []

    async def old(guest: FakeGuest, program: Program) -> int:
        for stream in (program.stdout, program.stderr):
            assert stream is not None
            await guest.write(stream, b"last words")
            await guest.shut(stream)
            closed.append(await stream.read())
        return 7

    async with connect({"old": old}) as rig:
        process = await start_process(await rig.client(), rig.stdio, ProcessSpec(argv=("old",)), "vm t")
        if read:
            assert await process.stdout.read() == b"last words"
        assert await process.wait(timeout=20) == 7
        assert closed == [b"", b""]
        assert await process.stderr.read() == b"last words", "what arrived before is lost"
        with pytest.raises(BrokenPipeError):
            await process.stdout.write(b"x")


async def test_a_process_that_has_ended_holds_no_stream_even_if_nobody_closes_it(connect: Connect) -> None:
    async with connect({"hello": hello}) as rig:
        client = await rig.client()
        before = set(rig.transport._streams)
        for _ in range(3):
            process = await start_process(client, rig.stdio, ProcessSpec(argv=("hello",), stdin=True), "vm t")
            assert await process.wait() == 7
        while set(rig.transport._streams) != before:
            await asyncio.sleep(0.001)
        with pytest.raises(BrokenPipeError):
            await process.stdin.write(b"x")


async def test_a_caller_that_gives_up_while_the_process_starts_leaves_none_behind(connect: Connect) -> None:
    asked, go = asyncio.Event(), asyncio.Event()
    async with connect({"forever": forever}) as rig:
        client, execute = await rig.client(), rig.guest._execute

        async def late(request: dict[str, object]) -> dict[str, object]:
            asked.set()
            await go.wait()
            return await execute(request)

        rig.guest._execute = late  # type: ignore[method-assign]
        spec = ProcessSpec(argv=("forever",), stdout=False, stderr=False)
        starting = asyncio.create_task(start_process(client, rig.stdio, spec, "vm t"))  # noqa: TID251
        await asked.wait()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        go.set()
        while not rig.guest._processes:
            await asyncio.sleep(0.001)
        (process,) = rig.guest._processes.values()
        await asyncio.wait([process])
        assert process.cancelled()


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (Frame(0x20100501, 99, b"{}"), "unknown rpc response for id 99"),
        (Frame(0x20100501, 1, b"{}"), "unknown rpc response for id 1, type 0x20100501"),
        (Frame(0x40100501, 1, b"{}"), "unknown message type 0x40100501"),
    ],
)
async def test_an_answer_to_no_question_ends_the_bridge(connect: Connect, frame: Frame, why: str) -> None:
    async with connect({"forever": forever}) as rig:
        client = await rig.client()
        (connection,) = rig.guest._connections.values()
        waiting = asyncio.create_task(client.wait_process(1))  # noqa: TID251
        await rig.guest.write(connection, encode(frame))
        await asyncio.wait([waiting])
        assert isinstance(waiting.exception(), ConnectionLost | GuestError)
        with pytest.raises(ConnectionLost, match=why):
            await client.connect()
        assert [type(error) for error in rig.lost] == [ProtocolError]
        assert rig.lost[0].message.endswith(why) or why in rig.lost[0].message


async def test_a_lost_connection_is_honest_about_what_may_have_happened(connect: Connect) -> None:
    async with connect({"forever": forever}, answers={gcs.EXECUTE.word: b""}) as rig:
        client = await rig.client()
        rig.guest._answers[gcs.EXECUTE.word] = b"{}"
        process = asyncio.create_task(client.execute_process(gcs.ProcessParameters(command_args=["x"]), gcs.StdioPorts()))  # noqa: TID251
        await asyncio.wait([process])
        assert process.result() == 0
        await client.bridge.aclose()
        with pytest.raises(ConnectionLost) as caught:
            await client.execute_process(gcs.ProcessParameters(command_args=["x"]), gcs.StdioPorts())
        assert not isinstance(caught.value, Unknown)
        assert any("ExecuteProcess" in frame for frame in caught.value.frames)


async def test_a_call_in_flight_when_the_guest_goes_is_unknown(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(guest: FakeGuest, program: Program) -> int:  # pragma: no cover (never started)
        raise AssertionError((guest, program))

    async with connect({"never": never}) as rig:
        client = await rig.client()
        monkeypatch.setattr(rig.guest, "dial", _hang)
        starting = asyncio.create_task(start_process(client, rig.stdio, ProcessSpec(argv=("never",)), "vm t"))  # noqa: TID251
        await asyncio.sleep(0.02)
        rig.transport.close()
        with pytest.raises(Unknown, match="ExecuteProcess was sent and may have happened") as caught:
            await starting
        assert caught.value.frames


async def test_silence_ends_the_bridge_at_the_deadline(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    async with connect() as rig:
        client = await rig.client()
        monkeypatch.setattr(rig.guest, "_answer", _hang)
        with pytest.raises(DeadlineExceeded, match=r"no answer to ResizeConsole within 0\.05 s"):
            await client.bridge.call(gcs.RESIZE, gcs.ResizeRequest(process_id=1, height=1, width=1), within=0.05)
        with pytest.raises(ConnectionLost):
            await client.signal_process(1, 9)


async def test_a_guest_of_another_version_is_refused(connect: Connect) -> None:
    async with connect(answers={gcs.NEGOTIATE.word: b'{"Result":0,"Version":5}'}) as rig:
        with pytest.raises(ProtocolError, match="unexpected version 5 returned"):
            await rig.client()


async def test_a_guest_that_says_running_without_dialling_is_found_out(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utilityvm.guest.process.DIAL_TIMEOUT", 0.05)
    async with connect(answers={gcs.EXECUTE.word: b'{"Result":0,"ProcessId":5}'}) as rig:
        with pytest.raises(ProtocolError, match="did not dial"):
            await start_process(await rig.client(), rig.stdio, ProcessSpec(argv=("x",)), "vm t")


async def _hang(*_: object) -> None:
    await asyncio.Event().wait()


async def test_a_watcher_that_never_began_keeps_nobody_waiting(connect: Connect) -> None:
    """The bridge breaks in the turn of the loop in which the process was made."""
    async with connect({"forever": forever}) as rig:
        client = await rig.client()
        process = await start_process(client, rig.stdio, ProcessSpec(argv=("forever",)), "vm t")
        other = Process(client, "vm t", 7, process._streams)
        await client.bridge.aclose()
        with pytest.raises(ConnectionLost):
            await other.wait()
