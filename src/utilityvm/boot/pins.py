"""Which packages boot files are built from when they come from a mirror: exact versions and digests, so that every host builds the same.

The file is written by ``tools/pins.py``. The pinned versions are those of Debian 12's main archive at a point release: a mirror has
them until the next one replaces them.
"""

from datetime import datetime
from pathlib import Path

import msgspec

FILE = Path(__file__).with_name("pins.json")


class Pin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A package that is used in one version only."""

    name: str
    version: str
    sha256: str


class Pins(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pinned packages, and the date of the signed release that they were read from."""

    suite: str
    date: datetime
    packages: tuple[Pin, ...]


def load(path: Path = FILE) -> Pins:
    """Read pins; the file is ours, and a broken one is a broken installation."""
    return msgspec.json.decode(path.read_bytes(), type=Pins)
