"""The agent of a VM, called as a proxy calls it; the VM's machine and the host's endpoints are fakes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from utilityvm.kit.errors import HostError, InvalidOptions, NotFound, StateError, Unsupported, UtilityVMError
from utilityvm.kit.ids import new_guid
from utilityvm.kit.named import UnixSockets
from utilityvm.schema import json
from utilityvm.schema.hns import HNSEndpoint, Namespace
from utilityvm.testing.compute import FakeComputeService
from utilityvm.ttrpc.client import Client
from utilityvm.ttrpc.server import Server
from utilityvm.vm.compute_agent import ComputeAgent
from utilityvm.vm.link import Adapters
from utilityvm.wire import ncproxy
from utilityvm.wire.hcn import HostComputeEndpoint
from utilityvm.wire.ncproxy import COMPUTE_AGENT
from utilityvm.wire.protobuf import Message, decode, encode

from .fake import create, service

NAMESPACE = "3ce47d4a-1c20-4ac2-b5d1-a22da2e0a0d6"
ETH0 = HNSEndpoint(id="endpoint-0", name="eth0", mac_address="00-15-5D-00-00-01", namespace=Namespace(id=NAMESPACE))
BARE = HNSEndpoint(id="endpoint-1", name="bare", mac_address="00-15-5D-00-00-02")


@dataclass
class FakeEndpoints:
    """A host with these endpoints; `ready` are those that were opened and not closed."""

    ready: list[str] = field(default_factory=list)

    async def open(self, wanted: HostComputeEndpoint) -> HNSEndpoint:
        found = await self.find(wanted)
        if found.name not in self.ready:
            self.ready.append(found.name)
        return found

    async def find(self, wanted: HostComputeEndpoint) -> HNSEndpoint:
        for endpoint in (ETH0, BARE):
            if endpoint.name == wanted.name:
                return endpoint
        raise NotFound("there is none")

    async def close(self, endpoint: HNSEndpoint) -> None:
        if endpoint.name in self.ready:
            self.ready.remove(endpoint.name)

    async def aclose(self) -> None:
        self.ready.clear()


@dataclass
class Rig:
    """A VM that runs, on a machine of `of`, and a client of its agent."""

    of: FakeComputeService
    endpoints: FakeEndpoints
    client: Client

    async def ask(self, method: str, argument: Message) -> bytes:
        return encode(await self.client.call(COMPUTE_AGENT, method, argument, ncproxy.Assigned))

    def asked(self) -> list[str]:
        return [json.encode(request) for request in self.of.machines[0].requests]


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    of, _ = service()
    async with await create(of) as vm:
        await vm.start()
        await vm.network.add_namespace(Namespace(id=NAMESPACE))
        endpoints = FakeEndpoints()
        agent = ComputeAgent(Adapters(vm.network, vm.vpci, vm.update_nic), endpoints)
        server, address = Server("agent", {COMPUTE_AGENT: agent.methods}), f"@uvm-test-{new_guid()}"
        await server.serve(UnixSockets(), address)
        client = await Client.dial(UnixSockets(), address, "proxy")
        yield Rig(of, endpoints, client)
        await client.aclose()
        await server.aclose()


def add(endpoint: bytes = b"eth0", nic_id: str = "nic") -> ncproxy.AddNIC:
    return ncproxy.AddNIC(container_id="c", nic_id=nic_id, endpoint=endpoint)


def delete(endpoint: bytes = b"eth0", nic_id: str = "nic") -> ncproxy.DeleteNIC:
    return ncproxy.DeleteNIC(container_id="c", nic_id=nic_id, endpoint=endpoint)


def modify(interrupts: int = 0) -> ncproxy.ModifyNIC:
    return ncproxy.ModifyNIC(nic_id="nic", endpoint=b"eth0", iov_policy_settings=ncproxy.IovPolicy(interrupt_moderation=interrupts))


@pytest.mark.parametrize(
    "endpoint", [b"eth0", ncproxy.endpoint(HostComputeEndpoint(name="eth0", id="of the message"))], ids=["by its name", "by a message"]
)
async def test_an_adapter_is_added_and_removed_whichever_meaning_the_endpoint_has(endpoint: bytes) -> None:
    async with rig() as agent:
        await agent.ask("AddNIC", add(endpoint))
        assert agent.endpoints.ready == ["eth0"]
        await agent.ask("DeleteNIC", delete(endpoint))
        assert agent.endpoints.ready == []
        settings = '"Settings":{"EndpointId":"endpoint-0","MacAddress":"00-15-5D-00-00-01"}'
        path = '"ResourcePath":"VirtualMachine/Devices/NetworkAdapters/nic"'
        assert agent.asked() == [f'{{{path},"RequestType":"{what}",{settings}}}' for what in ("Add", "Remove")]


async def test_an_adapter_that_is_there_is_added_without_work() -> None:
    async with rig() as agent:
        await agent.ask("AddNIC", add())
        await agent.ask("AddNIC", add())
        assert len(agent.asked()) == 1


@pytest.mark.parametrize(
    ("number", "name"), [(0, "Default"), (1, "Adaptive"), (2, "Off"), (100, "Low"), (200, "Medium"), (300, "High"), (7, "")]
)
async def test_an_adapter_is_changed_with_zeros_that_are_said(number: int, name: str) -> None:
    async with rig() as agent:
        await agent.ask("ModifyNIC", modify(number))
        (asked,) = agent.asked()
    iov = f'"IovSettings":{{"OffloadWeight":0,"QueuePairsRequested":0,"InterruptModeration":"{name}"}}'
    assert asked.endswith(f'"RequestType":"Update","Settings":{{"EndpointId":"endpoint-0","MacAddress":"00-15-5D-00-00-01",{iov}}}}}')


@pytest.mark.parametrize(
    ("method", "argument"),
    [
        ("AddNIC", add(nic_id="")),
        ("AddNIC", add(b"")),
        ("DeleteNIC", delete(nic_id="")),
        ("DeleteNIC", delete(b"")),
        ("ModifyNIC", ncproxy.ModifyNIC(nic_id="nic", endpoint=b"eth0")),
        ("ModifyNIC", ncproxy.ModifyNIC(endpoint=b"eth0", iov_policy_settings=ncproxy.IovPolicy())),
        ("ModifyNIC", ncproxy.ModifyNIC(nic_id="nic", iov_policy_settings=ncproxy.IovPolicy())),
        ("AssignPCI", ncproxy.AssignPCI(container_id="c")),
        ("RemovePCI", ncproxy.RemovePCI(container_id="c")),
    ],
)
async def test_what_lacks_a_field_is_refused_in_the_originals_words(method: str, argument: Message) -> None:
    async with rig() as agent:
        with pytest.raises(InvalidOptions, match="^received empty field in request$"):
            await agent.ask(method, argument)
        assert agent.asked() == []


@pytest.mark.parametrize(
    ("method", "argument", "error", "why"),
    [
        ("AddNIC", add(b"eth7"), NotFound, '^failed to get endpoint with name "eth7": there is none$'),
        ("DeleteNIC", delete(b"eth7"), NotFound, '^failed to get endpoint with name "eth7": there is none$'),
        ("DeleteNIC", delete(), NotFound, "^NIC not found in network namespace$"),
        ("AddNIC", add(b"bare"), StateError, "^endpoint bare: cannot become an adapter while in no network namespace$"),
        ("AddNIC", add(encode(ncproxy.Any(type_url=ncproxy.OWN_ENDPOINT))), Unsupported, "ncproxynetworking/Endpoint"),
        ("AddNIC", add(encode(ncproxy.Any(type_url="other"))), InvalidOptions, "^invalid request endpoint type: 'other'$"),
        ("RemovePCI", ncproxy.RemovePCI(device_id="d"), NotFound, "^no device with ID d is present on the uvm fake$"),
    ],
)
async def test_what_cannot_be_done_has_its_own_code_on_the_other_side(
    method: str, argument: Message, error: type[UtilityVMError], why: str
) -> None:
    async with rig() as agent:
        with pytest.raises(error, match=why):
            await agent.ask(method, argument)
        assert agent.asked() == []


async def test_an_endpoint_whose_adapter_is_refused_is_closed_again() -> None:
    async with rig() as agent:
        agent.of.machines[0].refuses = lambda _: HostError("no")
        with pytest.raises(HostError, match=r"no \(internal\)$"):
            await agent.ask("AddNIC", add())
        assert agent.endpoints.ready == []


async def test_a_change_that_is_refused_says_what_was_to_be_changed() -> None:
    async with rig() as agent:
        agent.of.machines[0].refuses = lambda _: HostError("no")
        with pytest.raises(HostError, match="^failed to update UVM's network adapter: no"):
            await agent.ask("ModifyNIC", modify())


async def test_a_device_is_assigned_at_the_place_that_its_adapter_names_and_removed() -> None:
    async with rig() as agent:
        request = ncproxy.AssignPCI(container_id="c", device_id="dev", virtual_function_index=3, nic_id="place")
        assert decode(await agent.ask("AssignPCI", request), ncproxy.Assigned).id == "place"
        assert await agent.ask("AssignPCI", ncproxy.AssignPCI(device_id="dev")) != b""  # the device itself is another
        await agent.ask("RemovePCI", ncproxy.RemovePCI(device_id="dev", virtual_function_index=3))
        added, _, removed = agent.asked()
    assert '"VirtualPci/place"' in added.replace("VirtualMachine/Devices/", "")
    assert '"Functions":[{"DeviceInstancePath":"dev","VirtualFunction":3}]' in added
    assert removed == '{"ResourcePath":"VirtualMachine/Devices/VirtualPci/place","RequestType":"Remove"}'
