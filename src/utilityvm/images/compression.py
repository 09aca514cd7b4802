"""What an archive was packed with, found by its first bytes, and its bytes as they were before."""

import bz2
import lzma
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import chain
from typing import BinaryIO, Final, Protocol, final

from utilityvm.images.limits import Limits
from utilityvm.kit.errors import BadArchive, HostError, NotFound, Unsupported
from utilityvm.kit.proc import run_filter

_READ: Final = 128 << 10
_MOST_AT_ONCE: Final = 1 << 20
_XZ_MEMORY: Final = 256 << 20  # xz -9 needs 65 MiB
_TAR: Final = slice(257, 262)
_ZSTD: Final = ["zstd", "-d", "-c", "-q"]

_MAGIC: Final = (
    (b"\x1f\x8b", "gzip"),
    (b"\xfd7zXZ\0", "xz"),
    (b"BZh", "bzip2"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    *((bytes([0x50 + number]) + b"\x2a\x4d\x18", "zstd") for number in range(16)),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x1f\x9d", "compress"),
    (b"LZIP", "lzip"),
    (b"\x5d\0\0", "lzma"),
)


class _Unpacker(Protocol):
    """What the standard library has for xz and bzip2."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


@final
class _Gzip:
    """The same for gzip, which has it in another form."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int = 0) -> bytes:
        return self._stream.decompress(data or self._stream.unconsumed_tail, max_length)


_UNPACKERS: Final[dict[str, Callable[[], _Unpacker]]] = {
    "gzip": _Gzip,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY),
    "bzip2": bz2.BZ2Decompressor,
}


def find_compression(begin: bytes) -> str:
    """Return what an archive that begins with these bytes, 512 or all, was packed with: ``""`` for nothing."""
    if begin[_TAR] == b"ustar":
        return ""  # whatever the name of its first entry looks like
    return next((name for magic, name in _MAGIC if begin.startswith(magic)), "")


def unpacked(stream: BinaryIO, limits: Limits) -> Generator[bytes, None, None]:
    """Yield the bytes of an archive, unpacked, within the limits.

    Raises:
        Unsupported: it was packed with something that this host does not unpack.
        BadArchive: it is empty, is not in its form, or becomes too large.
        HostError: it cannot be read.
    """
    counted = _Counted(stream)
    begin = b""
    while len(begin) < 512 and (data := counted.read()):
        begin += data
    if not begin:
        raise BadArchive("the archive is empty")
    name = find_compression(begin)
    packed = chain([begin], iter(counted.read, b""))
    total = 0
    with closing(_plain(name, packed)) as plain:
        for block in plain:
            total += len(block)
            if total > limits.archive_bytes:
                raise BadArchive(f"the archive has more than {limits.archive_bytes} bytes when it is unpacked")
            if total > limits.free_bytes and total > limits.ratio * counted.total:
                raise BadArchive(f"the archive becomes more than {limits.ratio} times larger when it is unpacked ({name})")
            yield block


@final
class _Counted:
    """A stream, and how many bytes were read of it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.total = 0

    def read(self) -> bytes:
        try:
            data = self._stream.read(_READ)
        except OSError as error:
            raise HostError(f"the archive cannot be read: {error.strerror or error}") from error
        self.total += len(data)
        return data


def _plain(name: str, packed: Iterator[bytes]) -> Generator[bytes, None, None]:
    if not name:
        yield from packed
    elif name in _UNPACKERS:
        try:
            yield from _members(name, packed)
        except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
            raise BadArchive(f"the archive cannot be unpacked ({name}): {error}") from error
    elif name == "zstd":
        yield from _by_zstd(packed)
    else:
        raise Unsupported(f"the archive was packed with {name}", hint="use gzip, zstd, xz or bzip2, or no compression")


def _members(name: str, packed: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack one member after the other, as these formats allow; zeros may follow the last.

    Raises:
        EOFError: it is cut off.
    """
    data = next(packed, b"")
    while data:
        member = _UNPACKERS[name]()
        while not member.eof:
            if member.needs_input and not data:
                data = next(packed, b"")
                if not data:
                    raise EOFError("it is cut off")
            if block := member.decompress(data, _MOST_AT_ONCE):
                yield block
            data = b""
        data = _behind(member.unused_data, packed)


def _behind(data: bytes, packed: Iterator[bytes]) -> bytes:
    """Return what is left of `data`, or comes next, from its first byte that is not zero on."""
    for piece in chain([data], packed):
        if begin := piece.lstrip(b"\0"):
            return begin
    return b""


def _by_zstd(packed: Iterator[bytes]) -> Iterator[bytes]:
    def failed(said: str) -> BadArchive:
        return BadArchive(f"the archive cannot be unpacked (zstd): {said}")

    try:
        yield from run_filter(_ZSTD, packed, failed=failed)
    except NotFound as error:
        raise Unsupported("the archive was packed with zstd, which this host cannot unpack", hint="install the package zstd") from error
