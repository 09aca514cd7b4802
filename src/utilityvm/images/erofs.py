"""EROFS as Linux has it since 5.15 (Documentation/filesystems/erofs.rst, fs/erofs/erofs_fs.h): what stands in an image, as bytes. Pure.

Of what the format knows this is the part that a guest can map straight from the host's memory: blocks of 4096 bytes, no compression,
and a file's bytes begin at a block. Only folders and symbolic links have their last bytes beside their inode. A file with holes is
"chunk based". Inodes are "extended": each has its own time, owner and size.
"""

import stat
import struct
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate
from typing import Final

BLOCK: Final = 4096
"""Bytes of a block. A guest maps whole pages, so it must be the guest's page."""

BLOCK_BITS: Final = 12

SLOT: Final = 32
"""Bytes by which inodes are numbered, from the first block of the metadata on."""

INODE: Final = 64
"""Bytes of an inode, without its extended attributes."""

NOWHERE: Final = 0xFFFF_FFFF
"""The block of a hole, and of what has no block."""

LAST_BLOCK: Final = NOWHERE - 1

PLAIN: Final = 0
INLINE: Final = 2
CHUNKED: Final = 4
"""How an inode's bytes lie (EROFS_INODE_FLAT_PLAIN, FLAT_INLINE, CHUNK_BASED)."""

MOST_ATTRIBUTES: Final = 12 + 4 * 0xFFFE
"""Bytes of an inode's extended attributes: what its count can say."""

_SUPERBLOCK: Final = struct.Struct("<IIIBBHQQIIII16s16sIH46x")
_SUPERBLOCK_AT: Final = 1024
_MAGIC: Final = 0xE0F5E1E2
_HAS_CHECKSUM: Final = 1  # EROFS_FEATURE_COMPAT_SB_CHKSUM
_HAS_CHUNKS: Final = 4  # EROFS_FEATURE_INCOMPAT_CHUNKED_FILE

_INODE: Final = struct.Struct("<HHHHQIIIIqII16x")
_DIRENT: Final = struct.Struct("<QHBB")
_PREFIXES: Final = ((b"user.", 1), (b"trusted.", 4), (b"security.", 6))
_WHOLE_NAMES: Final = {b"system.posix_acl_access": 2, b"system.posix_acl_default": 3}
_TYPES: Final = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFLNK: 7,
}


def superblock(*, root: int, inodes: int, blocks: int, metadata: int, uuid: bytes, chunked: bool) -> bytes:
    """Return the image's first block. `root` is its root's inode, `metadata` the block from which inodes are numbered."""
    fields = (_HAS_CHECKSUM, BLOCK_BITS, 0, root, inodes, 0, 0, blocks, metadata, 0, uuid, b"", _HAS_CHUNKS if chunked else 0, 0)
    rest = bytes(BLOCK - _SUPERBLOCK_AT - _SUPERBLOCK.size)
    checksum = crc32c(_SUPERBLOCK.pack(_MAGIC, 0, *fields) + rest)
    return bytes(_SUPERBLOCK_AT) + _SUPERBLOCK.pack(_MAGIC, checksum, *fields) + rest


def inode(
    mode: int, layout: int, place: int, *, size: int, owner: tuple[int, int], mtime: int, links: int, number: int, attributes: int
) -> bytes:
    """Return an inode. `place` is its first block, device or form of chunks, `attributes` the bytes of extended attributes behind it."""
    count = (attributes - 12) // 4 + 1 if attributes else 0
    seconds, nanoseconds = divmod(mtime, 1_000_000_000)
    return _INODE.pack(layout << 1 | 1, count, mode, 0, size, place, number & 0xFFFF_FFFF, *owner, seconds, nanoseconds, links)


def attributes(xattrs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return extended attributes as they stand behind an inode, in the order of their names; nothing when there are none.

    All must be such that `knows_attribute` is true of their names.
    """
    parts = [_attribute(name, value) for name, value in sorted(xattrs)]
    return bytes(12) + b"".join(parts) if parts else b""


def knows_attribute(name: bytes) -> bool:
    """Tell whether EROFS, as any file system of Linux, has attributes of this name."""
    return name in _WHOLE_NAMES or any(name.startswith(prefix) and name != prefix for prefix, _ in _PREFIXES)


def device(major: int, minor: int) -> int:
    """Return a device's number as Linux encodes it in 32 bits: `major` has 12 of them."""
    return minor & 0xFF | major << 8 | (minor & 0xFFF00) << 12


def cut_folder(names: Iterable[bytes]) -> list[tuple[int, int]]:
    """Return how many of the names of a folder, in their order, each of its blocks has, and the bytes that they fill."""
    blocks: list[tuple[int, int]] = []
    count = used = 0
    for name in names:
        need = _DIRENT.size + len(name)
        if used + need > BLOCK:
            blocks.append((count, used))
            count = used = 0
        count, used = count + 1, used + need
    return [*blocks, (count, used)]


def folder_block(entries: Sequence[tuple[bytes, int, int]]) -> bytes:
    """Return a block of a folder, not filled up: (name, inode, mode) of each entry, in the order of their names' bytes."""
    names = [name for name, _, _ in entries]
    places = accumulate(map(len, names), initial=_DIRENT.size * len(names))
    heads = [_DIRENT.pack(number, at, _TYPES[stat.S_IFMT(mode)], 0) for (_, number, mode), at in zip(entries, places, strict=False)]
    return b"".join(heads) + b"".join(names)


def _attribute(name: bytes, value: bytes) -> bytes:
    index, rest = _WHOLE_NAMES.get(name, 0), b""
    if not index:
        index, rest = next((number, name.removeprefix(prefix)) for prefix, number in _PREFIXES if name.startswith(prefix))
    entry = struct.pack("<BBH", len(rest), index, len(value)) + rest + value
    return entry + bytes(-len(entry) % 4)


@cache
def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F6_3B78 if value & 1 else 0)
        table.append(value)
    return table


def crc32c(data: bytes) -> int:
    """Return the Castagnoli checksum as EROFS has it: not inverted at its end."""
    table, value = _crc_table(), 0xFFFF_FFFF
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ value >> 8
    return value
