"""What our guest agent tells of processes and containers that another host has made: properties of its own, that HCS does not have.

protocol/SPEC.md section 6.
"""

from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta, Struct, field

from utilityvm.wire.gcs import NotificationType, Uint32

DETACHED_PROCESSES: Final = "DetachedProcesses"
"""The property's name in a query."""

CONTAINER_STATE: Final = "ContainerState"
"""Likewise, of a container."""


class DetachedProcess(Struct, frozen=True, kw_only=True):
    """A process of the guest that another host has started, before the VM was saved, and that can be attached.

    `name` is its program's, at most 15 bytes of it; `container_id` is empty for a process of the VM itself. Both are the guest's words.
    """

    pid: int = field(name="ProcessId")
    name: str = field(default="", name="Name")
    container_id: str = field(default="", name="ContainerId")
    terminal: bool = field(default=False, name="Terminal")
    ended: bool = field(default=False, name="Ended")


class DetachedProcesses(Struct, frozen=True, kw_only=True):
    """The answer."""

    detached_processes: list[DetachedProcess] = field(default_factory=list, name=DETACHED_PROCESSES)


class Place(StrEnum):
    """Where a container is in its life."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


class ContainerPlace(Struct, frozen=True, kw_only=True):
    """Where a container is, and the number of its first process; the rest is of one that has ended."""

    state: Place = field(name="State")
    process_id: Uint32 = field(name="ProcessId")
    exit_code: Uint32 = field(default=0, name="ExitCode")
    type: NotificationType = field(default=NotificationType.NONE, name="Type")
    oom_kills: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)] = field(default=0, name="OomKills")

    @property
    def runs(self) -> bool:
        """Whether its first process is its program, and has not ended."""
        return self.state in {Place.RUNNING, Place.PAUSED}


class ContainerPlaces(Struct, frozen=True, kw_only=True):
    """The answer."""

    container_state: ContainerPlace = field(name=CONTAINER_STATE)
