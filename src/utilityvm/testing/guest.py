"""A guest without a VM: the other end of the guest connection, in the same process, for tests and fault injection.

It follows protocol/SPEC.md as the agent does: answers the transport reset, dials its boot ports when they are listened to, negotiates,
and runs *programs*, which are Python functions. What it sends can be cut, delayed or replaced by `tamper`.
"""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Final, final

from utilityvm.kit.aio import Scope
from utilityvm.wire import gcs
from utilityvm.wire.frames import Frame, FrameReader
from utilityvm.wire.frames import encode as encode_frame
from utilityvm.wire.packets import GUEST_CID, HOST_CID, MAX_PAYLOAD, SHUT_BOTH, SHUT_SEND, Control, Op, Packet, PacketReader, encode

_FIRST_PORT: Final = 0x8000_0000
_WINDOW: Final = 512 * 1024
_NOT_IMPLEMENTED: Final = -2147467263

MEMORY_PAGES: Final = 65_536
"""What the guest says that it has, in pages of 4096 bytes; half of it is in use."""

Port = int


@dataclass(slots=True)
class GuestConnection:
    """One stream as the guest sees it."""

    port: Port
    inbox: "asyncio.Queue[bytes | None]" = field(default_factory=asyncio.Queue)
    accepted: asyncio.Event = field(default_factory=asyncio.Event)
    credit: asyncio.Event = field(default_factory=asyncio.Event)
    refused: bool = False
    sent: int = 0
    received: int = 0
    peer_alloc: int = 0
    peer_taken: int = 0

    async def read(self) -> bytes:
        """Return the next bytes, ``b""`` at the end."""
        data = await self.inbox.get()
        if data is None:
            self.inbox.put_nowait(None)
        return data or b""


@dataclass(frozen=True, slots=True)
class Program:
    """A running program's view of its process: argv, streams (None when not asked for), and a way to be killed."""

    argv: tuple[str, ...]
    stdin: GuestConnection | None
    stdout: GuestConnection | None
    stderr: GuestConnection | None


Body = Callable[["FakeGuest", Program], Awaitable[int]]
"""A program: writes with `FakeGuest.write`, returns its exit code."""


