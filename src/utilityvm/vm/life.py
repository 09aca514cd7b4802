"""The life of a utility VM as one table: what may be called when, and where it leads."""

import asyncio
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from utilityvm.kit.errors import StateError


class State(StrEnum):
    """Where a VM is in its life."""

    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    SAVED = "saved"
    STOPPED = "stopped"
    CLOSED = "closed"


class Do(StrEnum):
    """What may happen to a VM: each public call, and what a VM does by itself."""

    START = "start"
    STARTED = "finish starting"
    USE = "run a process"
    LISTEN = "listen on a port"
    PAUSE = "pause"
    RESUME = "resume"
    PROPERTIES = "report properties"
    ASK = "ask the guest for properties"
    STATISTICS = "report statistics"
    MODIFY = "change a resource"
    SAVE = "save as a template"
    KEEP = "stay as a template"
    SLEEP = "save to a file"
    FORK = "fork"
    DUMP_STACKS = "dump stacks"
    CLOSE_GCS = "close the guest connection"
    WAIT = "wait"
    EXIT_ERROR = "report its exit"
    TERMINATE = "terminate"
    EXIT = "exit"
    CLOSE = "close"


_STAYS: Final = {
    State.CREATED: {Do.LISTEN, Do.PROPERTIES, Do.CLOSE_GCS, Do.WAIT, Do.TERMINATE},
    State.STARTING: {Do.LISTEN, Do.PROPERTIES, Do.CLOSE_GCS, Do.WAIT, Do.TERMINATE},
    State.RUNNING: {
        Do.USE,
        Do.LISTEN,
        Do.PROPERTIES,
        Do.ASK,
        Do.STATISTICS,
        Do.MODIFY,
        Do.SAVE,
        Do.SLEEP,
        Do.FORK,
        Do.DUMP_STACKS,
        Do.CLOSE_GCS,
        Do.WAIT,
        Do.TERMINATE,
    },
    State.PAUSED: {Do.LISTEN, Do.PROPERTIES, Do.STATISTICS, Do.CLOSE_GCS, Do.WAIT, Do.TERMINATE},
    State.SAVED: {Do.PROPERTIES, Do.CLOSE_GCS, Do.WAIT, Do.TERMINATE},
    State.STOPPED: {Do.PROPERTIES, Do.CLOSE_GCS, Do.WAIT, Do.EXIT_ERROR, Do.TERMINATE, Do.EXIT},
    State.CLOSED: {Do.CLOSE_GCS, Do.WAIT, Do.EXIT_ERROR, Do.TERMINATE, Do.EXIT, Do.CLOSE},
}

LIFE: Final[Mapping[tuple[State, Do], State]] = {(state, do): state for state, calls in _STAYS.items() for do in calls} | {
    (State.CREATED, Do.START): State.STARTING,
    (State.CREATED, Do.EXIT): State.STOPPED,
    (State.CREATED, Do.CLOSE): State.CLOSED,
    (State.STARTING, Do.STARTED): State.RUNNING,
    (State.STARTING, Do.EXIT): State.STOPPED,
    (State.STARTING, Do.CLOSE): State.CLOSED,
    (State.RUNNING, Do.PAUSE): State.PAUSED,
    (State.RUNNING, Do.KEEP): State.SAVED,
    (State.RUNNING, Do.EXIT): State.STOPPED,
    (State.RUNNING, Do.CLOSE): State.CLOSED,
    (State.PAUSED, Do.RESUME): State.RUNNING,
    (State.PAUSED, Do.EXIT): State.STOPPED,
    (State.PAUSED, Do.CLOSE): State.CLOSED,
    (State.SAVED, Do.EXIT): State.STOPPED,
    (State.SAVED, Do.CLOSE): State.CLOSED,
    (State.STOPPED, Do.CLOSE): State.CLOSED,
}
"""The whole life: what is not here is refused with `StateError` and changes nothing. `TERMINATE`, `SAVE` and `SLEEP` move by the
exit that they cause; on Windows `SAVE` moves by `KEEP`: there a template is its VM, which stays until it is ended."""

OVER: Final = frozenset({State.SAVED, State.STOPPED, State.CLOSED})
"""Where nothing can be asked of the guest any more."""


def check_loop(loop: asyncio.AbstractEventLoop, name: str, do: Do) -> None:
    """Refuse to wait in one event loop for what happens in another, `loop`, which is that of the VM `name`: it would be for ever.

    Raises:
        StateError: the running one is another.
    """
    if asyncio.get_running_loop() is not loop:
        hint = "use a VM in the asyncio.run that made it, or make it by utilityvm.sync, which may be called from anywhere"
        raise StateError(name, "it belongs to another event loop", do.value, hint=hint)
