"""A tar archive read from its beginning to its end: its entries, checked, each followed by its data."""

import stat
from collections.abc import Iterator, Mapping
from typing import Final, final

import msgspec

from utilityvm.images import erofs, header
from utilityvm.images.feed import Feed
from utilityvm.images.header import BLOCK, ZEROS, Extents, Header
from utilityvm.images.tree import LONGEST_NAME, LONGEST_PATH, refusal
from utilityvm.kit.errors import BadArchive

_LARGEST_ID: Final = 0xFFFF_FFFE  # one more means "no user"
_LATEST: Final = (1 << 63) - 1
_LONGEST_VALUE: Final = 0xFFFF
_LARGEST_FILE: Final = (1 << 63) - 1
_STEERS_OVERLAYS: Final = (b"trusted.overlay.", b"user.overlay.")
_TYPES: Final = {
    b"0": stat.S_IFREG,
    b"\0": stat.S_IFREG,
    b"7": stat.S_IFREG,
    b"S": stat.S_IFREG,
    b"1": 0,
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"5": stat.S_IFDIR,
    b"6": stat.S_IFIFO,
}


class Entry(msgspec.Struct, frozen=True):
    """One entry. `mode` has the type, which is 0 for a hard link; `mtime` is in nanoseconds since 1970.

    `extents` is None but for a sparse file, whose data are only those; `size` is the file's with its holes.
    """

    name: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    target: bytes
    device: tuple[int, int]
    xattrs: tuple[tuple[bytes, bytes], ...]
    size: int
    extents: Extents | None


@final
class TarReader:
    """Yields an archive's entries. Before it goes on, `data` may be read of the one that was yielded last.

    Attributes that steer an overlay are left out, for they are none of a layer's; so are those of names that Linux does not have.
    Whatever is wrong is raised as `BadArchive`, with the entry's name.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._global: dict[bytes, bytes] = {}
        self._name = self._before = b""
        self._left = self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        while True:
            self._skip()
            try:
                entry = self._next()
            except ValueError as error:
                raise self._wrong(str(error)) from error
            if entry is None:
                return
            yield entry

    def data(self) -> Iterator[memoryview]:
        """Yield the data of the entry that was yielded last."""
        for piece in self._feed.pieces(self._left):
            self._left -= len(piece)
            yield piece
        if self._left:
            raise self._cut()

    def _skip(self) -> None:
        for _ in self.data():
            pass
        if len(self._feed.take(self._padding)) < self._padding:
            raise self._cut()
        self._padding = 0

    def _next(self) -> Entry | None:
        self._before, self._name = self._name or self._before, b""
        found = dict(self._global)
        while True:
            block = self._feed.take(BLOCK)
            if block == ZEROS:
                self._end()
                return None
            if len(block) < BLOCK:
                raise self._cut()
            head = header.header(block)
            match head.kind:
                case b"x":
                    found |= header.records(self._body(head))
                case b"g":
                    self._global |= header.records(self._body(head))
                    found = self._global | found
                case b"L":
                    found[b"path"] = self._body(head).partition(b"\0")[0]
                case b"K":
                    found[b"linkpath"] = self._body(head).partition(b"\0")[0]
                case _:
                    return self._entry(head, found)

    def _entry(self, head: Header, found: Mapping[bytes, bytes]) -> Entry:
        name = self._name = found.get(b"GNU.sparse.name") or found.get(b"path") or head.name
        if head.kind not in _TYPES:
            raise ValueError(f"its type is {head.kind.decode(errors='backslashreplace')!r}, which no layer has")
        form = _TYPES[head.kind]
        if head.kind == b"\0" and name.endswith(b"/"):
            form = stat.S_IFDIR  # as it was before POSIX
        size, extents = 0, None
        if form == stat.S_IFREG:
            size = self._left = _within(_field(head, found, b"size", 124, 136), _LARGEST_FILE, "size")
            self._padding = -size % BLOCK
            if head.kind == b"S" or header.is_sparse(found):
                size, extents = self._sparse(head, found)
        is_device = form in {stat.S_IFCHR, stat.S_IFBLK}
        return Entry(
            name=name,
            mode=form | (head.number(100, 108) & 0o7777 if form != stat.S_IFLNK else 0o777),
            uid=_within(_field(head, found, b"uid", 108, 116), _LARGEST_ID, "owner"),
            gid=_within(_field(head, found, b"gid", 116, 124), _LARGEST_ID, "group"),
            mtime=_time(head, found),
            target=_target(found.get(b"linkpath") or head.target, form),
            device=(_within(head.number(329, 337), 0xFFF, "device"), _within(head.number(337, 345), 0xFFFFF, "device"))
            if is_device
            else (0, 0),
            xattrs=_attributes(found),
            size=size,
            extents=extents,
        )

    def _sparse(self, head: Header, found: Mapping[bytes, bytes]) -> tuple[int, Extents]:
        """Return the size and the map of a sparse file in any of GNU's forms; what the map takes of the data is read."""
        if head.kind == b"S":
            size, pieces, more = head.number(483, 495), [*header.map_of_header(head.block, 386, 4)], head.block[482]
            while more:
                block = self._feed.take(BLOCK)
                if len(block) < BLOCK:
                    raise self._cut()
                pieces += header.map_of_header(block, 0, 21)
                more = block[504]
                if len(pieces) > header.MOST_EXTENTS:
                    raise ValueError(f"a sparse file of more than {header.MOST_EXTENTS} pieces")
            extents = tuple(pieces)
        else:
            told = found.get(b"GNU.sparse.realsize") or found.get(b"GNU.sparse.size")
            size = header.decimal(told) if told else self._left
            extents = header.map_of_records(found) if b"GNU.sparse.map" in found else self._map_of_data()
        header.check_map(extents, _within(size, _LARGEST_FILE, "size"), self._left)
        return size, extents

    def _map_of_data(self) -> Extents:
        """Read the map that stands before the data, GNU's form 1.0: decimal numbers in lines, filled up to a block."""
        text, lines, needed = bytearray(), 0, 1
        while lines < needed:
            block = self._feed.take(min(BLOCK, self._left))
            self._left -= len(block)
            if len(block) < BLOCK:
                raise ValueError("a sparse file whose map is not in its form")
            text += block
            lines += block.count(b"\n")
            if needed == 1 and lines:
                count = header.decimal(bytes(text.partition(b"\n")[0]))
                needed += 2 * _within(count, header.MOST_EXTENTS, "number of pieces")
            if len(text) > 22 * needed + BLOCK:
                raise ValueError("a sparse file whose map is not in its form")
        return header.pairs([header.decimal(line) for line in bytes(text).split(b"\n")[1:needed]])

    def _body(self, head: Header) -> bytes:
        size = _within(head.number(124, 136), header.LONGEST_RECORDS, "size of an extended header")
        body = self._feed.take(size + -size % BLOCK)
        if len(body) < size:
            raise self._cut()
        return body[:size]

    def _end(self) -> None:
        if any(piece.tobytes().strip(b"\0") for piece in self._feed.rest()):
            raise ValueError("bytes that are not zero behind the archive's end")

    def _cut(self) -> BadArchive:
        return self._wrong(f"the archive is cut off, after {self._feed.at} bytes")

    def _wrong(self, why: str) -> BadArchive:
        if self._name:
            return refusal(self._name, why)
        return refusal(self._before, f"behind it, {why}") if self._before else BadArchive(f"at the archive's begin: {why}")


