"""A hostile guest beside a good one in the same process: a typed end or none, in bounded time and memory, and the other VM is untouched.

The guest is good until its program `attack` runs; from then on it does what it likes. What the host holds is measured with the
fake guest's own memory included, so the true bound is lower still.
"""

import asyncio
import gc
import logging
import os
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, cycle, islice

import pytest
from tests.unit.vm.fake import create, echo, service

from utilityvm import Process, UtilityVM
from utilityvm.guest import process as guest_process
from utilityvm.guest.transport import BACKLOG
from utilityvm.kit.errors import ConnectionLost, DeadlineExceeded, GuestError, ProtocolError, UtilityVMError
from utilityvm.testing.compute import FakeComputeService, FakeMachine
from utilityvm.testing.guest import FakeGuest, GuestConnection, Program
from utilityvm.vm import uvm
from utilityvm.vm.life import State
from utilityvm.wire import gcs
from utilityvm.wire.frames import HEADER as FRAME_HEADER
from utilityvm.wire.frames import Frame
from utilityvm.wire.frames import encode as encode_frame
from utilityvm.wire.packets import (
    CONTROL,
    GUEST_CID,
    HEADER,
    HOST_CID,
    SHUT_BOTH,
    SHUT_RECEIVE,
    SHUT_SEND,
    STREAM,
    Control,
    Op,
    Packet,
    encode,
)
from utilityvm.wire.vsock import WINDOW

BOUND = 120.0
"""Seconds in which every case has ended on a busy machine: a hang, when it has not."""

MEMORY = 12 * 1024 * 1024
"""Bytes that host and fake guest together may hold at any time of an attack, beyond what the two running VMs hold."""

DIALS = 100_000
FLOOD = 20_000
PORT = 0x5000
LIES = 0xFFFF_FFFF

Attack = Callable[[FakeGuest, Program], Awaitable[None]]


def packets(*sent: Packet) -> bytes:
    return b"".join(encode(packet, src_cid=GUEST_CID, dst_cid=HOST_CID) for packet in sent)


def connection(guest: FakeGuest, port: int) -> tuple[GuestConnection, tuple[int, int]]:
    """The guest's connection to `port`, and its pair of ports as the guest's packets name it."""
    ((_, mine), found) = next((key, each) for key, each in guest._connections.items() if each.port == port)
    return found, (mine, port)


def bytes_of(data: bytes) -> Attack:
    async def attack(guest: FakeGuest, _program: Program) -> None:
        await guest.send_raw(data)

    return attack


@dataclass(slots=True)
class Answered:
    """The host's resets of what belongs to no connection of the good times. The guest counts and drops them: it would answer for long."""

    resets: int = 0
    more: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, resets: int) -> None:
        while self.resets < resets:
            self.more.clear()
            await self.more.wait()


def deaf_to_strangers(guest: FakeGuest) -> Answered:
    good, answered = guest._on_packet, Answered()

    async def some(packet: Packet) -> None:
        if isinstance(packet.op, Control) or (packet.src_port, packet.dst_port) in guest._connections:
            await good(packet)
        elif packet.op is Op.RST:
            answered.resets += 1
            answered.more.set()

    guest._on_packet = some  # type: ignore[method-assign]
    return answered


