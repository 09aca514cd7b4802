"""Reads an EROFS image, written from the format's description (Documentation/filesystems/erofs.rst) and not from our writer.

It is as strict as Linux and fsck.erofs together: what they would call corrupt fails here.
"""

import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

BLOCK = 4096
LARGE = 64 << 20
NIBBLES = (
    0x00000000, 0x105EC76F, 0x20BD8EDE, 0x30E349B1, 0x417B1DBC, 0x5125DAD3, 0x61C69362, 0x7198540D,
    0x82F63B78, 0x92A8FC17, 0xA24BB5A6, 0xB21572C9, 0xC38D26C4, 0xD3D3E1AB, 0xE330A81A, 0xF36E6F75,
)  # fmt: skip
PREFIXES = {1: b"user.", 2: b"system.posix_acl_access", 3: b"system.posix_acl_default", 4: b"trusted.", 6: b"security."}
TYPES = {1: stat.S_IFREG, 2: stat.S_IFDIR, 3: stat.S_IFCHR, 4: stat.S_IFBLK, 5: stat.S_IFIFO, 7: stat.S_IFLNK}


@dataclass(frozen=True)
class File:
    """What an image says of a file. `holes` are (offset, length) of what it does not have; such a file has no `data` when it is large.

    `pieces` are the chunks that a file with holes has, by their offset.
    """

    number: int
    mode: int
    uid: int
    gid: int
    mtime: int
    links: int
    size: int
    device: tuple[int, int]
    xattrs: dict[bytes, bytes]
    data: bytes
    holes: tuple[tuple[int, int], ...]
    starts: tuple[int, ...]
    pieces: dict[int, bytes]


