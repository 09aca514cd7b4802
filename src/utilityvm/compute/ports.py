"""What the floors above need of whatever runs a VM: a service that makes compute systems, and the systems."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import msgspec

from utilityvm.compute.containers import InGuest
from utilityvm.compute.nic import Wire
from utilityvm.guest.boot_times import BootTold
from utilityvm.guest.process import Process
from utilityvm.guest.spec import ProcessSpec
from utilityvm.guest.transport import GuestSockets
from utilityvm.kit.errors import HostError, UtilityVMError
from utilityvm.kit.ids import RuntimeId, VmId
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.schema.document import ComputeSystem as Document
from utilityvm.schema.properties import Properties, PropertyType, VmMemory
from utilityvm.schema.requests import ModifySettingRequest
from utilityvm.schema.statistics import StorageStats
from utilityvm.store.devices import Devices


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
    UNEXPECTED = "unexpected"
    """The host service ended it, or saw it end, and says in its own words why."""
    DISCONNECTED = "disconnected"
    """The driver lost its connection to the guest's agent (internal guest connection) and ended it."""


_SENTENCE = {
    ExitHow.RESET: "the guest reset itself",
    ExitHow.PANICKED: "the guest's kernel panicked",
    ExitHow.KILLED: "its hypervisor was killed by signal {code}",
    ExitHow.FAILED: "its hypervisor failed with exit code {code}",
    ExitHow.UNEXPECTED: "it ended unexpectedly",
    ExitHow.DISCONNECTED: "its guest agent is gone",
}


class ExitStatus(msgspec.Struct, frozen=True):
    """How a compute system ended, and the last words of whoever had something to say.

    `code` is the number of the signal for `ExitHow.KILLED`, the exit code for `ExitHow.FAILED`, the HRESULT for
    `ExitHow.UNEXPECTED`, otherwise 0.
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


class Pausable(Protocol):
    """What can stand still."""

    async def pause(self) -> None:
        """Let no processor of it run until `resume`. A cancelled call is carried out all the same.

        Raises:
            StateError: it does not run, or is paused.
            HostError: it could not be paused; it runs on.
            ConnectionLost: it ended meanwhile.
        """
        ...

    async def resume(self) -> None:
        """Let it run on.

        Raises:
            StateError: it is not paused.
            HostError, ConnectionLost: as `pause`.
        """
        ...


class Inspected(Protocol):
    """What tells of itself."""

    async def properties(self, wanted: frozenset[PropertyType] = frozenset()) -> Properties:
        """Say who and in what state it is, and with an internal guest connection that which of `wanted` needs the guest.

        Raises:
            StateError: it was closed; or of the guest something is wanted, and there is none to ask.
            GuestError, ConnectionLost, DeadlineExceeded: the guest does not tell.
        """
        ...


class MachineStatistics(msgspec.Struct, frozen=True):
    """What a VM has used since its start, and holds now.

    `processor_ns` and `uptime_ns` are nanoseconds, `working_set` bytes of the host's memory, and `unique` those of them that go when the
    VM does: nobody else has them. `memory` is what the VM was given, in pages of 4096 bytes, over `nodes` virtual NUMA nodes; `guest` is
    what its guest makes of that; `storage` what all its disks have done. None: nobody tells.
    """

    processor_ns: int
    working_set: int
    nodes: int
    memory: VmMemory
    uptime_ns: int | None = None
    unique: int | None = None
    storage: StorageStats | None = None
    guest: VmMemory | None = None


class Measured(Protocol):
    """What tells what it has used."""

    async def statistics(self) -> MachineStatistics:
        """Say what the host spends on it.

        Raises:
            StateError: it does not run.
            NotFound: its process is not there, or not for us to look at.
            HostError, ConnectionLost, DeadlineExceeded: the host, or what runs the machine, does not tell.
        """
        ...


class Modifiable(Protocol):
    """What can be given things, and have them taken away, while it runs."""

    async def modify(self, request: ModifySettingRequest) -> Mapping[str, object] | None:
        """Change the resource that `request` names; done when this returns. A failed one has changed nothing.

        A guest request in it is relayed only with an internal guest connection (see `compute.modify`). Returns members for the settings
        of the guest's request, without which the guest does not find what has come; None: there are none.

        Raises:
            StateError: it does not run, and is not paused.
            Unsupported: this driver cannot; the text names the resource's path.
            InvalidOptions: what is asked for makes no sense.
            NotFound: a file that it names does not exist, or what is to be removed is not there.
            HostError, ConnectionLost, DeadlineExceeded: it was refused, or the machine ended.
        """
        ...


class Wired(Protocol):
    """Adapters on networks that are not the host service's own."""

    def offer(self, endpoint_id: str, wire: Wire) -> None:
        """Let adapters be on an endpoint of ours, from now on; `wire` is called for each that comes.

        Raises:
            Exists: there is such an endpoint.
            Unsupported: all endpoints are the host's.
        """
        ...


class Hosted(Protocol):
    """The guest as the compute service itself reaches it (a document with a `GuestConnection`)."""

    async def connect(self) -> BootTold | None:
        """Wait until the guest's agent has answered. Its boot must be served meanwhile: it asks for entropy first.

        Returns what the agent tells of its boot, if anything.

        Raises:
            ConnectionLost: the guest ended.
            ProtocolError, GuestError: the two do not agree.
        """
        ...

    async def create_process(self, spec: ProcessSpec) -> Process:
        """Start a process in the guest.

        Raises:
            StateError: it does not run, or its document has no `GuestConnection`.
            GuestError, ConnectionLost: as `guest.process.start_process`.
        """
        ...

    async def create_container(self, container_id: str, settings: object) -> InGuest:
        """Create a container of a document in the guest's shape, or the host service's.

        Raises:
            StateError: it does not run, or its document has no `GuestConnection`.
            Exists: there is one of this id.
            GuestError, HostError, ConnectionLost: it could not be created.
        """
        ...