def flood(*sent: Packet) -> Attack:
    """Send these packets again and again, `FLOOD` in all."""

    async def attack(guest: FakeGuest, _program: Program) -> None:
        deaf_to_strangers(guest)
        every = cycle(sent)
        for _ in range(FLOOD // 1000):
            await guest.send_raw(packets(*islice(every, 1000)))

    return attack


def dial_flood(port: int) -> Attack:
    """Dial `port` from `DIALS` ports."""

    async def attack(guest: FakeGuest, _program: Program) -> None:
        answered = deaf_to_strangers(guest)
        for at in range(0, DIALS, 1000):
            await answered.until(at - 5000)  # a guest that reads while it floods, and so is not held up
            await guest.send_raw(packets(*(Packet(Op.REQUEST, 0x9000_0000 + at + n, port, buf_alloc=LIES) for n in range(1000))))

    return attack


def on_stdout(*sent: Packet, times: int = 1) -> Attack:
    """Send packets of the process's output stream, with its ports."""

    async def attack(guest: FakeGuest, program: Program) -> None:
        assert program.stdout is not None
        _, (mine, port) = connection(guest, program.stdout.port)
        run = packets(*(Packet(each.op, mine, port, each.payload, each.flags, each.buf_alloc, each.fwd_cnt) for each in sent))
        for _ in range(times):
            await guest.send_raw(run)

    return attack


def on_bridge(*data: bytes) -> Attack:
    async def attack(guest: FakeGuest, _program: Program) -> None:
        bridge, _ = connection(guest, gcs.BRIDGE_PORT)
        with suppress(ConnectionError):  # the host has hung up
            for each in data:
                await guest.write(bridge, each)

    return attack


def on_log(*data: bytes) -> Attack:
    async def attack(guest: FakeGuest, _program: Program) -> None:
        log, _ = connection(guest, gcs.LOG_PORT)
        for each in data:
            await guest.write(log, each)

    return attack


async def overrun(guest: FakeGuest, program: Program) -> None:
    assert program.stdout is not None
    _, (mine, port) = connection(guest, program.stdout.port)
    for _ in range(3 * WINDOW // 65_536):
        await guest.send_raw(packets(Packet(Op.RW, mine, port, bytes(65_536), buf_alloc=LIES)))


async def reads_no_more(guest: FakeGuest, _program: Program) -> None:
    guest._on_packet = forever  # type: ignore[assignment, method-assign]


async def asks_and_reads_no_more(guest: FakeGuest, program: Program) -> None:
    await reads_no_more(guest, program)
    while True:
        await guest.send_raw(packets(*[Packet(Op.CREDIT_UPDATE, 1, 2)] * 100))


async def never_ends_a_packet(guest: FakeGuest, program: Program) -> None:
    await guest.send_raw(HEADER.pack(3, 2, 1, 1, 65_536, STREAM, 5, 0, 0, 0) + bytes(65_535))
    await reads_no_more(guest, program)


async def forever(*_: object) -> None:
    await asyncio.Event().wait()


def deep(size: int) -> bytes:
    return b"[" * (size // 2) + b"]" * (size // 2)


def answer(word: int, number: int, body: bytes) -> bytes:
    return encode_frame(Frame(word, number, body))


UNASKED = answer(0x2010_0501, 1 << 40, b"{}")
NOTIFICATION = answer(0x3010_0F01, 0, b"{}")

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r\nfake: line"

DEADLY: dict[str, tuple[Attack, str]] = {
    "garbage": (bytes_of(b"\xff" * 100_000), "payload of 4294967295 bytes"),
    "zeros": (bytes_of(bytes(100_000)), "CIDs 0 to 0"),
    "a packet that claims four gigabytes": (bytes_of(HEADER.pack(3, 2, 1, 1, LIES, STREAM, 5, 0, 0, 0)), "payload of 4294967295"),
    "a control packet with a tail": (bytes_of(HEADER.pack(3, 2, 0, 0, 1, CONTROL, 3, 0, 0, 0)), "with 1 bytes of payload"),
    "the host's words": (flood(Packet(Control.LISTEN, dst_port=1)), "LISTEN is the host's to send"),
    "a reset that nobody asked for": (flood(Packet(Control.RESET_ACK, payload=bytes(16))), "RESET_ACK without a question"),
    "a response to no dial of ours": (on_stdout(Packet(Op.RESPONSE)), "RESPONSE on"),
    "a frame that claims four gigabytes": (on_bridge(FRAME_HEADER.pack(0x2010_0501, LIES, 1)), "invalid message size 4294967295"),
    "a frame shorter than its header": (on_bridge(FRAME_HEADER.pack(0x2010_0501, 15, 1) * 1000), "invalid message size 15"),
    "answers to no question": (on_bridge(*[UNASKED] * 1000), "unknown rpc response for id"),
    "a flood of notifications": (on_bridge(*[NOTIFICATION] * 1000), "unknown|notification"),
    "requests to the host": (on_bridge(answer(0x1010_0501, 1, b"{}")), "unknown message type 0x10100501"),
    "an answer of another type": (on_bridge(answer(0x2010_0301, 2, b"{}")), "unknown rpc response"),
}
"""Each ends the guest's connection and with it its VM, for this reason."""

HARMLESS: dict[str, Attack] = {
    "dials to a port that nobody listens on": dial_flood(0x6000),
    "resets of nothing": flood(Packet(Op.RST, 1, 2), Packet(Op.RST, LIES, LIES)),
    "bytes in a dead stream": flood(Packet(Op.RW, 1, 2, b"x" * 100)),
    "questions about nothing": flood(Packet(Op.CREDIT_REQUEST, 1, 2)),
    "questions about a stream": on_stdout(*[Packet(Op.CREDIT_REQUEST, buf_alloc=LIES)] * 1000, times=FLOOD // 1000),
    "credit that comes and goes": on_stdout(
        *(Packet(Op.CREDIT_UPDATE, buf_alloc=alloc, fwd_cnt=taken) for alloc in (0, 1, LIES) for taken in (0, LIES, 1 << 31, 7)), times=500
    ),
    "every shutdown in every order": on_stdout(
        *(Packet(Op.SHUTDOWN, flags=flags) for flags in (0, SHUT_RECEIVE, 0, SHUT_SEND, SHUT_BOTH, LIES)), times=500
    ),
    "a shutdown and then bytes": on_stdout(Packet(Op.SHUTDOWN, flags=SHUT_SEND), Packet(Op.RW, payload=b"x"), Packet(Op.RST)),
    "more than the window": overrun,
    "a stream dialled twice, reset, and dialled again": on_stdout(Packet(Op.REQUEST), Packet(Op.RST), Packet(Op.REQUEST)),
    "bytes one by one": on_stdout(*[Packet(Op.RW, payload=b"x")] * 1000, times=20),
    "a log line without end": on_log(*[b"x" * 65_536] * 160),
    "a log of empty lines": on_log(*[b"\n" * 65_536] * 20),
    "a log of short lines": on_log(*[b"1\n" * 32_768] * 2),
    "a log that is not UTF-8": on_log(b'{"msg":"\xff\xfe"}\n' * 1000, b"\xc3\x28\n" * 1000),
    "a log of deep JSON": on_log(*[b'{"a":' + deep(60_000) + b"}\n"] * 10, *[b'{"a":' + deep(1500) + b"}\n"] * 100),
    "a log with lone surrogates": on_log(b'{"msg":"\\ud800","\\udfff":"\\udc00"}\n' * 1000),
    "a log with huge numbers": on_log(b'{"msg":' + b"9" * 60_000 + b"}\n", b'{"msg":1e999,"level":NaN,"time":-Infinity}\n'),
    "a log that steers terminals": on_log(
        b'{"level":"\\u001b[2J","msg":"\\u001b]0;owned\\u0007","k\\u009b31m\\n":"a\\r\\nforged: line \\u202e"}\n' * 100,
        ESCAPES.encode() + b"\n",
    ),
}
"""None ends the VM: what it hurts is the guest's own."""


def attacker(attack: Attack) -> tuple[FakeComputeService, asyncio.Event]:
    """A service whose guests attack, and the event that says that all was sent."""
    sent = asyncio.Event()

    async def body(guest: FakeGuest, program: Program) -> int:
        with suppress(ConnectionError):  # the host has hung up
            await attack(guest, program)
        sent.set()
        return 0

    of, _ = service({"attack": body, "echo": echo})
    return of, sent


@asynccontextmanager
async def two_vms(of: FakeComputeService) -> AsyncIterator[tuple[UtilityVM, FakeMachine]]:
    """A running VM on the service and a good one beside it, which must run processes during and after, and then nothing is left."""
    before, good = descriptors(), service()[0]
    async with asyncio.timeout(BOUND), asyncio.TaskGroup() as group:
        async with await create(good) as sibling, await create(of) as vm:
            await sibling.start()
            await vm.start()
            of.machines[0].listen(PORT)
            runs = group.create_task(keep_running(sibling))
            gc.collect()
            tracemalloc.start()
            try:
                held, _ = tracemalloc.get_traced_memory()
                yield vm, of.machines[0]
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
                runs.cancel()
            assert peak - held < MEMORY
            await says(sibling, "still here")
            assert sibling.state is State.RUNNING
        assert (vm.state, sibling.state) == (State.CLOSED, State.CLOSED)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1, asyncio.all_tasks()
    gc.collect()
    assert descriptors() <= before


async def keep_running(vm: UtilityVM) -> None:
    while True:
        await says(vm, "untouched")


async def says(vm: UtilityVM, words: str) -> None:
    process = await vm.create_process(["echo", words])
    assert (await process.stdout.read(), await process.wait()) == (words.encode(), 1)
    await process.close()


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 (names are what is compared)


async def output_of(process: Process) -> None:
    """Take what a process says, whatever becomes of it."""
    with suppress(ConnectionLost, ProtocolError):
        while await process.stdout.read(65_536):
            pass


@pytest.mark.parametrize("name", DEADLY)
async def test_a_guest_that_breaks_the_protocol_loses_its_vm_and_nothing_else(name: str) -> None:
    attack, why = DEADLY[name]
    async with two_vms(attacker(attack)[0]) as (vm, _):
        with suppress(UtilityVMError):
            await (await vm.create_process(["attack"])).wait()
        await vm.wait()
        assert isinstance(vm.exit_error, ProtocolError)
        with pytest.raises(ProtocolError, match=why):
            raise vm.exit_error


@pytest.mark.parametrize("name", HARMLESS)
async def test_what_breaks_nothing_ends_nothing(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)  # kept records would count as ours
    of, sent = attacker(HARMLESS[name])
    async with two_vms(of) as (vm, _):
        process = await vm.create_process(["attack"])
        await sent.wait()
        await output_of(process)
        await process.wait()
        assert vm.state is State.RUNNING
        await says(vm, "alive")
        await process.close()


@pytest.mark.parametrize("name", [name for name in HARMLESS if "log" in name])
async def test_the_guests_log_reaches_no_terminal_as_it_is(name: str, caplog: pytest.LogCaptureFixture) -> None:
    of, sent = attacker(HARMLESS[name])
    async with asyncio.timeout(BOUND), await create(of) as vm:
        await vm.start()
        await (await vm.create_process(["attack"])).wait()
        await sent.wait()
    said = [record for record in caplog.records if record.name == "utilityvm.guest"]
    assert all(record.getMessage().isprintable() for record in said)
    assert all(str(word).isprintable() for record in said for word in chain.from_iterable(getattr(record, "fields").items()))  # noqa: B009
    "".join(record.getMessage() for record in said).encode()
    assert not [record for record in caplog.records if getattr(record, "event", "") == "vm.output.failed"]


async def test_of_a_hundred_thousand_dials_only_the_backlog_is_kept() -> None:
    of, sent = attacker(dial_flood(PORT))
    async with two_vms(of) as (vm, machine):
        process = await vm.create_process(["attack"])
        await sent.wait()
        await process.wait()
        transport = machine._transport
        assert len(transport._streams) < BACKLOG + 10
        assert len(transport._listeners[PORT]._waiting) == BACKLOG
        await says(vm, "alive")


async def test_who_sends_more_than_the_window_is_told_off_by_name() -> None:
    of, sent = attacker(overrun)
    async with two_vms(of) as (vm, _):
        process = await vm.create_process(["attack"])
        await sent.wait()
        await process.wait()
        with pytest.raises(ConnectionLost, match=f"the guest sent more than the {WINDOW} bytes"):
            await process.stdout.read()
        await process.close()


async def test_a_guest_that_claims_endless_room_and_reads_no_more_holds_the_writer_back() -> None:
    async def claim(guest: FakeGuest, program: Program) -> None:
        assert program.stdin is not None
        _, (mine, port) = connection(guest, program.stdin.port)
        await guest.send_raw(packets(Packet(Op.CREDIT_UPDATE, mine, port, buf_alloc=LIES)))
        await reads_no_more(guest, program)
        await forever()

    data = memoryview(bytes(1 << 16)).tobytes() * 512  # 32 MiB, before memory is measured
    async with two_vms(attacker(claim)[0]) as (vm, machine):
        process = await vm.create_process(["attack"], stdin=True)
        async with asyncio.TaskGroup() as group:
            writing = [group.create_task(broken_off(process, data)) for _ in range(5)]
            await asyncio.sleep(0)
            while machine._transport._room.is_set():
                await asyncio.sleep(0)
            for _ in range(1000):
                await asyncio.sleep(0)
            assert not any(task.done() for task in writing)
            await vm.terminate()


async def broken_off(process: Process, data: bytes) -> None:
    with pytest.raises(ConnectionLost):
        await process.stdin.write(data)


async def test_a_guest_that_asks_and_reads_no_more_fills_no_queue() -> None:
    async with two_vms(attacker(asks_and_reads_no_more)[0]) as (vm, machine):
        process = await vm.create_process(["attack"])
        carrier = machine._transport._carrier
        assert carrier is not None
        while machine._transport._room.is_set():
            await asyncio.sleep(0)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert 0 < carrier.get_write_buffer_size() < 4 * 1024 * 1024
        await vm.terminate()
        await process.close()


@pytest.mark.parametrize("attack", [reads_no_more, never_ends_a_packet])
async def test_a_guest_that_falls_silent_is_ended_at_the_deadline_of_a_call(attack: Attack, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(guest: FakeGuest, program: Program) -> None:
        await attack(guest, program)
        await forever()

    async with two_vms(attacker(silent)[0]) as (vm, _):
        process = await vm.create_process(["attack"])
        shorten_calls(monkeypatch)
        with pytest.raises((DeadlineExceeded, ConnectionLost)):
            await process.kill()
        await vm.wait()
        assert isinstance(vm.exit_error, DeadlineExceeded)
        with pytest.raises(UtilityVMError):
            await process.wait()
        await process.close()


def shorten_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only of calls that are made from now on; those of the other VM end in time."""
    from utilityvm.guest.bridge import Bridge

    defaults = Bridge.call.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "within", 1.0)


UNREADABLE: dict[str, bytes] = {
    "no JSON": b"{",
    "another type": b"[]",
    "nested 64 KiB deep": b'{"Novelty":' + deep(65_000) + b"}",
    "nested 64 KiB deep without an end": b'{"Novelty":' + b'{"a":' * 12_000,
    "a number of 64 KiB": b'{"Result":' + b"9" * 65_000 + b"}",
    "a number beyond all": b'{"ProcessId":1e999999}',
    "NaN": b'{"ProcessId":NaN}',
    "a lone surrogate": b'{"ErrorMessage":"\\ud800","Result":-1}',
    "not UTF-8": b'{"ErrorMessage":"\xff","Result":-1}',
    "a process without streams": b'{"ProcessId":1}',
}


@pytest.mark.parametrize("name", UNREADABLE)
async def test_an_answer_that_is_none_is_a_protocol_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_process, "DIAL_TIMEOUT", 0.5)

    async def answers(guest: FakeGuest, _program: Program) -> None:
        guest._answers[gcs.EXECUTE.word] = UNREADABLE[name]

    async with two_vms(attacker(answers)[0]) as (vm, _):
        await (await vm.create_process(["attack"])).wait()
        with pytest.raises(ProtocolError):
            await vm.create_process(["echo"])


async def test_two_answers_to_one_question_end_the_vm() -> None:
    async def twice(guest: FakeGuest, _program: Program) -> None:
        answer_once = guest._answer

        async def answer_twice(bridge: GuestConnection, frame: Frame) -> None:
            await answer_once(bridge, frame)
            await guest.write(bridge, answer(gcs.response_type(frame.type), frame.id, b'{"Result":0}'))

        guest._answer = answer_twice  # type: ignore[assignment, method-assign]

    async with two_vms(attacker(twice)[0]) as (vm, _):
        with suppress(UtilityVMError):
            await (await vm.create_process(["attack"])).wait()
            await vm.create_process(["echo"])
        await vm.wait()
        with pytest.raises(ProtocolError, match="unknown rpc response"):
            raise vm.exit_error or AssertionError


async def test_the_guests_words_in_an_error_steer_no_terminal() -> None:
    async def answers(guest: FakeGuest, _program: Program) -> None:
        words = ESCAPES.encode("unicode_escape").replace(b"\\x", b"\\u00") + b"x" * 60_000
        guest._answers[gcs.EXECUTE.word] = b'{"Result":-1,"ErrorMessage":"' + words + b'"}'

    async with two_vms(attacker(answers)[0]) as (vm, _):
        await (await vm.create_process(["attack"])).wait()
        with pytest.raises(GuestError, match="owned") as caught:
            await vm.create_process(["echo"])
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 5000


async def test_a_guest_that_never_reads_its_entropy_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utilityvm.testing.guest._WINDOW", 0)
    monkeypatch.setattr(uvm, "START_TIMEOUT", 0.2)
    of, _ = service()
    async with asyncio.timeout(BOUND), await create(of) as vm:
        with pytest.raises(DeadlineExceeded, match="not ready within 0.2 s: waiting for the guest to ask for entropy"):
            await vm.start()
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1
