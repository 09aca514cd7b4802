"""The blocks of a tar archive, as bytes: headers, numbers, extended records and the maps of sparse files. Pure.

What is read is what Go's ``archive/tar`` reads, with which images are made and unpacked elsewhere: ustar, GNU's and star's variants, and
POSIX's extended records. Each function raises `ValueError` with a sentence that says what is wrong.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec

BLOCK: Final = 512
ZEROS: Final = bytes(BLOCK)

LONGEST_RECORDS: Final = 1 << 20
"""Bytes of an entry's extended header, as Go has it."""

MOST_EXTENTS: Final = 1 << 17
"""Pieces of data in one sparse file."""

_CHECKSUM: Final = slice(148, 156)
_DIGITS: Final = re.compile(rb"[0-7]*")
_DECIMAL: Final = re.compile(rb"-?[0-9]{1,20}")
_TIME: Final = re.compile(rb"(-?)([0-9]{1,20})(?:\.([0-9]*))?")
_SCHILY: Final = b"SCHILY.xattr."
_LIBARCHIVE: Final = b"LIBARCHIVE.xattr."
_NO_ZEROS: Final = {b"path", b"linkpath", b"GNU.sparse.name"}

Extents = tuple[tuple[int, int], ...]
"""Where a sparse file has data: (offset, length), upwards."""


class Header(msgspec.Struct, frozen=True):
    """One header block. `kind` is its letter; numbers are read when they are asked for, because a record may replace them."""

    block: bytes
    kind: bytes
    name: bytes
    target: bytes

    def number(self, start: int, end: int) -> int:
        """Return the number in the bytes from `start` to `end`."""
        return number(self.block[start:end])


def header(block: bytes) -> Header:
    """Read a header block, which is not all zeros."""
    told = number(block[_CHECKSUM])
    blank = sum(block) - sum(block[_CHECKSUM]) + 8 * 0x20
    if told != blank and told != blank - 256 * sum(byte > 127 for byte in block):
        raise ValueError("a header whose checksum is wrong")
    name = _text(block[:100])
    if block[257:263] == b"ustar\0":
        prefix = _text(block[345:476] if block[508:512] == b"tar\0" else block[345:500])
        name = prefix + b"/" + name if prefix else name
    return Header(block, block[156:157], name, _text(block[157:257]))


def number(field: bytes) -> int:
    """Read a number: octal digits, or binary with the first bit set."""
    if field[0] & 0x80:
        bits = 8 * len(field) - 1
        value = int.from_bytes(field, "big") & (1 << bits) - 1
        return value - (1 << bits) if field[0] & 0x40 else value
    digits = field.strip(b" \0").partition(b"\0")[0]
    if not _DIGITS.fullmatch(digits):
        raise ValueError(f"{digits!r} where a number must be")
    return int(digits or b"0", 8)


def records(data: bytes) -> dict[bytes, bytes]:
    """Read extended records; of those with one name the last counts. GNU's first form of a sparse map becomes its second."""
    found: dict[bytes, bytes] = {}
    sparse: list[bytes] = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        digits = data[at : max(at, space)]
        end = at + int(digits) if digits.isdigit() else -1
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not (at < space < end <= len(data) and data[end - 1 : end] == b"\n" and key and equals):
            raise ValueError("an extended record that is not in its form")
        if key in _NO_ZEROS and b"\0" in value:
            raise ValueError(f"a zero byte in {key.decode()}")
        if key in {b"GNU.sparse.offset", b"GNU.sparse.numbytes"}:
            sparse.append(value)
        else:
            found[key] = value
        at = end
    if sparse:
        found[b"GNU.sparse.map"] = b",".join(sparse)
    return found


def decimal(value: bytes) -> int:
    """Read the number of an extended record."""
    if not _DECIMAL.fullmatch(value):
        raise ValueError(f"{value[:40]!r} where a number must be")
    return int(value)


def nanoseconds(value: bytes) -> int:
    """Read the time of an extended record: seconds, of which more than nine digits behind the point are dropped."""
    match = _TIME.fullmatch(value)
    if not match:
        raise ValueError(f"{value[:40]!r} where a time must be")
    sign, seconds, fraction = match.groups(b"")
    whole = int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0"))
    return -whole if sign else whole


def attributes(found: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the extended attributes that records tell, star's way or libarchive's."""
    told: dict[bytes, bytes] = {}
    for key, value in found.items():
        if key.startswith(_LIBARCHIVE):
            try:
                plain = base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
            except binascii.Error as error:
                raise ValueError("an extended attribute that is not in its form") from error
            told.setdefault(unquote_to_bytes(key.removeprefix(_LIBARCHIVE)), plain)
        elif key.startswith(_SCHILY):
            told[key.removeprefix(_SCHILY)] = value
    return told


def is_sparse(found: Mapping[bytes, bytes]) -> bool:
    """Tell whether records describe a sparse file."""
    return b"GNU.sparse.map" in found or found.get(b"GNU.sparse.major") == b"1"


def map_of_records(found: Mapping[bytes, bytes]) -> Extents:
    """Return the map of a sparse file that its records have, GNU's forms 0.0 and 0.1."""
    numbers = found[b"GNU.sparse.map"]
    if numbers.count(b",") > 2 * MOST_EXTENTS:
        raise ValueError(f"a sparse file of more than {MOST_EXTENTS} pieces")
    return pairs([decimal(each) for each in numbers.split(b",") if each])


def map_of_header(block: bytes, start: int, count: int) -> Extents:
    """Return the part of a sparse file's map that a header of GNU's old form, or a block behind it, has."""
    fields = [block[at : at + 12] for at in range(start, start + 24 * count, 12)]
    used = [pair for pair in zip(fields[::2], fields[1::2], strict=True) if pair[0][0]]
    return pairs([number(field) for pair in used for field in pair])


def check_map(extents: Extents, size: int, stored: int) -> None:
    """Refuse a map that does not go upwards, ends behind the file's `size`, or has not as much data as is `stored`."""
    at = 0
    for offset, length in extents:
        if offset < at or length < 0:
            raise ValueError("a sparse file whose map does not go upwards")
        at = offset + length
    if at > size:
        raise ValueError(f"a sparse file of {size} bytes whose map goes on to {at}")
    if sum(length for _, length in extents) != stored:
        raise ValueError("a sparse file whose map and data are not of one size")


def pairs(numbers: list[int]) -> Extents:
    """Return a map as its numbers have it, offset and length in turn."""
    if len(numbers) % 2:
        raise ValueError("a sparse file whose map is not in its form")
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]
