"""What our guest agent tells of processes that can be attached: a property of its own, that HCS does not have."""

from typing import Final

from msgspec import field

from utilityvm.schema.node import Answer

DETACHED_PROCESSES: Final = "DetachedProcesses"
"""The property's name in a query."""


class DetachedProcess(Answer, frozen=True, kw_only=True):
    """A process of the guest that another host has started, before the VM was saved, and that can be attached.

    `name` is its program's, at most 15 bytes of it; `container_id` is empty for a process of the VM itself. Both are the guest's words.
    """

    pid: int = field(default=0, name="ProcessId")
    name: str = field(default="", name="Name")
    container_id: str = field(default="", name="ContainerId")
    terminal: bool = field(default=False, name="Terminal")
    ended: bool = field(default=False, name="Ended")


class DetachedProcesses(Answer, frozen=True, kw_only=True):
    """The answer."""

    detached_processes: list[DetachedProcess] = field(default_factory=list, name=DETACHED_PROCESSES)
