"""A guest without a VM: the other end of the guest connection, in the same process, for tests and fault injection.

It follows protocol/SPEC.md as the agent does: answers the transport reset, dials its boot ports when they are listened to, negotiates,
runs *programs*, which are Python functions, and has containers, which keep their processes together and nothing apart. What it sends can
be cut, delayed or replaced by `tamper`.
"""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from typing import Final, final

import msgspec

from utilityvm.kit.aio import Scope
from utilityvm.kit.ids import NULL_GUID
from utilityvm.wire import gcs, services
from utilityvm.wire.frames import Frame, FrameReader
from utilityvm.wire.frames import encode as encode_frame
from utilityvm.wire.packets import GUEST_CID, HOST_CID, MAX_PAYLOAD, SHUT_BOTH, SHUT_SEND, Control, Op, Packet, PacketReader, encode

_FIRST_PORT: Final = 0x8000_0000
_WINDOW: Final = 512 * 1024
_NOT_IMPLEMENTED: Final = 0x8000_4001
_FAIL: Final = 0x8000_4005
_ALREADY_EXISTS: Final = 0xC037_010F
_OK: Final[dict[str, object]] = {"Result": 0}

MEMORY_PAGES: Final = 65_536
"""What the guest says that it has, in pages of 4096 bytes; half of it is in use."""

_ANSWERS: Final = {"Statistics": "LCOWMetrics"}

Port = int


async def _agrees(_request: object) -> None:
    return None


class GuestConnection(msgspec.Struct):
    """One stream as the guest sees it."""

    port: Port
    inbox: "asyncio.Queue[bytes | None]" = msgspec.field(default_factory=asyncio.Queue)
    accepted: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    credit: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
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


class Program(msgspec.Struct, frozen=True):
    """A running program's view of its process: argv, streams (None when not asked for), and a way to be killed."""

    argv: tuple[str, ...]
    stdin: GuestConnection | None
    stdout: GuestConnection | None
    stderr: GuestConnection | None


class _Process(msgspec.Struct):
    args: list[str]


class _Specification(msgspec.Struct):
    process: _Process


class _Config(msgspec.Struct):
    specification: _Specification = msgspec.field(name="OciSpecification")


class FakeContainer(msgspec.Struct):
    """A container as the guest has it: what it was created with, its processes, the first one first, and how it was told to end."""

    config: dict[str, object]
    processes: list[int] = msgspec.field(default_factory=list)
    end: str = "UnexpectedExit"
    told: bool = False
    """Whether its end was notified."""
    paused: bool = False
    oom_kills: int = 0
    """What is told of its memory at its end."""

    @property
    def first(self) -> int | None:
        """Its first process."""
        return self.processes[0] if self.processes else None

    def argv(self, parameters: dict[str, object]) -> tuple[str, ...]:
        """Return what a process in it runs: what the request says, or for the first one what the container was created with."""
        process = parameters.get("OciProcess")
        runs = msgspec.convert(self.config, _Config).specification.process if process is None else msgspec.convert(process, _Process)
        return tuple(runs.args)


Body = Callable[["FakeGuest", Program], Awaitable[int]]
"""A program: writes with `FakeGuest.write`, returns its exit code."""


