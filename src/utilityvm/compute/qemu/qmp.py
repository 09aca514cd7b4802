"""Messages of QEMU's monitor (QMP): JSON objects, one a line. Pure: bytes in, messages out.

QEMU may be in the hands of its guest. Whatever is no message is `ProtocolError`, and no more than one line is kept.
"""

from collections.abc import Iterator, Mapping
from typing import Final, final

import msgspec

from utilityvm.kit.errors import ProtocolError
from utilityvm.kit.text import LONGEST, printable

MAX_LINE: Final = 1024 * 1024
"""Longest message from QEMU in bytes."""


class Answer(msgspec.Struct, frozen=True):
    """The command with this id was carried out."""

    id: int
    value: object


class Refusal(msgspec.Struct, frozen=True):
    """The command with this id was not; `error_class` and `description` are QEMU's words."""

    id: int
    error_class: str
    description: str


class Happened(msgspec.Struct, frozen=True):
    """An event."""

    name: str
    data: Mapping[str, object]


Message = Answer | Refusal | Happened


class _Error(msgspec.Struct, frozen=True):
    error_class: str = msgspec.field(name="class", default="")
    desc: str = ""


class _Line(msgspec.Struct, frozen=True):
    event: str | msgspec.UnsetType = msgspec.UNSET
    data: dict[str, object] = {}
    id: int | msgspec.UnsetType = msgspec.UNSET
    value: object = msgspec.field(name="return", default=msgspec.UNSET)
    error: _Error | msgspec.UnsetType = msgspec.UNSET


_decoder = msgspec.json.Decoder(_Line)


def encode(number: int, command: str, arguments: Mapping[str, object] | None = None) -> bytes:
    """Return the line that asks for `command`; its answer has `number` as id."""
    words = {"execute": command, "id": number} | ({"arguments": dict(arguments)} if arguments else {})
    return msgspec.json.encode(words) + b"\n"


@final
class MessageReader:
    """Cut what QEMU says into messages, however it is split. Keeps at most `MAX_LINE` bytes between calls."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take bytes and give the messages that are now complete. What asks for nothing of us, as the greeting, is passed over.

        Raises:
            ProtocolError: a line that is too long or no message; the reader must not be fed again.
        """
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._keep(line)
            message = _message(bytes(self._kept))
            self._kept.clear()
            if message is not None:
                yield message
        self._keep(rest)

    def _keep(self, piece: bytes) -> None:
        if len(self._kept) + len(piece) > MAX_LINE:
            raise ProtocolError(f"QEMU's monitor: a line of more than {MAX_LINE} bytes")
        self._kept += piece


def _message(line: bytes) -> Message | None:
    if not line.strip():
        return None
    try:
        said = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"QEMU's monitor: not a message: {printable(str(error), 200)}") from error
    if said.event is not msgspec.UNSET:
        return Happened(said.event, said.data)
    if said.error is not msgspec.UNSET:
        words = printable(said.error.error_class, 100), printable(said.error.desc, LONGEST)
        if said.id is msgspec.UNSET:
            raise ProtocolError(f"QEMU's monitor: QEMU did not understand us: {words[1]}")
        return Refusal(said.id, *words)
    return None if said.value is msgspec.UNSET or said.id is msgspec.UNSET else Answer(said.id, said.value)
