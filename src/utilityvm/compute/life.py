"""The life of a compute system, the same for every driver."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Where a compute system is in its life."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    SAVED = "saved"
    STOPPED = "stopped"
    CLOSED = "closed"


class Do(StrEnum):
    """What may happen to a compute system."""

    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    USE = "run a process"
    INSPECT = "report properties"
    MEASURE = "report statistics"
    MODIFY = "change a resource"
    SAVE = "be saved"
    KEEP = "stay as a template"
    FREEZE = "be copied"
    END = "end"
    CLOSE = "close"


LIFE: Final[Mapping[tuple[State, Do], State]] = {
    (State.CREATED, Do.START): State.RUNNING,
    (State.CREATED, Do.INSPECT): State.CREATED,
    (State.CREATED, Do.END): State.STOPPED,
    (State.RUNNING, Do.PAUSE): State.PAUSED,
    (State.RUNNING, Do.USE): State.RUNNING,
    (State.RUNNING, Do.INSPECT): State.RUNNING,
    (State.RUNNING, Do.MEASURE): State.RUNNING,
    (State.RUNNING, Do.MODIFY): State.RUNNING,
    (State.RUNNING, Do.SAVE): State.RUNNING,
    (State.RUNNING, Do.FREEZE): State.RUNNING,
    (State.RUNNING, Do.KEEP): State.SAVED,
    (State.RUNNING, Do.END): State.STOPPED,
    (State.PAUSED, Do.RESUME): State.RUNNING,
    (State.PAUSED, Do.INSPECT): State.PAUSED,
    (State.PAUSED, Do.MEASURE): State.PAUSED,
    (State.PAUSED, Do.MODIFY): State.PAUSED,
    (State.PAUSED, Do.END): State.STOPPED,
    (State.SAVED, Do.INSPECT): State.SAVED,
    (State.SAVED, Do.END): State.STOPPED,
    (State.STOPPED, Do.INSPECT): State.STOPPED,
    (State.STOPPED, Do.CLOSE): State.CLOSED,
    (State.CLOSED, Do.CLOSE): State.CLOSED,
}
"""There is no state between created and running: a driver spawns without waiting for anything. Closing ends a system first, and
ending an ended one is nothing, so `terminate` and `close` are possible in every state. `SAVE` moves by what follows: the end, or `KEEP`
where the template is the system itself, which stays until it is ended."""
