"""What is fuzzed, from which seeds, and what must hold of it. Only the errors that are documented are caught: all others are crashes.

Each check returns what happened in a form that is the same when the same happened: inputs that show something new are kept.
"""

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, Final, Protocol

import msgspec

from utilityvm.compute.plan9.session import Session
from utilityvm.compute.plan9.tree import Tree
from utilityvm.compute.ports import ExitHow
from utilityvm.compute.qemu.ending import exit_status
from utilityvm.compute.qemu.qmp import MAX_LINE as MAX_MESSAGE
from utilityvm.compute.qemu.qmp import MessageReader
from utilityvm.guest.client import read_properties
from utilityvm.guest.logs import MAX_LINE, LineReader, record
from utilityvm.kit.child import Tail
from utilityvm.kit.errors import GuestError, InvalidOptions, ProtocolError, Unsupported
from utilityvm.kit.text import LONGEST
from utilityvm.schema import json
from utilityvm.schema.document import ComputeSystem
from utilityvm.wire import frames, gcs, ninep, packets
from utilityvm.wire.detached import ContainerPlaces, DetachedProcesses
from utilityvm.wire.frames import Frame, FrameReader
from utilityvm.wire.packets import GUEST_CID, HOST_CID, MAX_PAYLOAD, Control, Op, Packet, PacketReader
from utilityvm.wire.vsock import MAX_STREAMS, WINDOW, Ended, Event, HostSocket, Opened, Received, StreamId

from . import archives, calls, guest_frames, layers
from .mutate import Form

ROOT: Final = Path(__file__).parents[2]
GOLDEN: Final = ROOT / "protocol" / "golden"
NONCE: Final = bytes(16)
LONGEST_SEED: Final = 1024

Check = Callable[[bytes, Random], Hashable]


@dataclass(frozen=True, slots=True)
class Target:
    """A parser. `share` is its part of all inputs, in thousandths."""

    name: str
    share: int
    seeds: tuple[bytes, ...]
    form: Form
    check: Check


def unhex(text: str) -> bytes:
    """Read the golden files' hexadecimal digits; see their README."""
    pieces = (piece.partition("*") for piece in text.split())
    return b"".join(bytes.fromhex(digits) * int(times or 1) for digits, _, times in pieces)


def golden(file: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = msgspec.json.decode((GOLDEN / file).read_bytes())
    assert found
    return found


def short(seeds: Iterable[bytes]) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys(seed for seed in seeds if 0 < len(seed) <= LONGEST_SEED))


def why(error: Exception) -> str:
    """An error without what differs from input to input."""
    return f"{type(error).__name__}: {re.sub(r'[0-9]+|`.*|. at .*', '', str(error))[:60]}"


def cut(data: bytes, chance: Random) -> list[bytes]:
    ends = sorted(int(chance.random() * (len(data) + 1)) for _ in range(2))
    return [data[start:end] for start, end in pairwise([0, *ends, len(data)])]


class Reader(Protocol):
    """What cuts a stream into items."""

    _kept: bytearray

    def feed(self, data: bytes) -> Iterable[Any]: ...


def read(reader: Reader, pieces: Iterable[bytes]) -> tuple[list[Any], str]:
    """What a reader makes of the pieces, and why it refused the rest."""
    got: list[Any] = []
    try:
        for piece in pieces:
            for item in reader.feed(piece):
                got.append(item)  # noqa: PERF402 (those before a refusal count)
    except ProtocolError as error:
        return got, str(error)
    return got, ""


def however_cut(make: Callable[[], Reader], kept: int) -> Callable[[bytes, Random], tuple[list[Any], str]]:
    """Read the data whole and in pieces: the same must come out, and no more than `kept` bytes be held."""

    def run(data: bytes, chance: Random) -> tuple[list[Any], str]:
        reader = make()
        whole = read(reader, [data])
        assert read(make(), cut(data, chance)) == whole
        assert whole[1] or len(reader._kept) <= kept
        return whole

    return run


# -- packets ------------------------------------------------------------------------------------------------------------


def packet_size(data: memoryview) -> int:
    return 44 + int.from_bytes(data[24:28], "little")


