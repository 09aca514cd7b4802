"""A container in the guest, as the host holds it: what can be asked of it, and its end.

protocol/SPEC.md section 5. The guest makes the container; the host says what it is to be, keeps the order of the messages, and hears of
the end by a notification.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Self, final

from utilityvm.guest.client import GuestClient
from utilityvm.guest.process import Process, Stdio, Unattached, attach, launch
from utilityvm.kit.errors import StateError, Unsupported
from utilityvm.schema.properties import Properties
from utilityvm.wire import gcs
from utilityvm.wire.oci import OciProcess


@final
class GuestContainer:
    """A container that the guest has created. Give the handle up with `close`; the container goes on."""

    def __init__(
        self, client: GuestClient, stdio: Stdio, container_id: str, exit_: asyncio.Future[gcs.ContainerNotification], name: str
    ) -> None:
        self._client, self._stdio, self._name = client, stdio, name
        self.id = container_id
        """What its creator calls it."""
        self._exit = exit_
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def create(cls, client: GuestClient, stdio: Stdio, container_id: str, config: object, name: str) -> Self:
        """Create a container. `config` is a struct or plain builtins in the guest's own shape; `name` is the VM's, for errors.

        If the caller gives up meanwhile, the container is ended and deleted.

        Raises:
            Exists: there is such a container.
            GuestError: it could not be created.
        """
        return cls(client, stdio, container_id, await client.create_container(container_id, config), name)

    @classmethod
    def adopt(cls, client: GuestClient, stdio: Stdio, container_id: str, name: str) -> Self:
        """Take over a container that the guest has already, as that of a cloned VM. Nothing is sent.

        Raises:
            Exists: there is such a container on this connection.
        """
        return cls(client, stdio, container_id, client.bridge.expect_exit(container_id), name)

    @property
    def os(self) -> str:
        """Its guest's system: ``linux`` or ``windows``."""
        return self._client.os

    @property
    def is_oci(self) -> bool:
        """Whether its processes are described by OCI processes, which those of Linux guests are."""
        return self.os == "linux"

    async def start(self) -> None:
        """Start it. On Linux its first process starts with the first call of `execute` or `launch`."""
        await self._client.start_container(self.id)

    async def execute(self, process: OciProcess, *, stdin: bool = False, stdout: bool = True, stderr: bool = True) -> Process:
        """Run one more process in it. A process with a terminal has no `stderr` of its own.

        Raises:
            GuestError: it could not be started.
        """
        return await self.launch(parameters_of_another(process, self.os, stdin=stdin, stdout=stdout, stderr=stderr))

    async def launch(self, parameters: gcs.ProcessParameters) -> Process:
        """Run a process of which the guest is told `parameters`: on Linux the container's first one has only its pipes in them."""
        return await launch(self._client.inside(self.id), self._stdio, parameters, self._name)

    async def attach(self, pid: int, *, stdin: bool, stdout: bool, stderr: bool) -> Process:
        """Take the streams of a process in it that another host has started. See `guest.process.attach` for errors."""
        return await attach(self._client.inside(self.id), self._stdio, pid, self._name, (stdin, stdout, stderr))

    def process(self, pid: int) -> Process:
        """Return a process in it whose streams are nobody's, or another's."""
        return Process(self._client.inside(self.id), self._name, pid, Unattached())

    async def first(self, *, stdin: bool, stdout: bool, stderr: bool) -> Process:
        """Start the process that a Linux container was created with, and give it the streams that are wanted.

        Raises:
            GuestError: it could not be started.
        """
        return await self.launch(parameters_of_first(stdin=stdin, stdout=stdout, stderr=stderr))

    async def wait(self) -> gcs.ContainerNotification:
        """Wait until it has ended and return what the guest says of it. May be called again, and by many.

        Raises:
            ConnectionLost: the guest connection ended first.
            StateError: the handle was closed first.
        """
        ends: list[asyncio.Future[Any]] = [self._exit, self._closed]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not self._exit.done():
            raise StateError(f"container {self.id}", "closed", "wait")
        return self._exit.result()

    async def shutdown(self) -> None:
        """Ask it to end, and do not wait for it; one that is gone is no error. See `GuestClient.shutdown_container`."""
        await self._client.shutdown_container(self.id)

    async def terminate(self) -> None:
        """Make it end, and do not wait for it; one that is gone is no error. See `GuestClient.shutdown_container`."""
        await self._client.terminate_container(self.id)

    async def properties(self, types: Sequence[str]) -> Properties:
        """Ask what it tells of itself. See `GuestClient.properties`."""
        return await self._client.properties(self.id, types)

    async def modify(self, settings: object) -> None:
        """Change a resource of it. See `GuestClient.modify`."""
        await self._client.modify(settings, self.id)

    async def update(self, resources: object) -> None:
        """Change its limits; `resources` are the OCI specification's of its system.

        The original sends UpdateContainer, which no Linux guest has ever had a handler for; this sends what they have.
        """
        await self.modify(container_constraints(resources, self.os))

    async def pause(self) -> None:
        """Let all its processes stand still. Agents other than ours refuse it.

        Raises:
            GuestError: the guest cannot.
        """
        await self.modify(gcs.GuestRequest(request_type="Update", resource_type="ContainerState", settings={"State": "Paused"}))

    async def resume(self) -> None:
        """Let it run on. See `pause`."""
        await self.modify(gcs.GuestRequest(request_type="Update", resource_type="ContainerState", settings={"State": "Running"}))

    async def signal_all(self, process: Process, signal: int) -> bool:
        """Send a signal to all its processes, of which `process` is the first; say whether there were any.

        Agents other than ours signal the first one alone.
        """
        return await process.kill(signal, group=True)

    async def delete_state(self) -> None:
        """Let the guest forget it after its end, before its layers and disks are removed.

        Raises:
            Unsupported: the guest is too old for it; nothing was sent.
            GuestError: the guest cannot, e.g. because it has not ended.
        """
        if not self._client.capabilities.guest_defined.delete_container_state_supported:
            raise Unsupported("uvm guest connection does not support deleteContainerState")
        await self._client.delete_container_state(self.id)

    def close(self) -> None:
        """Give the handle up: whoever waits gets `StateError`. A second call does nothing."""
        if not self._closed.done():
            self._closed.set_result(None)


def parameters_of_first(*, stdin: bool, stdout: bool, stderr: bool) -> gcs.ProcessParameters:
    """Return what a Linux guest is told of the process that a container was created with: only which streams are wanted."""
    return gcs.ProcessParameters(create_std_in_pipe=stdin, create_std_out_pipe=stdout, create_std_err_pipe=stderr)


def parameters_of_another(process: OciProcess, system: str, *, stdin: bool, stdout: bool, stderr: bool) -> gcs.ProcessParameters:
    """Return what a guest is told of one more process in a container; `system` is the guest's. One with a terminal has no `stderr`."""
    streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr and not process.terminal}
    return gcs.parameters_of(process, windows=system == "windows", whole=system == "linux", **streams)


def container_constraints(resources: object, system: str) -> gcs.GuestRequest:
    """Return the request that changes a container's limits; `system` is the guest's."""
    settings = {"Linux" if system == "linux" else "Windows": resources}
    return gcs.GuestRequest(request_type="Update", resource_type="ContainerConstraints", settings=settings)
