"""Frames of the GCS bridge: a 16-byte header and a JSON body, cut out of a byte stream.

protocol/SPEC.md section 5.
"""

import struct
from collections.abc import Iterator
from typing import Final

import msgspec

from utilityvm.kit.errors import ProtocolError

HEADER: Final = struct.Struct("<IIQ")
MAX_FRAME: Final = 65_536
"""Largest frame in bytes, header included."""

KIND_MASK: Final = 0xF000_0000
REQUEST: Final = 0x1000_0000
RESPONSE: Final = 0x2000_0000
NOTIFICATION: Final = 0x3000_0000


class Frame(msgspec.Struct, frozen=True):
    """One message: its type word, its id and its JSON text."""

    type: int
    id: int
    body: bytes

    @property
    def kind(self) -> int:
        """`REQUEST`, `RESPONSE`, `NOTIFICATION`, or something unknown."""
        return self.type & KIND_MASK


def encode(frame: Frame) -> bytes:
    """Return the bytes of `frame`.

    Raises:
        ProtocolError: it is larger than `MAX_FRAME`.
    """
    size = HEADER.size + len(frame.body)
    if size > MAX_FRAME:
        raise ProtocolError(f"message {frame.type:#x} of {size} bytes (at most {MAX_FRAME})")
    return HEADER.pack(frame.type, size, frame.id) + frame.body


class FrameReader:
    """Cut a byte stream into frames, however it is split. Keeps at most `MAX_FRAME` bytes between calls."""

    def __init__(self) -> None:
        self._kept = bytearray()

    @property
    def half(self) -> bool:
        """Whether the beginning of a frame has come without its rest."""
        return bool(self._kept)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take bytes and give the frames that are now complete; those before a refused one come first, however the stream is cut.

        Raises:
            ProtocolError: a size that no frame may have; the reader must not be fed again.
        """
        self._kept += data
        at = 0
        try:
            while len(self._kept) - at >= HEADER.size:
                word, size, number = HEADER.unpack_from(self._kept, at)
                if not HEADER.size <= size <= MAX_FRAME:
                    raise ProtocolError(f"invalid message size {size}")
                if len(self._kept) - at < size:
                    break
                at += size
                yield Frame(word, number, bytes(self._kept[at - size + HEADER.size : at]))
        finally:
            del self._kept[:at]
