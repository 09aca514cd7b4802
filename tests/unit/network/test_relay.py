"""The relay as the process that it is: the test plays the guest on one side, passt on the other, and its owner."""

import asyncio
import os
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest

from utilityvm.kit.child import Child
from utilityvm.network.frames import checksum, packet
from utilityvm.network.orders import Orders, PlaceOrder, Told
from utilityvm.network.relay import MAX_QUESTIONS, PATIENCE

from .wire import ACK, GATEWAY, MAC, ME, ME6, RESOLVER, SYN, query, tcp, udp

PLACE = PlaceOrder(mac=MAC.hex(), gateway_mac=GATEWAY.hex(), gateway="10.0.2.2", four=str(ME), six="", resolver=str(RESOLVER))


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server for names that never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        try:
            server.bind(("127.0.0.55", 53))
        except PermissionError:
            pytest.skip("port 53 is root's")
        yield "127.0.0.55"


def framed(*frames: bytes) -> bytes:
    return b"".join(struct.pack("!I", len(frame)) + frame for frame in frames)


class World:
    """`guest` and `passt` are the other ends of the relay's streams, `control` is its owner's."""

    def __init__(self) -> None:
        (self.guest, guest), (self.passt, passt) = socket.socketpair(), socket.socketpair()
        self.control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fds = [sock.fileno() for sock in (control, guest, passt)]
        self.child = Child([sys.executable, "-I", "-m", "utilityvm.network.relay", *map(str, fds), "0"], pass_fds=fds)
        for sock in (guest, passt, control):
            sock.close()
        for sock in self.all:
            sock.setblocking(False)
        self.number = 0

    @property
    def all(self) -> tuple[socket.socket, ...]:
        return self.guest, self.passt, self.control

    async def order(self, rules: list[str] | None, servers: tuple[str, ...] = (), place: PlaceOrder = PLACE) -> None:
        self.number += 1
        orders = Orders(number=self.number, place=place, rules=rules, servers=list(servers), tcp=[80])
        await asyncio.get_running_loop().sock_sendall(self.control, msgspec.json.encode(orders))

    async def told(self) -> Told:
        return msgspec.json.decode(await asyncio.get_running_loop().sock_recv(self.control, 1 << 16), type=Told)

    async def meet(self, rules: list[str] | None = None, servers: tuple[str, ...] = ()) -> None:
        """Give the first orders, and answer as passt does when it is ready."""
        await self.order(rules, servers)
        asked = await read(self.passt)
        assert asked[12:14] == b"\x08\x06"
        await write(self.passt, framed(b"ready" * 9))
        assert (await self.told()).number == 1
        assert await read(self.guest) == b"ready" * 9

    def close(self) -> None:
        for sock in self.all:
            sock.close()


async def read(sock: socket.socket) -> bytes:
    """One frame."""
    size = struct.unpack("!I", await exactly(sock, 4))[0]
    return await exactly(sock, size)


async def exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await asyncio.get_running_loop().sock_recv(sock, size - len(data))
        assert more, "the relay has ended"
        data += more
    return data


