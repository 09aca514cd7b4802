"""What one layer may cost at most. An archive is its maker's, who may be hostile: whatever grows with it has a bound."""

from typing import Final

import msgspec

ARCHIVE_BYTES: Final = 64 << 30
IMAGE_BYTES: Final = 64 << 30
FREE_BYTES: Final = 1 << 30
RATIO: Final = 250
ENTRIES: Final = 1 << 20
DEPTH: Final = 512
KEPT_BYTES: Final = 256 << 20


class Limits(msgspec.Struct, frozen=True):
    """The bounds of a layer, in bytes where nothing else is said.

    `archive_bytes` of the archive when it is unpacked; of those, `free_bytes` whatever it was packed to, and beyond them `ratio` times
    what was read. `image_bytes` of the image, holes in files included. `entries` files and folders, those included that the archive only
    implies. `depth` folders one below the other. `kept_bytes` of names, targets of links, extended attributes and maps of sparse files.
    """

    archive_bytes: int = ARCHIVE_BYTES
    free_bytes: int = FREE_BYTES
    ratio: int = RATIO
    image_bytes: int = IMAGE_BYTES
    entries: int = ENTRIES
    depth: int = DEPTH
    kept_bytes: int = KEPT_BYTES


LIMITS: Final = Limits()
"""What is allowed where nothing else is said."""
