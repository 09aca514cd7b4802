"""One QEMU: its states, its process and what belongs to it, from the command line to the last word."""

import asyncio
import logging
import os
import shlex
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import Final, final

from msgspec.structs import replace

from utilityvm.compute.hosted import EXIT_TIMEOUT, HostedGuest
from utilityvm.compute.life import LIFE, Do, State
from utilityvm.compute.modify import in_two_halves
from utilityvm.compute.nic import Wire
from utilityvm.compute.ports import ExitHow, ExitStatus, JailStatus, MachineStatistics
from utilityvm.compute.qemu.assign import Shown
from utilityvm.compute.qemu.assignments import Assignments
from utilityvm.compute.qemu.console import SerialConsole
from utilityvm.compute.qemu.ending import exit_status
from utilityvm.compute.qemu.facts import Accel, HostFacts
from utilityvm.compute.qemu.growth import Growth
from utilityvm.compute.qemu.hotplug import Hotplug
from utilityvm.compute.qemu.jail import Layer, enclosure, uid_of
from utilityvm.compute.qemu.keeping import Keeping, not_kept
from utilityvm.compute.qemu.lower import Fd, Launch, adapter_places, assigned_places, memory_place, pmem_count, scsi_count
from utilityvm.compute.qemu.monitor import Monitor
from utilityvm.compute.qemu.nics import Nics
from utilityvm.compute.qemu.pci import look_at
from utilityvm.compute.qemu.pins import Pins
from utilityvm.compute.qemu.plan9 import RESOURCE as PLAN9
from utilityvm.compute.qemu.plan9 import Shares
from utilityvm.compute.qemu.processors import Processors
from utilityvm.compute.qemu.reads import Offered, offer
from utilityvm.compute.qemu.resources import modify_memory, modify_processors
from utilityvm.compute.qemu.saving import Saving
from utilityvm.compute.qemu.screen import Screen
from utilityvm.compute.qemu.services import Services
from utilityvm.compute.qemu.snapshot import Snapshot
from utilityvm.compute.qemu.usage import PAGE, qemu_below, storage_of, usage_of
from utilityvm.guest.boot_times import BootTold
from utilityvm.guest.container import GuestContainer
from utilityvm.guest.process import Process
from utilityvm.guest.spec import ProcessSpec
from utilityvm.guest.transport import Listener, Transport
from utilityvm.kit.aio import Scope, finish
from utilityvm.kit.child import Child
from utilityvm.kit.enclosure import Enclosure
from utilityvm.kit.errors import ConnectionLost, DeadlineExceeded, HostError, StateError, UtilityVMError
from utilityvm.kit.ids import RuntimeId, VmId, new_guid
from utilityvm.kit.lifecycle import Life
from utilityvm.kit.trace import event
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.schema.document import ComputeSystem
from utilityvm.schema.properties import Properties, PropertyType, VmMemory
from utilityvm.schema.requests import ModifySettingRequest
from utilityvm.store.devices import Devices
from utilityvm.wire.packets import NONCE_BYTES

CLEANUP: Final = 5.0
"""Seconds that a killed QEMU may take to be gone."""

SWITCH: Final = 5.0
"""Seconds that QEMU may take to pause or resume its guest."""

_LAST_WORDS: Final = 3.0  # seconds for what an ended QEMU wrote to be read; it is in our socket's buffer already
_SAID_LINES: Final = 20
_CONSOLE_LINES: Final = 400


