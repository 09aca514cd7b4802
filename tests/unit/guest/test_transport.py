import asyncio
import socket
from array import array
from collections.abc import Awaitable

import pytest

from utilityvm.guest import transport as transport_module
from utilityvm.guest.transport import BACKLOG, Transport
from utilityvm.kit.errors import ConnectionLost, DeadlineExceeded, ProtocolError
from utilityvm.wire.packets import GUEST_CID, HOST_CID, SHUT_BOTH, Control, Op, Packet, PacketReader, encode
from utilityvm.wire.vsock import WINDOW

from .conftest import Connect


async def test_a_dialled_stream_carries_bytes_both_ways(connect: Connect) -> None:
    async with connect() as rig:
        listener = rig.transport.listen(7)
        async with asyncio.TaskGroup() as tasks:
            dialled = tasks.create_task(rig.guest.dial(7))
            stream = await listener.accept()
        await rig.guest.write(dialled.result(), b"from the guest")
        assert await stream.read(4) == b"from"
        assert await stream.read(100) == b" the guest"
        await stream.write(b"from the host")
        assert await dialled.result().read() == b"from the host"


async def test_megabytes_pass_through_a_window_of_kilobytes(connect: Connect) -> None:
    payload = bytes(range(256)) * 8192
    async with connect() as rig:
        listener = rig.transport.listen(7)
        async with asyncio.TaskGroup() as tasks:
            dialled = tasks.create_task(rig.guest.dial(7))
            stream = await listener.accept()

            async def from_guest() -> None:
                await rig.guest.write(await dialled, payload)
                await rig.guest.shut(await dialled)

            async def to_guest() -> None:
                await stream.write(payload)
                await stream.write_eof()

            tasks.create_task(from_guest())
            tasks.create_task(to_guest())
            assert await stream.read() == payload
            got = b""
            while data := await (await dialled).read():
                got += data
            assert got == payload


async def test_a_reader_that_does_not_read_holds_at_most_the_window(connect: Connect) -> None:
    async with connect() as rig:
        listener = rig.transport.listen(7)
        async with asyncio.TaskGroup() as tasks:
            dialled = tasks.create_task(rig.guest.dial(7))
            stream = await listener.accept()
            connection = await dialled
            writing = tasks.create_task(rig.guest.write(connection, bytes(3 * WINDOW)))
            while connection.sent < WINDOW:
                await asyncio.sleep(0)
            for _ in range(100):
                await asyncio.sleep(0)
            assert connection.sent == WINDOW
            got = 0
            while got < 3 * WINDOW:
                got += len(await stream.read(1 << 20))
            await writing


async def test_what_was_received_before_a_reset_is_read_before_the_error(connect: Connect) -> None:
    async with connect() as rig:
        listener = rig.transport.listen(7)
        async with asyncio.TaskGroup() as tasks:
            dialled = tasks.create_task(rig.guest.dial(7))
            stream = await listener.accept()
        await rig.guest.write(dialled.result(), b"last words")
        await rig.guest.send(Packet(Op.RST, 0x80000000, 7))
        assert await stream.read(100) == b"last words"
        with pytest.raises(ConnectionLost, match="reset by the guest"):
            await stream.read(100)


async def test_writing_to_a_stream_that_the_guest_reset_is_a_broken_pipe_or_lost(connect: Connect) -> None:
    async with connect() as rig:
        listener = rig.transport.listen(7)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(rig.guest.dial(7))
            stream = await listener.accept()
        await rig.guest.send(Packet(Op.RST, 0x80000000, 7))
        with pytest.raises(ConnectionLost):
            await stream.read(1)
        with pytest.raises((BrokenPipeError, ConnectionLost)):
            await stream.write(b"x")


@pytest.mark.parametrize("early", [True, False])
async def test_a_stream_that_is_only_read_closes_with_the_guests_last_byte(connect: Connect, early: bool) -> None:
    async with connect() as rig:
        listener = rig.transport.listen(7)
        async with asyncio.TaskGroup() as tasks:
            dialled = tasks.create_task(rig.guest.dial(7))
            stream = await listener.accept()
        if early:
            stream.read_only()
        await rig.guest.write(dialled.result(), b"last words")
        await rig.guest.shut(dialled.result())
        if not early:
            assert await stream.read(4) == b"last"
            await asyncio.sleep(0.01)
            assert rig.transport._streams
            stream.read_only()
        assert await dialled.result().read() == b""
        assert not rig.transport._streams
        assert await stream.read() == (b"last words" if early else b" words")
        stream.close()


