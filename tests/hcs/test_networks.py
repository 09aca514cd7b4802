"""Endpoints of the host network service, and VMs on it whose network a proxy sets up over named pipes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.hcs.harness import StandIn
from utilityvm import OptionsWCOW, UtilityVM
from utilityvm.compute.hcs.calls import Hcs
from utilityvm.compute.hcs.files import WindowsFiles
from utilityvm.kit.errors import HcsError, HostError, NotFound
from utilityvm.network.ncproxy import NetworkConfigProxy
from utilityvm.options.builds import EVERYTHING
from utilityvm.schema.hns import HNSEndpoint
from utilityvm.ttrpc.server import Server
from utilityvm.vm.compose import create_wcow_on_hcs
from utilityvm.wire.hcn import HostComputeEndpoint
from utilityvm.wire.ncproxy import NETWORK_CONFIG_PROXY

PROXY = r"\\.\pipe\ncproxy"
ETH0 = {"ID": "e0", "Name": "eth0", "MacAddress": "00-15-5D-00-00-01", "Namespace": {"ID": "ns"}, "New": {"what": "we do not know"}}
NAMESPACE = {"ID": "ns", "ResourceList": [{"Type": "Endpoint", "Data": {"Id": "e0"}}]}
WANTED = HostComputeEndpoint(name="eth0")


def answer(output: object) -> str:
    return json.dumps({"Success": True, "Output": output})


async def test_an_endpoint_is_found_by_its_name_with_its_namespace(hcs: StandIn) -> None:
    hcs.script("HNSCall", result=answer([{"ID": "x", "Name": "other"}, ETH0]))
    hcs.script("HNSCall", result=answer(NAMESPACE))
    endpoints = hcs.service().endpoints
    found = await endpoints.open(WANTED)
    assert (found.id, found.mac_address) == ("e0", "00-15-5D-00-00-01")
    assert found.namespace is not None
    assert [resource.type for resource in found.namespace.resource_list] == ["Endpoint"]
    assert hcs.calls == [("HNSCall", "GET", "/endpoints/"), ("HNSCall", "GET", "/namespaces/ns")]
    await endpoints.close(found)
    await endpoints.aclose()
    assert len(hcs.calls) == 2


async def test_an_endpoint_in_no_namespace_is_told_without(hcs: StandIn) -> None:
    hcs.script("HNSCall", result=answer([{"ID": "x", "Name": "eth0"}]))
    assert await hcs.service().endpoints.open(WANTED) == HNSEndpoint(id="x", name="eth0")


@pytest.mark.parametrize(
    ("hresult", "said", "error", "why"),
    [
        (0, answer([]), NotFound, "^Endpoint eth0 not found$"),
        (0, answer(None), NotFound, "^Endpoint eth0 not found$"),
        (0, '{"Success":true}', NotFound, "^Endpoint eth0 not found$"),
        (0, '{"Success":false,"Error":"Element not found."}', NotFound, "^GET /endpoints/: hns failed with error : Element not found.$"),
        (0, '{"Success":false,"Error":"busy","ErrorCode":5}', HostError, "^GET /endpoints/: hns failed with error : busy$"),
        (0, "{", HostError, "the host service's answer is no NetworkAnswer"),
        (0, answer([{"ID": 1}]), HostError, "the host service's answer is no list"),
        (0x80070005, "", HcsError, "HNSCall GET /endpoints/: .*access is denied"),
    ],
)
async def test_what_the_service_refuses_or_says_wrong_is_told(
    hcs: StandIn, hresult: int, said: str, error: type[Exception], why: str
) -> None:
    hcs.script("HNSCall", hresult, said)
    with pytest.raises(error, match=why):
        await hcs.service().endpoints.find(WANTED)


@asynccontextmanager
async def proxied(hcs: StandIn, drive: Path) -> AsyncIterator[UtilityVM]:
    """A running Windows VM whose network a proxy sets up, on one endpoint; the service keeps its guest connection."""
    (drive / r"C:\base\UtilityVM").touch()
    (drive / r"C:\base\UtilityVM\SystemTemplate.vhdx").write_bytes(b"disk")
    (drive / r"C:\scratch").touch()
    proxy = NetworkConfigProxy(hcs.pipes, lambda _: ["eth0"])
    server = Server("proxy", {NETWORK_CONFIG_PROXY: proxy.methods})
    await server.serve(hcs.pipes, PROXY)
    layers = (r"C:\base", r"C:\scratch")
    options = OptionsWCOW(id="w", layer_folders=layers, external_guest_connection=False, network_config_proxy=PROXY)
    try:
        async with await create_wcow_on_hcs(options, hcs.service(), WindowsFiles(Hcs(hcs.abi)), EVERYTHING) as vm:
            await vm.start()
            yield vm
    finally:
        await server.aclose()
        await proxy.aclose()


async def test_a_windows_guest_learns_of_its_namespace_and_adapter_before_its_start_returns(hcs: StandIn, drive: Path) -> None:
    hcs.script("HNSCall", result=answer([ETH0]))
    hcs.script("HNSCall", result=answer(NAMESPACE))
    hcs.script("HNSCall", result=answer([ETH0]))
    async with asyncio.timeout(20), proxied(hcs, drive) as vm:
        assert [namespace.id for namespace in vm.network.namespaces] == ["ns"]
        (nic,) = vm.network.adapters
        assert (nic.namespace_id, nic.endpoint.id) == ("ns", "e0")
        early, added = [json.loads(call[2] or call[1]) for call in hcs.calls if call[0] == "HcsModifyComputeSystem"][-2:]
        assert early["GuestRequest"]["Settings"]["RequestType"] == "PreAdd"
        assert added["ResourcePath"] == f"VirtualMachine/Devices/NetworkAdapters/{nic.nic_id}"
        assert added["Settings"] == {"EndpointId": "e0", "MacAddress": "00-15-5D-00-00-01"}
    removed = json.loads(next(call[2] or call[1] for call in reversed(hcs.calls) if call[0] == "HcsModifyComputeSystem"))
    assert (removed["RequestType"], removed["Settings"]["EndpointId"]) == ("Remove", "e0")


async def test_an_endpoint_that_windows_does_not_have_ends_the_vm(hcs: StandIn, drive: Path) -> None:
    hcs.script("HNSCall", result=answer([]))
    with pytest.raises(NotFound, match='^failed to get endpoint with name "eth0": Endpoint eth0 not found$'):
        async with asyncio.timeout(20), proxied(hcs, drive):
            pass
