"""A guest's serial console on named pipes: its newest output is kept, and one client at a time may look on and type.

The VM gets a pipe that we serve, and we serve the one that was asked for. Nothing here can hold a VM up: what a client does not take is
dropped, the oldest first.
"""

import asyncio
from collections import deque
from typing import Final, final

from msgspec import structs

from utilityvm.kit.child import Tail
from utilityvm.kit.errors import HostError
from utilityvm.kit.ids import new_guid
from utilityvm.kit.named import Named, Served
from utilityvm.schema.document import ComputeSystem

KEPT: Final = 256 * 1024
"""Bytes of the console's output that are kept; the same bound holds for what waits for a client."""


@final
class PipeConsole:
    """The host's end of a serial port. `name` is the pipe that a client may connect to, ``""`` where there is no serial port."""

    def __init__(self, pipes: Named, name: str) -> None:
        self._pipes, self._name = pipes, name
        self._kept = Tail(KEPT)
        self._served: list[Served] = []
        self._vm: _End | None = None
        self._client: _End | None = None

    async def open(self, document: ComputeSystem) -> ComputeSystem:
        """Serve the pipes. Returns the document with the VM's side of it.

        Raises:
            HostError: a pipe of that name cannot be made.
        """
        machine = document.virtual_machine
        if not self._name or machine is None or machine.devices is None:
            return document
        ours = rf"\\.\pipe\uvm-console-{new_guid()}"
        try:
            self._served.append(await self._pipes.serve(self._name, lambda: _End(self, of_client=True)))
            self._served.append(await self._pipes.serve(ours, lambda: _End(self, of_client=False)))
        except OSError as error:
            self.close()
            raise HostError(f"{self._name}: cannot be the console's pipe: {error.strerror or error}") from error
        port = structs.replace(machine.devices.com_ports["0"], named_pipe=ours)
        ports = {**machine.devices.com_ports, "0": port}
        devices = structs.replace(machine.devices, com_ports=ports)
        return structs.replace(document, virtual_machine=structs.replace(machine, devices=devices))

    def tail(self, lines: int) -> str:
        """Return the last lines, fit to be shown."""
        return self._kept.text(lines)

    def close(self) -> None:
        """Let go of the pipes. A second call does nothing."""
        for served in self._served:
            served.close()
        self._served.clear()
        for end in (self._vm, self._client):
            if end is not None:
                end.abort()

    def joined(self, end: "_End", *, of_client: bool) -> bool:
        """Take a connection; there is one on each side."""
        if (self._client if of_client else self._vm) is not None or not self._served:
            return False
        if of_client:
            self._client = end
        else:
            self._vm = end
        return True

    def said(self, data: bytes, *, of_client: bool) -> None:
        """Pass on what one side says."""
        if not of_client:
            self._kept.add(data)
        other = self._vm if of_client else self._client
        if other is not None:
            other.say(data)

    def left(self, end: "_End") -> None:
        """Forget a connection."""
        if self._client is end:
            self._client = None
        elif self._vm is end:
            self._vm = None


@final
class _End(asyncio.Protocol):
    """One connection: the VM's, or a client's."""

    def __init__(self, owner: PipeConsole, *, of_client: bool) -> None:
        self._owner, self._of_client = owner, of_client
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 (both directions)
        self._transport = transport
        if not self._owner.joined(self, of_client=self._of_client):
            transport.abort()

    def data_received(self, data: bytes) -> None:
        self._owner.said(data, of_client=self._of_client)

    def say(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)
        while self._size > KEPT:
            self._size -= len(self._waiting.popleft())
        self._flush()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (a client may leave as it likes)
        self._owner.left(self)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        while self._waiting and not self._full and self._transport is not None:
            data = self._waiting.popleft()
            self._size -= len(data)
            self._transport.write(data)
