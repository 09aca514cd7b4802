"""What one layer may cost at most. An archive is its maker's, who may be hostile: whatever grows with it has a bound."""

from dataclasses import dataclass
from typing import Final

_MIB: Final = 1 << 20
_GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a layer, in bytes where nothing else is said.

    `archive_bytes` of the archive when it is unpacked; of those, `free_bytes` whatever it was packed to, and beyond them `ratio` times
    what was read. `image_bytes` of the image, holes in files included. `entries` files and folders, those included that the archive only
    implies. `depth` folders one below the other. `kept_bytes` of names, targets of links, extended attributes and maps of sparse files.
    """

    archive_bytes: int = 64 * _GIB
    free_bytes: int = _GIB
    ratio: int = 250
    image_bytes: int = 64 * _GIB
    entries: int = 1 << 20
    depth: int = 512
    kept_bytes: int = 256 * _MIB


LIMITS: Final = Limits()
"""What is allowed where nothing else is said."""
