"""What the floors above need of whatever runs a VM: a service that makes compute systems, and the systems."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from utilityvm.guest.transport import GuestSockets
from utilityvm.kit.errors import HostError, UtilityVMError
from utilityvm.kit.ids import RuntimeId, VmId
from utilityvm.schema.document import ComputeSystem as Document


class ExitHow(StrEnum):
    """How a compute system ended."""

    POWERED_OFF = "powered_off"
    """The guest powered off."""
    TERMINATED = "terminated"
    """We ended it."""
    RESET = "reset"
    """The guest reset itself, for no reason that it told."""
    PANICKED = "panicked"
    """The guest's kernel gave up."""
    KILLED = "killed"
    """The process that ran it was ended by a signal that was not ours."""
    FAILED = "failed"
    """The process that ran it ended with an error, or could not be started."""


_SENTENCE = {
    ExitHow.RESET: "the guest reset itself",
    ExitHow.PANICKED: "the guest's kernel panicked",
    ExitHow.KILLED: "its hypervisor was killed by signal {code}",
    ExitHow.FAILED: "its hypervisor failed with exit code {code}",
}


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a compute system ended, and the last words of whoever had something to say.

    `code` is the number of the signal for `ExitHow.KILLED`, the exit code for `ExitHow.FAILED`, otherwise 0.
    """

    how: ExitHow
    detail: str = ""
    code: int = 0

    def error(self, subject: str) -> UtilityVMError | None:
        """Return the error that this end is; None for a power-off and for our own doing. `subject` names the VM in it."""
        sentence = _SENTENCE.get(self.how)
        if sentence is None:
            return None
        return HostError(f"{subject}: {sentence.format(code=self.code)}" + (f": {self.detail}" if self.detail else ""))


class ComputeSystem(Protocol):
    """One virtual machine: nothing runs before `start`, nothing is left after `close`."""

    @property
    def runtime_id(self) -> RuntimeId:
        """GUID of the partition."""
        ...

    async def start(self) -> None:
        """Let it run; does not wait for the guest. An end right afterwards is reported by `wait`.

        Raises:
            StateError: it was started, terminated or closed before.
            HostError: it could not be started.
        """
        ...

    async def terminate(self) -> None:
        """End it as by pulling the plug, and wait until it is gone. Nothing happens when it has ended."""
        ...

    async def wait(self) -> ExitStatus:
        """Wait for its end. May be called at any time, and by many."""
        ...

    async def close(self) -> None:
        """Terminate it and release all that belongs to it. May be called at any time, and again."""
        ...


class Console(Protocol):
    """What a guest says on its serial console."""

    def console_tail(self, lines: int = 40) -> str:
        """Return its last `lines` lines, without characters that could steer a terminal."""
        ...


class Machine(ComputeSystem, GuestSockets, Console, Protocol):
    """A compute system with its guest's sockets and console."""


class ComputeService(Protocol):
    """Makes compute systems of documents."""

    async def create(self, system_id: VmId, document: Document) -> Machine:
        """Prepare a compute system; nothing runs yet.

        Raises:
            Unsupported: parts of the document that cannot be honoured, each by its path; or the host lacks something.
            InvalidOptions: parts of the document that make no sense, each by its path.
            NotFound: a file that the document names does not exist.
        """
        ...
