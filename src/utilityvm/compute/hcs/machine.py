"""One VM of the host service: its states, its sockets and console, and its end."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Final, final

from msgspec import structs

from utilityvm.compute.hcs.console import PipeConsole
from utilityvm.compute.hcs.container import HcsContainer, container_document
from utilityvm.compute.hcs.ending import Ended, exit_status
from utilityvm.compute.hcs.hosted import HostedProcess
from utilityvm.compute.hcs.hvsocket import HvSockets
from utilityvm.compute.hcs.ports import Pipes, Sockets
from utilityvm.compute.hcs.statistics import ASKED, memory_of, statistics_of
from utilityvm.compute.hcs.system import HcsSystem, Started
from utilityvm.compute.hcs.vmmem import MemoryProcess, Processes
from utilityvm.compute.life import LIFE, Do, State
from utilityvm.compute.nic import Wire
from utilityvm.compute.ports import ExitHow, ExitStatus, Frozen, JailStatus, MachineStatistics
from utilityvm.guest.boot_times import BootTold
from utilityvm.guest.process import Process
from utilityvm.guest.spec import ProcessSpec
from utilityvm.guest.transport import Listener
from utilityvm.kit.aio import Scope, finish
from utilityvm.kit.errors import ConnectionLost, DeadlineExceeded, HostError, StateError, Unsupported, UtilityVMError
from utilityvm.kit.ids import RuntimeId
from utilityvm.kit.lifecycle import Life
from utilityvm.kit.trace import event
from utilityvm.options.lcow import OptionsLCOW
from utilityvm.schema.document import ComputeSystem
from utilityvm.schema.json import decode_answer, encode
from utilityvm.schema.properties import Properties, PropertyType
from utilityvm.schema.requests import ModifySettingRequest
from utilityvm.store.devices import Devices

NO_FILES: Final = "the driver for Windows' host service saves no VM to a file"
NO_FORKS: Final = "the driver for Windows' host service forks no VMs"
"""What is said to those who want that."""

CLEANUP: Final = 12.0
"""Seconds that the service may take to end a VM."""

EXIT_TIMEOUT: Final = 2.0
"""Seconds that the service has to tell the end of a VM that it has refused to start because it has ended."""


@final
class HcsMachine:
    """A `compute.ports.Machine` of the host service. `system` is created already and `told` is what it says of itself; both are ours."""

    def __init__(
        self,
        system: HcsSystem,
        document: ComputeSystem,
        told: Properties,
        sockets: Sockets,
        pipes: Pipes,
        console: PipeConsole,
        processes: Processes,
        *,
        savable: bool = False,
    ) -> None:
        self._savable = savable
        self._system, self._told, self._pipes, self._console = system, told, pipes, console
        self._name = f"vm {system.id}"
        machine = document.virtual_machine
        self._internal = machine is not None and machine.guest_connection is not None
        memory = machine.compute_topology.memory if machine is not None and machine.compute_topology is not None else None
        self._physical = memory is not None and not memory.allow_overcommit
        self._runtime_id = RuntimeId(told.runtime_id.lower())
        self._holder = MemoryProcess(processes, self._runtime_id)
        self._life = Life(self._name, LIFE, State.CREATED)
        self._sockets = HvSockets(self._runtime_id, sockets, self._name)
        self._scope = Scope(self._name, self._broken)
        self._switching = asyncio.Lock()
        self._started: Started | None = None
        self._connected = self._terminated = False
        self._processes: set[HostedProcess] = set()
        self._containers: list[HcsContainer] = []
        self._status: ExitStatus | None = None
        self._ended = asyncio.Event()
        self._watching = self._scope.start("exit", self._watch())

    def offer(self, endpoint_id: str, wire: Wire) -> None:  # noqa: ARG002 (nothing of ours is an endpoint here)
        """See `compute.ports.Wired.offer`.

        Raises:
            Unsupported: endpoints are the host network service's.
        """
        raise Unsupported(f"{self._name}: endpoint {endpoint_id}: on Windows they are made by its host network service")

    jail: Final[JailStatus] = JailStatus((), {"everything": "the VM's worker process is Windows' own, and confined by Windows"})
    """We run nothing that could be jailed."""

    @property
    def runtime_id(self) -> RuntimeId:
        """GUID of the partition, which the service chose."""
        return self._runtime_id

    @property
    def state(self) -> State:
        """Where the machine is in its life."""
        return self._life.state

    @property
    def system(self) -> HcsSystem:
        """The service's side of it, for what this driver alone can do."""
        return self._system

    def listen(self, port: int, *, once: bool = False, programs: bool = False) -> Listener:
        """See `guest.transport.GuestSockets.listen`."""
        return self._sockets.listen(port, once=once, programs=programs)

    def console_tail(self, lines: int = 40) -> str:
        """See `compute.ports.Console.console_tail`. Only a VM with a serial port says anything there."""
        return self._console.tail(lines)

    async def start(self) -> None:
        """See `compute.ports.ComputeSystem.start`. With an internal guest connection the service's word comes later, to `connect`."""
        self._life.step(Do.START)
        try:
            self._started = await self._system.begin_start()
            if not self._internal:
                await self._started()
        except BaseException as error:
            ours = self._terminated
            await self._give_up(error)
            if ours and isinstance(error, UtilityVMError):  # whoever ended it came first
                raise StateError(self._name, State.STOPPED.value, Do.START.value) from error
            raise

    async def connect(self) -> BootTold | None:
        """See `compute.ports.Hosted.connect`. The service has reached the guest when it says that the VM has started."""
        if not self._internal or self._started is None:
            raise StateError(self._name, "without an internal guest connection", "connect to the guest")
        await self._started()
        self._connected = True
        return None

    async def pause(self) -> None:
        """See `compute.ports.Pausable.pause`.

        Raises:
            DeadlineExceeded: the service did not say that it has done it.
        """
        await self._switch(Do.PAUSE)

    async def resume(self) -> None:
        """See `compute.ports.Pausable.resume`, and `pause`."""
        await self._switch(Do.RESUME)

    @property
    def inherited(self) -> Devices:
        """See `compute.ports.Savable.inherited`: nothing."""
        return Devices()

    async def save(
        self,
        options: OptionsLCOW | None,  # noqa: ARG002 (clones tell the service their own)
        devices: Callable[[], Devices],  # noqa: ARG002 (and what they are to have of it)
        path: Path | None = None,
    ) -> bool:
        """See `compute.ports.Savable.save`. The service's template is this system, which stays.

        Raises:
            Unsupported: it is to be saved to a file; or was not made to be saved.
            HcsError: the service refuses.
        """
        if path is not None:
            raise Unsupported(f"{self._name}: {NO_FILES}")
        if not self._savable:
            raise Unsupported(f"{self._name}: was not made to be saved as a template")
        timeouts = self._system.host.timeouts
        within = timeouts.pause + timeouts.save + timeouts.resume + 1
        try:
            await finish(self._save(), within=within)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self._name}: the service did not save it within {within:g} s") from error
        return True

    async def freeze(self, devices: Callable[[], Devices]) -> Frozen:  # noqa: ARG002 (it has none)
        """See `compute.ports.Savable.freeze`.

        Raises:
            Unsupported: always.
        """
        raise Unsupported(f"{self._name}: {NO_FORKS}")

    async def properties(self, wanted: frozenset[PropertyType] = frozenset()) -> Properties:
        """See `compute.ports.Inspected.properties`. Of a VM that has ended the last answer is told.

        Raises:
            HcsError: the service does not tell.
        """
        state = self._life.step(Do.INSPECT)
        if wanted and not self._connected:
            raise StateError(self._name, "without an internal guest connection", "ask the guest for properties")
        if state is not State.STOPPED:
            names = [*sorted(wanted), *(["GuestConnection"] if self._connected else [])]
            try:
                self._told = read_properties(self._system.id, await self._system.properties(names))
            except UtilityVMError:
                if self._life.state is not State.STOPPED:
                    raise
            state = self._life.state
        elif wanted:
            raise StateError(self._name, state.value, "ask the guest for properties")
        return structs.replace(self._told, runtime_id=self._runtime_id, state=state.value.capitalize(), stopped=state is State.STOPPED)

    async def modify(self, request: ModifySettingRequest) -> None:
        """See `compute.ports.Modifiable.modify`. The service relays a guest request itself.

        Raises:
            HcsError: it refuses.
        """
        self._life.step(Do.MODIFY)
        await self._system.modify(request)

    async def statistics(self) -> MachineStatistics:
        """Say what the VM has used. Its working set is that of the host's process that holds its memory; for who may not look: `NotFound`.

        Raises:
            StateError: it does not run.
            NotFound: no process is known to hold its memory.
            HcsError, HostError: the service, or Windows, does not tell.
        """
        state = self._life.step(Do.INSPECT)
        if state not in {State.RUNNING, State.PAUSED}:
            raise StateError(self._name, state.value, "report statistics")
        told = decode_answer(await self._system.properties(ASKED) or "{}", Properties)
        memory_of(self._system.id, told)
        working_set = None
        if not self._physical:
            working_set = await self._system.host.work.run(f"working set of {self._name}", self._holder.working_set)
        return statistics_of(self._system.id, told, working_set)

    async def create_process(self, spec: ProcessSpec) -> Process:
        """See `compute.ports.Hosted.create_process`. Here the service is asked for it.

        Raises:
            HcsError: it refuses.
        """
        self._life.step(Do.USE)
        if not self._connected:
            raise StateError(self._name, "without an internal guest connection", "run a process")
        hosted = await HostedProcess.create(self._system, self._pipes, spec, self._scope, self._processes.discard)
        self._processes.add(hosted)
        return hosted.process(self._name)

    async def create_container(self, container_id: str, settings: object) -> HcsContainer:
        """See `compute.ports.Hosted.create_container`. Here it is a system of the service of its own, which this one hosts.

        Raises:
            HcsError: the service refuses.
        """
        self._life.step(Do.USE)
        if not self._connected:
            raise StateError(self._name, "without an internal guest connection", "create a container")
        document = encode(container_document(self._system.id, settings, self._told.owner))
        system = await HcsSystem.create(self._system.host, container_id, document)
        os = self._told.runtime_os_type.lower() or "windows"
        made = HcsContainer(system, self._pipes, os, self._scope, self._processes)
        self._containers.append(made)
        return made

    async def terminate(self) -> None:
        """See `compute.ports.ComputeSystem.terminate`.

        Raises:
            DeadlineExceeded: the service did not end it within `CLEANUP` seconds.
            HcsError: it refuses to.
        """
        if self._status is not None:
            return
        self._terminated = True
        try:
            await finish(self._gone(), within=CLEANUP)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self._name}: the service was asked to end it and has not after {CLEANUP:g} s") from error

    async def wait(self) -> ExitStatus:
        """See `compute.ports.ComputeSystem.wait`."""
        await self._ended.wait()
        assert self._status is not None  # noqa: S101 (set before the event)
        return self._status

    async def close(self) -> None:
        """See `compute.ports.ComputeSystem.close`.

        Raises:
            DeadlineExceeded, HcsError: see `terminate`; nothing is kept all the same.
        """
        try:
            await self.terminate()
        finally:
            try:
                await finish(self._release(), within=2 * CLEANUP)
            except TimeoutError as error:
                raise DeadlineExceeded(f"{self._name}: the service did not let go of all of it within {2 * CLEANUP:g} s") from error
            finally:
                self._end(ExitStatus(ExitHow.TERMINATED))  # with its last handle it ends, whatever the service said
                self._life.step(Do.CLOSE)

    async def _give_up(self, error: BaseException) -> None:
        """Take back what a failed or cancelled start has done."""
        if isinstance(error, HostError | DeadlineExceeded) and self._status is None:
            self._end(ExitStatus(ExitHow.FAILED, error.message))
            with suppress(UtilityVMError):  # why it failed says more
                await self._system.terminate()
            return
        if isinstance(error, ConnectionLost):  # that is how the start failed
            await asyncio.wait([self._watching], timeout=EXIT_TIMEOUT)
            self._end(ExitStatus(ExitHow.UNEXPECTED, error.message))  # if the service does not say it
            return
        await self.terminate()

    async def _switch(self, do: Do) -> None:
        within = (self._system.host.timeouts.pause if do is Do.PAUSE else self._system.host.timeouts.resume) + 1
        try:
            await finish(self._execute(do), within=within)
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self._name}: the service did not {do.value} it within {within:g} s") from error

    async def _execute(self, do: Do) -> None:
        """Carry out one change at a time, to its end: a state that nobody knows is worse than a caller who waits."""
        async with self._switching:
            self._life.check(do)
            await (self._system.pause() if do is Do.PAUSE else self._system.resume())
            self._done(do)

    async def _save(self) -> None:
        async with self._switching:
            self._life.check(Do.SAVE)
            try:
                await self._system.pause()
            except UtilityVMError as error:
                error.during("error pausing the VM")
                raise
            try:
                await self._system.save({"SaveType": "AsTemplate"})
            except UtilityVMError as error:
                error.during("error saving the VM")
                with suppress(UtilityVMError):  # why it was not saved says more
                    await self._system.resume()
                raise
            self._done(Do.KEEP)

    def _done(self, do: Do) -> None:
        try:
            self._life.step(do)
        except StateError as error:
            raise ConnectionLost(f"{self._name}: it ended meanwhile") from error

    async def _gone(self) -> None:
        if await self._system.terminate():
            await self._ended.wait()
        else:  # it has ended, or never was; if the word of it is not here by now, nothing more will come
            self._over(self._system.ended or Ended())

    async def _watch(self) -> None:
        self._over(await self._system.wait())

    def _over(self, ended: Ended) -> None:
        self._end(exit_status(ended, terminated=self._terminated))

    async def _release(self) -> None:
        """Let go of all of it, in the order from the last line to the first, whichever of them fails."""
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self._system.host.ending.run, f"close {self._name}", self._holder.close)
            undo.push_async_callback(self._system.close)
            undo.callback(self._console.close)
            undo.push_async_callback(self._sockets.aclose)
            undo.push_async_callback(self._let_go_of_hosted)
            undo.push_async_callback(self._scope.aclose)

    async def _let_go_of_hosted(self) -> None:
        async def let_go(hosted: HostedProcess | HcsContainer) -> None:
            try:
                await hosted.aclose()
            except UtilityVMError as error:  # they end with the VM; its own end is what matters
                event("hcs.process.close", level=logging.WARNING, vm=self._system.id, error=str(error))

        async with asyncio.TaskGroup() as group:
            for process in list(self._processes):
                group.create_task(let_go(process))
            for container in self._containers:
                group.create_task(let_go(container))

    def _broken(self, error: Exception) -> None:
        """The watcher failed, or a process's: nobody must wait for ever."""
        self._end(ExitStatus(ExitHow.FAILED, f"the driver failed: {error!r}"))

    def _end(self, status: ExitStatus) -> None:
        if self._status is not None:
            return
        self._status = status
        self._life.step(Do.END)
        self._sockets.end(ConnectionLost(f"{self._name}: the guest connection ended: the VM closed it"))
        event("hcs.ended", level=logging.DEBUG, vm=self._system.id, how=status.how.value)
        self._ended.set()


def read_properties(system_id: str, told: str) -> Properties:
    """Read what the service tells of a system.

    Raises:
        HostError: it is no such answer, or without a runtime id, by which its guest is reached.
    """
    properties = decode_answer(told or "{}", Properties)
    if not properties.runtime_id:
        raise HostError(f"System::Properties {system_id}: the service tells no runtime id, by which the guest is reached: {told[:200]}")
    return properties
