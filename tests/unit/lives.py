"""What holds of every table of a life, whosever it is."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

import pytest

from utilityvm.kit.errors import StateError
from utilityvm.kit.lifecycle import Life

S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)


def moves_or_is_refused(table: Mapping[tuple[S, E], S], state: S, event: E, subject: str) -> None:
    """What the table lists happens, everything else is refused in words and changes nothing."""
    life = Life(subject, table, state)
    if (state, event) in table:
        assert life.step(event) is table[state, event]
    else:
        with pytest.raises(StateError, match=f"^{subject}: cannot {event.value} while {state.value}$"):
            life.step(event)
        assert life.state is state
