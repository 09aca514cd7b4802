"""The life of a pool as one table: what may be called when, and where it leads."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class PoolState(StrEnum):
    """Where a pool is in its life."""

    NEW = "new"
    FILLING = "filling"
    OPEN = "open"
    CLOSED = "closed"


class Do(StrEnum):
    """What may happen to a pool."""

    OPEN = "open"
    FILLED = "finish opening"
    ACQUIRE = "hand out a VM"
    RELEASE = "take back a VM"
    CLOSE = "close"


LIFE: Final[Mapping[tuple[PoolState, Do], PoolState]] = MappingProxyType(
    {
        (PoolState.NEW, Do.OPEN): PoolState.FILLING,
        (PoolState.FILLING, Do.FILLED): PoolState.OPEN,
        (PoolState.OPEN, Do.ACQUIRE): PoolState.OPEN,
        (PoolState.OPEN, Do.RELEASE): PoolState.OPEN,
        (PoolState.CLOSED, Do.RELEASE): PoolState.CLOSED,
    }
    | {(state, Do.CLOSE): PoolState.CLOSED for state in PoolState}
)
"""The whole life: what is not here is refused with `StateError` and changes nothing."""
