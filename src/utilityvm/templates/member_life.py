"""The life of one VM of a pool as one table. None leads back from `LENT`: a VM that was used is never handed out again."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class MemberState(StrEnum):
    """Where a VM of a pool is in its life. All but the last take one of the pool's places."""

    MAKING = "being made"
    IDLE = "idle"
    LEAVING = "leaving"
    LENT = "lent"
    ENDING = "being ended"
    ENDED = "ended"


class Do(StrEnum):
    """What may happen to it."""

    MADE = "finish being made"
    TAKE = "be taken"
    PUT_BACK = "be put back unused"
    LEND = "be lent"
    END = "be ended"
    ENDED = "have ended"


_HELD: Final = (MemberState.MAKING, MemberState.IDLE, MemberState.LEAVING, MemberState.LENT)

LIFE: Final[Mapping[tuple[MemberState, Do], MemberState]] = MappingProxyType(
    {
        (MemberState.MAKING, Do.MADE): MemberState.IDLE,
        (MemberState.IDLE, Do.TAKE): MemberState.LEAVING,
        (MemberState.LEAVING, Do.PUT_BACK): MemberState.IDLE,
        (MemberState.LEAVING, Do.LEND): MemberState.LENT,
        (MemberState.LENT, Do.ENDED): MemberState.ENDED,
        (MemberState.ENDING, Do.ENDED): MemberState.ENDED,
    }
    | {(state, Do.END): MemberState.ENDING for state in _HELD}
)
"""The whole life: what is not here is refused with `StateError` and changes nothing."""
