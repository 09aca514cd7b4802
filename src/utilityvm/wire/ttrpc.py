"""ttrpc: calls between programs of one host, in frames of ten bytes and a body. What is said in them; `ttrpc_ends` says when. Pure."""

import struct
from collections.abc import Iterator, Mapping
from enum import IntEnum, IntFlag
from typing import Annotated, Final

import msgspec

from utilityvm.kit.errors import ProtocolError
from utilityvm.wire.protobuf import Field, Message

HEADER: Final = struct.Struct(">IIBB")
"""Length of the body, stream, type, flags."""

MAX_DATA: Final = 4 << 20
"""Most bytes of a frame's body."""

MAX_STREAM: Final = (1 << 32) - 1


class Type(IntEnum):
    """What a frame is. Others are to be ignored."""

    REQUEST = 1
    RESPONSE = 2
    DATA = 3


class Flag(IntFlag):
    """What a frame says beyond its body."""

    CLOSED = 1
    """Its sender says no more on this stream. On a request: it is of a stream all the same."""
    OPEN = 2
    """On a request: more comes on this stream."""
    NO_DATA = 4
    """It has no message. One without this flag and without a body has an empty message."""


class Code(IntEnum):
    """How a call ended: the codes of google.rpc."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class KeyValue(Message, frozen=True, kw_only=True):
    """One value of a key; a key with several comes several times."""

    key: Annotated[str, Field(1)] = ""
    value: Annotated[str, Field(2)] = ""


class Request(Message, frozen=True, kw_only=True):
    """What is called, with the caller's message. `timeout_nano` are the nanoseconds that it has left, 0: as many as it likes."""

    service: Annotated[str, Field(1)] = ""
    method: Annotated[str, Field(2)] = ""
    payload: Annotated[bytes, Field(3)] = b""
    timeout_nano: Annotated[int, Field(4)] = 0
    metadata: Annotated[tuple[KeyValue, ...], Field(5)] = ()


class Status(Message, frozen=True, kw_only=True):
    """How a call ended, and why."""

    code: Annotated[int, Field(1, bits=32)] = 0
    message: Annotated[str, Field(2)] = ""


class Response(Message, frozen=True, kw_only=True):
    """The answer to a call. Without a status it went well."""

    status: Annotated[Status | None, Field(1)] = None
    payload: Annotated[bytes, Field(2)] = b""


Metadata = Mapping[str, tuple[str, ...]]
"""What a caller says about a call; keys are in small letters."""


def written(metadata: Metadata) -> tuple[KeyValue, ...]:
    """Return metadata as a request has it."""
    return tuple(KeyValue(key=key.lower(), value=value) for key, values in metadata.items() for value in values)


def read(pairs: tuple[KeyValue, ...]) -> dict[str, tuple[str, ...]]:
    """Return what a request has as metadata."""
    metadata = dict[str, tuple[str, ...]]()
    for pair in pairs:
        metadata[pair.key.lower()] = (*metadata.get(pair.key.lower(), ()), pair.value)
    return metadata


class Frame(msgspec.Struct, frozen=True):
    """A frame as it is on the wire: a type may be one that nobody knows, and flags any."""

    stream: int
    type: int
    flags: int = 0
    data: bytes = b""


class TooLarge(msgspec.Struct, frozen=True):
    """A frame whose body of `size` bytes was thrown away."""

    stream: int
    size: int


def encode(frame: Frame) -> bytes:
    """Return the bytes of a frame.

    Raises:
        ProtocolError: its body is larger than `MAX_DATA`.
    """
    if len(frame.data) > MAX_DATA:
        raise ProtocolError(f"message length {len(frame.data)} exceed maximum message size of {MAX_DATA}")
    return HEADER.pack(len(frame.data), frame.stream, frame.type, frame.flags) + frame.data


class FrameReader:
    """Cut a byte stream into frames, however it is split. Keeps less than one frame between calls; what is too large is not kept."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._skip = 0

    @property
    def half(self) -> bool:
        """Whether the beginning of a frame has come without its rest."""
        return bool(self._kept or self._skip)

    def feed(self, data: bytes) -> Iterator[Frame | TooLarge]:
        """Take bytes and give the frames that are now complete. One that is too large is told of as soon as its size is known."""
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        self._kept += data[skipped:]
        at = 0
        try:
            while len(self._kept) - at >= HEADER.size:
                size, stream, kind, flags = HEADER.unpack_from(self._kept, at)
                end = at + HEADER.size + size
                if size > MAX_DATA:
                    self._skip = max(0, end - len(self._kept))
                    at = min(end, len(self._kept))
                    yield TooLarge(stream, size)
                    continue
                if end > len(self._kept):
                    break
                at, body = end, bytes(self._kept[at + HEADER.size : end])
                yield Frame(stream, kind, flags, body)
        finally:
            del self._kept[:at]