def _field(head: Header, found: Mapping[bytes, bytes], key: bytes, start: int, end: int) -> int:
    value = found.get(key)
    return header.decimal(value) if value else head.number(start, end)


def _time(head: Header, found: Mapping[bytes, bytes]) -> int:
    value = found.get(b"mtime")
    time = header.nanoseconds(value) if value else head.number(136, 148) * 1_000_000_000
    if not -_LATEST <= time // 1_000_000_000 <= _LATEST:
        raise ValueError("a time that no file system has")
    return time


def _within(value: int, most: int, what: str) -> int:
    if not 0 <= value <= most:
        raise ValueError(f"{what} {value}, which is not from 0 to {most}")
    return value


def _target(target: bytes, form: int) -> bytes:
    if form == stat.S_IFLNK and (not target or b"\0" in target or len(target) > LONGEST_PATH):
        raise ValueError(f"a symbolic link whose target has {len(target)} bytes, or a zero byte")
    return target if form in {0, stat.S_IFLNK} else b""


def _attributes(found: Mapping[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    told = header.attributes(found)
    kept = sorted((name, value) for name, value in told.items() if erofs.knows_attribute(name) and not name.startswith(_STEERS_OVERLAYS))
    for name, value in kept:
        if len(name) > LONGEST_NAME or b"\0" in name or len(value) > _LONGEST_VALUE:
            raise ValueError(f"an extended attribute with a name of {len(name)} and a value of {len(value)} bytes")
    if sum(len(name) + len(value) + 8 for name, value in kept) > erofs.MOST_ATTRIBUTES - 64:
        raise ValueError("too many extended attributes")
    return tuple(kept)
