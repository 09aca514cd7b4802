"""A guest that falls silent, lies, stammers or leaves at every packet of a VM's life: a typed error in bounded time, and nothing left.

The whole life is one script: start, a process with input and output, its end, close. Each case changes one packet of the guest's.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Callable

import pytest
from tests.unit.vm.fake import create, echo, service

from utilityvm.guest import process as guest_process
from utilityvm.guest.bridge import Bridge
from utilityvm.guest.transport import Transport
from utilityvm.kit.errors import UtilityVMError
from utilityvm.testing.compute import FakeComputeService
from utilityvm.testing.guest import FakeGuest, Program
from utilityvm.vm import end, uvm
from utilityvm.vm.life import State

DEADLINE = 0.1
"""Seconds of every deadline while a guest is silent."""

BOUND = 20.0
"""Seconds in which a whole life has ended on a busy machine: a hang, when it has not."""

LENGTH = struct.Struct("<I")
LENGTH_AT = 24

Fault = Callable[[socket.socket, bytes], bytes]


async def cat(guest: FakeGuest, program: Program) -> int:
    assert program.stdin is not None
    assert program.stdout is not None
    while data := await program.stdin.read():
        await guest.write(program.stdout, data)
    return 7


def leave(sock: socket.socket, _packet: bytes) -> bytes:
    sock.shutdown(socket.SHUT_RDWR)
    return b""


def say_and_leave(sock: socket.socket, packet: bytes) -> bytes:
    sock.send(packet)
    return leave(sock, packet)


def with_length(change: Callable[[int], int]) -> Fault:
    def lie(_sock: socket.socket, packet: bytes) -> bytes:
        (length,) = LENGTH.unpack_from(packet, LENGTH_AT)
        return packet[:LENGTH_AT] + LENGTH.pack(change(length)) + packet[LENGTH_AT + 4 :]

    return lie


FAULTS: dict[str, Fault] = {
    "is cut short": lambda _sock, packet: packet[:-1],
    "is lost": lambda _sock, _packet: b"",
    "comes twice": lambda _sock, packet: packet * 2,
    "is followed by garbage": lambda _sock, packet: packet + b"\xff" * 50,
    "is preceded by zeros": lambda _sock, packet: bytes(44) + packet,
    "claims one byte more": with_length(lambda length: length + 1),
    "claims one byte less": with_length(lambda length: max(0, length - 1)),
    "claims four gigabytes": with_length(lambda _length: 2**32 - 1),
    "is a leave": leave,
    "is the last": say_and_leave,
    "has another body": lambda _sock, packet: packet[:60] + b"{]" * ((len(packet) - 60) // 2) if len(packet) > 62 else packet[::-1],
}
SILENCE = "the last that is heard"


@pytest.fixture(autouse=True)
def _short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((uvm, "START_TIMEOUT"), (end, "EXIT_TIMEOUT"), (uvm, "DRAIN_TIMEOUT")):
        monkeypatch.setattr(module, name, DEADLINE)
    monkeypatch.setattr(guest_process, "DIAL_TIMEOUT", DEADLINE)
    defaults = Bridge.call.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "within", DEADLINE)


async def live(of: FakeComputeService) -> tuple[bytes, int]:
    """Live the whole life; who waits for a program sets a deadline of their own."""
    async with await create(of) as vm:
        await vm.start()
        async with asyncio.timeout(2 * DEADLINE):
            process = await vm.create_process(["cat"], stdin=True)
            await process.stdin.write(b"hello")
            await process.stdin.write_eof()
            said, code = await process.stdout.read(), await process.wait()
        await process.close()
    assert vm.state is State.CLOSED
    return said, code


def faulty(fault: Fault, at: int, *, silent: bool = False) -> tuple[FakeComputeService, list[int]]:
    """Return a service whose guest's packet number `at` suffers `fault`, after which it may be silent; and the count of packets."""
    count = [0]

    def tamper(sock: socket.socket, packet: bytes) -> bytes:
        count[0] += 1
        if count[0] - 1 == at:
            return fault(sock, packet)
        return b"" if silent and count[0] - 1 > at else packet

    of, _ = service({"cat": cat}, log=b'{"msg":"hi"}\n', tamper=tamper)
    return of, count


PACKETS = 22
"""The guest's packets in a whole life, which the first test holds true."""


async def test_the_whole_life_when_nothing_happens() -> None:
    of, count = faulty(lambda _sock, packet: packet, -1)
    async with asyncio.timeout(BOUND):
        assert await live(of) == (b"hello", 7)
    assert count[0] <= PACKETS


@pytest.mark.parametrize("fault", [*FAULTS, SILENCE])
async def test_a_fault_at_each_packet(fault: str) -> None:
    before = descriptors()
    for at in range(PACKETS):
        of, _ = faulty(FAULTS.get(fault, lambda _sock, packet: packet), at, silent=fault == SILENCE)
        where = f"packet {at} {fault}"
        try:
            async with asyncio.timeout(BOUND) as bound:
                await live(of)  # what a lying guest says of itself is not ours to judge
        except TimeoutError:
            assert not bound.expired(), f"{where}: no end in {BOUND:g} s"
        except UtilityVMError as error:
            print(where, repr(error))
        (machine,) = of.machines
        assert machine.state == "closed", where
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1, f"{where}: {asyncio.all_tasks()}"
    assert descriptors() <= before


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 (names are what is compared)


async def test_a_life_in_single_bytes_is_the_same_life(monkeypatch: pytest.MonkeyPatch) -> None:
    received = Transport.received

    def in_bytes(self: Transport, data: bytes) -> None:
        for at in range(len(data)):
            received(self, data[at : at + 1])

    monkeypatch.setattr(Transport, "received", in_bytes)
    of, _ = faulty(lambda _sock, packet: packet, -1)
    async with asyncio.timeout(BOUND):
        assert await live(of) == (b"hello", 7)


@pytest.mark.parametrize("bytes_sent", [0, 1, 43, 44, 61])
async def test_a_guest_that_never_comes_to_an_end_of_a_packet(bytes_sent: int) -> None:
    """It has sent so many bytes of its first words and says no more."""
    sent = 0

    def tamper(_sock: socket.socket, packet: bytes) -> bytes:
        nonlocal sent
        part = packet[: max(0, bytes_sent - sent)]
        sent += len(part)
        return part

    of, _ = service({"echo": echo}, tamper=tamper)
    async with asyncio.timeout(BOUND):
        with pytest.raises(UtilityVMError, match="not ready within"):
            await live(of)
