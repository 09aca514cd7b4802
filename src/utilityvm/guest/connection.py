"""A guest's agent, reached and agreed with: who has this can ask it for processes.

The VM makes one itself (external guest connection), or the driver does (internal): the same, on either side of the compute service.
"""

import logging
from collections.abc import Callable
from typing import Self, final

from msgspec import Raw, json, structs

from utilityvm.guest.boot_times import BootTold
from utilityvm.guest.bridge import Bridge
from utilityvm.guest.client import GuestClient
from utilityvm.guest.container import GuestContainer
from utilityvm.guest.process import Process, Stdio, attach, start_process
from utilityvm.guest.spec import ProcessSpec
from utilityvm.guest.transport import GuestSockets, GuestStream
from utilityvm.kit.errors import UtilityVMError
from utilityvm.kit.ids import NULL_GUID
from utilityvm.kit.trace import span
from utilityvm.schema.properties import GuestConnectionInfo, Properties, PropertyType
from utilityvm.schema.version import Version
from utilityvm.wire.detached import ContainerPlace, DetachedProcess
from utilityvm.wire.gcs import PROTOCOL_VERSION


@final
class GuestConnection:
    """The negotiated connection to one VM's agent. `name` is the VM's, for errors. End it with `aclose`."""

    def __init__(self, client: GuestClient, sockets: GuestSockets, name: str, boot: BootTold | None) -> None:
        self.client = client
        """The calls to the agent."""
        self.boot = boot
        """What the agent told of its boot, if anything."""
        self._stdio, self._name = Stdio(sockets), name

    @classmethod
    async def open(
        cls, bridge: GuestStream, sockets: GuestSockets, name: str, on_lost: Callable[[UtilityVMError], None], *, cold_start: bool = True
    ) -> Self:
        """Agree on the protocol with the agent that has dialled `bridge`; `on_lost` hears once why the connection ended by itself.

        Raises:
            ProtocolError, GuestError, ConnectionLost: they do not agree; nothing is left of the connection.
        """
        client = GuestClient(Bridge(bridge, name, on_lost))
        try:
            with span("bridge.negotiate", level=logging.DEBUG) as negotiation:
                times = await client.connect(cold_start=cold_start)
        except BaseException:
            await client.bridge.aclose()
            raise
        return cls(client, sockets, name, BootTold(times, negotiation) if times is not None else None)

    async def create_process(self, spec: ProcessSpec) -> Process:
        """Start a process in the utility VM. See `guest.process.start_process` for errors."""
        return await start_process(self.client, self._stdio, spec, self._name)

    async def attach_process(self, pid: int, *, stdin: bool, stdout: bool, stderr: bool) -> Process:
        """Take the streams of a process of the utility VM. See `guest.process.attach` for errors."""
        return await attach(self.client, self._stdio, pid, self._name, (stdin, stdout, stderr))

    async def detached_processes(self) -> list[DetachedProcess]:
        """Return the processes that can be attached, also those of containers. An agent that knows nothing of it has none."""
        if not self.client.capabilities.guest_defined.attach_process_supported:
            return []
        return await self.client.detached_processes()

    async def create_container(self, container_id: str, settings: object) -> GuestContainer:
        """Create a container of a document in the guest's shape. See `GuestContainer.create` for errors."""
        return await GuestContainer.create(self.client, self._stdio, container_id, settings, self._name)

    async def container_state(self, container_id: str) -> ContainerPlace:
        """Ask where a container is in its life. See `GuestClient.container_state` for errors."""
        return await self.client.container_state(container_id)

    def adopt_container(self, container_id: str) -> GuestContainer:
        """Take a container over that the guest has already. See `GuestContainer.adopt` for errors."""
        return GuestContainer.adopt(self.client, self._stdio, container_id, self._name)

    async def add_to(self, told: Properties, wanted: frozenset[PropertyType]) -> Properties:
        """Return `told` with what was agreed with the agent, and with what it answers about `wanted`.

        Raises:
            GuestError, ConnectionLost, DeadlineExceeded: it does not tell.
        """
        guest = await self.client.properties(NULL_GUID, sorted(wanted)) if wanted else Properties()
        agreed = GuestConnectionInfo(
            supported_schema_versions=[Version(major=2, minor=1)],
            protocol_version=PROTOCOL_VERSION,
            guest_defined_capabilities=Raw(json.encode(self.client.capabilities.guest_defined)),
        )
        return structs.replace(told, memory=guest.memory, process_list=guest.process_list, guest_connection_info=agreed)

    async def dump_stacks(self) -> str:
        """Return what the agent's threads are doing, ``""`` when it is too old to tell."""
        if not self.client.capabilities.guest_defined.dump_stacks_supported:
            return ""
        with span("agent.stacks", level=logging.DEBUG):
            return await self.client.dump_stacks()

    def hold(self) -> None:
        """Let no deadline of the agent pass: its VM is paused. A second call does nothing."""
        self.client.bridge.deadlines.hold()

    def release(self) -> None:
        """Let the deadlines go on: its VM runs again."""
        self.client.bridge.deadlines.release()

    async def aclose(self) -> None:
        """End the connection: whoever waits for an answer or a process gets `ConnectionLost`. A second call does nothing."""
        await self.client.bridge.aclose()
