"""The entries of an archive of an image, found by reading their headers: what is where, checked before anything is read.

An archive is hostile: every length is bounded before it is believed, and a link leads only to another entry. Layers inside are read by
another module.
"""

import os
import posixpath
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Final

import msgspec

from utilityvm.images.formats import MAX_JSON
from utilityvm.images.header import BLOCK, LONGEST_RECORDS, Header, decimal, header, records
from utilityvm.kit.errors import BadArchive
from utilityvm.kit.text import printable

MAX_ENTRIES: Final = 100_000
"""Entries of an archive of an image."""

_LONGEST_NAME: Final = 4096
_MOST_HOPS: Final = 8
_FILES, _HARD, _SYMBOLIC = frozenset({b"0", b"\0", b"7"}), b"1", b"2"
_LONG_NAME, _LONG_LINK, _RECORDS, _GLOBAL, _SPARSE = b"L", b"K", b"x", b"g", b"S"


class Place(msgspec.Struct, frozen=True):
    """A regular file of an archive: where its content lies. `link` is another entry's name, whose content is meant instead."""

    offset: int
    size: int
    link: str = ""


def entries(file: IO[bytes], what: str) -> Iterator[tuple[str, Place | None]]:
    """Yield each entry's name, cleaned, and where it lies, None of what is no file and no link. `file` can seek; it is read from its begin.

    Raises:
        BadArchive: it is not a tar archive, or one that breaks off, or is out of bounds.
    """
    end, at, count = file.seek(0, os.SEEK_END), 0, 0
    found: dict[bytes, bytes] = {}
    while (head := _next(file, at, what)) is not None:
        body = at + BLOCK
        size = _size(head, found, what)
        at = body + -(-size // BLOCK) * BLOCK
        if body + size > end:
            raise BadArchive(f"{what}: breaks off in the entry {_shown(head.name)}")
        if head.kind in {_LONG_NAME, _LONG_LINK, _RECORDS, _GLOBAL}:
            found |= _extension(file, head, size, what)
            continue
        name = found.get(b"path", head.name)
        target = found.get(b"linkpath", head.target)
        found = {}
        count += 1
        if count > MAX_ENTRIES:
            raise BadArchive(f"{what}: has more than {MAX_ENTRIES} entries")
        if len(name) > _LONGEST_NAME or len(target) > _LONGEST_NAME:
            raise BadArchive(f"{what}: the name of an entry has more than {_LONGEST_NAME} bytes: {_shown(name)}", entry=name)
        if head.kind == _SPARSE:
            raise BadArchive(f"{what}: the entry {_shown(name)} is a sparse file, which an image's archive has not", entry=name)
        yield _clean(name), _place(head.kind, name, target, body, size)
    if not at:
        raise BadArchive(f"{what}: is empty")


def first(path: Path) -> tuple[str, bytes]:
    """Return the name and the content of the first entry of an archive, a small file.

    Raises:
        BadArchive: it is not a tar archive.
    """
    with path.open("rb") as file:
        name, place = next(entries(file, str(path)))
        if place is None:
            return name, b""
        file.seek(place.offset)
        return name, file.read(min(place.size, MAX_JSON + 1))


def follow(found: Mapping[str, Place], name: str, what: str) -> Place | None:
    """Return the file that `name` is or leads to; None when it is not there.

    Raises:
        BadArchive: links lead round and round.
    """
    at = name
    for _ in range(_MOST_HOPS):
        place = found.get(at)
        if place is None or not place.link:
            return place
        at = place.link
    raise BadArchive(f"{what}: the links of the entry {_shown(os.fsencode(name))} do not end", entry=os.fsencode(name))


def _next(file: IO[bytes], at: int, what: str) -> Header | None:
    file.seek(at)
    block = file.read(BLOCK)
    if not block.strip(b"\0"):
        return None
    if len(block) < BLOCK:
        raise BadArchive(f"{what}: breaks off in a header")
    try:
        return header(block)
    except ValueError as error:
        raise BadArchive(f"{what}: is not a tar archive, or is damaged: {error}") from error


def _size(head: Header, found: Mapping[bytes, bytes], what: str) -> int:
    try:
        size = decimal(found[b"size"]) if b"size" in found else head.number(124, 136)
    except ValueError as error:
        raise BadArchive(f"{what}: the entry {_shown(head.name)} has no size: {error}", entry=head.name) from error
    if size < 0:
        raise BadArchive(f"{what}: the entry {_shown(head.name)} has the size {size}", entry=head.name)
    return size if head.kind in _FILES or head.kind in {_LONG_NAME, _LONG_LINK, _RECORDS, _GLOBAL, _SPARSE} else 0


def _extension(file: IO[bytes], head: Header, size: int, what: str) -> Mapping[bytes, bytes]:
    if size > LONGEST_RECORDS:
        raise BadArchive(f"{what}: an entry has more than {LONGEST_RECORDS} bytes of names and attributes")
    data = file.read(size)
    match head.kind:
        case b"g":
            return {}
        case b"x":
            try:
                return records(data)
            except ValueError as error:
                raise BadArchive(f"{what}: has {error}") from error
        case _:
            return {b"path" if head.kind == _LONG_NAME else b"linkpath": data.partition(b"\0")[0]}


def _place(kind: bytes, name: bytes, target: bytes, body: int, size: int) -> Place | None:
    if kind in _FILES:
        return Place(body, size)
    if kind == _HARD:
        return Place(0, 0, _clean(target))
    if kind == _SYMBOLIC:  # to nothing outside: it is looked up among the entries, never on the host
        return Place(0, 0, _clean(posixpath.join(posixpath.dirname(name), target)))
    return None


def _clean(name: bytes) -> str:
    return posixpath.normpath(os.fsdecode(name) or ".")


def _shown(name: bytes) -> str:
    return repr(printable(os.fsdecode(name), 200))