async def test_an_array_is_written_as_its_bytes(connect: Connect) -> None:
    async with connect() as rig:
        listener = rig.transport.listen(7)
        async with asyncio.TaskGroup() as tasks:
            dialled = tasks.create_task(rig.guest.dial(7))
            stream = await listener.accept()
        numbers = array("I", range(1000))
        await stream.write(memoryview(numbers))  # type: ignore[arg-type]
        assert await dialled.result().read() == numbers.tobytes()
        (state,) = rig.transport.wire._streams.values()
        assert state.sent == 4000
        stream.close()


async def test_a_writer_that_waits_learns_that_the_guest_closed_both_ways(connect: Connect) -> None:
    async with connect() as rig:
        listener = rig.transport.listen(7)
        async with asyncio.TaskGroup() as tasks:
            dialled = tasks.create_task(rig.guest.dial(7))
            stream = await listener.accept()
        (state,) = rig.transport.wire._streams.values()
        state.peer_alloc = 0  # no credit at all
        writing = asyncio.create_task(stream.write(b"x"))  # noqa: TID251 (awaited)
        await asyncio.sleep(0)
        await rig.guest.shut(dialled.result(), SHUT_BOTH)  # with credit: two events of one packet
        with pytest.raises(BrokenPipeError):
            await writing
        assert not rig.transport._streams


async def test_closing_wakes_readers_writers_and_acceptors(connect: Connect) -> None:
    async with connect() as rig:
        listener, other = rig.transport.listen(7), rig.transport.listen(8)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(rig.guest.dial(7))
            stream = await listener.accept()
        waiting = [asyncio.create_task(stream.read(1)), asyncio.create_task(other.accept())]  # noqa: TID251
        await asyncio.sleep(0)
        rig.transport.close()
        rig.transport.close()
        done, _ = await asyncio.wait(waiting)
        assert all(isinstance(task.exception(), ConnectionLost) for task in done)
        with pytest.raises(ConnectionLost):
            await rig.transport.listen(9).accept()


async def test_a_closed_listener_is_told_and_its_waiting_streams_end(connect: Connect) -> None:
    async with connect() as rig:
        listener = rig.transport.listen(7)
        connection = await rig.guest.dial(7)
        listener.close()
        listener.close()
        assert await connection.read() == b""
        assert (await rig.guest.dial(7)).refused
        with pytest.raises(ConnectionLost, match="no longer listened"):
            await listener.accept()


async def test_dials_that_nobody_accepts_are_bounded(connect: Connect) -> None:
    async with connect() as rig:
        rig.transport.listen(7)
        for _ in range(BACKLOG):
            await rig.guest.dial(7)
        assert await (await rig.guest.dial(7)).read() == b""


async def test_a_broken_packet_ends_the_connection_with_its_reason(connect: Connect) -> None:
    async with connect() as rig:
        lost: list[Exception] = []
        rig.transport._on_lost = lost.append
        accepting = asyncio.create_task(rig.transport.listen(7).accept())  # noqa: TID251
        await rig.guest.dial(9)
        await rig.guest.send_raw(b"\xff" * 44)
        with pytest.raises(ProtocolError, match="payload of"):
            await accepting
        assert [type(error) for error in lost] == [ProtocolError]


