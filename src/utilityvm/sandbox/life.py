"""The life of a sandbox as one table: what may be called when, and where it leads."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class SandboxState(StrEnum):
    """Where a sandbox is in its life."""

    NEW = "new"
    OPENING = "opening"
    OPEN = "open"
    CLOSED = "closed"


class Do(StrEnum):
    """What may happen to a sandbox."""

    OPEN = "open"
    OPENED = "finish opening"
    USE = "run a program"
    FORK = "fork"
    CLOSE = "close"


LIFE: Final[Mapping[tuple[SandboxState, Do], SandboxState]] = MappingProxyType(
    {
        (SandboxState.NEW, Do.OPEN): SandboxState.OPENING,
        (SandboxState.OPENING, Do.OPENED): SandboxState.OPEN,
        (SandboxState.OPEN, Do.USE): SandboxState.OPEN,
        (SandboxState.OPEN, Do.FORK): SandboxState.OPEN,
    }
    | {(state, Do.CLOSE): SandboxState.CLOSED for state in SandboxState}
)
"""The whole life: what is not here is refused with `StateError` and changes nothing."""
