"""Windows' named pipes and pipe handles, on its event loop."""

import asyncio
import sys
from collections.abc import Callable, Iterable
from typing import IO, Any, cast, final

from utilityvm.kit.errors import Unsupported
from utilityvm.kit.named import ProtocolFactory


@final
class NamedPipes:
    """A `ports.Pipes` of Windows' own: its default event loop, the proactor, knows pipes."""

    async def read(self, handle: int, protocol: asyncio.Protocol) -> asyncio.BaseTransport:
        """See `ports.Pipes.read`."""
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, _owned(handle))
        return transport

    async def write(self, handle: int, protocol: asyncio.BaseProtocol) -> asyncio.BaseTransport:
        """See `ports.Pipes.write`."""
        transport, _ = await asyncio.get_running_loop().connect_write_pipe(lambda: protocol, _owned(handle))
        return transport

    async def serve(self, name: str, factory: ProtocolFactory) -> "_Servers":
        """See `Named.serve`."""
        loop = asyncio.get_running_loop()
        if sys.platform != "win32" or not isinstance(loop, asyncio.ProactorEventLoop):
            raise _no_proactor(name)
        return _Servers(await loop.start_serving_pipe(cast("Callable[[], asyncio.StreamReaderProtocol]", factory), name))

    async def dial(self, name: str, protocol: asyncio.Protocol) -> asyncio.BaseTransport:
        """See `Named.dial`. One that is busy is waited for."""
        loop = asyncio.get_running_loop()
        if sys.platform != "win32" or not isinstance(loop, asyncio.ProactorEventLoop):
            raise _no_proactor(name)
        transport, _ = await loop.create_pipe_connection(lambda: cast("asyncio.StreamReaderProtocol", protocol), name)
        return transport

    def close(self, handle: int) -> None:
        """See `ports.Pipes.close`."""
        _owned(handle).close()


@final
class _Servers:
    def __init__(self, servers: Iterable[Any]) -> None:
        self._servers = list(servers)

    def close(self) -> None:
        while self._servers:
            self._servers.pop().close()


def _no_proactor(name: str) -> Unsupported:
    loop = type(asyncio.get_running_loop()).__name__
    return Unsupported(f"{name}: a named pipe needs Windows and its default event loop, not {loop} on {sys.platform}")


def _owned(handle: int) -> IO[bytes]:
    if sys.platform != "win32":
        raise Unsupported(f"pipe handle {handle}: not on {sys.platform}")
    from asyncio import windows_utils  # noqa: PLC0415 (exists on Windows only)

    return cast("IO[bytes]", windows_utils.PipeHandle(handle))
