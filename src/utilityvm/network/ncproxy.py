"""A proxy of the node's network: agents of VMs register, and it gives their VMs adapters and takes them out."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, final
from weakref import WeakValueDictionary

import msgspec

from utilityvm.kit.aio import Scope
from utilityvm.kit.errors import ConnectionLost, Exhausted, InvalidOptions, NotFound, StateError, UtilityVMError
from utilityvm.kit.ids import new_guid
from utilityvm.kit.named import Named
from utilityvm.kit.trace import event
from utilityvm.ttrpc.client import Client
from utilityvm.ttrpc.server import Service, Unary
from utilityvm.wire import ncproxy
from utilityvm.wire.hcn import HostComputeEndpoint
from utilityvm.wire.ncproxy import COMPUTE_AGENT, RequestType
from utilityvm.wire.protobuf import Message
from utilityvm.wire.ttrpc import Metadata

MAX_AGENTS: Final = 4096
"""Agents that may be registered at a time."""

AGENT_ANSWER: Final = 60.0
"""Seconds that an agent has to give an adapter to its VM, or to take one out."""

EndpointsOf = Callable[[str], Sequence[str | HostComputeEndpoint]]
"""Says by a container's id which endpoints it gets. One that is a text is asked for by its name alone, as the first agents know it."""


class _Agent(msgspec.Struct, eq=False):
    """An agent of a container's VM, and the adapters that the VM was given: their ids, and their endpoints as they were asked for."""

    container_id: str
    client: Client
    adapters: dict[str, bytes] = msgspec.field(default_factory=dict)


@final
class NetworkConfigProxy:
    """The proxy of one node. It dials agents by `named`; `endpoints` says what each container gets."""

    def __init__(self, named: Named, endpoints: EndpointsOf) -> None:
        self._named, self._endpoints = named, endpoints
        self._agents: dict[str, _Agent] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # a container's lock is there while somebody needs it
        self._scope = Scope("ncproxy")
        self.methods: Final[Service] = {
            "RegisterComputeAgent": Unary(ncproxy.RegisterComputeAgent, self._register),
            "UnregisterComputeAgent": Unary(ncproxy.UnregisterComputeAgent, self._unregister),
            "ConfigureNetworking": Unary(ncproxy.ConfigureNetworking, self._configure),
        }

    @property
    def containers(self) -> tuple[str, ...]:
        """The containers whose agents are registered, in their order."""
        return tuple(self._agents)

    async def aclose(self) -> None:
        """Forget all agents; what their VMs were given stays theirs. A second call does nothing."""
        await self._scope.aclose()
        for agent in list(self._agents.values()):
            await self._forget(agent)

    # -- what agents and shims ask ----------------------------------------------------------------------------------

    async def _register(self, request: ncproxy.RegisterComputeAgent, _: Metadata) -> ncproxy.Nothing:
        _need(request.container_id, "ContainerID")
        _need(request.agent_address, "AgentAddress")
        async with self._turn(request.container_id):
            if request.container_id not in self._agents and len(self._agents) >= MAX_AGENTS:
                raise Exhausted(f"{len(self._agents)} compute agents are registered, and there is no place for more")
            client = await Client.dial(self._named, request.agent_address, f"compute agent of {request.container_id}")
            if (before := self._agents.pop(request.container_id, None)) is not None:
                await before.client.aclose()
            agent = self._agents[request.container_id] = _Agent(request.container_id, client)
            self._scope.start(f"watch {request.container_id}", self._watch(agent))
            event("ncproxy.registered", container=request.container_id)
        return ncproxy.Nothing()

    async def _unregister(self, request: ncproxy.UnregisterComputeAgent, _: Metadata) -> ncproxy.Nothing:
        _need(request.container_id, "ContainerID")
        async with self._turn(request.container_id):
            if (agent := self._agents.get(request.container_id)) is not None:
                await self._forget(agent)
        return ncproxy.Nothing()

    async def _configure(self, request: ncproxy.ConfigureNetworking, _: Metadata) -> ncproxy.Nothing:
        _need(request.container_id, "ContainerID")
        async with self._turn(request.container_id):
            agent = self._agents.get(request.container_id)
            match request.request_type:
                case RequestType.SETUP:
                    if agent is None:
                        raise StateError(f"container {request.container_id}", "no compute agent is registered for it", "set its network up")
                    await self._set_up(agent)
                case RequestType.TEARDOWN:
                    if agent is not None:  # otherwise it went with its VM
                        await self._tear_down(agent)
                case unknown:
                    raise InvalidOptions(f"Request type {unknown} is not known")
        return ncproxy.Nothing()

    # -- what is done for them --------------------------------------------------------------------------------------

    async def _set_up(self, agent: _Agent) -> None:
        """Give the container's VM an adapter on each of its endpoints, or on none."""
        if agent.adapters:
            return  # it was set up before
        try:
            for endpoint in self._endpoints(agent.container_id):
                nic_id, wanted = new_guid(), ncproxy.endpoint(endpoint)
                agent.adapters[nic_id] = wanted  # before it is there: an answer that is late or lost must be undone too
                await _ask(agent, "AddNIC", ncproxy.AddNIC(container_id=agent.container_id, nic_id=nic_id, endpoint=wanted))
        except BaseException:
            with suppress(UtilityVMError):  # why it failed says more
                await self._tear_down(agent)
            raise

    async def _tear_down(self, agent: _Agent) -> None:
        """Take all adapters out of the VM, whatever becomes of one of them. Those that are gone are out."""
        failures: list[UtilityVMError] = []
        for nic_id, endpoint in reversed(list(agent.adapters.items())):
            request = ncproxy.DeleteNIC(container_id=agent.container_id, nic_id=nic_id, endpoint=endpoint)
            try:
                await _ask(agent, "DeleteNIC", request)
            except (NotFound, StateError, ConnectionLost):
                pass  # by their codes: what is refused in the state of its VM, or by nobody, ends with the VM
            except UtilityVMError as error:
                failures.append(error)
                continue
            del agent.adapters[nic_id]
        if failures:
            raise failures[0]

    def _turn(self, container_id: str) -> asyncio.Lock:
        return self._turns.setdefault(container_id, asyncio.Lock())

    async def _watch(self, agent: _Agent) -> None:
        """Forget an agent that is gone: its VM is gone too, with all that it was given."""
        await asyncio.wait([agent.client.lost])
        async with self._turn(agent.container_id):
            if self._agents.get(agent.container_id) is agent:
                event("ncproxy.lost", level=logging.WARNING, container=agent.container_id, error=agent.client.lost.result().message)
                await self._forget(agent)

    async def _forget(self, agent: _Agent) -> None:
        self._agents.pop(agent.container_id, None)
        await agent.client.aclose()


async def _ask(agent: _Agent, method: str, request: Message) -> None:
    await agent.client.call(COMPUTE_AGENT, method, request, ncproxy.Nothing, within=AGENT_ANSWER)


def _need(text: str, name: str) -> None:
    if not text:
        raise InvalidOptions(f"{name} is empty")
