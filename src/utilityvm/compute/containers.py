"""What the floors above need of a container in a guest, whoever speaks to that: our own guest connection, or the host service."""

from collections.abc import Sequence
from typing import Protocol

from utilityvm.guest.process import Process
from utilityvm.schema.properties import Properties
from utilityvm.wire.gcs import ContainerNotification
from utilityvm.wire.oci import OciProcess


class Runs(Protocol):
    """The life of a container in the guest."""

    async def start(self) -> None:
        """Start it. On Linux its first process starts with `first`."""
        ...

    async def wait(self) -> ContainerNotification:
        """Wait for its end."""
        ...

    async def shutdown(self) -> None:
        """Ask it to end, and do not wait for it."""
        ...

    async def terminate(self) -> None:
        """Make it end, and do not wait for it."""
        ...


class Executes(Protocol):
    """The processes of a container in the guest."""

    @property
    def os(self) -> str:
        """Its guest's system: ``linux`` or ``windows``."""
        ...

    async def first(self, *, stdin: bool, stdout: bool, stderr: bool) -> Process:
        """Start the process that a Linux container was created with."""
        ...

    async def execute(self, process: OciProcess, *, stdin: bool = False, stdout: bool = True, stderr: bool = True) -> Process:
        """Run one more process in it."""
        ...

    async def attach(self, pid: int, *, stdin: bool, stdout: bool, stderr: bool) -> Process:
        """Take over a process in it that another host has started."""
        ...

    async def signal_all(self, process: Process, signal: int) -> bool:
        """Send a signal to all processes of the container whose first one `process` is; say whether there were any."""
        ...


class Changes(Protocol):
    """What can be asked of a container in the guest, and changed."""

    async def properties(self, types: Sequence[str]) -> Properties:
        """Ask what it tells of itself."""
        ...

    async def update(self, resources: object) -> None:
        """Change its limits."""
        ...

    async def pause(self) -> None:
        """Let it stand still."""
        ...

    async def resume(self) -> None:
        """Let it run on."""
        ...


class Ends(Protocol):
    """The end of what the guest, and we, remember of a container."""

    async def delete_state(self) -> None:
        """Let the guest forget it after its end."""
        ...

    def close(self) -> None:
        """Give the handle up."""
        ...


class InGuest(Runs, Executes, Changes, Ends, Protocol):
    """A container in the guest, as a `Container` uses it."""
