"""A compute service without a hypervisor: its machines live, listen and end as real ones do; who plays the guest is the test's choice."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, final

from utilityvm.compute.hosted import HostedGuest
from utilityvm.compute.life import LIFE, Do, State
from utilityvm.compute.modify import in_two_halves
from utilityvm.compute.nic import Wire
from utilityvm.compute.ports import ExitHow, ExitStatus, Frozen, JailStatus, MachineStatistics
from utilityvm.guest.boot_times import BootTold
from utilityvm.guest.container import GuestContainer
from utilityvm.guest.process import Process
from utilityvm.guest.spec import ProcessSpec
from utilityvm.guest.transport import Listener, Transport
from utilityvm.kit.aio import Scope, finish
from utilityvm.kit.errors import Unsupported, UtilityVMError
from utilityvm.kit.ids import RuntimeId, VmId
from utilityvm.kit.lifecycle import Life
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.schema.document import ComputeSystem
from utilityvm.schema.properties import Properties, PropertyType, VmMemory
from utilityvm.schema.requests import ModifySettingRequest
from utilityvm.store.devices import Devices
from utilityvm.store.templates import Draft, MachineRecord, Manifest

RUNTIME_ID: Final = RuntimeId("6b8f1f4d-3c2a-4e57-9a61-0f1e2d3c4b5a")
"""Runtime id of every fake machine."""

FAKE_RECORD: Final = MachineRecord(qemu="none", accel="none", processor="", topology=(), files={}, memory_bytes=0)
"""What a fake's template says of the machine that goes on from it: any fake does."""

NOTHING: Final = Devices()
"""What a machine has been given that has been given nothing."""

GuestBody = Callable[[socket.socket], Awaitable[ExitStatus | None]]
"""Plays a guest on its end of the guest connection. Its return ends the machine, None as a power-off."""

_CLEANUP: Final = 5.0


async def idle_guest(sock: socket.socket) -> None:
    """A guest that says nothing and listens to nothing until the host hangs up."""
    with sock:
        while await asyncio.get_running_loop().sock_recv(sock, 1 << 16):
            pass


@final
class FakeFrozen:
    """A `compute.ports.Frozen` of nothing; `closed` says that it was let go of."""

    def __init__(self) -> None:
        self.pause, self.technique, self.closed = 0.01, "copy", False

    def close(self) -> None:
        """See `compute.ports.Frozen.close`."""
        self.closed = True


