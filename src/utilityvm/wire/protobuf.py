"""Messages of Protocol Buffers (proto3) as frozen structs, whose fields say their numbers.

As far as the services go that we speak: texts, bytes, numbers written as varints, messages, lists of messages. A field that is not known is
passed over, as is one that comes in another wire type than its own; what a peer sends may be longer than what we know of it.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from utilityvm.kit.errors import ProtocolError

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5

_FIXED: Final = {FIXED64: 8, FIXED32: 4}
_LONGEST_VARINT: Final = 10
_MAX_NUMBER: Final = (1 << 29) - 1


class Message(Struct, frozen=True, kw_only=True):
    """A message. Each field is ``Annotated[type, Field(number)]`` with the default that proto3 gives its type."""


class Field(msgspec.Struct, frozen=True):
    """The number of a field, and of a whole number its `bits` and whether it may be negative. An enumeration has 32 bits and may be."""

    number: int
    bits: int = 64
    signed: bool = True


M = TypeVar("M", bound=Message)


def encode(message: Message) -> bytes:
    """Return the bytes of a message: fields in the order of their numbers, without those that are as a new message has them.

    Raises:
        ProtocolError: a number does not fit into its field, or a text is no text.
    """
    return b"".join(_fields(message))


def decode(data: bytes, kind: type[M]) -> M:
    """Return the message of this kind that `data` are. Of a field that comes twice the later one counts; messages are joined.

    Raises:
        ProtocolError: they are none.
    """
    rows, values, parts = _rows(kind), dict[str, object](), dict[str, list[bytes]]()
    for number, wire_type, value in _read(data):
        row = rows.get(number)
        if row is None or wire_type != (VARINT if row.whole else BYTES):
            continue
        if isinstance(value, bytes) and row.of is not None:
            parts.setdefault(row.name, []).append(value)
        else:
            values[row.name] = _value(row, value)
    for row in rows.values():
        if row.of is not None and row.name in parts:
            values[row.name] = _messages(row.of, parts[row.name], many=row.many)
    return kind(**values)


class _Row(msgspec.Struct, frozen=True):
    """A field of a message: a whole number, a text (`text`), messages `of` a kind, one or `many`, or else bytes."""

    name: str
    field: Field
    whole: bool
    text: bool
    of: type[Message] | None
    many: bool


@cache
def _rows(kind: type[Message]) -> Mapping[int, _Row]:
    rows = [_row(name, hint) for name, hint in get_type_hints(kind, include_extras=True).items()]
    return {row.field.number: row for row in sorted(rows, key=lambda row: row.field.number)}


def _row(name: str, hint: object) -> _Row:
    inner, field = get_args(hint)
    many = get_origin(inner) is tuple
    kinds = [one for one in get_args(inner) or (inner,) if isinstance(one, type) and issubclass(one, Message)]
    return _Row(name, field, inner is int, inner is str, kinds[0] if kinds else None, many)


# -- writing --------------------------------------------------------------------------------------------------------


def _fields(message: Message) -> Iterator[bytes]:
    for row in _rows(type(message)).values():
        value = getattr(message, row.name)
        if row.of is not None:
            for one in value if row.many else (value,) if value is not None else ():
                yield from _piece(row, encode(one))
        elif row.whole and value:
            yield _varint(row.field.number << 3 | VARINT)
            yield _varint(_unsigned(row, value))
        elif value:
            yield from _piece(row, _utf8(value) if row.text else value)


def _piece(row: _Row, data: bytes) -> Iterator[bytes]:
    yield _varint(row.field.number << 3 | BYTES)
    yield _varint(len(data))
    yield data


def _unsigned(row: _Row, value: int) -> int:
    """Return what is written of a number: a negative one is written with 64 bits whatever it has."""
    field = row.field
    low, high = (-(1 << field.bits - 1), 1 << field.bits - 1) if field.signed else (0, 1 << field.bits)
    if not low <= value < high:
        raise ProtocolError(f"field {row.name}: {value} does not fit into {field.bits} bits")
    return value & (1 << 64) - 1


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ProtocolError(f"{text!r} cannot be written as UTF-8") from error


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


# -- reading --------------------------------------------------------------------------------------------------------


def _read(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Give the number, the wire type and the value of each field; of those with a fixed length their bytes."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        if not 0 < number <= _MAX_NUMBER:
            raise ProtocolError(f"a field has the number {number}")
        if wire_type == VARINT:
            value, at = _read_varint(data, at)
            yield number, wire_type, value
            continue
        if wire_type == BYTES:
            size, at = _read_varint(data, at)
        elif (size := _FIXED.get(wire_type, -1)) < 0:
            raise ProtocolError(f"field {number} is of the wire type {wire_type}, which proto3 does not have")
        if at + size > len(data):
            raise ProtocolError(f"field {number} has {size} bytes, of which {len(data) - at} are there")
        yield number, wire_type, data[at : at + size]
        at += size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(_LONGEST_VARINT):
        if at + place >= len(data):
            raise ProtocolError("a number ends before its last byte")
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if not byte & 0x80:
            return value & (1 << 64) - 1, at + place + 1
    raise ProtocolError(f"a number has more than {_LONGEST_VARINT} bytes")


def _value(row: _Row, value: int | bytes) -> object:
    if isinstance(value, int):
        kept = value & (1 << row.field.bits) - 1
        return kept - (1 << row.field.bits) if row.field.signed and kept >> row.field.bits - 1 else kept
    if not row.text:
        return value
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"field {row.name} is no UTF-8") from error


def _messages(kind: type[Message], parts: list[bytes], *, many: bool) -> object:
    return tuple(decode(part, kind) for part in parts) if many else decode(b"".join(parts), kind)