@final
class FakeGuest:
    """The guest's end of the socket `sock`. `programs` maps a program's name to its body.

    `tamper` may change every run of bytes before it is sent; `answers` replaces the response body of a message type. With `windows` it
    says that it is one, and its processes have a command line and know services instead of ports; with `ours` it is an agent of this
    project's.
    """

    def __init__(
        self,
        sock: socket.socket,
        programs: Mapping[str, Body] | None = None,
        *,
        tamper: Callable[[bytes], bytes] | None = None,
        log: bytes = b"",
        answers: Mapping[int, bytes] | None = None,
        windows: bool = False,
        ours: bool = False,
    ) -> None:
        self._windows, self._ours = windows, ours
        self.signals: list[object] = []
        """What processes were sent: the options of each SignalProcess, None without."""
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
        self.containers: dict[str, FakeContainer] = {}
        """What the host has created and not deleted."""
        self.modified: list[tuple[str, object]] = []
        """What the host has asked to be modified: of which container, and what."""
        self.modifying: Callable[[object], Awaitable[str | None]] = _agrees
        """Takes its time over each of these, and says why it is refused, or None."""
        self.notifies_first = False
        """Whether a container's end is notified before its first process's end is told, as agents may."""
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
                self._boot(packet.dst_port)
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

    def _boot(self, port: Port) -> None:
        """Dial a port that the host has begun to listen to, if the boot has a use for it."""
        match port:
            case gcs.ENTROPY_PORT:
                self._tasks.start("boot", self._entropy())
            case gcs.LOG_PORT:
                self._tasks.start("boot", self._logs())
            case gcs.BRIDGE_PORT | services.WINDOWS_BRIDGE_PORT:
                self._tasks.start("boot", self._bridge(port))

    async def _entropy(self) -> None:
        connection = await self.dial(gcs.ENTROPY_PORT)
        while data := await connection.read():
            self.entropy += data

    async def _logs(self) -> None:
        connection = await self.dial(gcs.LOG_PORT)
        await self.write(connection, self._log)

    async def _bridge(self, port: Port) -> None:
        connection = await self.dial(port)
        reader = FrameReader()
        while data := await connection.read():
            for frame in reader.feed(data):
                self._tasks.start("answer", self._answer(connection, frame))

    async def _answer(self, connection: GuestConnection, frame: Frame) -> None:
        body, request = self._answers.get(frame.type), json.loads(frame.body)
        ended = None
        if body is None:
            answer = await self._handle(frame.type, request)
            if answer is None:
                return
            body, ended = json.dumps(answer).encode(), self._notification(frame.type, request)
        out = [Frame(gcs.response_type(frame.type), frame.id, body)]
        if ended is not None:
            out.insert(0 if self.notifies_first else 1, ended)
        await self.write(connection, b"".join(map(encode_frame, out)))

    async def _handle(self, word: int, request: dict[str, object]) -> dict[str, object] | None:
        about = request["ContainerId"]
        container = self.containers.get(str(about))
        match word:
            case gcs.NEGOTIATE.word:
                system = "Windows" if self._windows else "Linux"
                able = dict.fromkeys(("NamespaceAddRequestSupported", "SignalProcessSupported", "DumpStacksSupported"), True)
                able["DeleteContainerStateSupported"] = True
                answer = _OK | {"Version": 4, "Capabilities": {"RuntimeOsType": system, "GuestDefinedCapabilities": able}}
                return answer | ({"BootTimes": {"StartedUs": 1, "PreparedUs": 2, "NowUs": 3}} if self._ours else {})
            case gcs.SHUTDOWN_GRACEFUL.word | gcs.SHUTDOWN_FORCED.word if about == NULL_GUID:
                self._sock.shutdown(socket.SHUT_RDWR)
                return None
            case gcs.CREATE.word:
                return self._create(str(about), str(request["ContainerConfig"]))
            case _ if container is None and about != NULL_GUID:
                return _failure(gcs.SYSTEM_NOT_FOUND, f"no such container: {about}")
        return await self._handle_known(word, request, container)

    async def _handle_known(self, word: int, request: dict[str, object], container: FakeContainer | None) -> dict[str, object]:  # noqa: PLR0911 (one message a case)
        match word:
            case gcs.EXECUTE.word:
                return await self._execute(request)
            case gcs.WAIT.word | gcs.SIGNAL.word:
                if word == gcs.SIGNAL.word:
                    self._signalled(request, container)
                return await self._process_call(word, request["ProcessId"])
            case gcs.PROPERTIES.word | gcs.DUMP_STACKS.word:
                return _OK | self._told(word, request, container)
            case gcs.START.word:
                return _OK
            case gcs.MODIFY.word:
                self.modified.append((str(request["ContainerId"]), request["Request"]))
                refusal = await self.modifying(request["Request"])
                if refusal is None and container is not None:
                    refusal = _changed(container, request["Request"])
                return _OK if refusal is None else _failure(_FAIL, refusal)
            case gcs.SHUTDOWN_GRACEFUL.word | gcs.SHUTDOWN_FORCED.word if container is not None:
                container.end = "GracefulExit" if word == gcs.SHUTDOWN_GRACEFUL.word else "ForcedExit"
                for pid in container.processes[:1]:
                    self._processes[pid].cancel()
                return _OK
            case gcs.DELETE_STATE.word if container is not None:
                return self._delete(str(request["ContainerId"]), container)
        return _failure(_NOT_IMPLEMENTED, f"bridge: function not supported, header type: {word:#x}")

    # -- containers -------------------------------------------------------------------------------------------------

    def _create(self, container_id: str, config: str) -> dict[str, object]:
        if container_id in self.containers:
            return _failure(_ALREADY_EXISTS, f"container {container_id} exists")
        if container_id != NULL_GUID:
            self.containers[container_id] = FakeContainer(json.loads(config))
        return _OK

    def _delete(self, container_id: str, container: FakeContainer) -> dict[str, object]:
        if container.first is not None and not self._processes[container.first].done():
            return _failure(_FAIL, f"container {container_id} runs")
        del self.containers[container_id]
        return _OK

    def _notification(self, word: int, request: dict[str, object]) -> Frame | None:
        """Return the notification of a container's end, once its first process's is told, or it was ended before it had one."""
        container = self.containers.get(str(request["ContainerId"]))
        if container is None or container.told:
            return None
        waited = word == gcs.WAIT.word and request["ProcessId"] == container.first
        never_began = word in {gcs.SHUTDOWN_GRACEFUL.word, gcs.SHUTDOWN_FORCED.word} and container.first is None
        if not (waited or never_began):
            return None
        container.told = True
        told = {"ContainerId": request["ContainerId"], "ActivityId": NULL_GUID, "Type": container.end, "Operation": "None", "Result": 0}
        info = {"ResultInfo": json.dumps({"OomKills": container.oom_kills})} if container.oom_kills else {}
        return Frame(gcs.NOTIFICATION_WORD, 0, json.dumps(told | info).encode())

    def _signalled(self, request: dict[str, object], container: FakeContainer | None) -> None:
        """Note a signal; one to the group of a container's first process ends them all."""
        options = request.get("Options")
        self.signals.append(options)
        if container is not None and request["ProcessId"] == container.first and isinstance(options, dict) and options.get("Group"):
            for pid in container.processes:
                self._processes[pid].cancel()

    def _told(self, word: int, request: dict[str, object], container: FakeContainer | None) -> dict[str, object]:
        if word == gcs.DUMP_STACKS.word:
            return {"GuestStacks": "goroutine 1 [running]:\n"}
        known: dict[str, object]
        wanted: list[str] = json.loads(str(request["Query"])).get("PropertyTypes", [])
        if container is None:
            known = {"Memory": {"VirtualMachineMemory": {"AvailableMemory": MEMORY_PAGES // 2, "AssignedMemory": MEMORY_PAGES}}}
            about = list(self._processes)
        else:
            known, about = {"LCOWMetrics": {"pids": {"current": len(container.processes)}}}, container.processes
            wanted = [_ANSWERS.get(name, name) for name in wanted]  # statistics go by another name in the answer
        known["ProcessList"] = [{"ProcessId": pid} for pid in sorted(about) if not self._processes[pid].done()]
        return {"Properties": json.dumps({name: known[name] for name in wanted if name in known})}

    async def _process_call(self, word: int, pid: object) -> dict[str, object]:
        process = self._processes.get(pid) if isinstance(pid, int) else None
        if process is None:
            return _failure(gcs.NOT_FOUND, f"no process {pid}")
        if word == gcs.SIGNAL.word:
            process.cancel()
            return _OK
        await asyncio.wait([process])
        for container in self.containers.values():
            if container.first == pid:  # its end is that of the others
                for other in container.processes[1:]:
                    self._processes[other].cancel()
        return _OK | {"ExitCode": 137 if process.cancelled() else process.result()}

    async def _execute(self, request: dict[str, object]) -> dict[str, object]:
        settings = json.loads(json.dumps(request["Settings"]))
        parameters, ports = json.loads(settings["ProcessParameters"]), self._ports(settings)
        container = self.containers.get(str(request["ContainerId"]))
        argv = self._argv(parameters) if container is None else container.argv(parameters)
        body = self._programs.get(argv[0])
        if body is None:
            return _failure(gcs.FILE_NOT_FOUND, f"{argv[0]}: no such program")
        ends = [await self.dial(ports[name]) if name in ports else None for name in ("StdIn", "StdOut", "StdErr")]
        pid, self._next_pid = self._next_pid, self._next_pid + 1
        program = Program(argv, *ends)
        self._processes[pid] = asyncio.create_task(self._run_program(body, program))  # noqa: TID251 (killed by SignalProcess)
        if container is not None:
            container.processes.append(pid)
        return _OK | {"ProcessId": pid}

    def _ports(self, settings: dict[str, dict[str, object]]) -> dict[str, int]:
        if not self._windows:
            return msgspec.convert(settings["VsockStdioRelaySettings"], dict[str, int])
        return {name: int(str(service)[:8], 16) for name, service in settings["StdioRelaySettings"].items()}

    def _argv(self, parameters: dict[str, object]) -> tuple[str, ...]:
        """Return the program's words; of a command line only where none of them is quoted."""
        return tuple(str(parameters["CommandLine"]).split(" ") if self._windows else msgspec.convert(parameters["CommandArgs"], list[str]))

    async def _run_program(self, body: Body, program: Program) -> int:
        try:
            return await body(self, program)
        finally:
            for end, bits in ((program.stdin, SHUT_BOTH), (program.stdout, SHUT_SEND), (program.stderr, SHUT_SEND)):
                if end is not None and not self._gone:
                    await self.shut(end, bits)


def _changed(container: FakeContainer, request: object) -> str | None:
    """Pause or resume a container; other changes are only remembered. Return why it is refused, or None."""
    match request:
        case {"ResourceType": "ContainerState", "Settings": {"State": state}}:
            if container.paused is (state == "Paused"):
                return f"container is {state} already"
            container.paused = state == "Paused"
    return None


def _failure(code: int, text: str) -> dict[str, object]:
    return {"Result": code - (1 << 32), "ErrorMessage": text}
