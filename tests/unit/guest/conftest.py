import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from utilityvm.guest.bridge import Bridge
from utilityvm.guest.client import GuestClient
from utilityvm.guest.process import Stdio
from utilityvm.guest.transport import Transport
from utilityvm.kit.aio import Scope
from utilityvm.testing.guest import Body, FakeGuest
from utilityvm.wire import gcs

if TYPE_CHECKING:
    from utilityvm.kit.errors import UtilityVMError


class Rig:
    """A transport whose other end is a fake guest."""

    def __init__(self, transport: Transport, guest: FakeGuest) -> None:
        self.transport, self.guest = transport, guest
        self.lost: list[UtilityVMError] = []
        self.stdio = Stdio(transport)

    async def client(self, *, connect: bool = True) -> GuestClient:
        stream = await self.transport.listen(gcs.BRIDGE_PORT, once=True).accept()
        client = GuestClient(Bridge(stream, "vm t", self.lost.append))
        if connect:
            await client.connect()
        return client


Connect = Callable[..., AbstractAsyncContextManager[Rig]]


@pytest.fixture
def connect() -> Connect:
    @asynccontextmanager
    async def open_rig(programs: dict[str, Body] | None = None, **options: object) -> AsyncIterator[Rig]:
        ours, theirs = socket.socketpair()
        scope = Scope("rig")
        guest = FakeGuest(theirs, programs, **options)  # type: ignore[arg-type]
        scope.start("guest", guest.run())
        transport = Transport("vm t", bytes(16))
        rig = Rig(transport, guest)
        await transport.open(ours)
        try:
            async with asyncio.timeout(20):
                yield rig
        finally:
            transport.close()
            await scope.aclose()
            await asyncio.sleep(0)  # asyncio closes an aborted transport's socket in the next round

    return open_rig
