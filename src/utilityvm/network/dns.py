"""Questions for names and their answers (RFC 1035), as far as who filters them must understand. Pure.

What is not plain is refused: a guest's question is never passed on as it wrote it, but asked anew.
"""

import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import msgspec

from utilityvm.kit.errors import ProtocolError

A: Final = 1
CNAME: Final = 5
AAAA: Final = 28
_OPT: Final = 41
_IN: Final = 1
_SIZE: Final = 4096
"""Bytes of an answer that we take."""

NO_ERROR: Final = 0
SERVER_FAILURE: Final = 2
REFUSED: Final = 5

MAX_NAME: Final = 255
MAX_RECORDS: Final = 256
_MAX_HOPS: Final = 64
_HEAD: Final = 12  # bytes before the question
_THE_NAME: Final = 0xC000 | _HEAD  # where the name that is asked for stands

_RESPONSE, _RECURSE, _CAN_RECURSE, _OPCODE, _CODE = 0x8000, 0x0100, 0x0080, 0x7800, 0x000F


class Question(msgspec.Struct, frozen=True):
    """What is asked: `name` is in lower case and without the last dot, `asked` the same as it was written on the wire."""

    number: int
    name: str
    kind: int
    asked: bytes


class Record(msgspec.Struct, frozen=True):
    """An address or another name for a name; `seconds` is how long it may be believed."""

    name: str
    seconds: int
    value: IPv4Address | IPv6Address | str


def read_question(message: bytes) -> Question:
    """Read a question.

    Raises:
        ProtocolError: it is none, or not one plain question of the Internet's class.
    """
    number, flags, counts = _head(message)
    if flags & (_RESPONSE | _OPCODE) or counts[0] != 1 or counts[1] or counts[2] or counts[3] > 1:
        raise ProtocolError("no plain question")
    name, end = _name(message, _HEAD)
    kind, of = _numbers(message, end)
    if of != _IN:
        raise ProtocolError(f"a question of class {of}")
    return Question(number, name, kind, message[_HEAD : end + 4])


def ask(question: Question, number: int) -> bytes:
    """Return the question as we ask it: nothing of the guest's message but the name and the kind is in it."""
    options = b"\0" + struct.pack("!HHIH", _OPT, _SIZE, 0, 0)
    return struct.pack("!6H", number, _RECURSE, 1, 0, 0, 1) + question.asked + options


def refuse(question: Question, code: int) -> bytes:
    """Return the answer that there is none, with the reason `code`."""
    return struct.pack("!6H", question.number, _RESPONSE | _RECURSE | _CAN_RECURSE | code, 1, 0, 0, 0) + question.asked


def tell(question: Question, values: Iterable[IPv4Address | IPv6Address], seconds: int) -> bytes:
    """Return the answer that the name is these addresses, those of the kind that was asked for, and may be believed for `seconds`."""
    kinds = {4: A, 6: AAAA}
    wanted = [value.packed for value in values if kinds[value.version] == question.kind]
    head = struct.pack("!6H", question.number, _RESPONSE | _RECURSE | _CAN_RECURSE, 1, len(wanted), 0, 0)
    records = [struct.pack("!HHHIH", _THE_NAME, question.kind, _IN, seconds, len(value)) + value for value in wanted]
    return b"".join([head, question.asked, *records])


def answer_to(question: Question, number: int, message: bytes) -> bytes:
    """Return the answer to what `ask` asked under `number`, as the guest is to get it.

    Raises:
        ProtocolError: it is no answer to this question.
    """
    told, flags, counts = _head(message)
    if told != number or not flags & _RESPONSE or flags & _OPCODE or counts[0] != 1:
        raise ProtocolError("no answer to the question")
    name, end = _name(message, _HEAD)
    if name != question.name or _numbers(message, end) != (question.kind, _IN):
        raise ProtocolError("an answer to another question")
    return struct.pack("!H", question.number) + message[2:]


def addresses(question: Question, message: bytes) -> list[Record]:
    """Return what an answer says of the name asked for: its other names, and the addresses of all of them.

    Raises:
        ProtocolError: it cannot be read.
    """
    _, _, counts = _head(message)
    if counts[1] > MAX_RECORDS:
        raise ProtocolError(f"an answer of {counts[1]} records")
    _, end = _name(message, _HEAD)
    at, records = end + 4, list[Record]()
    for _ in range(counts[1]):
        record, at = _record(message, at)
        if record is not None:
            records.append(record)
    return _of(question.name, records)


def _of(name: str, records: list[Record]) -> list[Record]:
    """Return those that are about a name or what it is called otherwise."""
    names = {name}
    for _ in range(len(records)):  # in whatever order they stand
        more = {record.value for record in records if record.name in names and isinstance(record.value, str)} - names
        if not more:
            break
        names |= more
    return [record for record in records if record.name in names]


def _record(message: bytes, at: int) -> tuple[Record | None, int]:
    name, at = _name(message, at)
    if at + 10 > len(message):
        raise ProtocolError("a record that is cut off")
    kind, of, seconds, size = struct.unpack_from("!HHIH", message, at)
    start, end = at + 10, at + 10 + size
    if end > len(message):
        raise ProtocolError("a record that is cut off")
    if of == _IN and kind == A and size == 4:
        return Record(name, seconds, IPv4Address(message[start:end])), end
    if of == _IN and kind == AAAA and size == 16:
        return Record(name, seconds, IPv6Address(message[start:end])), end
    if of == _IN and kind == CNAME:
        other, _ = _name(message, start)
        return Record(name, seconds, other), end
    if of == _IN and kind in {A, AAAA}:
        raise ProtocolError("an address of the wrong length")
    return None, end


def _head(message: bytes) -> tuple[int, int, list[int]]:
    if len(message) < _HEAD:
        raise ProtocolError("shorter than its header")
    number, flags, *counts = struct.unpack_from("!6H", message)
    return number, flags, counts


def _numbers(message: bytes, at: int) -> tuple[int, int]:
    if at + 4 > len(message):
        raise ProtocolError("a question that is cut off")
    kind, of = struct.unpack_from("!HH", message, at)
    return kind, of


def _name(message: bytes, at: int) -> tuple[str, int]:
    """Read a name; return it and where what follows begins."""
    labels, end, length, hops = list[str](), -1, 0, 0
    while True:
        if at >= len(message):
            raise ProtocolError("a name that is cut off")
        size = message[at]
        if size == 0:
            return ".".join(labels), at + 1 if end < 0 else end
        if size >= 0xC0:
            if at + 1 >= len(message) or hops >= _MAX_HOPS:
                raise ProtocolError("a name that leads nowhere")
            end = at + 2 if end < 0 else end
            at, hops = (size & 0x3F) << 8 | message[at + 1], hops + 1
            continue
        label = message[at + 1 : at + 1 + size]
        length += size + 1
        if size > 63 or len(label) < size or length > MAX_NAME:
            raise ProtocolError("no label of a name")
        labels.append(_label(label))
        at += size + 1


def _label(label: bytes) -> str:
    """Return a label in lower case. Dots and what is not ASCII cannot stand in a rule, and must not look as if they did."""
    if not all(33 <= byte < 127 and byte != 0x2E for byte in label):
        raise ProtocolError("a label with a dot or what is not printable")
    return label.decode("ascii").lower()