PACKET: Final = Form(packet_size, ((0, 8), (8, 8), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 4), (36, 4), (40, 4)))
_read_packets = however_cut(PacketReader, 44 + MAX_PAYLOAD)


def check_packets(data: bytes, chance: Random) -> Hashable:
    got, refusal = _read_packets(data, chance)
    return (frozenset(packet.op for packet in got), refusal and why(ProtocolError(refusal)))


def as_guest(*sent: Packet) -> bytes:
    return b"".join(packets.encode(packet, src_cid=GUEST_CID, dst_cid=HOST_CID) for packet in sent)


# -- streams ------------------------------------------------------------------------------------------------------------

PORTS: Final = (109, 7, 0x4000_0000)


def scripts() -> list[bytes]:
    """Whole lives of streams, as a guest tells them."""
    one, two, three = (0x8000_0000, 109), (0x8000_0001, 109), (0x8000_0002, 7)
    dial = [Packet(Op.REQUEST, *pair, buf_alloc=4096) for pair in (one, two, three)]
    say = [Packet(Op.RW, *pair, b"hello", buf_alloc=4096) for pair in (one, two, three)]
    ask, grant = Packet(Op.CREDIT_REQUEST, *one, buf_alloc=1), Packet(Op.CREDIT_UPDATE, *one, buf_alloc=1 << 20, fwd_cnt=5)
    shut = [Packet(Op.SHUTDOWN, *one, flags=flags, buf_alloc=9) for flags in (1, 2, 3)]
    gone = Packet(Op.RST, *one)
    return [
        as_guest(*dial, *say),
        as_guest(dial[0], say[0], shut[1], gone),
        as_guest(dial[0], shut[0], say[0], shut[2], gone, dial[0], say[0]),
        as_guest(dial[0], ask, grant, say[0], ask, shut[1], shut[2]),
        as_guest(dial[0], dial[1], gone, say[1], Packet(Op.RST, *two), dial[2], say[2]),
        as_guest(dial[0], dial[0], gone, say[0]),
        as_guest(dial[0], Packet(Op.RW, *one, bytes(600)), Packet(Op.RW, *one, bytes(600)), grant, say[0]),
        as_guest(*(Packet(Op.REQUEST, 0x9000_0000 + n, 109, buf_alloc=1) for n in range(12))),
        as_guest(dial[0], Packet(Op.RESPONSE, *one), Packet(Control.QUIESCED), Packet(Control.RESET_ACK, payload=NONCE)),
    ]


