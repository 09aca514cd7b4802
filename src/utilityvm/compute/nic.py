"""The host's end of a network adapter. Pure."""

from collections.abc import Awaitable, Callable
from enum import StrEnum

import msgspec


class NicKind(StrEnum):
    """What the host's end of a network adapter is."""

    STREAM = "stream"
    """A stream socket of frames, each after its length in four bytes, the highest first."""
    TAP = "tap"
    """A tap, as /dev/net/tun gives it."""


class NicEnd(msgspec.Struct, frozen=True):
    """The host's end of a network adapter: an open descriptor, which is the taker's; `mtu` is what the guest is told, 0: nothing."""

    kind: NicKind
    fd: int
    mtu: int = 0


Wire = Callable[[], Awaitable[NicEnd]]
"""Gives the host's end for an adapter that is about to be added."""
