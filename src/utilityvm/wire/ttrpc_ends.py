"""The two ends of a ttrpc connection: which frames may come when, on which streams, and what becomes of those that may not. Pure.

Only the client opens streams, with odd numbers that rise. A unary call is a request and a response. In any other either side sends data
until it says that it is done; a response ends it too, and always when it failed.
"""

from collections.abc import Iterator
from typing import Final, final

import msgspec

from utilityvm.kit.errors import Exhausted, ProtocolError
from utilityvm.wire.protobuf import decode, encode
from utilityvm.wire.ttrpc import MAX_STREAM, Code, Flag, Frame, FrameReader, Request, Response, Status, TooLarge, Type
from utilityvm.wire.ttrpc import encode as to_bytes

MAX_STREAMS: Final = 1024
"""Calls that a server lets a client have at a time on one connection; one more is refused."""

MAX_HELD: Final = 32 << 20
"""Bytes of the requests of these calls together; one that would be more is refused."""

_TOO_LARGE: Final = "message length {} exceed maximum message size"


class Called(msgspec.Struct, frozen=True):
    """A client calls. `streaming` is not a unary call; with `more` the client has messages of its own to send."""

    stream: int
    request: Request
    streaming: bool
    more: bool


class Said(msgspec.Struct, frozen=True):
    """The other end sent a message on a stream."""

    stream: int
    data: bytes


class Finished(msgspec.Struct, frozen=True):
    """The other end sends no more on a stream. To a client it is the end of the stream."""

    stream: int


class Answered(msgspec.Struct, frozen=True):
    """The server answered, which ends the stream."""

    stream: int
    response: Response


class Broken(msgspec.Struct, frozen=True):
    """A stream is over since the other end did what it may not: `text` says what."""

    stream: int
    code: Code
    text: str


class Reply(msgspec.Struct, frozen=True):
    """Bytes to be sent to the client, about a frame that was refused."""

    data: bytes


class _Open(msgspec.Struct):
    """A stream: whether it is unary, whether the client may send on it, and how large its request was."""

    streaming: bool
    more: bool
    size: int = 0


ServerEvent = Called | Said | Finished | Broken | Reply
ClientEvent = Answered | Said | Finished | Broken


@final
class ServerEnd:
    """The end of whoever accepted the connection. A refused frame ends at most its own stream, never the connection."""

    def __init__(self) -> None:
        self._reader = FrameReader()
        self._streams: dict[int, _Open] = {}
        self._last = self._held = 0

    def feed(self, data: bytes) -> Iterator[ServerEvent]:
        """Take bytes of the client's and give what is in them, in its order."""
        for frame in self._reader.feed(data):
            yield from self._frame(frame)

    def answer(self, stream: int, response: Response) -> bytes:
        """Return what ends a stream with this response; nothing when it is over.

        Raises:
            ProtocolError: it is too large; the stream is as before.
        """
        return self._ending(stream, Frame(stream, Type.RESPONSE, data=encode(response)))

    def say(self, stream: int, data: bytes) -> bytes:
        """Return what sends a message; nothing when the stream is over.

        Raises:
            ProtocolError: it is too large.
        """
        return to_bytes(Frame(stream, Type.DATA, data=data)) if stream in self._streams else b""

    def finish(self, stream: int) -> bytes:
        """Return what ends a stream whose messages were the answer; nothing when it is over."""
        return self._ending(stream, Frame(stream, Type.DATA, Flag.CLOSED | Flag.NO_DATA))

    def _ending(self, stream: int, frame: Frame) -> bytes:
        data = to_bytes(frame) if stream in self._streams else b""
        self._forget(stream)
        return data

    def _frame(self, frame: Frame | TooLarge) -> Iterator[ServerEvent]:
        if isinstance(frame, TooLarge):
            yield from self._refuse(frame.stream, Code.RESOURCE_EXHAUSTED, _TOO_LARGE.format(frame.size))
        elif frame.type not in {Type.REQUEST, Type.DATA}:
            return
        elif not frame.stream & 1:
            yield from self._refuse(frame.stream, Code.INVALID_ARGUMENT, "StreamID must be odd for client initiated streams")
        elif frame.type == Type.REQUEST:
            yield from self._called(frame)
        else:
            yield from self._said(frame)

    def _called(self, frame: Frame) -> Iterator[ServerEvent]:
        if frame.stream <= self._last:
            yield from self._refuse(frame.stream, Code.INVALID_ARGUMENT, "StreamID cannot be re-used and must increment")
            return
        self._last = frame.stream
        if len(self._streams) >= MAX_STREAMS or self._held + len(frame.data) > MAX_HELD:
            yield from self._refuse(frame.stream, Code.RESOURCE_EXHAUSTED, "too many calls at a time on this connection")
            return
        try:
            request = decode(frame.data, Request)
        except ProtocolError as error:
            yield from self._refuse(frame.stream, Code.INVALID_ARGUMENT, f"unmarshal request error: {error.message}")
            return
        more = bool(frame.flags & Flag.OPEN)
        streaming = more or bool(frame.flags & Flag.CLOSED)
        self._streams[frame.stream] = _Open(streaming, more, len(frame.data))
        self._held += len(frame.data)
        yield Called(frame.stream, request, streaming, more)

    def _said(self, frame: Frame) -> Iterator[ServerEvent]:
        stream = self._streams.get(frame.stream)
        if stream is None:
            yield from self._refuse(frame.stream, Code.INVALID_ARGUMENT, "StreamID is no longer active")
            return
        if not stream.more:
            yield from self._refuse(frame.stream, Code.INVALID_ARGUMENT, "data handling error: the client had said that no more comes")
            return
        if not frame.flags & Flag.NO_DATA:
            yield Said(frame.stream, frame.data)
        if frame.flags & Flag.CLOSED:
            stream.more = False
            yield Finished(frame.stream)

    def _refuse(self, stream: int, code: Code, text: str) -> Iterator[ServerEvent]:
        if stream in self._streams:
            self._forget(stream)
            yield Broken(stream, code, text)
        refusal = Response(status=Status(code=code, message=text))
        yield Reply(to_bytes(Frame(stream, Type.RESPONSE, data=encode(refusal))))

    def _forget(self, stream: int) -> None:
        if (gone := self._streams.pop(stream, None)) is not None:
            self._held -= gone.size


