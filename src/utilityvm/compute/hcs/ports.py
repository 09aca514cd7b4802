"""What the driver needs of Windows beyond its libraries: sockets to guests, and pipes."""

import asyncio
import socket
from typing import Protocol

from utilityvm.kit.named import Named


class Sockets(Protocol):
    """Where guests dial."""

    def listen(self, runtime_id: str, service_id: str) -> socket.socket:
        """Return a socket that listens for one guest's dials to one service, both GUIDs; with no handle that a child inherits.

        Raises:
            OSError: the address is taken, or may not be used.
        """
        ...


class Pipes(Named, Protocol):
    """Pipes: by the handle of our end too."""

    async def read(self, handle: int, protocol: asyncio.Protocol) -> asyncio.BaseTransport:
        """Read from a handle, which is closed with the transport."""
        ...

    async def write(self, handle: int, protocol: asyncio.BaseProtocol) -> asyncio.BaseTransport:
        """Write to a handle, which is closed with the transport."""
        ...

    def close(self, handle: int) -> None:
        """Close a handle that was never read or written."""
        ...
