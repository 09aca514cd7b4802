"""The life of a container as one table: what may be called when, and where it leads."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class ContainerState(StrEnum):
    """Where a container is in its life."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    DELETED = "deleted"


class Do(StrEnum):
    """What may happen to a container: each public call, and what a container does by itself."""

    START = "start"
    EXEC = "run a process"
    ATTACH = "attach a process"
    KILL = "send a signal"
    PAUSE = "pause"
    RESUME = "resume"
    UPDATE = "change its limits"
    STATS = "report statistics"
    PIDS = "list its processes"
    WAIT = "wait"
    EXIT = "exit"
    DELETE = "delete"
    CLOSE = "close"


_STAYS: Final = {
    ContainerState.CREATED: {Do.UPDATE, Do.STATS, Do.PIDS, Do.WAIT},
    ContainerState.RUNNING: {Do.EXEC, Do.ATTACH, Do.KILL, Do.UPDATE, Do.STATS, Do.PIDS, Do.WAIT},
    ContainerState.PAUSED: {Do.ATTACH, Do.KILL, Do.UPDATE, Do.STATS, Do.PIDS, Do.WAIT},
    ContainerState.STOPPED: {Do.ATTACH, Do.WAIT, Do.EXIT},
    ContainerState.DELETED: {Do.WAIT, Do.EXIT, Do.CLOSE},
}

_MOVES: Final = {
    (ContainerState.CREATED, Do.START): ContainerState.RUNNING,
    (ContainerState.CREATED, Do.EXIT): ContainerState.STOPPED,
    (ContainerState.CREATED, Do.DELETE): ContainerState.DELETED,
    (ContainerState.CREATED, Do.CLOSE): ContainerState.DELETED,
    (ContainerState.RUNNING, Do.PAUSE): ContainerState.PAUSED,
    (ContainerState.RUNNING, Do.EXIT): ContainerState.STOPPED,
    (ContainerState.RUNNING, Do.CLOSE): ContainerState.DELETED,
    (ContainerState.PAUSED, Do.RESUME): ContainerState.RUNNING,
    (ContainerState.PAUSED, Do.EXIT): ContainerState.STOPPED,
    (ContainerState.PAUSED, Do.CLOSE): ContainerState.DELETED,
    (ContainerState.STOPPED, Do.DELETE): ContainerState.DELETED,
    (ContainerState.STOPPED, Do.CLOSE): ContainerState.DELETED,
}

LIFE: Final[Mapping[tuple[ContainerState, Do], ContainerState]] = _MOVES | {
    (state, do): state for state, calls in _STAYS.items() for do in calls
}
"""The whole life: what is not here is refused with `StateError` and changes nothing."""
