"""A stream of bytes that is read in the sizes its reader needs, without being copied more often than that."""

from collections.abc import Iterator
from typing import final


@final
class Feed:
    """Reads what `blocks` yields. `at` is how many bytes have been read. At the end there is less than was asked for, and no error."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")
        self.at = 0

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes, which are few enough to be held at once."""
        if size <= len(self._rest):
            data = self._rest[:size].tobytes()
            self._rest = self._rest[size:]
            self.at += size
            return data
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Yield the next `size` bytes as they come."""
        while size > 0 and self._filled():
            piece = self._rest[:size]
            self._rest = self._rest[size:]
            self.at += len(piece)
            size -= len(piece)
            yield piece

    def rest(self) -> Iterator[memoryview]:
        """Yield all that is left."""
        while self._filled():
            piece, self._rest = self._rest, memoryview(b"")
            self.at += len(piece)
            yield piece

    def _filled(self) -> bool:
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return False
            self._rest = memoryview(block)
        return True
