"""Lifecycles as tables: what is not listed is refused, and a refusal changes nothing."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Generic, TypeVar, final

from utilityvm.kit.errors import StateError

S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)


@final
class Life(Generic[S, E]):
    """The state of one thing, moved only by events that its table lists.

    `subject` names the thing in errors, e.g. ``vm x1``.
    """

    def __init__(self, subject: str, table: Mapping[tuple[S, E], S], initial: S) -> None:
        self._subject, self._table, self._state = subject, table, initial

    @property
    def state(self) -> S:
        """The present state."""
        return self._state

    def check(self, event: E) -> S:
        """Return where `event` would lead, for an event whose effect can fail and is tried before the step.

        Raises:
            StateError: the table does not list it.
        """
        target = self._table.get((self._state, event))
        if target is None:
            raise StateError(self._subject, self._state.value, event.value)
        return target

    def step(self, event: E) -> S:
        """Move by `event` and return the new state.

        Raises:
            StateError: the table does not list it; the state is as before.
        """
        self._state = self.check(event)
        return self._state
