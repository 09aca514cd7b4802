"""The guest connection that a driver keeps itself, for a document with a `GuestConnection`: one for every driver without a host service."""

from collections.abc import Callable
from typing import Final, final

from utilityvm.guest.boot_times import BootTold
from utilityvm.guest.connection import GuestConnection
from utilityvm.guest.container import GuestContainer
from utilityvm.guest.process import Process
from utilityvm.guest.spec import ProcessSpec
from utilityvm.guest.transport import GuestSockets
from utilityvm.kit.errors import StateError, Unsupported, UtilityVMError
from utilityvm.schema.document import ComputeSystem
from utilityvm.schema.properties import Properties, PropertyType
from utilityvm.wire.gcs import BRIDGE_PORT

EXIT_TIMEOUT: Final = 2.0
"""Seconds in which a machine whose guest connection is lost ends by itself if it does: its own reason says more than the loss."""


@final
class HostedGuest:
    """The agent of one machine, if its `document` wants an internal guest connection; `name` is the machine's, for errors."""

    def __init__(self, document: ComputeSystem, sockets: GuestSockets, name: str) -> None:
        wanted = document.virtual_machine is not None and document.virtual_machine.guest_connection is not None
        self._listener = sockets.listen(BRIDGE_PORT, once=True) if wanted else None
        self._sockets, self._name = sockets, name
        self._connection: GuestConnection | None = None

    async def open(self, on_lost: Callable[[UtilityVMError], None]) -> BootTold | None:
        """Wait for the agent and agree with it. Returns what it tells of its boot.

        Raises:
            StateError: the document wants no such connection.
            ConnectionLost: the machine ended first.
            ProtocolError, GuestError: the two do not agree.
        """
        if self._listener is None:
            raise StateError(self._name, "without an internal guest connection", "connect to the guest")
        stream = await self._listener.accept()
        self._connection = await GuestConnection.open(stream, self._sockets, self._name, on_lost)
        return self._connection.boot

    async def create_process(self, spec: ProcessSpec) -> Process:
        """See `compute.ports.Hosted.create_process`."""
        return await self._there("run a process").create_process(spec)

    async def create_container(self, container_id: str, settings: object) -> GuestContainer:
        """See `compute.ports.Hosted.create_container`."""
        return await self._there("create a container").create_container(container_id, settings)

    async def add_to(self, told: Properties, wanted: frozenset[PropertyType]) -> Properties:
        """Return `told` with what the connection and, for `wanted`, the guest adds. See `compute.ports.Inspected.properties`."""
        if self._connection is None and not wanted:
            return told
        return await self._there("ask the guest for properties").add_to(told, wanted)

    async def modify(self, request: object) -> None:
        """Relay a change to the agent. See `GuestClient.modify` for errors.

        Raises:
            Unsupported: the document wants no such connection, so that there is nobody to relay it to.
        """
        if self._listener is None:
            raise Unsupported(f"{self._name}: the guest's half of a change: the machine has no internal guest connection")
        await self._there("change a resource in the guest").client.modify(request)

    def hold(self) -> None:
        """The machine is paused."""
        if self._connection is not None:
            self._connection.hold()

    def release(self) -> None:
        """The machine runs on."""
        if self._connection is not None:
            self._connection.release()

    async def aclose(self) -> None:
        """End the connection. A second call does nothing."""
        if self._connection is not None:
            await self._connection.aclose()

    def _there(self, event: str) -> GuestConnection:
        if self._connection is None:
            raise StateError(self._name, "without an internal guest connection", event)
        return self._connection
