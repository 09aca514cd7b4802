"""The host's end of a network adapter. Pure."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NicEnd:
    """The host's end of a network adapter: an open stream socket of frames, each after its length in four bytes, the highest first.

    The descriptor is the taker's; `mtu` is what the guest is told, 0: nothing.
    """

    fd: int
    mtu: int = 0


Wire = Callable[[], Awaitable[NicEnd]]
"""Gives the host's end for an adapter that is about to be added."""
