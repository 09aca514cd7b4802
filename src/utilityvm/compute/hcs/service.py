"""The driver's door: compute systems of documents, and what the host service tells of itself."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, final

from utilityvm.compute.hcs.calls import Hcs, windows
from utilityvm.compute.hcs.console import PipeConsole
from utilityvm.compute.hcs.container import container_document
from utilityvm.compute.hcs.hvsocket import Hypersockets
from utilityvm.compute.hcs.machine import NO_FORKS, HcsMachine, read_properties
from utilityvm.compute.hcs.networks import WindowsEndpoints
from utilityvm.compute.hcs.pipes import NamedPipes
from utilityvm.compute.hcs.ports import Pipes, Sockets
from utilityvm.compute.hcs.process import HcsProcess
from utilityvm.compute.hcs.system import HcsSystem, Host
from utilityvm.compute.hcs.timeouts import Timeouts, timeouts_of
from utilityvm.compute.hcs.vmmem import Processes, windows_processes
from utilityvm.compute.hcs.workers import Workers
from utilityvm.compute.ports import Frozen
from utilityvm.kit.aio import finish
from utilityvm.kit.errors import Unsupported, UtilityVMError
from utilityvm.kit.ids import VmId
from utilityvm.schema.document import ComputeSystem
from utilityvm.schema.json import decode_answer, encode
from utilityvm.schema.properties import Properties

CALLS: Final = 32
"""Calls of the service at once, of those that do not end something; more wait for their turn."""

ENDING_CALLS: Final = 32
"""Calls at once that end something."""

_END: Final = 20.0  # seconds for the end of a system that cannot be used


@final
class HcsService:
    """A `compute.ports.ComputeService` on Windows' Host Compute Service. What is not given is Windows' own.

    Raises:
        Unsupported: this host has no such service, or this Python no hvsockets; the message says what is missing.
        InvalidOptions: a timeout in `environ` is none.
    """

    def __init__(
        self,
        calls: Hcs | None = None,
        sockets: Sockets | None = None,
        pipes: Pipes | None = None,
        processes: Processes | None = None,
        *,
        timeouts: Timeouts | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._timeouts = timeouts or timeouts_of(environ)
        self._calls = calls or Hcs(windows())
        self._sockets = sockets or Hypersockets()
        self._pipes = pipes or NamedPipes()
        self._processes = processes or windows_processes()
        slow = self._timeouts.slow
        self._host = Host(self._calls, Workers(CALLS, slow), Workers(ENDING_CALLS, slow), self._timeouts)

    @property
    def pipes(self) -> Pipes:
        """Pipes of the host."""
        return self._pipes

    @property
    def endpoints(self) -> WindowsEndpoints:
        """Endpoints of the host's networks."""
        return WindowsEndpoints(self._calls, self._host.work)

    async def create(
        self, system_id: VmId, document: ComputeSystem, *, savable: bool = False, forkable: bool = False, frozen: Frozen | None = None
    ) -> HcsMachine:
        """See `compute.ports.ComputeService.create`. The service itself checks the document.

        Raises:
            Unsupported: it is to be `forkable`.
            Exists: there is a system of this id.
            HcsError: the service refuses.
            DeadlineExceeded: it does not say that it has done it.
        """
        if forkable or frozen is not None:
            raise Unsupported(f"vm {system_id}: {NO_FORKS}")
        console = PipeConsole(self._pipes, _console_name(document))
        document = await console.open(document)
        system: HcsSystem | None = None
        try:
            system = await HcsSystem.create(self._host, system_id, encode(document))
            told = read_properties(system_id, await system.properties())
        except BaseException:
            console.close()
            if system is not None:
                await self._discard(system)
            raise
        return HcsMachine(system, document, told, self._sockets, self._pipes, console, self._processes, savable=savable)

    async def create_container(self, container_id: str, hosting_system_id: str, settings: object, *, owner: str = "") -> HcsSystem:
        """Create a container in a VM whose guest connection the service itself keeps; `settings` are the guest's.

        Raises:
            UtilityVMError: as `create`.
        """
        document = container_document(hosting_system_id, settings, owner)
        return await HcsSystem.create(self._host, container_id, encode(document))

    async def open(self, system_id: str) -> HcsSystem:
        """Open a system that exists.

        Raises:
            NotFound, HcsError: there is none, or it may not be opened.
        """
        return await HcsSystem.open(self._host, system_id)

    async def create_process(self, system: HcsSystem, parameters: object) -> HcsProcess:
        """Create a process in a system. See `HcsProcess.create`."""
        return await HcsProcess.create(system, self._pipes, parameters)

    async def open_process(self, system: HcsSystem, process_id: int) -> HcsProcess:
        """Open a process of a system. See `HcsProcess.open`."""
        return await HcsProcess.open(system, self._pipes, process_id)

    async def enumerate(self, *, owners: Sequence[str] = ()) -> list[Properties]:
        """Return what there is: all systems, or those of `owners`.

        Raises:
            HcsError: the service refuses.
            HostError: its answer cannot be read.
        """
        query = encode({"Owners": list(owners)} if owners else {})
        told = await self._host.work.run("enumerate", lambda: self._calls.enumerate(query))
        return decode_answer(told or "[]", list[Properties])

    async def service_properties(self, *types: str) -> str:
        """Return in JSON what the service tells of the host: `types` name it.

        Raises:
            HcsError: it refuses.
        """
        query = encode({"PropertyTypes": list(types)})
        return await self._host.work.run("service properties", lambda: self._calls.service_properties(query))

    async def modify_service(self, request: object) -> None:
        """Change the service, e.g. its CPU groups.

        Raises:
            HcsError: it refuses.
        """
        settings = encode(request)
        await self._host.work.run("modify the service", lambda: self._calls.modify_service(settings))

    @staticmethod
    async def _discard(system: HcsSystem) -> None:
        """End a system that cannot be used, and wait for it."""

        async def end() -> None:
            if await system.terminate():
                await system.wait()

        with suppress(UtilityVMError, TimeoutError):  # why it cannot be used says more
            await finish(end(), within=_END)
        with suppress(UtilityVMError):
            await system.close()


def _console_name(document: ComputeSystem) -> str:
    machine = document.virtual_machine
    ports = machine.devices.com_ports if machine is not None and machine.devices is not None else {}
    return ports["0"].named_pipe if "0" in ports else ""