def checksum(data: bytes) -> int:
    """CRC-32C, half a byte at a time, as the kernel has it before its last inversion."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        value = value >> 4 ^ NIBBLES[value & 15]
        value = value >> 4 ^ NIBBLES[value & 15]
    return value


class Reader:
    """An image: `files` by path, the root being ``b""``."""

    def __init__(self, image: bytes) -> None:
        self.image = image
        sb = image[1024:4096]
        magic, told = struct.unpack_from("<II", sb, 0)
        assert magic == 0xE0F5E1E2
        compat, bits, slots, root = struct.unpack_from("<IBBH", sb, 8)
        assert (compat, bits, slots) == (1, 12, 0)
        assert told == checksum(sb[:4] + bytes(4) + sb[8:])
        inodes, self.build_time, _nanoseconds, blocks, self.meta, shared = struct.unpack_from("<QQIIII", sb, 16)
        assert shared == 0
        self.uuid = sb[48:64]
        self.incompat = struct.unpack_from("<I", sb, 80)[0]
        assert self.incompat in {0, 4}
        assert blocks * BLOCK <= len(image)
        assert len(image) % (2 << 20) == 0
        assert not any(sb[84:128])
        self.blocks = blocks
        self.used: dict[int, int] = {}
        self.files: dict[bytes, File] = {}
        self._inodes: dict[int, File] = {}
        self._walk(b"", root, root)
        assert len(self._inodes) == inodes
        self._check_links()

    def _walk(self, path: bytes, number: int, parent: int) -> None:
        todo = [(path, number, parent)]
        while todo:
            path, number, parent = todo.pop()
            file = self.files[path] = self._inode(number)
            if not stat.S_ISDIR(file.mode):
                continue
            names = list(self._names(file.data))
            assert [name for name, _, _ in names] == sorted({name for name, _, _ in names})
            inside = {name: (child, kind) for name, child, kind in names}
            assert inside.pop(b".") == (number, stat.S_IFDIR)
            assert inside.pop(b"..") == (parent, stat.S_IFDIR)
            for name, (child, kind) in inside.items():
                assert 0 < len(name) <= 255
                assert b"/" not in name
                assert b"\0" not in name
                assert stat.S_IFMT(self._inode(child).mode) == kind
                todo.append((path + b"/" + name if path else name, child, number))

    def _check_links(self) -> None:
        for number, file in self._inodes.items():
            paths = [path for path, other in self.files.items() if other.number == number]
            if stat.S_ISDIR(file.mode):
                (path,) = paths
                begin = path + b"/" if path else b""
                below = [p for p, f in self.files.items() if p.startswith(begin) and p != path and b"/" not in p[len(begin) :]]
                assert file.links == 2 + sum(stat.S_ISDIR(self.files[p].mode) for p in below)
            else:
                assert file.links == len(paths)

    def _inode(self, number: int) -> File:
        if number in self._inodes:
            return self._inodes[number]
        at = self.meta * BLOCK + number * 32
        assert at % BLOCK + 64 <= BLOCK
        form, count, mode, _, size, place, _ino, uid, gid, seconds, nanoseconds, links = struct.unpack_from("<HHHHQIIIIqII", self.image, at)
        assert form & 1
        layout = form >> 1
        assert layout in {0, 2, 4}
        assert nanoseconds < 10**9
        body = 12 + 4 * (count - 1) if count else 0
        behind = at + 64 + body
        is_device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
        data, holes, starts, pieces = b"", tuple[tuple[int, int], ...](), tuple[int, ...](), dict[int, bytes]()
        if layout == 4:
            data, holes, pieces, starts = self._chunks(size, place, behind)
        elif not is_device and size:
            data, starts = self._flat(size, place, behind if layout == 2 else None)
        file = File(
            number,
            mode,
            uid,
            gid,
            seconds * 10**9 + nanoseconds,
            links,
            size,
            (place >> 8 & 0xFFF, place & 0xFF | place >> 12 & 0xFFF00) if is_device else (0, 0),
            self._xattrs(at + 64, body),
            data,
            holes,
            starts,
            pieces,
        )
        self._inodes[number] = file
        return file

    def _flat(self, size: int, place: int, inline: int | None) -> tuple[bytes, tuple[int, ...]]:
        whole = size // BLOCK if inline is not None else -(-size // BLOCK)
        tail = size - whole * BLOCK if inline is not None else 0
        data = b"".join(self._block(place + number) for number in range(whole))
        if inline is not None:
            assert tail > 0
            assert inline % BLOCK + tail <= BLOCK, "a tail crosses a block"
            return data + self.image[inline : inline + tail], ()
        assert not any(data[size:]), "the rest of a file's last block is not zero: a guest maps it"
        return data[:size], (place,)

    def _chunks(self, size: int, form: int, behind: int) -> tuple[bytes, tuple[tuple[int, int], ...], dict[int, bytes], tuple[int, ...]]:
        assert self.incompat == 4
        assert form < 32
        chunk = BLOCK << form
        data, holes, starts = bytearray(), [], []
        pieces: dict[int, bytes] = {}
        keep = size <= LARGE
        for number, offset in enumerate(range(0, size, chunk)):
            (start,) = struct.unpack_from("<I", self.image, behind + 4 * number)
            length = min(chunk, size - offset)
            if start == 0xFFFFFFFF:
                holes.append((offset, length))
                data += bytes(length * keep)
            else:
                starts.append(start)
                piece = b"".join(self._block(start + n) for n in range(-(-length // BLOCK)))
                assert not any(piece[length:])
                pieces[offset] = piece[:length]
                data += piece[: length * keep]
        return bytes(data), tuple(holes), pieces, tuple(starts)

    def _block(self, number: int) -> bytes:
        assert 0 < number < self.blocks
        return self.image[number * BLOCK : (number + 1) * BLOCK]

    def _xattrs(self, at: int, body: int) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        if not body:
            return found
        assert not any(self.image[at : at + 12]), "no shared attributes, no filter"
        end, at = at + body, at + 12
        while at < end:
            length, index, size = struct.unpack_from("<BBH", self.image, at)
            name = PREFIXES[index] + self.image[at + 4 : at + 4 + length]
            assert name not in found
            found[name] = self.image[at + 4 + length : at + 4 + length + size]
            at += 4 + length + size
            at += -at % 4
        assert at == end
        assert found
        return found

    def _names(self, data: bytes) -> Iterator[tuple[bytes, int, int]]:
        for start in range(0, len(data), BLOCK):
            block = data[start : start + BLOCK]
            first = struct.unpack_from("<H", block, 8)[0]
            assert first % 12 == 0
            entries = [struct.unpack_from("<QHBB", block, at) for at in range(0, first, 12)]
            ends = [*[place for _, place, _, _ in entries][1:], len(block)]
            for (number, place, kind, _), end in zip(entries, ends, strict=True):
                yield block[place:end].partition(b"\0")[0], number, TYPES[kind]


def overlaps(files: dict[bytes, File]) -> bool:
    """Tell whether two files begin at one block."""
    starts = sorted(start for file in {file.number: file for file in files.values()}.values() for start in file.starts)
    return any(a == b for a, b in pairwise(starts))
