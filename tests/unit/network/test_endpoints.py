"""What an endpoint that is asked for by a proxy is on a Linux host, and how those of a VM are told apart."""

import shutil
from collections.abc import Callable

import pytest

from utilityvm.compute.nic import Wire
from utilityvm.kit.errors import Exists, NotFound, StateError, Unsupported, UtilityVMError
from utilityvm.kit.ids import NULL_GUID, VmId
from utilityvm.network import endpoints
from utilityvm.network.endpoints import HostEndpoints, wish_of
from utilityvm.options.network import BridgeNetwork, NamespaceNetwork, NetworkWish, UserNetwork
from utilityvm.schema.hns import HNSEndpoint
from utilityvm.wire.hcn import Dns, HostComputeEndpoint, IpConfig, Route

USER = HostComputeEndpoint(name="user")
POD = HostComputeEndpoint(name="eth0", namespace="/run/netns/pod")
OTHER = HostComputeEndpoint(name="eth0", namespace="/run/netns/other")
BRIDGE = HostComputeEndpoint(
    name="port",
    network="br0",
    ip_configurations=[IpConfig(ip_address="10.0.0.2", prefix_length=24), IpConfig(ip_address="fd00::2", prefix_length=64)],
    routes=[Route(next_hop="10.0.0.1", destination_prefix="0.0.0.0/0"), Route(next_hop="fd00::1", destination_prefix="::/0")],
    dns=Dns(server_list=["9.9.9.9"]),
)


@pytest.mark.parametrize(
    ("wanted", "wish"),
    [
        (USER, UserNetwork()),
        (HostComputeEndpoint(name="user", dns=Dns(server_list=["9.9.9.9"])), UserNetwork(dns=("9.9.9.9",))),
        (POD, NamespaceNetwork(namespace="/run/netns/pod", interface="eth0")),
        (
            BRIDGE,
            BridgeNetwork(bridge="br0", addresses=("10.0.0.2/24", "fd00::2/64"), gateways=("10.0.0.1", "fd00::1"), dns=("9.9.9.9",)),
        ),
        (HostComputeEndpoint(name="port", network="br0"), BridgeNetwork(bridge="br0", addresses=())),
    ],
)
def test_an_endpoint_is_the_network_that_it_says(wanted: HostComputeEndpoint, wish: NetworkWish) -> None:
    assert wish_of(wanted) == wish


def more(of: HostComputeEndpoint, **settings: object) -> HostComputeEndpoint:
    return HostComputeEndpoint(name=of.name, namespace=of.namespace, network=of.network, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "error", "why"),
    [
        (HostComputeEndpoint(name="eth7"), NotFound, "^this host has no endpoint of the name 'eth7'$"),
        (HostComputeEndpoint(name="eth0", namespace="ns"), NotFound, "^this host has no endpoint of the name 'eth0'$"),
        (
            more(USER, mac_address="x", flags=1),
            Unsupported,
            "^endpoint user: flags, mac_address: its network has addresses and ways of its own$",
        ),
        (HostComputeEndpoint(name="user", network="n"), Unsupported, "^endpoint user: network: its network"),
        (
            more(POD, ip_configurations=[IpConfig()], routes=[Route()]),
            Unsupported,
            "^endpoint eth0: ip_configurations, routes: they are those",
        ),
        (more(BRIDGE, policies=[{}]), Unsupported, "^endpoint port: policies: a port of a bridge has none$"),
        (
            more(BRIDGE, routes=[Route(next_hop="1.1.1.1", destination_prefix="9.0.0.0/8")]),
            Unsupported,
            "^endpoint port: routes to 9.0.0.0/8: ",
        ),
    ],
)
def test_what_is_no_endpoint_or_more_than_one_can_be_is_refused(wanted: HostComputeEndpoint, error: type[UtilityVMError], why: str) -> None:
    with pytest.raises(error, match=why):
        wish_of(wanted)


class FakeUplink:
    """A network that is only counted."""

    opened = 0

    def __init__(self, vm_id: VmId, wish: NetworkWish) -> None:
        self.endpoint, self.wish = HNSEndpoint(id=f"{vm_id}-fake"), wish

    async def open(self) -> None:
        type(self).opened += 1

    async def wire(self) -> str:
        return f"the end of {self.endpoint.id}"

    async def aclose(self) -> None:
        type(self).opened -= 1


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> dict[str, Wire]:
    monkeypatch.setattr(endpoints, "uplink_of", FakeUplink)
    FakeUplink.opened = 0
    return {}


def of(offered: dict[str, Wire]) -> HostEndpoints:
    def offer(endpoint_id: str, wire: Wire) -> None:
        if endpoint_id in offered:
            raise Exists(endpoint_id)
        offered[endpoint_id] = wire

    return HostEndpoints(VmId("vm"), offer)


async def test_each_endpoint_is_opened_and_offered_once_and_found_until_it_is_closed(offered: dict[str, Callable[[], object]]) -> None:
    host = of(offered)  # type: ignore[arg-type]
    opened = [await host.open(wanted) for wanted in (USER, POD, OTHER, BRIDGE, POD)]
    assert FakeUplink.opened == len(offered) == 4
    assert opened[1] == opened[4] == await host.find(POD)
    assert {endpoint.namespace and endpoint.namespace.id for endpoint in opened} == {NULL_GUID}
    await host.close(opened[1])
    await host.close(opened[1])
    assert FakeUplink.opened == 3
    with pytest.raises(NotFound, match="^vm vm: no endpoint eth0 is on it$"):
        await host.find(POD)
    with pytest.raises(StateError, match="^vm vm: endpoint eth0: cannot give it to an adapter while not open$"):
        await offered[opened[1].id]()  # type: ignore[misc]
    again = await host.open(POD)
    assert (again, len(offered)) == (opened[1], 4)
    assert await offered[again.id]() == f"the end of {again.id}"  # type: ignore[misc]
    await host.aclose()
    assert FakeUplink.opened == 0


async def test_an_endpoint_is_found_by_its_name_alone_where_it_is_the_only_one(offered: dict[str, Callable[[], object]]) -> None:
    host = of(offered)  # type: ignore[arg-type]
    opened = await host.open(POD)
    assert await host.find(HostComputeEndpoint(name="eth0")) == opened
    await host.open(OTHER)
    with pytest.raises(NotFound, match="^vm vm: more than one endpoint eth0 is on it$"):
        await host.find(HostComputeEndpoint(name="eth0"))


async def test_an_endpoint_is_in_the_guests_namespace_that_it_says(offered: dict[str, Callable[[], object]]) -> None:
    opened = await of(offered).open(HostComputeEndpoint(name="user", namespace="ns"))  # type: ignore[arg-type]
    assert opened.namespace is not None
    assert opened.namespace.id == "ns"


@pytest.mark.skipif(shutil.which("passt") is None, reason="passt is not installed")
async def test_one_that_cannot_be_opened_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    host = of({})
    with pytest.raises(Unsupported, match="there is no passt"):
        await host.open(USER)
    with pytest.raises(NotFound):
        await host.find(USER)
