"""An image that grows: files' bytes are written to it as they come, in whole blocks, and its metadata when the tree is known."""

import errno
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, Final, final

from utilityvm.images import erofs
from utilityvm.images.erofs import BLOCK, BLOCK_BITS, NOWHERE, SLOT
from utilityvm.images.records import records
from utilityvm.images.tree import Chunked, Node, Plain
from utilityvm.kit.errors import BadArchive, Exhausted, HostError

ALIGNMENT: Final = 2 << 20
"""An image is as long as persistent memory wants it: whole 2 MiB."""

_GATHERED: Final = 1 << 20
_SMALL: Final = 128 << 10
_MOST_CHUNKS: Final = 1 << 16
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@final
class Image:
    """An EROFS image in `out`, which must be empty and can be sought in. It has at most `limit` bytes."""

    def __init__(self, out: BinaryIO, limit: int) -> None:
        self._out, self._limit = out, min(limit, erofs.LAST_BLOCK << BLOCK_BITS)
        self._gathered = bytearray()
        self._at = 0
        self._go(BLOCK)

    def store(self, pieces: Iterable[bytes | memoryview]) -> Plain:
        """Write a file's bytes.

        Raises:
            BadArchive: the image would be larger than is allowed.
            Exhausted: the disk is full.
            HostError: `out` cannot be written.
        """
        start = self._at >> BLOCK_BITS
        for piece in pieces:
            self._write(piece)
        self._align(BLOCK)
        return Plain(start)

    def store_sparse(self, size: int, extents: Sequence[tuple[int, int]], pieces: Iterable[bytes | memoryview]) -> Chunked:
        """Write a file with holes: of its `size` bytes `pieces` has those in `extents` (offset, length), which go upwards.

        Raises:
            BadArchive, Exhausted, HostError: as `store`.
        """
        bits = chunk_bits(size)
        starts = array("I", [NOWHERE]) * chunk_count(size)
        begin = end = self._at
        for offset, piece in _placed(extents, pieces, 1 << bits):
            number = offset >> bits
            if starts[number] == NOWHERE:
                self._go(end)
                begin, end = end, end + _whole(min(1 << bits, size - (number << bits)), BLOCK)
                starts[number] = begin >> BLOCK_BITS
            self._go(begin + offset - (number << bits))
            self._write(piece)
        self._go(end)
        return Chunked(bits, starts)

    def finish(self, root: Node, uuid: bytes) -> tuple[int, int]:
        """Write the tree and the superblock; return the bytes of the image and the number of its files.

        Raises:
            BadArchive, Exhausted, HostError: as `store`.
        """
        found = records(root)
        for record in found:
            if record.outside:
                record.start = self.store(_filled(record.outer())).start
        metadata = self._at
        for record in found:
            self._go(metadata + record.node.number * SLOT)
            self._write(record.inner())
        self._align(BLOCK)
        blocks = self._at >> BLOCK_BITS
        if end := -self._at % ALIGNMENT:
            self._go(self._at + end - BLOCK)
            self._write(bytes(BLOCK))  # written, for a file is only as long as what was written to it
        self._flush()
        first = erofs.superblock(
            root=root.number,
            inodes=len(found),
            blocks=blocks,
            metadata=metadata >> BLOCK_BITS,
            uuid=uuid,
            chunked=any(isinstance(record.node.content, Chunked) for record in found),
        )
        self._put(0, first)
        try:
            self._out.flush()
        except OSError as error:
            raise _failed(error) from error
        return self._at, len(found)

    def _write(self, data: bytes | memoryview) -> None:
        self._check(self._at + len(data))
        if len(data) >= _SMALL:
            self._flush()
            self._put(self._at, data)
        else:
            self._gathered += data
        self._at += len(data)
        if len(self._gathered) >= _GATHERED:
            self._flush()

    def _align(self, step: int) -> None:
        self._go(_whole(self._at, step))

    def _go(self, at: int) -> None:
        """Go on at byte `at`: what is left out is a hole, when it is large enough for one."""
        self._check(at)
        if at - self._at < BLOCK:
            self._gathered += bytes(at - self._at)
        else:
            self._flush()
        self._at = at

    def _check(self, end: int) -> None:
        if end > self._limit:
            raise BadArchive(f"the layer's image would have more than {self._limit} bytes")

    def _flush(self) -> None:
        if self._gathered:
            self._put(self._at - len(self._gathered), self._gathered)
            self._gathered = bytearray()

    def _put(self, at: int, data: bytes | bytearray | memoryview) -> None:
        try:
            self._out.seek(at)
            rest = memoryview(data)
            while rest:
                rest = rest[self._out.write(rest) :]
        except OSError as error:
            raise _failed(error) from error


def chunk_bits(size: int) -> int:
    """Return how large the chunks of a file with holes are, as a power of two: as small as a map of bounded size allows."""
    return max(BLOCK_BITS, (max(0, size - 1) // _MOST_CHUNKS).bit_length())


def chunk_count(size: int) -> int:
    """Return how many chunks such a file has."""
    return -(-size >> chunk_bits(size))


def _placed(extents: Sequence[tuple[int, int]], pieces: Iterable[bytes | memoryview], step: int) -> Iterator[tuple[int, memoryview]]:
    """Yield the pieces with their offsets in the file, cut where an extent or a chunk of `step` bytes ends."""
    ends = iter([(offset, offset + length) for offset, length in extents if length])
    at = end = 0
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            if at == end:
                at, end = next(ends)
            length = min(len(rest), end - at, step - at % step)
            yield at, rest[:length]
            at, rest = at + length, rest[length:]


def _filled(blocks: Iterable[bytes]) -> Iterator[bytes]:
    for block in blocks:
        yield block + bytes(-len(block) % BLOCK)


def _whole(size: int, step: int) -> int:
    return size + -size % step


def _failed(error: OSError) -> HostError | Exhausted:
    why = f"a layer's image cannot be written: {error.strerror or error}"
    if error.errno in _FULL:
        return Exhausted(why, hint="free space on the disk, for instance by removing images")
    return HostError(why)