@final
class QemuMachine:
    """A `compute.ports.Machine` on QEMU. `facts` say what it runs on, and with which acceleration; `given` is what it needs for the
    host's devices that it has; `saving` is how it is saved as a template, or goes on from one.
    """

    def __init__(
        self,
        system_id: VmId,
        document: ComputeSystem,
        launch: Launch,
        facts: HostFacts,
        processors: Processors,
        given: Shown,
        saving: Saving,
    ) -> None:
        self.facts, self._given, self._saving = facts, given, saving
        self._processors = processors
        self._document = document
        self._id, self._launch, self._name = system_id, launch, f"vm {system_id}"
        self._runtime_id = RuntimeId(new_guid())
        self._life = Life(self._name, LIFE, State.CREATED)
        self._transport = Transport(self._name, os.urandom(NONCE_BYTES))
        self._services = Services(launch.rules, self._transport.allow, self._name)
        self._guest = HostedGuest(document, self._transport, self._name)
        self._share_transport = Transport(self._name, os.urandom(NONCE_BYTES))
        self._shares = Shares(system_id, self._name, (self._share_transport, self._transport))
        self._nics = Nics(self._name, adapter_places(pmem_count(document)))
        self._console = SerialConsole(launch.console_path)
        self._screen = Screen(launch.screen_path, self._name)
        self._scope = Scope(self._name, self._broken)
        self._ours = ExitStack()  # our ends of the sockets
        self._ours.callback(saving.close)
        self._child: Child | None = None
        self._monitor: Monitor | None = None
        self._hotplug: Hotplug | None = None
        self._assignments: Assignments | None = None
        self._growth: Growth | None = None
        self._opening, self._switching = asyncio.Lock(), asyncio.Lock()
        self._terminated, self._ended = False, asyncio.Event()
        self._lost: UtilityVMError | None = None
        self._status: ExitStatus | None = None

    @property
    def runtime_id(self) -> RuntimeId:
        """GUID of the machine; a new one each time a system is created."""
        return self._runtime_id

    @property
    def jail(self) -> JailStatus:
        """See `compute.ports.Jailed.jail`."""
        return JailStatus(tuple(self.facts.jail.layers), {str(layer): reason for layer, reason in self.facts.jail.lacks.items()})

    @property
    def state(self) -> State:
        """Where the machine is in its life."""
        return self._life.state

    def listen(self, port: int, *, once: bool = False, programs: bool = False) -> Listener:
        """See `guest.transport.GuestSockets.listen`. May be called before `start`, so that no dial is missed."""
        return self._transport.listen(port, once=once, programs=programs)

    def offer(self, endpoint_id: str, wire: Wire) -> None:
        """See `compute.ports.Wired.offer`."""
        self._nics.offer(endpoint_id, wire)

    def console_tail(self, lines: int = 40) -> str:
        """See `compute.ports.Console.console_tail`; also after the end."""
        return self._console.tail(lines)

    async def start(self) -> None:
        """See `compute.ports.ComputeSystem.start`. Returns when QEMU's process is there; `wait` has what it thinks of its arguments."""
        self._life.step(Do.START)
        try:
            async with self._opening:
                with ExitStack() as theirs:
                    memory = await self._saving.begin(self._ours)
                    sockets, shares = self._spawn(memory, theirs)
                    await self._transport.open(sockets)
                    await self._share_transport.open(shares)
            for share in self._launch.folders:
                await self._shares.add(share)
            if self._launch.present or self._launch.template:
                await self._begin()
        except BaseException as error:
            await self._give_up(error)
            raise

    async def connect(self) -> BootTold | None:
        """See `compute.ports.Hosted.connect`."""
        return await self._guest.open(self._guest_lost)

    async def pause(self) -> None:
        """See `compute.ports.Pausable.pause`.

        Raises:
            DeadlineExceeded: QEMU did not do it within `SWITCH` seconds, or did not say so.
        """
        await self._switch(Do.PAUSE, "stop")

    async def resume(self) -> None:
        """See `compute.ports.Pausable.resume`, and `pause`."""
        await self._switch(Do.RESUME, "cont")

    @property
    def inherited(self) -> Devices:
        """See `compute.ports.Savable.inherited`."""
        return self._saving.inherited

    async def save(self, options: OptionsLCOW | None, devices: Callable[[], Devices], path: Path | None = None) -> bool:
        """See `compute.ports.Savable.save`."""
        assert options is not None  # noqa: S101 (no VM of another guest is created here)
        save = self._saving.save if path is None else partial(self._saving.sleep, path)
        await finish(self._save(partial(save, options), devices), within=None)
        return False

    async def freeze(self, devices: Callable[[], Devices]) -> Snapshot:
        """See `compute.ports.Savable.freeze`."""
        with ExitStack() as taken:
            snapshot = await finish(self._freeze(taken, devices), within=None)
            taken.pop_all()
            return snapshot

    async def properties(self, wanted: frozenset[PropertyType] = frozenset()) -> Properties:
        """See `compute.ports.Inspected.properties`."""
        state = self._life.step(Do.INSPECT)
        told = Properties(
            id=self._id,
            system_type="VirtualMachine",
            runtime_os_type="linux",
            owner=self._document.owner,
            runtime_id=self._runtime_id,
            state=state.value.capitalize(),
            stopped=state is State.STOPPED,
        )
        return await self._guest.add_to(told, wanted)

    async def statistics(self) -> MachineStatistics:
        """See `compute.ports.Measured.statistics`. What is told of disks are QEMU's operations, whatever their size."""
        self._life.step(Do.MEASURE)
        if self._child is None or self._monitor is None or self._growth is None:
            raise StateError(self._name, "starting", Do.MEASURE.value)
        locked = self._launch.memory_bytes if self._launch.locked else 0
        used = usage_of(qemu_below(self._child.pid), locked=locked)
        return MachineStatistics(
            processor_ns=used.processor_ns,
            working_set=locked or used.resident,
            nodes=1,
            memory=VmMemory(assigned_memory=(self._growth.total_mb << 20) // PAGE),
            uptime_ns=used.uptime_ns,
            unique=used.unique,
            storage=storage_of(await self._monitor.execute("query-blockstats")),
        )

    async def modify(self, request: ModifySettingRequest) -> Mapping[str, object] | None:
        """See `compute.ports.Modifiable.modify`."""
        self._life.step(Do.MODIFY)
        return await in_two_halves(request, self._modify_host, self._guest.modify, self._name)

    async def create_process(self, spec: ProcessSpec) -> Process:
        """See `compute.ports.Hosted.create_process`."""
        self._life.step(Do.USE)
        return await self._guest.create_process(spec)

    async def create_container(self, container_id: str, settings: object) -> GuestContainer:
        """See `compute.ports.Hosted.create_container`."""
        self._life.step(Do.USE)
        return await self._guest.create_container(container_id, settings)

    async def terminate(self) -> None:
        """See `compute.ports.ComputeSystem.terminate`.

        Raises:
            DeadlineExceeded: the kernel did not end QEMU within `CLEANUP` seconds of killing it.
        """
        if self._child is None:
            self._end(ExitStatus(ExitHow.TERMINATED))
            return
        self._terminated = True
        self._child.kill()
        try:
            await finish(self._gone(self._child), within=CLEANUP)
        except TimeoutError as error:
            who = f"{self._name}: QEMU (process {self._child.pid})"
            raise DeadlineExceeded(f"{who} was killed and is still there after {CLEANUP:g} s") from error

    async def wait(self) -> ExitStatus:
        """See `compute.ports.ComputeSystem.wait`."""
        await self._ended.wait()
        assert self._status is not None  # noqa: S101 (set before the event)
        return self._status

    async def close(self) -> None:
        """See `compute.ports.ComputeSystem.close`.

        Raises:
            DeadlineExceeded: see `terminate`.
        """
        await self.terminate()
        await finish(self._release(), within=CLEANUP)
        self._life.step(Do.CLOSE)

    async def _begin(self) -> None:
        """Plug in what is there from the start, and let the guest run. Nobody pauses it meanwhile."""
        assert self._monitor is not None  # noqa: S101 (QEMU was started)
        assert self._hotplug is not None  # noqa: S101
        async with self._switching:
            for request in self._launch.present:
                await self._plug(request)
            if not await self._saving.go_on(self._monitor, self._hotplug):
                await self._monitor.execute("cont")

    # -- starting: nothing from here on waits, so that a machine that is starting has either no process or all that belongs to one -----

    def _spawn(self, memory: int, theirs: ExitStack) -> tuple[socket.socket, socket.socket]:
        """Start QEMU and the loops around it, and return our ends of the guest connection and of the one for shares."""
        if self._status is not None:
            raise ConnectionLost(f"{self._name}: was ended while it was started")
        try:
            monitor, console, sockets, shares = (self._pair(theirs) for _ in range(4))
            numbers: dict[Fd, int] = {
                Fd.MEMORY: memory,
                Fd.CONSOLE: console[1].fileno(),
                Fd.SOCKETS: sockets[1].fileno(),
                Fd.SHARES: shares[1].fileno(),
                Fd.MONITOR: monitor[1].fileno(),
            }
            self._console.open(console[0])
            self._screen.open()
            self._monitor = self._plugs_by(Monitor(self._name, monitor[0]))
            files = offer(self._launch.files.values(), self.facts.jail, theirs)
            words = self._launch.words({**numbers, **dict(zip(self._launch.files, files.names, strict=True))})
            self._child = Child(words, pass_fds=[*numbers.values(), *files.fds], enclosure=self._enclosure(files))
        except OSError as error:
            raise HostError(f"{self._name}: cannot prepare QEMU's sockets and files: {error}") from error
        event("qemu.spawned", level=logging.DEBUG, vm=self._id, pid=self._child.pid, argv=shlex.join(words))
        self._scope.start("monitor", self._monitor.run())
        self._scope.start("screen", self._screen.run(self._monitor))
        self._scope.start("exit", self._watch(self._child, self._monitor))
        return sockets[0], shares[0]

    def _plugs_by(self, monitor: Monitor) -> Monitor:
        """Make what plugs things into QEMU by this monitor."""
        disks, pmem, memory = scsi_count(self._document), pmem_count(self._document), self._launch.memory_bytes >> 20
        others, pins = Layer.OWN_USER in self.facts.jail.layers, Pins(self._launch.memory_bytes, self._qemu)
        self._hotplug = Hotplug(
            monitor,
            self._name,
            controllers=disks,
            pmem=pmem,
            other_user=others,
            bounded=self._launch.bounded,
            root=self._launch.root,
            pins=pins,
        )
        self._assignments = Assignments(
            monitor,
            self._name,
            places=assigned_places(pmem),
            named=self._launch.assigned.values(),
            jail=self.facts.jail,
            locked=self._launch.locked,
            pins=pins,
            look=look_at,
        )
        self._growth = Growth(monitor, self._name, memory, memory_place(pmem), locked=self._launch.locked)
        return monitor

    def _enclosure(self, files: Offered) -> Enclosure:
        given, devices = self._given, ("/dev/kvm",) if self.facts.accel is Accel.KVM else ()
        jail = enclosure(
            self.facts.jail,
            uid_of(self._runtime_id),
            root=os.geteuid() == 0,
            files=(*files.shown, *given.files),
            devices=(*devices, *given.nodes),
            gids=given.gids,
        )
        return replace(jail, groups=self._processors.enter())

    def _qemu(self) -> int:
        assert self._child is not None  # noqa: S101 (its monitor has answered)
        return qemu_below(self._child.pid)

    def _pair(self, theirs: ExitStack) -> tuple[socket.socket, socket.socket]:
        ours, other = socket.socketpair()
        self._ours.callback(ours.close)
        theirs.callback(other.close)
        return ours, other

    async def _give_up(self, error: BaseException) -> None:
        """Take back what a failed or cancelled start has done."""
        if self._child is None and isinstance(error, UtilityVMError):
            self._end(ExitStatus(ExitHow.FAILED, error.message))
        self._transport.close()
        try:
            if self._child is not None and isinstance(error, ConnectionLost):
                await self._end_by_itself()
        finally:
            await self.terminate()

    # -- changing ---------------------------------------------------------------------------------------------------

    async def _modify_host(self, request: ModifySettingRequest) -> Mapping[str, object] | None:
        self._life.check(Do.MODIFY)
        if request.resource_path == PLAN9:
            await self._shares.modify(request)
            return None
        if self._child is None or self._growth is None:
            raise StateError(self._name, "starting", Do.MODIFY.value)
        if self._services.modify(request):
            return None
        if modify_processors(request, self._processors, self._child.pid) or await modify_memory(request, self._growth):
            return None
        return await self._plug(request)

    async def _plug(self, request: ModifySettingRequest) -> Mapping[str, object] | None:
        assert self._monitor is not None  # noqa: S101 (QEMU was started)
        assert self._hotplug is not None  # noqa: S101
        assert self._assignments is not None  # noqa: S101
        if await self._nics.modify(request, self._monitor):
            return None
        if (told := await self._assignments.modify(request)) is None:
            await self._hotplug.modify(request)
        return told

    # -- standing still ---------------------------------------------------------------------------------------------

    async def _switch(self, do: Do, command: str) -> None:
        try:
            await finish(self._execute(do, command), within=SWITCH)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self._name}: QEMU did not {do.value} its guest within {SWITCH:g} s") from error

    async def _execute(self, do: Do, command: str) -> None:
        """Carry out one change at a time, to its end: a state that nobody knows is worse than a caller who waits."""
        async with self._switching:
            self._life.check(do)
            if self._monitor is None:
                raise StateError(self._name, "starting", do.value)
            await self._monitor.execute(command)
            self._life.step(do)
            (self._guest.hold if do is Do.PAUSE else self._guest.release)()

    async def _save(self, save: Callable[[Monitor, Sequence[Transport], Keeping], Awaitable[None]], devices: Callable[[], Devices]) -> None:
        async with self._switching:
            await save(*self._at_rest(Do.SAVE, devices))
        await self.terminate()

    async def _freeze(self, taken: ExitStack, devices: Callable[[], Devices]) -> Snapshot:
        async with self._switching:
            return taken.enter_context(closing(await self._saving.snapshot(*self._at_rest(Do.FREEZE, devices))))

    def _at_rest(self, do: Do, devices: Callable[[], Devices]) -> tuple[Monitor, tuple[Transport, ...], Keeping]:
        """Return what a machine is stopped by that is to be saved, and who knows what it has been given."""
        self._life.check(do)
        if self._monitor is None or self._hotplug is None or self._growth is None:
            raise StateError(self._name, "starting", do.value)
        keeping = Keeping(self._id, devices, self._hotplug, not_kept(self._nics, self._growth, self._shares))
        return self._monitor, (self._transport, self._share_transport), keeping

    # -- ending -----------------------------------------------------------------------------------------------------

    async def _watch(self, child: Child, monitor: Monitor) -> None:
        code = await child.wait()
        with suppress(TimeoutError):  # somebody else holds QEMU's end; how it ended is known without its word
            async with asyncio.timeout(_LAST_WORDS):
                await monitor.ended()
        self._console.close()  # reads what is left
        if self._lost is not None:
            self._end(ExitStatus(ExitHow.DISCONNECTED, str(self._lost)))
            return
        self._end(
            exit_status(
                code,
                terminated=self._terminated,
                shutdown_reason=monitor.shutdown_reason,
                said=child.output.text(_SAID_LINES),
                console=self._console.tail(_CONSOLE_LINES),
            )
        )

    def _guest_lost(self, reason: UtilityVMError) -> None:
        self._scope.start("guest-lost", self._end_after_loss(reason))

    async def _end_after_loss(self, reason: UtilityVMError) -> None:
        """End a machine that its agent has left, unless it is ending by itself."""
        if isinstance(reason, ConnectionLost):
            await self._end_by_itself()
        if self._status is None and not self._terminated and self._child is not None:
            self._lost = reason
            self._child.kill()

    async def _end_by_itself(self) -> None:
        """Give a machine that has ended a connection time to end, and to say why."""
        with suppress(TimeoutError):
            async with asyncio.timeout(EXIT_TIMEOUT):
                await self._ended.wait()

    async def _release(self) -> None:
        await self._scope.aclose()
        await self._guest.aclose()
        await self._shares.aclose()
        async with self._opening, self._switching:  # a `start` that is under way sees its end first, and a copy its memory
            self._transport.close()
            self._share_transport.close()
            self._ours.close()
            if self._hotplug is not None:
                self._hotplug.close()
            self._processors.close()

    async def _gone(self, child: Child) -> None:
        await child.wait()
        await self._ended.wait()

    def _broken(self, error: Exception) -> None:
        """A loop of ours failed, which is a bug: without it the machine is out of control, so it ends."""
        if self._child is not None:
            self._child.kill()
        self._end(ExitStatus(ExitHow.FAILED, f"the driver failed: {error!r}"))

    def _end(self, status: ExitStatus) -> None:
        if self._status is not None:
            return
        self._status = status
        self._life.step(Do.END)
        self._console.close()
        self._screen.close()
        if self._child is None:
            self._transport.close()  # otherwise it ends by itself, after what the guest said last
        event("qemu.ended", level=logging.DEBUG, vm=self._id, how=status.how.value)
        self._ended.set()