@final
class FakeMachine:
    """A `compute.ports.Machine`. `ports` are those that were listened to, in order; `console` is what the guest said there.

    `saved` are the options that it was saved with as a template, and `kept` what it had been given then or when it was
    copied, None while it was not; the template is
    in the service's folder, if any. `inherited` is what it has from the one that it goes on from.
    `copies` are those that were made of it; `freeze_fails` is raised instead. `frozen` is what it goes on from, None for no copy.
    `requests` are the host's halves of changes, in order; `refuses` says of each, before it is carried out, with what it fails, or None.
    """

    runtime_id: Final = RUNTIME_ID
    jail: Final = JailStatus((), {"everything": "a fake runs in the test's process"})

    def __init__(
        self,
        system_id: VmId,
        document: ComputeSystem,
        guest: GuestBody,
        start_fails: UtilityVMError | None,
        *,
        savable: bool = False,
        forkable: bool = False,
        frozen: Frozen | None = None,
        templates: Path | None = None,
        stays: bool = False,
        inherited: Devices = NOTHING,
    ) -> None:
        self.system_id, self.document, self.savable, self._templates = system_id, document, savable, templates
        self.forkable, self.frozen = forkable, frozen
        self._stays = stays
        self.saved: OptionsLCOW | None = None
        self.saved_to: Path | None = None
        self.freeze_fails: UtilityVMError | None = None
        self.copies: list[FakeFrozen] = []
        self.kept: Devices | None = None
        self.inherited: Final = inherited
        self.ports: list[int] = []
        self.console: list[str] = []
        self.wires: dict[str, Wire] = {}
        self.requests: list[ModifySettingRequest] = []
        self.refuses: Callable[[ModifySettingRequest], UtilityVMError | None] = lambda _request: None
        self.modifies = asyncio.Event()
        """While it is not set, changes wait; those that wait when the machine ends fail."""
        self.modifies.set()
        self._guest, self._start_fails = guest, start_fails
        self._life = Life(f"vm {system_id}", LIFE, State.CREATED)
        self._transport = Transport(f"vm {system_id}", bytes(16))
        self._hosted = HostedGuest(document, self._transport, f"vm {system_id}")
        self._scope = Scope(f"vm:{system_id}", self._guest_failed)
        self._status: ExitStatus | None = None
        self._ended = asyncio.Event()
        self._opening = asyncio.Lock()

    @property
    def state(self) -> State:
        """Where the machine is in its life."""
        return self._life.state

    def listen(self, port: int, *, once: bool = False, programs: bool = False) -> Listener:
        """See `guest.transport.GuestSockets.listen`."""
        listener = self._transport.listen(port, once=once, programs=programs)
        self.ports.append(port)
        return listener

    def offer(self, endpoint_id: str, wire: Wire) -> None:
        """See `compute.ports.Wired.offer`. What is offered is in `wires`, and never called: a fake has no adapters."""
        self.wires[endpoint_id] = wire

    def console_tail(self, lines: int = 40) -> str:
        """See `compute.ports.Console.console_tail`."""
        return "\n".join(self.console[-lines:])

    async def start(self) -> None:
        """See `compute.ports.ComputeSystem.start`; raises what the service was told to."""
        self._life.step(Do.START)
        try:
            self._fail_if_told()
            ours, theirs = socket.socketpair()
            theirs.setblocking(False)
            self._scope.start("guest", self._run(theirs))
            async with self._opening:
                await self._transport.open(ours)
        except BaseException as error:
            self.end(ExitStatus(ExitHow.FAILED, str(error)) if isinstance(error, UtilityVMError) else ExitStatus(ExitHow.TERMINATED))
            raise

    async def connect(self) -> BootTold | None:
        """See `compute.ports.Hosted.connect`."""
        return await self._hosted.open(self._guest_lost)

    async def pause(self) -> None:
        """See `compute.ports.Pausable.pause`. Who plays the guest plays on: a Python function cannot be stopped from outside."""
        self._life.step(Do.PAUSE)
        self._hosted.hold()

    async def resume(self) -> None:
        """See `compute.ports.Pausable.resume`."""
        self._life.step(Do.RESUME)
        self._hosted.release()

    async def save(self, options: OptionsLCOW | None, devices: Callable[[], Devices], path: Path | None = None) -> bool:
        """See `compute.ports.Savable.save`. What was saved is in `saved` and `kept`, and where to in `saved_to`; nothing is there."""
        self._life.check(Do.SAVE)
        if path is None and not self.savable:
            raise Unsupported(f"vm {self.system_id}: was not made to be saved as a template")
        self.kept, self.saved, self.saved_to = devices(), options, path
        if path is None and self._stays:
            self._life.step(Do.KEEP)
            return True
        if path is None and self._templates is not None and options is not None:
            with Draft(self._templates, self.system_id) as draft:
                draft.keep(Manifest(id=self.system_id, created=0.0, options=options, machine=FAKE_RECORD, state_sha256=""))
        await self.terminate()
        return False

    async def freeze(self, devices: Callable[[], Devices]) -> FakeFrozen:
        """See `compute.ports.Savable.freeze`; raises what the service was told to."""
        self._life.check(Do.FREEZE)
        await asyncio.sleep(0)
        if self.freeze_fails is not None:
            raise self.freeze_fails
        self.kept = devices()
        self.copies.append(FakeFrozen())
        return self.copies[-1]

    async def properties(self, wanted: frozenset[PropertyType] = frozenset()) -> Properties:
        """See `compute.ports.Inspected.properties`."""
        state = self._life.step(Do.INSPECT)
        told = Properties(
            id=self.system_id,
            system_type="VirtualMachine",
            runtime_os_type="linux",
            owner=self.document.owner,
            runtime_id=self.runtime_id,
            state=state.value.capitalize(),
            stopped=state is State.STOPPED,
        )
        return await self._hosted.add_to(told, wanted)

    async def statistics(self) -> MachineStatistics:
        """See `compute.ports.Measured.statistics`. A fake uses nothing."""
        self._life.step(Do.MEASURE)
        machine = self.document.virtual_machine
        memory = machine.compute_topology.memory if machine and machine.compute_topology else None
        pages = (memory.size_in_mb << 20) // 4096 if memory else 0
        return MachineStatistics(processor_ns=0, working_set=0, nodes=1, memory=VmMemory(assigned_memory=pages))

    async def modify(self, request: ModifySettingRequest) -> None:
        """See `compute.ports.Modifiable.modify`. What was asked is remembered, and is nothing."""
        self._life.step(Do.MODIFY)
        await in_two_halves(request, self._modify_host, self._hosted.modify, f"vm {self.system_id}")

    async def create_process(self, spec: ProcessSpec) -> Process:
        """See `compute.ports.Hosted.create_process`."""
        self._life.step(Do.USE)
        return await self._hosted.create_process(spec)

    async def create_container(self, container_id: str, settings: object) -> GuestContainer:
        """See `compute.ports.Hosted.create_container`."""
        self._life.step(Do.USE)
        return await self._hosted.create_container(container_id, settings)

    async def terminate(self) -> None:
        """See `compute.ports.ComputeSystem.terminate`."""
        self.end(ExitStatus(ExitHow.TERMINATED))
        await finish(self._scope.aclose(), within=_CLEANUP)

    async def wait(self) -> ExitStatus:
        """See `compute.ports.ComputeSystem.wait`."""
        await self._ended.wait()
        assert self._status is not None  # noqa: S101 (set before the event)
        return self._status

    async def close(self) -> None:
        """See `compute.ports.ComputeSystem.close`."""
        await self.terminate()
        await self._hosted.aclose()
        async with self._opening:
            self._transport.close()
        self._life.step(Do.CLOSE)

    def end(self, status: ExitStatus) -> None:
        """Let the machine end as `status` says. Nothing happens when it has ended."""
        if self._status is None:
            self._status = status
            self._life.step(Do.END)
            self.modifies.set()
            self._transport.close()
            self._ended.set()

    def _guest_lost(self, reason: UtilityVMError) -> None:
        self.end(ExitStatus(ExitHow.DISCONNECTED, str(reason)))

    def _fail_if_told(self) -> None:
        if self._start_fails is not None:
            raise self._start_fails

    async def _modify_host(self, half: ModifySettingRequest) -> None:
        self.requests.append(half)
        await asyncio.sleep(0)
        await self.modifies.wait()
        self._life.check(Do.MODIFY)
        if (refusal := self.refuses(half)) is not None:
            raise refusal

    async def _run(self, sock: socket.socket) -> None:
        with sock:
            self.end(await self._guest(sock) or ExitStatus(ExitHow.POWERED_OFF))

    def _guest_failed(self, error: Exception) -> None:
        self.end(ExitStatus(ExitHow.FAILED, repr(error)))