class Host:
    """Uses a `HostSocket` as a careless caller does, and knows what must be true of it."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.socket = HostSocket(NONCE)
        for port in PORTS:
            self.socket.listen(port, once=port == PORTS[-1], programs=port == PORTS[0])
        self.unread: dict[StreamId, int] = {}
        self.payload = self.calls = 0
        self.kinds: list[str] = []
        assert [*self.socket.receive(as_guest(Packet(Control.RESET_ACK, payload=NONCE)))]
        self.socket.to_send()

    def heard(self, event: Event) -> None:
        if len(self.kinds) < 6:
            self.kinds.append(type(event).__name__)
        stream: StreamId = event.stream  # type: ignore[union-attr]
        if isinstance(event, Opened):
            assert stream not in self.unread
            assert event.port in PORTS
            self.unread[stream] = 0
        elif isinstance(event, Ended):
            del self.unread[stream]
            return
        elif isinstance(event, Received):
            self.unread[stream] += len(event.data)
            assert 0 < self.unread[stream] <= WINDOW
        else:
            assert stream in self.unread
        if isinstance(event, Opened) and self.chance.random() < 0.2:  # as one that nobody has room for
            self.calls += 1
            self.socket.reset(stream)
            del self.unread[stream]

    def act(self, stream: StreamId) -> None:
        self.calls += 1
        match int(self.chance.random() * 7):
            case 0 | 1:
                self.payload += (sent := self.socket.send(stream, memoryview(b"x" * 100)))
                assert 0 <= sent <= 100
            case 2 | 3:
                self.socket.taken(stream, self.unread[stream])
                self.unread[stream] = 0
            case 4:
                self.socket.shut_send(stream)
            case 5:
                if self.socket.close(stream):
                    del self.unread[stream]
            case _:
                self.socket.reset(stream)
                del self.unread[stream]

    def feed(self, data: bytes) -> None:
        for event in self.socket.receive(data):
            self.heard(event)
        for stream in list(self.unread):
            if self.chance.random() < 0.5:
                self.act(stream)
        assert self.unread.keys() == self.socket._streams.keys()
        assert len(self.unread) <= MAX_STREAMS


def check_streams(data: bytes, chance: Random) -> Hashable:
    host = Host(chance)
    refusal = ""
    try:
        for piece in cut(data, chance):
            host.feed(piece)
    except ProtocolError as error:
        refusal = why(error)
    out = sum(map(len, host.socket.to_send()))
    assert out <= 44 * (len(data) // 44 + 3 * host.calls + 1) + host.payload
    return (tuple(host.kinds), refusal)


# -- frames and messages ------------------------------------------------------------------------------------------------


def frame_size(data: memoryview) -> int:
    return int.from_bytes(data[4:8], "little")


FRAME: Final = Form(frame_size, ((0, 4), (4, 4), (8, 8)))
TEXT: Final = Form(len)
_read_frames = however_cut(FrameReader, frames.MAX_FRAME)
CALLS: Final = tuple(value for value in vars(gcs).values() if isinstance(value, gcs.Call))


def check_frames(data: bytes, chance: Random) -> Hashable:
    got, refusal = _read_frames(data, chance)
    return (frozenset(frame.kind for frame in got), len(got), bool(refusal))


def check_messages(data: bytes, chance: Random) -> Hashable:
    """A body as the answer to a call, as a notification, and as what an answer about properties holds as text."""
    call = CALLS[int(chance.random() * len(CALLS))]
    text = data.decode(errors="replace")
    return (
        outcome(lambda: gcs.decode_response(call, Frame(gcs.response_type(call.word), 0, data))),
        outcome(lambda: gcs.decode_notification(Frame(gcs.NOTIFICATION_WORD, 0, data))),
        outcome(lambda: read_properties(gcs.PropertiesResponse(properties=text), "c")),
        outcome(lambda: gcs.decode_text(text, DetachedProcesses, "processes")),
        outcome(lambda: gcs.decode_text(text, ContainerPlaces, "c")),
    )


def outcome(decode: Callable[[], object]) -> str:
    try:
        return type(decode()).__name__
    except (ProtocolError, GuestError) as error:
        refused = error
    assert refused.message.isprintable()
    assert len(refused.message) < LONGEST + 100
    return why(refused)


# -- texts --------------------------------------------------------------------------------------------------------------


def check_log(data: bytes, chance: Random) -> Hashable:
    whole, parts = LineReader(), LineReader()
    lines = whole.feed(data)
    assert [line for piece in cut(data, chance) for line in parts.feed(piece)] == lines
    assert whole.rest() == parts.rest()
    seen = []
    for line in [*lines[:8], whole.rest()]:
        assert len(line) <= MAX_LINE
        made = record(line, "v")
        text = made.getMessage()
        assert text.isprintable()
        text.encode()
        seen.append((made.levelno, len(made.__dict__["fields"])))
    return tuple(seen[:3])


_read_messages = however_cut(MessageReader, MAX_MESSAGE)


def check_monitor(data: bytes, chance: Random) -> Hashable:
    got, refusal = _read_messages(data, chance)
    assert refusal.isprintable()
    return (tuple(type(message).__name__ for message in got[:4]), refusal and why(ProtocolError(refusal)))


def check_console(data: bytes, chance: Random) -> Hashable:
    tail = Tail(256)
    for piece in cut(data, chance):
        tail.add(piece)
    text = tail.text(10)
    assert all(line.isprintable() for line in text.split("\n"))
    reasons = ("", "guest-shutdown", "guest-reset", "guest-panic", "host-signal", text[:20])
    reason, code = reasons[int(chance.random() * len(reasons))], int(chance.random() * 3) - 1
    status = exit_status(code, terminated=chance.random() < 0.5, shutdown_reason=reason, said=text, console=text)
    assert isinstance(status.how, ExitHow)
    return (status.how, reason[:5], len(text).bit_length())


def check_document(data: bytes, _chance: Random) -> Hashable:
    try:
        json.encode(json.decode(data, ComputeSystem))
    except (InvalidOptions, Unsupported) as error:
        return why(error)
    return "read"


# -- shares: whatever a guest asks of a server, it stays in its folder, holds no more than it may and lets go of all of it --------------

SHARE: Final = Form(size=lambda view: int.from_bytes(view[:4], "little"), fields=((0, 4), (4, 1), (7, 4), (11, 4), (11, 8), (15, 2)))


def share_tree(folder: Path) -> None:
    (folder / "share" / "sub").mkdir(parents=True)
    (folder / "share" / "file").write_bytes(b"content")
    (folder / "share" / "link").symlink_to("../outside")
    (folder / "outside").mkdir()
    (folder / "outside" / "secret").write_bytes(b"secret")


def check_shares(data: bytes, _chance: Random) -> Hashable:
    seen: list[Hashable] = []
    opened = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    # The server may go wherever it likes, since it has its process for itself; here others are in it too.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name, contextlib.chdir("/"):
        place = Path(name)
        share_tree(place)
        tree = Tree(os.open(place / "share", os.O_PATH | os.O_DIRECTORY))
        session = Session(tree, b"s", 4096)
        reader = ninep.MessageReader(4096)
        reader.space()[: len(data)] = data
        reader.filled(len(data))
        try:
            while (message := reader.next()) is not None:
                answer = b"".join(session.handle(message))
                assert int.from_bytes(answer[:4], "little") == len(answer) <= max(session.msize, 4096)
                assert b"secret" not in answer
                seen.append((message.kind, answer[4] == ninep.RLERROR and answer[7]))
        except ProtocolError as error:
            seen.append(why(error))
        session.close()
        tree.drop(tree.root)
        assert sorted(path.name for path in place.iterdir()) == ["outside", "share"]
        assert (place / "outside" / "secret").read_bytes() == b"secret"
        assert len(list((place / "outside").iterdir())) == 1
    assert len(os.listdir("/proc/self/fd")) == opened  # noqa: PTH208
    return tuple(seen[-3:])


def conversations() -> list[bytes]:
    """What a guest may say, from its attaching on."""
    attach = ninep.Attach(0, ninep.NO_FID, b"root", b"s", 0)
    walk = ninep.Walk(0, 1, (b"file",))
    said: list[list[ninep.Request]] = [
        [walk, ninep.Getattr(1, 0x7FF), ninep.Lopen(1, 2), ninep.Read(1, 0, 100), ninep.Write(1, 3, memoryview(b"new")), ninep.Clunk(1)],
        [ninep.Walk(0, 1, ()), ninep.Lopen(1, 0), ninep.Readdir(1, 0, 500), ninep.Readdir(1, 3, 30), ninep.Walk(0, 2, (b"sub", b".."))],
        [
            ninep.Walk(0, 1, ()),
            ninep.Lcreate(1, b"new", 0o102, 0o644, 0),
            ninep.Setattr(1, 0x1A9, 0o600, 0, 0, 9, 1, 1, 1, 1),
            ninep.Remove(1),
        ],
        [walk, ninep.Mkdir(0, b"d", 0o755, 0), ninep.Symlink(0, b"l", b"../outside", 0), ninep.Link(0, 1, b"hard"), ninep.Statfs(0)],
        [walk, ninep.Renameat(0, b"file", 0, b"moved"), ninep.Rename(1, 0, b"file"), ninep.Unlinkat(0, b"sub", 0x200), ninep.Fsync(1, 0)],
        [ninep.Walk(0, 1, (b"link",)), ninep.Readlink(1), ninep.Walk(1, 2, (b"secret",)), ninep.Mknod(0, b"p", 0o10644, 0, 0, 0)],
        [walk, ninep.Xattrwalk(1, 2, b""), ninep.Xattrcreate(1, b"user.a", 2, 0), ninep.Write(1, 0, memoryview(b"ab")), ninep.Clunk(1)],
        [walk, ninep.Lopen(1, 2), ninep.Lock(1, 1, 0, 0, 5, 1, b"c"), ninep.Getlock(1, 1, 0, 5, 1, b"c"), ninep.Flush(1)],
        [walk, ninep.Version(4096, ninep.VERSION), ninep.Clunk(1)],
    ]
    return [b"".join(ninep.encode(at, request) for at, request in enumerate([attach, *each])) for each in said]


def check_greeting(data: bytes, chance: Random) -> Hashable:
    greeting = ninep.Greeting()
    seen: list[Hashable] = []
    try:
        for piece in cut(data, chance):
            for reply in greeting.feed(piece):
                if isinstance(reply, ninep.Chosen):
                    return (*seen, len(reply.aname).bit_length())
                seen.append(reply[4])
    except ProtocolError as error:
        seen.append(why(error))
    return tuple(seen)


DEEP: Final = b"[" * 1000
GREETING: Final = ninep.encode(0, ninep.Version(65536, ninep.VERSION))
LOG: Final = (
    b'{"time":"2026-01-02T02:04:05.678901234Z","level":"info","msg":"a \\"b\\"","n":1e3,"list":[1,{"a":null}]}\nplain \x1b[2J words\n',
    b'{"msg":"\\ud83d\\ude00 \\ud800","level":"warning"}\n{"msg":"\xff"}\n[]\nnull\n',
    b'{"a":' + b"[" * 100 + b"]" * 100 + b"}\n",
    b'{"a":' + DEEP + b"\n",
)
MONITOR: Final = (
    b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}\r\n{"return": {}, "id": 0}\r\n',
    b'{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}\r\n',
    b'{"id": 1, "error": {"class": "GenericError", "desc": "no \\u001b bus"}}\r\n{"return": [1, null], "id": 2}\r\n',
    b'{"return":' + DEEP + b"\n",
)
CONSOLE: Final = (
    b"[    0.1] Kernel panic - not syncing: VFS\r\n[    0.2] CPU: 0\r\n\x1b[31mred\x07\r\n",
    b"qemu-system-x86_64: terminating on signal 15 from pid 1\n" + b"9" * 50,
)


def targets() -> list[Target]:
    guest = [unhex(each["hex"]) for each in golden("packets.json") if each["from"] == "guest"]
    messages = [each["body"].encode() for each in golden("messages.json") if each["from"] == "guest"]
    messages += [b'{"Novelty":' + DEEP, b'{"ContainerId":"c","Type":"\\u001b"}']
    documents = [b'{"Owner":' + DEEP]
    documents += [path.read_bytes() for path in sorted((ROOT / "tests" / "golden" / "qemu").glob("*/document.json"))]
    return [
        Target("packets", 230, short([*guest, b"".join(short(guest))[:LONGEST_SEED]]), PACKET, check_packets),
        Target("streams", 230, short([*scripts(), *guest]), PACKET, check_streams),
        Target("frames", 140, short(unhex(each["hex"]) for each in golden("frames.json")), FRAME, check_frames),
        Target("messages", 120, short(messages), TEXT, check_messages),
        Target("shares", 10, short(conversations()), SHARE, check_shares),
        Target("greeting", 10, short([GREETING, GREETING + conversations()[0]]), SHARE, check_greeting),
        Target("layers", 10, short(layers.SEEDS), layers.FORM, layers.check_layers),
        Target("ethernet", 30, guest_frames.SEEDS, guest_frames.FORM, guest_frames.check),
        Target("calls", 30, calls.SEEDS, calls.FRAME, calls.check),
        Target("endpoints", 10, short(calls.ENDPOINTS), TEXT, calls.check_endpoint),
        Target("log", 60, LOG, TEXT, check_log),
        Target("monitor", 60, MONITOR, TEXT, check_monitor),
        Target("console", 30, CONSOLE, TEXT, check_console),
        Target("document", 20, short(documents), TEXT, check_document),
        Target("archives", 5, short(archives.SEEDS), archives.HEADER, archives.check_archives),
        Target("images", 5, short(archives.DOCUMENTS), TEXT, archives.check_documents),
    ]
