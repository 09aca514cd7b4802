"""Programs of the guest that dial the host by AF_VSOCK: streams, half-close, refusals and ends are as vsock has them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256

import pytest
import pytest_asyncio

from utilityvm import ConnectionLost, Exhausted, InvalidOptions, Process, UtilityVM
from utilityvm.guest.transport import GuestStream, Listener
from utilityvm.schema.devices import HvSocketServiceConfig
from utilityvm.wire.services import service_id

from .foreign import PATH, put_into
from .running import LIMIT, Done, ended, line, run

pytestmark = pytest.mark.asyncio(loop_scope="module")

PORT = 5000
MUCH = 8 << 20  # more than all that lies between the two ends holds


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def _program(vm: UtilityVM) -> None:
    await put_into(vm)


@pytest_asyncio.fixture(loop_scope="module")
async def listener(vm: UtilityVM) -> AsyncIterator[Listener]:
    found = vm.listen(PORT)
    yield found
    found.close()


@asynccontextmanager
async def dialled(vm: UtilityVM, listener: Listener, what: str, *words: str) -> AsyncIterator[tuple[GuestStream, Process]]:
    """Run the program in its mode `what`, and take its dial."""
    async with asyncio.timeout(LIMIT):
        process = await vm.create_process([PATH, what, str(PORT), *words], stdin=True)
        stream = await listener.accept()
        yield stream, process
        stream.close()
        await process.close()


async def test_what_the_host_sends_comes_back_until_each_side_says_that_it_sends_no_more(vm: UtilityVM, listener: Listener) -> None:
    async with dialled(vm, listener, "echo") as (stream, process):
        await stream.write(b"there and back")
        assert await stream.read(100) == b"there and back"
        await stream.write(b", again")
        await stream.write_eof()
        assert await stream.read() == b", again"
        assert await ended(process) == Done(0, b"")


async def test_a_program_that_sends_no_more_still_hears(vm: UtilityVM, listener: Listener) -> None:
    async with dialled(vm, listener, "send", "3") as (stream, process):
        assert await stream.read() == bytes(range(3))
        await stream.write(b"late answer")
        await stream.write_eof()
        assert await ended(process) == Done(0, b"late answer")


async def test_a_port_that_nobody_listens_to_refuses_with_a_reset(vm: UtilityVM, listener: Listener) -> None:
    assert await run(vm, PATH, "echo", str(PORT + 1)) == Done(3, b"ECONNRESET\n")
    listener.close()
    assert await run(vm, PATH, "echo", str(PORT)) == Done(3, b"ECONNRESET\n")


async def test_a_service_that_is_disabled_refuses_programs_until_it_is_not(vm: UtilityVM, listener: Listener) -> None:
    async with dialled(vm, listener, "echo") as (stream, _):
        await vm.update_hvsocket_service(service_id(PORT), HvSocketServiceConfig(disabled=True, bind_security_descriptor="D:P"))
        assert await run(vm, PATH, "echo", str(PORT)) == Done(3, b"ECONNRESET\n")
        await stream.write(b"made before")
        assert await stream.read(100) == b"made before"
    await vm.remove_hvsocket_service(service_id(PORT))
    async with dialled(vm, listener, "echo") as (stream, _):
        await stream.write(b"again")
        assert await stream.read(100) == b"again"


async def test_the_agents_own_ports_are_no_ports_for_programs(vm: UtilityVM) -> None:
    for port in ("1", "109", "0x40000000", "0x40000001"):
        assert await run(vm, PATH, "echo", port) == Done(3, b"ECONNRESET\n")


async def test_streams_that_were_made_outlive_their_listener(vm: UtilityVM, listener: Listener) -> None:
    async with dialled(vm, listener, "echo") as (stream, _):
        listener.close()
        await stream.write(b"still")
        assert await stream.read(100) == b"still"


async def test_a_program_that_writes_is_held_back_until_the_host_reads(vm: UtilityVM, listener: Listener) -> None:
    async with dialled(vm, listener, "send", str(MUCH)) as (stream, process):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await process.wait()
        got, count = sha256(), 0
        while data := await stream.read(1 << 20):
            got.update(data)
            count += len(data)
        assert (count, got.digest()) == (MUCH, sha256(bytes(range(256)) * (MUCH // 256)).digest())
        await stream.write_eof()
        assert await ended(process) == Done(0, b"")


async def test_the_host_is_held_back_until_a_program_reads(vm: UtilityVM, listener: Listener) -> None:
    async with dialled(vm, listener, "hold") as (stream, process):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await stream.write(bytes(MUCH))
        await process.stdin.write_eof()
        assert await ended(process) == Done(0, b"held\n")
        assert await stream.read() == b""
        with pytest.raises(BrokenPipeError):
            await stream.write(b"x")


async def test_much_passes_both_ways_at_once(vm: UtilityVM, listener: Listener) -> None:
    async with dialled(vm, listener, "echo") as (stream, process), asyncio.TaskGroup() as group:
        back = group.create_task(stream.read())
        await stream.write(b"0123456789abcdef" * (MUCH // 16))
        await stream.write_eof()
        assert await back == b"0123456789abcdef" * (MUCH // 16)
        assert await ended(process) == Done(0, b"")


async def test_many_programs_have_a_stream_each(vm: UtilityVM, listener: Listener) -> None:
    count = 40
    async with asyncio.timeout(LIMIT):
        script = f"for i in $(seq {count}); do ({PATH} send {PORT} $i >/out.$i) & done; wait; cat /out.*; rm /out.*"
        process = await vm.create_process(["sh", "-c", script])
        sizes = []
        for _ in range(count):
            stream = await listener.accept()
            sizes.append(len(await stream.read()))
            await stream.write(b"x")
            await stream.write_eof()
        assert sorted(sizes) == list(range(1, count + 1))
        assert await ended(process) == Done(0, b"x" * count)


async def test_a_program_that_is_killed_ends_its_stream(vm: UtilityVM, listener: Listener) -> None:
    async with dialled(vm, listener, "hold") as (stream, process):
        assert await line(process) == b"held\n"
        await process.kill()
        assert await stream.read() == b""
        with pytest.raises(BrokenPipeError):
            await stream.write(b"x")


async def test_a_stream_that_the_host_closes_ends_for_the_program_in_both_directions(vm: UtilityVM, listener: Listener) -> None:
    async with dialled(vm, listener, "hear") as (stream, process):
        await stream.write(b"last words")
        stream.close()
        assert await ended(process) == Done(0, b"last words then EPIPE\n")


async def test_a_host_that_sends_no_more_can_still_be_told(vm: UtilityVM, listener: Listener) -> None:
    async with dialled(vm, listener, "hear") as (stream, process):
        await stream.write_eof()
        assert await ended(process) == Done(0, b" then written\n")
        assert await stream.read() == b"x"


async def test_a_program_that_takes_no_more_is_a_broken_pipe_for_the_host(vm: UtilityVM, listener: Listener) -> None:
    async with dialled(vm, listener, "deaf") as (stream, process):
        assert await line(process) == b"deaf\n"
        with pytest.raises(BrokenPipeError):
            await stream.write(bytes(MUCH))
        await process.stdin.write_eof()
        assert await process.wait() == 0
        assert await stream.read() == b""


async def test_dials_that_nobody_accepts_end_with_their_listener(vm: UtilityVM) -> None:
    listener = vm.listen(PORT)
    process = await vm.create_process([PATH, "hear", str(PORT)])
    waiting = await vm.create_process([PATH, "echo", str(PORT + 1)])  # its refusal tells that the first has been there long enough
    assert (await ended(waiting)).code == 3
    listener.close()
    async with asyncio.timeout(LIMIT):
        assert (await ended(process)).code in {0, 3}
        with pytest.raises(ConnectionLost):
            await listener.accept()


async def test_ports_that_cannot_be_listened_on_are_refused(vm: UtilityVM, listener: Listener) -> None:
    for port, why in (
        (0, "ports are numbers from 1"),
        (0xFFFF_FFFF, "ports are numbers from 1"),
        (True, "ports are numbers from 1"),
        (1, "entropy"),
        (109, "log"),
        (564, "shared folders"),
        (0x4000_0000, "agent and its processes"),
        (0x7FFF_FFFF, "agent and its processes"),
    ):
        with pytest.raises(InvalidOptions, match=why):
            vm.listen(port)
    with pytest.raises(Exhausted, match="listened to already"):
        vm.listen(PORT)
    listener.close()
    vm.listen(PORT).close()
