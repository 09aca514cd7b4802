"""A proxy of a node's network that a test plays."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from utilityvm.kit.errors import UtilityVMError
from utilityvm.kit.ids import new_guid
from utilityvm.kit.named import UnixSockets
from utilityvm.ttrpc.client import Client
from utilityvm.ttrpc.server import Server, Unary
from utilityvm.wire import ncproxy
from utilityvm.wire.ncproxy import COMPUTE_AGENT, NETWORK_CONFIG_PROXY, RequestType
from utilityvm.wire.ttrpc import Metadata

if TYPE_CHECKING:
    from utilityvm.wire.protobuf import Message

NAMED = UnixSockets()


def new_address() -> str:
    return f"@uvm-test-{new_guid()}"


class Played:
    """A proxy that notes what it is asked, and does as it is told: `gives` are endpoints of the adapters that it adds at once."""

    def __init__(self, *gives: bytes, old: bool = False, fails: UtilityVMError | None = None) -> None:
        self.asked: list[Message] = []
        self._gives, self._old, self._fails = gives, old, fails
        self.agent: Client | None = None
        self.silent = False

    @asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        methods: dict[str, Unary[Any, Any]] = {
            "RegisterComputeAgent": Unary(ncproxy.RegisterComputeAgent, self.register),
            "ConfigureNetworking": Unary(ncproxy.ConfigureNetworking, self.configure),
            "UnregisterComputeAgent": Unary(ncproxy.UnregisterComputeAgent, self.unregister),
        }
        if self._old:
            del methods["UnregisterComputeAgent"]
        server, address = Server("played proxy", {NETWORK_CONFIG_PROXY: methods}), new_address()
        await server.serve(NAMED, address)
        yield address
        await server.aclose()
        if self.agent is not None:
            await self.agent.aclose()

    async def register(self, request: ncproxy.RegisterComputeAgent, _: Metadata) -> ncproxy.Nothing:
        self.asked.append(request)
        if self.agent is not None:
            await self.agent.aclose()
        self.agent = await Client.dial(NAMED, request.agent_address, "agent")
        return ncproxy.Nothing()

    async def configure(self, request: ncproxy.ConfigureNetworking, _: Metadata) -> ncproxy.Nothing:
        self.asked.append(request)
        if self._fails is not None:
            raise self._fails
        if self.silent:
            await asyncio.Event().wait()
        assert self.agent is not None
        for number, endpoint in enumerate(self._gives):
            nic = (request.container_id, f"nic{number}", endpoint)
            if request.request_type == RequestType.SETUP:
                add = ncproxy.AddNIC(container_id=nic[0], nic_id=nic[1], endpoint=nic[2])
                await self.agent.call(COMPUTE_AGENT, "AddNIC", add, ncproxy.Nothing)
            else:
                delete = ncproxy.DeleteNIC(container_id=nic[0], nic_id=nic[1], endpoint=nic[2])
                await self.agent.call(COMPUTE_AGENT, "DeleteNIC", delete, ncproxy.Nothing)
        return ncproxy.Nothing()

    async def unregister(self, request: ncproxy.UnregisterComputeAgent, _: Metadata) -> ncproxy.Nothing:
        self.asked.append(request)
        return ncproxy.Nothing()