@final
class FakeComputeService:
    """A `compute.ports.ComputeService` that takes every document. `machines` are those that were created, in order.

    `create_fails` and `start_fails` are raised by the next calls; `guest` plays the guest of machines that are created from then on.
    `templates` is the folder of what is saved (None: nothing is kept); or each template `stays`, the machine that it was, as on Windows.
    `inherited` is what machines have that go on from a template.
    """

    def __init__(
        self,
        guest: GuestBody = idle_guest,
        *,
        create_fails: UtilityVMError | None = None,
        start_fails: UtilityVMError | None = None,
        templates: Path | None = None,
        stays: bool = False,
        inherited: Devices = NOTHING,
    ) -> None:
        self.inherited = inherited
        self.guest, self.create_fails, self.start_fails, self.templates = guest, create_fails, start_fails, templates
        self.stays = stays
        self.machines: list[FakeMachine] = []

    @property
    def documents(self) -> list[ComputeSystem]:
        """The documents of `machines`."""
        return [machine.document for machine in self.machines]

    async def create(
        self, system_id: VmId, document: ComputeSystem, *, savable: bool = False, forkable: bool = False, frozen: Frozen | None = None
    ) -> FakeMachine:
        """See `compute.ports.ComputeService.create`."""
        if self.create_fails is not None:
            raise self.create_fails
        inherited = self.inherited if document.virtual_machine and document.virtual_machine.restore_state else NOTHING
        machine = FakeMachine(
            system_id,
            document,
            self.guest,
            self.start_fails,
            savable=savable,
            forkable=forkable,
            frozen=frozen,
            templates=self.templates,
            stays=self.stays,
            inherited=inherited,
        )
        self.machines.append(machine)
        return machine