class JailStatus(msgspec.Struct, frozen=True):
    """What keeps the process that runs a machine from its host: `layers` do, in their order from the outside in; `lacks` are those that
    this host does not give, each with the reason.
    """

    layers: tuple[str, ...]
    lacks: Mapping[str, str]


class Jailed(Protocol):
    """What is kept from its host."""

    @property
    def jail(self) -> JailStatus:
        """What keeps it; known before it runs."""
        ...


class Frozen(Protocol):
    """A machine as it stood still, for others to go on from. It runs on, and what it does from then on is not in here."""

    @property
    def pause(self) -> float:
        """How long it stood still for this, in seconds."""
        ...

    @property
    def technique(self) -> str:
        """How its memory was taken: ``copy``, or ``migrate`` where only who runs it could write it down, which takes longer."""
        ...

    def close(self) -> None:
        """Let go of it; those that were made of it go on. A second call does nothing."""
        ...


class Savable(Protocol):
    """What others can go on from."""

    async def freeze(self, devices: Callable[[], Devices]) -> Frozen:
        """Return a copy of it, for others to go on from. It stands still for a moment, and runs on, also when this fails.

        `devices` tells what it has been given, also while it stands still; it raises what is raised then. A cancelled call is carried
        out, and leaves nothing.

        Raises:
            StateError: it does not run; or it is being given something.
            Unsupported: it has what others could not have; each is named.
            HostError, DeadlineExceeded: it could not be copied.
            ConnectionLost: it ended meanwhile.
        """
        ...

    @property
    def inherited(self) -> Devices:
        """What it has from the one that it goes on from, as soon as it is started: nothing when it boots."""
        ...

    async def save(self, options: OptionsLCOW | None, devices: Callable[[], Devices], path: Path | None = None) -> bool:
        """Pause it and save it as a file at `path`, from which it goes on with these `options`, or (None) as a template of its id, for VMs
        of these options to go on from; None are the options of a VM that is not a Linux one.

        Returns False when it has ended, and True when it is the template itself and stays until it is ended; nothing else can be
        done with it then.

        `devices` tells what it has been given, also while it is paused; it raises what is raised then. A call that fails has changed
        nothing, and it runs on. A cancelled call is carried out.

        Raises:
            StateError: it does not run; or it is being given something.
            Exists: there is such a file, or a template of its id.
            Unsupported: it was not made for it, or has what cannot be saved; each is named.
            HostError, DeadlineExceeded: it could not be saved.
            ConnectionLost: it ended meanwhile.
        """
        ...


class Console(Protocol):
    """What a guest says on its serial console."""

    def console_tail(self, lines: int = 40) -> str:
        """Return its last `lines` lines, without characters that could steer a terminal."""
        ...


class Machine(ComputeSystem, Pausable, Inspected, Measured, Modifiable, Hosted, GuestSockets, Console, Jailed, Wired, Savable, Protocol):
    """A compute system with all that a utility VM needs of it."""


class Grants(Protocol):
    """Leave to open a file of the host, where whoever runs a VM opens it by himself, as HCS does with the VM's own account."""

    async def grant_access(self, vm_id: VmId, path: str) -> None:
        """Let the VM of this id, and none but it, open a file.

        Raises:
            HostError: the file's rights could not be changed.
        """
        ...

    async def grant_group_access(self, path: str) -> None:
        """Let every VM of this host open a file.

        Raises:
            HostError: the file's rights could not be changed.
        """
        ...


class HostFiles(Grants, Protocol):
    """Folders and virtual disks of the host, as far as a VM must find them before it is created."""

    async def make_folder(self, path: str) -> None:
        """Make a folder and those above it that are missing. Nothing happens when it is there.

        Raises:
            HostError: it could not be made.
        """
        ...

    async def copy(self, source: str, target: str) -> None:
        """Copy a file over whatever is at `target`; when that fails nothing of it is left there.

        Raises:
            HostError: it could not be copied; the text names both and the system's reason.
        """
        ...

    async def remove(self, path: str) -> None:
        """Remove a file. Nothing happens when it is not there.

        Raises:
            HostError: it could not be removed.
        """
        ...


class ComputeService(Protocol):
    """Makes compute systems of documents."""

    async def create(
        self, system_id: VmId, document: Document, *, savable: bool = False, forkable: bool = False, frozen: Frozen | None = None
    ) -> Machine:
        """Prepare a compute system; nothing runs yet. `savable` is for one that may be saved as a template, `forkable` for one that is
        frozen quickly; both cost some services something. `frozen` is what it goes on from, where the document says that it goes on from
        another (None: a template of that id); the caller closes it.

        Raises:
            Unsupported: parts of the document that cannot be honoured, each by its path; or the host lacks something; or it goes on from a
                template that does not fit it, and why.
            InvalidOptions: parts of the document that make no sense, each by its path.
            NotFound: a file that the document names does not exist; or there is no such template.
            Exists: it is `savable`, and there is a template of its id.
            Corrupt: the template that it goes on from is not as it was written.
        """
        ...
