"""A VM's network by a proxy of the node: the VM says where its agent listens, and asks for its network's set-up and tear-down."""

import logging
import os
import sys
from typing import Final, Self, final

from utilityvm.kit.errors import HostError, Unsupported, UtilityVMError
from utilityvm.kit.ids import VmId
from utilityvm.kit.named import peer_uid
from utilityvm.kit.trace import event
from utilityvm.ttrpc.client import Client
from utilityvm.ttrpc.server import Server
from utilityvm.vm.compute_agent import ComputeAgent, Endpoints
from utilityvm.vm.link import Adapters
from utilityvm.vm.node import Node
from utilityvm.wire import ncproxy
from utilityvm.wire.ncproxy import COMPUTE_AGENT, NETWORK_CONFIG_PROXY, RequestType
from utilityvm.wire.protobuf import Message

SET_UP: Final = 120.0
"""Seconds that a proxy has for a network's set-up."""

TEAR_DOWN: Final = 5.0
"""The same for its tear-down, which its VM waits for before it ends."""


@final
class ProxiedNetwork:
    """The network of one VM by a proxy. The proxy knows the VM as a container of the VM's id."""

    def __init__(self, vm_id: VmId, proxy: Client, node: Node, endpoints: Endpoints) -> None:
        self._id, self._proxy, self._node, self._endpoints = vm_id, proxy, node, endpoints
        self._agent: Server | None = None
        self._registered = False

    @classmethod
    async def dial(cls, node: Node, address: str, vm_id: VmId, endpoints: Endpoints) -> Self:
        """Connect to the proxy.

        Raises:
            HostError: it cannot be connected to; or it is another user's, who is not root.
        """
        try:
            proxy = await Client.dial(node.named, address, f"vm {vm_id}: network configuration proxy")
        except HostError as error:
            hint = "uvm ncproxy ADDRESS serves one"
            raise HostError(f"failed to connect to ncproxy service: {error.message}", hint=hint) from error
        if proxy.link.open and (uid := peer_uid(proxy.link.transport)) not in {None, *users()}:
            await proxy.aclose()
            raise HostError(f"failed to connect to ncproxy service: {address} is served by user {uid}, neither ours nor root")
        return cls(vm_id, proxy, node, endpoints)

    async def set_up(self, vm: Adapters) -> None:
        """Let the running VM's agent be known to the proxy, and have the network set up: when this returns the VM has its adapters.

        Raises:
            UtilityVMError: the proxy or the agent refuses, or does not answer within `SET_UP`; what was done is undone by `tear_down`.
        """
        address = self._node.agent(self._id)
        self._agent = Server(f"compute agent of vm {self._id}", {COMPUTE_AGENT: ComputeAgent(vm, self._endpoints).methods}, users=users())
        await self._agent.serve(self._node.named, address)
        self._registered = True
        await self._call("RegisterComputeAgent", ncproxy.RegisterComputeAgent(agent_address=address, container_id=self._id), SET_UP)
        await self._configure(RequestType.SETUP, SET_UP)

    async def tear_down(self) -> None:
        """Have the network torn down, as far as it was set up; a proxy that fails at it holds nothing up. A second call does nothing."""
        if not self._registered:
            return
        self._registered = False
        try:
            await self._configure(RequestType.TEARDOWN, TEAR_DOWN)
            await self._call("UnregisterComputeAgent", ncproxy.UnregisterComputeAgent(container_id=self._id), TEAR_DOWN)
        except Unsupported:
            pass  # the first proxies cannot be told to forget an agent; they see that it is gone
        except UtilityVMError as error:
            event("vm.network.left", level=logging.WARNING, vm=self._id, message=f"the network was not torn down: {error.message}")

    async def aclose(self) -> None:
        """End the agent, the network and the connection to the proxy. A second call does nothing."""
        if self._agent is not None:
            await self._agent.aclose()
        await self._endpoints.aclose()
        await self._proxy.aclose()

    async def _configure(self, what: RequestType, within: float) -> None:
        await self._call("ConfigureNetworking", ncproxy.ConfigureNetworking(container_id=self._id, request_type=what), within)

    async def _call(self, method: str, argument: Message, within: float) -> None:
        await self._proxy.call(NETWORK_CONFIG_PROXY, method, argument, ncproxy.Nothing, within=within)


def users() -> frozenset[int]:
    """Return who may speak to a VM's agent, and to whom a VM speaks: root and ourselves. Windows has no such numbers."""
    return frozenset({0, os.geteuid()}) if sys.platform != "win32" else frozenset()