@final
class ClientEnd:
    """The end of whoever dialled. What comes on a stream that was given up is passed over."""

    def __init__(self) -> None:
        self._reader = FrameReader()
        self._streams: dict[int, _Open] = {}
        self._next = 1

    def open(self, request: Request, *, streaming: bool = False, more: bool = False) -> tuple[int, bytes]:
        """Return a new stream, and what calls on it; with `more` our own messages follow.

        Whoever sends them must do so in the order of these calls.

        Raises:
            ProtocolError: the request is too large.
            Exhausted: all streams of the connection were used.
        """
        if self._next > MAX_STREAM:
            raise Exhausted("all streams of this connection were used", hint="dial anew")
        flags = (Flag.OPEN if more else Flag.CLOSED) if streaming else 0
        data = to_bytes(Frame(self._next, Type.REQUEST, flags, encode(request)))
        stream, self._next = self._next, self._next + 2
        self._streams[stream] = _Open(streaming, more)
        return stream, data

    def say(self, stream: int, data: bytes) -> bytes:
        """Return what sends a message.

        Raises:
            ProtocolError: it is too large; or the stream is over, or we had said that no more comes.
        """
        self._must_be_open(stream)
        return to_bytes(Frame(stream, Type.DATA, data=data))

    def finish(self, stream: int) -> bytes:
        """Return what says that no more comes of us.

        Raises:
            ProtocolError: it was said before, or the stream is over.
        """
        self._must_be_open(stream)
        self._streams[stream].more = False
        return to_bytes(Frame(stream, Type.DATA, Flag.CLOSED | Flag.NO_DATA))

    def forget(self, stream: int) -> None:
        """Give a stream up: there is nothing that would tell the server. A second call does nothing."""
        self._streams.pop(stream, None)

    def feed(self, data: bytes) -> Iterator[ClientEvent]:
        """Take bytes of the server's and give what is in them, in its order."""
        for frame in self._reader.feed(data):
            stream = self._streams.get(frame.stream)
            if stream is None:
                continue
            yield from self._frame(frame, stream)

    def _must_be_open(self, stream: int) -> None:
        if stream not in self._streams or not self._streams[stream].more:
            raise ProtocolError(f"stream {stream}: nothing more can be sent on it")

    def _frame(self, frame: Frame | TooLarge, stream: _Open) -> Iterator[ClientEvent]:
        if isinstance(frame, TooLarge):
            yield self._broken(frame.stream, Code.RESOURCE_EXHAUSTED, _TOO_LARGE.format(frame.size))
        elif frame.type == Type.RESPONSE:
            try:
                response = decode(frame.data, Response)
            except ProtocolError as error:
                yield self._broken(frame.stream, Code.INTERNAL, f"the server's answer cannot be read: {error.message}")
                return
            self.forget(frame.stream)
            yield Answered(frame.stream, response)
        elif frame.type == Type.DATA and not stream.streaming:
            yield self._broken(frame.stream, Code.INTERNAL, "the server sent data on a unary call")
        elif frame.type == Type.DATA:
            if not frame.flags & Flag.NO_DATA:
                yield Said(frame.stream, frame.data)
            if frame.flags & Flag.CLOSED:
                self.forget(frame.stream)
                yield Finished(frame.stream)

    def _broken(self, stream: int, code: Code, text: str) -> Broken:
        self.forget(stream)
        return Broken(stream, code, text)