async def test_a_guest_that_asks_and_never_reads_is_not_listened_to() -> None:
    """A million questions whose answers nobody takes must not pile up in our memory."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    transport = Transport("vm t", bytes(16))
    await transport.open(ours)
    loop, sent = asyncio.get_running_loop(), 0
    questions = encode(Packet(Op.CREDIT_UPDATE, 1, 2), src_cid=GUEST_CID, dst_cid=HOST_CID) * 1000
    await loop.sock_sendall(theirs, encode(Packet(Control.RESET_ACK, payload=bytes(16)), src_cid=GUEST_CID, dst_cid=HOST_CID))
    try:
        async with asyncio.timeout(1):
            while sent < 100_000_000:
                await loop.sock_sendall(theirs, questions)
                sent += len(questions)
    except TimeoutError:
        pass
    assert sent < 20_000_000
    transport.close()
    theirs.close()


async def test_a_stream_that_has_ended_does_not_act_on_a_later_one_of_its_name(connect: Connect) -> None:
    """A guest may dial the same port pair again, though ours never does."""
    async with connect() as rig:
        await rig.guest._met.wait()
        rig.guest._on_stream = _nothing  # type: ignore[assignment, method-assign]
        listener = rig.transport.listen(7)
        dial, reset = Packet(Op.REQUEST, 5, 7, buf_alloc=WINDOW), Packet(Op.RST, 5, 7)
        await rig.guest.send(dial)
        first = await listener.accept()
        await rig.guest.send(Packet(Op.RW, 5, 7, b"one"))
        await rig.guest.send(reset)
        await rig.guest.send(dial)
        second = await listener.accept()
        await rig.guest.send(Packet(Op.RW, 5, 7, b"two"))
        assert await first.read(10) == b"one"
        await first.write_eof()
        first.close()
        assert await second.read(10) == b"two"
        await rig.guest.send(Packet(Op.RW, 5, 7, b"three"))
        assert await second.read(10) == b"three"


async def test_a_dial_beyond_the_backlog_leaves_nothing_behind(connect: Connect) -> None:
    async with connect() as rig:
        listener = rig.transport.listen(7)
        for _ in range(BACKLOG):
            await rig.guest.dial(7)
        rig.guest._connections.clear()  # a guest that answers nothing
        for port in range(100):
            await rig.guest.send(Packet(Op.REQUEST, port, 7, buf_alloc=1))
        await rig.guest.send(Packet(Op.REQUEST, 1, 8, buf_alloc=1))
        late = rig.transport.listen(9)
        await rig.guest.dial(9)
        await late.accept()
        assert len(rig.transport._streams) == BACKLOG + 1
        listener.close()
        assert len(rig.transport._streams) == 1


async def _nothing(*_: object) -> None:
    return


async def meet(transport: Transport) -> socket.socket:
    """Open `transport`, and return the guest's end of it, which has answered the reset."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    await transport.open(ours)
    await asyncio.get_running_loop().sock_sendall(theirs, as_guest(Packet(Control.RESET_ACK, payload=bytes(16))))
    while not transport.wire.ready:
        await asyncio.sleep(0)
    return theirs


def as_guest(packet: Packet) -> bytes:
    return encode(packet, src_cid=GUEST_CID, dst_cid=HOST_CID)


async def heard(sock: socket.socket, last: Control) -> list[Control | Op]:
    """What the guest hears up to a packet."""
    reader, ops = PacketReader(src_cid=HOST_CID, dst_cid=GUEST_CID), list[Control | Op]()
    while last not in ops:
        ops += [packet.op for packet in reader.feed(await asyncio.get_running_loop().sock_recv(sock, 1 << 16))]
    return ops


async def test_both_ends_stop_between_two_packets_until_the_host_speaks() -> None:
    transport = Transport("vm t", bytes(16))
    with await meet(transport) as guest:
        transport.listen(5)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            quiet = group.create_task(transport.quiesce())
            assert await heard(guest, Control.QUIESCE) == [Control.RESET, Control.LISTEN, Control.QUIESCE]
            assert not quiet.done()
            await asyncio.get_running_loop().sock_sendall(guest, as_guest(Packet(Control.QUIESCED)))
        transport.listen(6)
        with pytest.raises(BlockingIOError):
            guest.recv(1)
        transport.speak()
        assert await heard(guest, Control.UNLISTEN) == [Control.LISTEN, Control.UNLISTEN]
        transport.close()


async def test_a_guest_that_does_not_fall_silent_is_told_and_the_connection_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "QUIESCE_TIMEOUT", 0.01)
    transport = Transport("vm t", bytes(16))
    with await meet(transport) as guest:
        with pytest.raises(DeadlineExceeded, match=r"^vm t: the guest's agent did not fall silent within 0.01 s$"):
            await transport.quiesce()
        assert await heard(guest, Control.UNLISTEN) == [Control.RESET, Control.QUIESCE, Control.UNLISTEN]
        transport.close()


async def test_one_who_waits_for_silence_hears_of_the_connections_end() -> None:
    transport = Transport("vm t", bytes(16))
    with await meet(transport) as guest:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            quiet = group.create_task(refusal(transport.quiesce()))
            await heard(guest, Control.QUIESCE)
            guest.close()
        assert isinstance(quiet.result(), ConnectionLost)


async def refusal(work: Awaitable[None]) -> BaseException | None:
    try:
        await work
    except ConnectionLost as error:
        return error
    return None


async def test_a_guest_that_was_never_met_has_nothing_to_stop() -> None:
    transport = Transport("vm t", bytes(16))
    async with asyncio.timeout(10):
        await transport.quiesce()
    transport.speak()