@final
class FakeGuest:
    """The guest's end of the socket `sock`. `programs` maps a program's name to its body.

    `tamper` may change every run of bytes before it is sent; `answers` replaces the response body of a message type.
    """

    def __init__(
        self,
        sock: socket.socket,
        programs: Mapping[str, Body] | None = None,
        *,
        tamper: Callable[[bytes], bytes] | None = None,
        log: bytes = b"",
        answers: Mapping[int, bytes] | None = None,
    ) -> None:
        sock.setblocking(False)
        self._sock, self._programs, self._tamper = sock, dict(programs or {}), tamper or (lambda data: data)
        self._log, self._answers = log, dict(answers or {})
        self._next_port = _FIRST_PORT
        self._connections: dict[tuple[int, int], GuestConnection] = {}
        self._mine: dict[int, tuple[int, int]] = {}
        self._next_pid = 100
        self._processes: dict[int, asyncio.Task[int]] = {}
        self.entropy = b""
        """What the host sent on the entropy port."""
        self.listening: set[Port] = set()
        """Ports on which the host listens."""
        self._gone = False
        self._tasks = Scope("fake guest")
        self._met, self._sending = asyncio.Event(), asyncio.Lock()

    async def run(self) -> None:
        """Serve until the host closes the connection."""
        loop, reader = asyncio.get_running_loop(), PacketReader(src_cid=HOST_CID, dst_cid=GUEST_CID)
        with closing(self._sock):
            await self._serve(loop, reader)

    async def _serve(self, loop: asyncio.AbstractEventLoop, reader: PacketReader) -> None:
        try:
            while data := await loop.sock_recv(self._sock, 1 << 16):
                for packet in reader.feed(data):
                    await self._on_packet(packet)
        except ConnectionError:
            pass  # the host is gone: so are we
        finally:
            self._gone = True
            for process in self._processes.values():
                process.cancel()
            await self._tasks.aclose()
            if self._processes:
                await asyncio.wait(self._processes.values())

    async def send(self, packet: Packet) -> None:
        """Send one packet as the guest, tampered with."""
        await self.send_raw(encode(packet, src_cid=GUEST_CID, dst_cid=HOST_CID))

    async def send_raw(self, data: bytes) -> None:
        """Send bytes as they are, but tampered with."""
        async with self._sending:  # a packet must not be cut by another task's
            await asyncio.get_running_loop().sock_sendall(self._sock, self._tamper(data))

    async def dial(self, port: Port) -> GuestConnection:
        """Open a connection to the host's `port`, once the host has begun; `refused` says whether it was."""
        await self._met.wait()
        mine, self._next_port = self._next_port, self._next_port + 1
        connection = GuestConnection(port)
        self._connections[(port, mine)] = connection
        self._mine[id(connection)] = (mine, port)
        await self.send(Packet(Op.REQUEST, mine, port, buf_alloc=_WINDOW))
        await connection.accepted.wait()
        return connection

    async def write(self, connection: GuestConnection, data: bytes) -> None:
        """Send all of `data`, waiting for credit as a guest must."""
        mine, port = self._mine[id(connection)]
        rest = data
        while rest:
            room = connection.peer_alloc - (connection.sent - connection.peer_taken)
            piece, rest = rest[: min(room, MAX_PAYLOAD)], rest[min(room, MAX_PAYLOAD) :]
            if piece:
                connection.sent += len(piece)
                await self.send(Packet(Op.RW, mine, port, piece, buf_alloc=_WINDOW, fwd_cnt=connection.received))
            else:
                connection.credit.clear()
                await connection.credit.wait()

    async def shut(self, connection: GuestConnection, bits: int = SHUT_SEND) -> None:
        """Say that no more is sent (or taken)."""
        mine, port = self._mine[id(connection)]
        await self.send(Packet(Op.SHUTDOWN, mine, port, flags=bits, buf_alloc=_WINDOW, fwd_cnt=connection.received))

    # -- from the host ----------------------------------------------------------------------------------------------

    async def _on_packet(self, packet: Packet) -> None:
        match packet.op:
            case Control.RESET:
                await self.send(Packet(Control.RESET_ACK, payload=packet.payload))
                self._met.set()
            case Control.LISTEN:
                self.listening.add(packet.dst_port)
                if (
                    boot := {gcs.ENTROPY_PORT: self._entropy, gcs.LOG_PORT: self._logs, gcs.BRIDGE_PORT: self._bridge}.get(packet.dst_port)
                ) is not None:
                    self._tasks.start("boot", boot())
            case Control.UNLISTEN:
                self.listening.discard(packet.dst_port)
            case _:
                await self._on_stream((packet.src_port, packet.dst_port), packet)

    async def _on_stream(self, key: tuple[int, int], packet: Packet) -> None:
        connection = self._connections.get(key)
        if connection is None:
            if packet.op is not Op.RST:
                await self.send(Packet(Op.RST, packet.dst_port, packet.src_port))
            return
        connection.peer_alloc, connection.peer_taken = packet.buf_alloc or connection.peer_alloc, packet.fwd_cnt
        connection.credit.set()
        match packet.op:
            case Op.RESPONSE:
                connection.accepted.set()
            case Op.RST:
                connection.refused = not connection.accepted.is_set()
                connection.accepted.set()
                connection.inbox.put_nowait(None)
                del self._connections[key]
            case Op.RW:
                connection.received += len(packet.payload)
                connection.inbox.put_nowait(packet.payload)
                update = Packet(Op.CREDIT_UPDATE, packet.dst_port, packet.src_port, buf_alloc=_WINDOW, fwd_cnt=connection.received)
                await self.send(update)
            case Op.SHUTDOWN:
                if packet.flags & SHUT_SEND:
                    connection.inbox.put_nowait(None)
                if packet.flags == SHUT_BOTH:
                    del self._connections[key]
                    await self.send(Packet(Op.RST, packet.dst_port, packet.src_port))

    # -- programs of the boot ---------------------------------------------------------------------------------------

    async def _entropy(self) -> None:
        connection = await self.dial(gcs.ENTROPY_PORT)
        while data := await connection.read():
            self.entropy += data

    async def _logs(self) -> None:
        connection = await self.dial(gcs.LOG_PORT)
        await self.write(connection, self._log)

    async def _bridge(self) -> None:
        connection = await self.dial(gcs.BRIDGE_PORT)
        reader = FrameReader()
        while data := await connection.read():
            for frame in reader.feed(data):
                self._tasks.start("answer", self._answer(connection, frame))

    async def _answer(self, connection: GuestConnection, frame: Frame) -> None:
        body = self._answers.get(frame.type)
        if body is None:
            answer = await self._handle(frame.type, json.loads(frame.body))
            if answer is None:
                return
            body = json.dumps(answer).encode()
        await self.write(connection, encode_frame(Frame(gcs.response_type(frame.type), frame.id, body)))

    async def _handle(self, word: int, request: dict[str, object]) -> dict[str, object] | None:
        match word:
            case gcs.NEGOTIATE.word:
                able = {"SignalProcessSupported": True, "DumpStacksSupported": True}
                return {"Result": 0, "Version": 4, "Capabilities": {"RuntimeOsType": "Linux", "GuestDefinedCapabilities": able}}
            case gcs.EXECUTE.word:
                return await self._execute(request)
            case gcs.WAIT.word | gcs.SIGNAL.word:
                return await self._process_call(word, request["ProcessId"])
            case gcs.PROPERTIES.word | gcs.DUMP_STACKS.word:
                return {"Result": 0} | self._told(word, request)
            case gcs.SHUTDOWN_GRACEFUL:
                self._sock.shutdown(socket.SHUT_RDWR)
                return None
        return {"Result": _NOT_IMPLEMENTED, "ErrorMessage": f"bridge: function not supported, header type: {word:#x}"}

    def _told(self, word: int, request: dict[str, object]) -> dict[str, object]:
        if word == gcs.DUMP_STACKS.word:
            return {"GuestStacks": "goroutine 1 [running]:\n"}
        running = sorted(pid for pid, process in self._processes.items() if not process.done())
        known: dict[str, object] = {
            "Memory": {"VirtualMachineMemory": {"AvailableMemory": MEMORY_PAGES // 2, "AssignedMemory": MEMORY_PAGES}},
            "ProcessList": [{"ProcessId": pid} for pid in running],
        }
        wanted: list[str] = json.loads(str(request["Query"])).get("PropertyTypes", [])
        return {"Properties": json.dumps({name: known[name] for name in wanted if name in known})}

    async def _process_call(self, word: int, pid: object) -> dict[str, object]:
        process = self._processes.get(pid) if isinstance(pid, int) else None
        if process is None:
            return {"Result": gcs.NOT_FOUND - (1 << 32), "ErrorMessage": f"no process {pid}"}
        if word == gcs.SIGNAL.word:
            process.cancel()
            return {"Result": 0}
        await asyncio.wait([process])
        return {"Result": 0, "ExitCode": 137 if process.cancelled() else process.result()}

    async def _execute(self, request: dict[str, object]) -> dict[str, object]:
        settings = json.loads(json.dumps(request["Settings"]))
        parameters, ports = json.loads(settings["ProcessParameters"]), settings["VsockStdioRelaySettings"]
        argv = tuple(parameters["CommandArgs"])
        body = self._programs.get(argv[0])
        if body is None:
            return {"Result": gcs.FILE_NOT_FOUND - (1 << 32), "ErrorMessage": f"{argv[0]}: no such program"}
        ends = [await self.dial(ports[name]) if name in ports else None for name in ("StdIn", "StdOut", "StdErr")]
        pid, self._next_pid = self._next_pid, self._next_pid + 1
        program = Program(argv, *ends)
        self._processes[pid] = asyncio.create_task(self._run_program(body, program))  # noqa: TID251 (killed by SignalProcess)
        return {"Result": 0, "ProcessId": pid}

    async def _run_program(self, body: Body, program: Program) -> int:
        try:
            return await body(self, program)
        finally:
            for end, bits in ((program.stdin, SHUT_BOTH), (program.stdout, SHUT_SEND), (program.stderr, SHUT_SEND)):
                if end is not None and not self._gone:
                    await self.shut(end, bits)
