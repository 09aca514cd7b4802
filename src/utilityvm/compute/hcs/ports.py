"""What the driver needs of Windows beyond its libraries: sockets to guests, and pipes."""

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol

ProtocolFactory = Callable[[], asyncio.Protocol]


class Sockets(Protocol):
    """Where guests dial."""

    def listen(self, runtime_id: str, service_id: str) -> socket.socket:
        """Return a socket that listens for one guest's dials to one service, both GUIDs; with no handle that a child inherits.

        Raises:
            OSError: the address is taken, or may not be used.
        """
        ...


class Served(Protocol):
    """A pipe that is served."""

    def close(self) -> None:
        """Serve it no more; connections go on. A second call does nothing."""
        ...


class Named(Protocol):
    """Pipes by their names: a guest's console, and services of the host that speak by one, as hcsshim's ncproxy does."""

    async def serve(self, name: str, factory: ProtocolFactory) -> Served:
        """Let others connect to the pipe of this name.

        Raises:
            OSError: the name is taken, or may not be used.
        """
        ...

    async def dial(self, name: str, protocol: asyncio.Protocol) -> asyncio.BaseTransport:
        """Connect to the pipe of this name.

        Raises:
            OSError: nobody serves it, or we may not.
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
