"""Write a cpio archive of the kind that Linux unpacks as its initial RAM disk ("newc", Documentation/driver-api/early-userspace). Pure.

The same entries give the same bytes: everything is owned by root, has no time, and is numbered in order.
"""

import stat
from collections.abc import Iterable

import msgspec

MAGIC = b"070701"
_BLOCK = 512
_TRAILER = "TRAILER!!!"


class Entry(msgspec.Struct, frozen=True):
    """One file: its path without a leading slash, its mode with the file type, its content, and its number when it is a device."""

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def folder(path: str, permissions: int = 0o755) -> Entry:
    """Describe a folder."""
    return Entry(path, stat.S_IFDIR | permissions)


def file(path: str, data: bytes, permissions: int = 0o644) -> Entry:
    """Describe a regular file."""
    return Entry(path, stat.S_IFREG | permissions, data)


def link(path: str, target: str) -> Entry:
    """Describe a symbolic link."""
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def character_device(path: str, major: int, minor: int, permissions: int) -> Entry:
    """Describe a character device."""
    return Entry(path, stat.S_IFCHR | permissions, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """Return the archive of `entries`, sorted by path, so that a folder comes before what is in it."""
    parts = [_record(number, entry) for number, entry in enumerate(sorted(entries, key=lambda entry: entry.path), start=1)]
    parts.append(_record(0, Entry(_TRAILER, 0)))
    return _padded(b"".join(parts), _BLOCK)


def _record(number: int, entry: Entry) -> bytes:
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    name = entry.path.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device of the file system (2), device number (2), length of the name, checksum (unused)
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    header = MAGIC + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name, 4) + _padded(entry.data, 4)


def _padded(data: bytes, step: int) -> bytes:
    return data + bytes(-len(data) % step)