async def write(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    one = World()
    try:
        async with asyncio.timeout(30):
            yield one
    finally:
        one.close()
        one.child.kill()
        await one.child.wait()


async def test_frames_pass_or_are_answered_in_their_order_however_they_are_cut() -> None:
    async with world() as one:
        await one.meet()
        good = [tcp("1.1.1.1", 443, data=bytes([n]) * n * 97) for n in range(20)]
        stream = framed(*(frame for pair in zip(good, [tcp("10.0.0.1", 1)] * 20, strict=True) for frame in pair))
        for at in range(0, len(stream), 1000):
            await write(one.guest, stream[at : at + 1000])
        assert [await read(one.passt) for _ in good] == good
        resets = [await read(one.guest) for _ in good]
        assert all(frame[47] == 0x14 for frame in resets)
        assert (await one.told()).refused == {"closed": 20}


async def test_what_comes_back_is_kept_while_the_guest_does_not_read_and_is_whole() -> None:
    async with world() as one:
        await one.meet()
        frames = [bytes([n & 255]) * 60_000 for n in range(300)]
        sending = asyncio.ensure_future(write(one.passt, framed(*frames)))  # noqa: TID251 (awaited below)
        assert [await read(one.guest) for _ in frames] == frames
        await sending


async def test_a_guest_is_greeted_when_passt_has_read_that_it_accepts() -> None:
    """What came with that would be read with it, which passt does not survive: the guest says nothing more until then."""
    async with world() as one:
        await one.meet()
        begins = [tcp(str(ME), 80, own=own, source="10.0.2.2") for own in (5555, 5556)]
        accepts = [tcp("10.0.2.2", own, flags=SYN | ACK, own=80) for own in (5555, 5556)]
        await write(one.passt, framed(*begins))
        assert [await read(one.guest) for _ in begins] == begins
        await write(one.guest, framed(*accepts))
        assert [await read(one.passt) for _ in accepts] == accepts
        asked = await read(one.passt)
        assert asked[12:14] == b"\x08\x06"
        other = b"for the guest" * 9
        answer = MAC + GATEWAY + asked[12:21] + b"\2" + GATEWAY + asked[38:42] + asked[22:32]
        await write(one.passt, framed(other))
        assert await read(one.guest) == other
        await write(one.passt, framed(answer))
        assert [(frame[36:38], frame[47]) for frame in [await read(one.guest) for _ in accepts]] == [(b"\0\x50", ACK)] * 2
        await write(one.passt, framed(other))
        assert await read(one.guest) == other


async def test_a_guest_that_does_not_answer_is_asked_again() -> None:
    async with world() as one:
        await one.meet()
        begin = tcp(str(ME), 80, own=5555, source="10.0.2.2")
        await write(one.passt, framed(begin))
        assert [await read(one.guest) for _ in range(2)] == [begin, begin]
        refuses = tcp("10.0.2.2", 5555, flags=4, own=80)
        await write(one.guest, framed(refuses))
        assert await read(one.passt) == refuses


async def test_another_policy_holds_when_it_is_told_that_it_does() -> None:
    async with world() as one:
        await one.meet(["1.1.1.1"])
        first, second = tcp("1.1.1.1", 443), tcp("8.8.8.8", 443)
        await write(one.guest, framed(first))
        assert await read(one.passt) == first
        await one.order(["8.8.8.8"])
        assert (await one.told()).number == 2
        await write(one.guest, framed(first, second))
        assert await read(one.passt) == second


async def test_names_are_asked_for_by_the_relay_and_the_next_server_when_one_is_not_there() -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        try:
            server.bind(("127.0.0.53", 53))
        except PermissionError:
            pytest.skip("port 53 is root's")
        server.setblocking(False)
        async with world() as one:
            await one.meet(["*.example.org"], ("127.0.0.54", "127.0.0.53"))
            await write(
                one.guest, framed(udp(str(RESOLVER), 53, query("evil.net")), udp(str(RESOLVER), 53, query("a.example.org", number=8)))
            )
            refused = await read(one.guest)
            assert refused[45] & 15 == 5
            asked, who = await loop.sock_recvfrom(server, 4096)
            assert b"\1a\7example\3org\0" in asked
            answer = asked[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + asked[12:31] + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x09\x09\x09\x09"
            await loop.sock_sendto(server, answer, who)
            told = await read(one.guest)
            assert told[42:44] == b"\0\x08"
            assert told.endswith(b"\x09\x09\x09\x09")
            good = tcp("9.9.9.9", 443)
            await write(one.guest, framed(good))
            assert await read(one.passt) == good


async def test_without_a_server_a_name_cannot_be_asked_for() -> None:
    async with world() as one:
        await one.meet()
        await write(one.guest, framed(udp(str(RESOLVER), 53, query("a.b"))))
        assert (await read(one.guest))[45] & 15 == 2


async def test_a_server_that_does_not_answer_is_given_up(silent: str) -> None:
    loop = asyncio.get_running_loop()
    async with world() as one:
        await one.meet(None, (silent,))
        begun = loop.time()
        await write(one.guest, framed(udp(str(RESOLVER), 53, query("a.b"))))
        assert (await read(one.guest))[45] & 15 == 2
        assert PATIENCE - 0.5 <= loop.time() - begun < PATIENCE + 10


async def test_no_more_questions_wait_than_the_bound(silent: str) -> None:
    async with world() as one:
        await one.meet(None, (silent,))
        asked = [udp(str(RESOLVER), 53, query("a.b", number=number)) for number in range(MAX_QUESTIONS + 1)]
        await write(one.guest, framed(*asked))
        assert (await read(one.guest))[42:44] == MAX_QUESTIONS.to_bytes(2)


@pytest.mark.parametrize("end", ["guest", "passt", "control"])
async def test_it_ends_with_any_of_its_ends(end: str) -> None:
    async with world() as one:
        await one.meet()
        getattr(one, end).close()
        assert await one.child.wait() == 0
        assert one.child.output.data == b""


async def test_a_guest_that_writes_no_frames_loses_its_network() -> None:
    async with world() as one:
        await one.meet()
        await write(one.guest, b"\xff" * 8)
        assert await one.child.wait() == 0


async def test_it_is_not_ready_without_passt() -> None:
    async with world() as one:
        await one.order(None)
        await read(one.passt)
        one.passt.close()
        assert await one.child.wait() == 0
        assert await asyncio.get_running_loop().sock_recv(one.control, 100) == b""


async def test_passt_sees_the_address_that_a_guest_has_on_its_link() -> None:
    async with world() as one:
        await one.order(None, place=msgspec.structs.replace(PLACE, six=str(ME6)))
        assert (await read(one.passt))[12:14] == b"\x08\x06"
        frame = await read(one.passt)
        found = packet(frame)
        assert not isinstance(found, str)
        assert (str(found.source), str(found.target), frame[:6]) == ("fe80::ff:fe00:1", "ff02::1:ff00:15", bytes.fromhex("3333ff000015"))
        pseudo = found.source.packed + found.target.packed + struct.pack("!II", len(frame) - 54, found.protocol)
        assert checksum(pseudo + frame[54:]) == 0
        assert frame[54] == 135
        assert frame[62:78] == ME6.packed


async def test_orders_that_are_none_end_it_with_the_reason() -> None:
    async with world() as one:
        await write(one.control, b"{}")
        assert await one.child.wait() == 1
        assert "missing required field" in one.child.output.text(1)


async def test_it_does_not_outlive_its_owner() -> None:
    async with world() as one:
        await one.meet()
        pid = one.child.pid
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        one.close()  # as the kernel does with the owner's descriptors
        os.kill(pid, signal.SIGCONT)
        await one.child.wait()
