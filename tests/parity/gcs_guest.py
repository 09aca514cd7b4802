"""The scripted guest of a vector: the other end of the bridge in memory, which answers as the vector says and notes every frame."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from utilityvm.guest.transport import GuestStream, Listener
from utilityvm.wire import gcs
from utilityvm.wire.frames import HEADER, Frame, FrameReader, encode

NAMES = {call.word: call.name for call in gcs.CALLS}
TURNS = 25
"""Turns of the event loop after which nothing moves any more: everything is in memory."""


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the guest answers: by the request's name, or by name and number for one of them; all others get the default."""

    default_response: str
    first_pid: int
    responses: dict[str, str]

    def answer(self, name: str, number: int, body: bytes = b"") -> str | None:  # noqa: ARG002 (others answer by it)
        """Return the body of the answer to the `number`-th request of that name, counted from 0."""
        return self.responses.get(f"{name}#{number}", self.responses.get(name))


class Answers(Protocol):
    """Who says what the guest answers."""

    @property
    def first_pid(self) -> int: ...

    @property
    def default_response(self) -> str: ...

    def answer(self, name: str, number: int, body: bytes = b"") -> str | None: ...


@dataclass(frozen=True, order=True)
class Seen:
    """A frame that passed."""

    dir: str
    type: int
    id: int
    size: int
    payload: str


@dataclass
class Silent:
    """A stream, or the listener for one, on which nothing passes."""

    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def accept(self) -> GuestStream:
        return Silent()

    async def read(self, limit: int = -1) -> bytes:  # noqa: ARG002 (the port's signature)
        await self.closed.wait()
        return b""

    async def write(self, data: bytes) -> None:
        raise AssertionError(f"{data!r} was written to a process of a vector")

    async def write_eof(self) -> None:
        return

    def read_only(self) -> None:
        return

    def close(self) -> None:
        self.closed.set()


class ScriptedGuest:
    """The guest's end of the bridge, as the stream that the host reads and writes, and as the place where it listens."""

    def __init__(self, script: Answers) -> None:
        self._script, self._reader, self._asked = script, FrameReader(), Counter[str]()
        self._inbox: asyncio.Queue[bytes] = asyncio.Queue()
        self._next_pid = script.first_pid
        self._waits: dict[int, int] = {}
        self.frames: list[Seen] = []
        self.listened: list[int] = []

    # -- as sockets and stream of the host --------------------------------------------------------------------------

    def listen(self, port: int, *, once: bool = False, programs: bool = False) -> Listener:
        assert once, "a process's stream is dialled once"
        assert not programs, "no program of the guest dials it"
        self.listened.append(port)
        return Silent()

    async def read(self, limit: int = -1) -> bytes:  # noqa: ARG002 (the port's signature)
        return await self._inbox.get()

    async def write(self, data: bytes) -> None:
        for frame in self._reader.feed(data):
            text = frame.body.decode()
            assert text.endswith("\n"), "the host's bodies end with a newline"
            self._note("host->guest", frame.type, frame.id, frame.body, text[:-1])
            self._on_request(frame)

    async def write_eof(self) -> None:
        return

    def read_only(self) -> None:
        return

    def close(self) -> None:
        self._inbox.put_nowait(b"")

    # -- as guest ---------------------------------------------------------------------------------------------------

    def _on_request(self, frame: Frame) -> None:
        name = NAMES[frame.type]
        body = self._script.answer(name, self._asked[name], frame.body)
        self._asked[name] += 1
        if name == "WaitForProcess" and body is None:
            self._waits[msgspec.json.decode(frame.body)["ProcessId"]] = frame.id
            return
        if name == "ExecuteProcess" and body is None:
            body = f'{self._script.default_response[:-1]},"ProcessId":{self._next_pid}}}'
            self._next_pid += 1
        self._send(gcs.response_type(frame.type), frame.id, self._script.default_response if body is None else body)

    def ended(self, pid: int, body: dict[str, Any]) -> None:
        """Answer the waiting for a process."""
        body = {name: body[name] for name in ("Result", "ErrorMessage", "ExitCode") if name in body}  # vectors sort what was to be sent
        self._send(gcs.response_type(gcs.WAIT.word), self._waits[pid], msgspec.json.encode(body).decode())

    def notify(self, notification: dict[str, Any]) -> None:
        """Send a container's notification."""
        self._send(gcs.NOTIFICATION_WORD, 0, msgspec.json.encode(notification).decode())

    def _send(self, word: int, number: int, body: str) -> None:
        self._note("guest->host", word, number, body.encode(), body)
        self._inbox.put_nowait(encode(Frame(word, number, body.encode())))

    def _note(self, way: str, word: int, number: int, body: bytes, payload: str) -> None:
        self.frames.append(Seen(way, word, number, HEADER.size + len(body), payload))

    async def settle(self) -> None:
        """Let everything happen that happens without anybody asking for it."""
        for _ in range(TURNS):
            await asyncio.sleep(0)
