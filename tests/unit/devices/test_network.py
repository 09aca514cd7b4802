"""The namespaces and network adapters of a running VM: what host and guest are asked for, and what stays after failures."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from utilityvm import HNSEndpoint, Namespace
from utilityvm.devices.network import Network
from utilityvm.devices.ports import HostSide, Owner, Seen
from utilityvm.kit.errors import Exists, GuestError, HostError, InvalidOptions, NotFound
from utilityvm.kit.ids import VmId
from utilityvm.options.paths import PathFlavour
from utilityvm.plan.facts import Platform
from utilityvm.schema.hns import IpConfiguration, Route, RoutedEndpoint
from utilityvm.schema.requests import ModifySettingRequest

from .fake import World, running

NS = Namespace(id="NS-1")
ONE = HNSEndpoint(id="ep-1", mac_address="02-00-00-00-00-01", ip_address="10.1.0.2", prefix_length=24, gateway_address="10.1.0.1")
TWO = HNSEndpoint(id="ep-2", mac_address="02-00-00-00-00-02")
PATH = "VirtualMachine/Devices/NetworkAdapters"


@asynccontextmanager
async def networked() -> AsyncIterator[World]:
    """A VM of a Linux guest with a namespace."""
    async with running() as world:
        await world.vm.network.add_namespace(NS)
        yield world


async def test_an_adapter_comes_to_the_host_first_and_leaves_the_guest_first() -> None:
    async with networked() as world:
        nic = await world.vm.network.add_endpoint("ns-1", ONE, "nic-1")
        assert (nic.nic_id, nic.namespace_id, nic.state) == ("nic-1", "NS-1", "attached")
        await world.vm.network.remove_endpoint("NS-1", ONE)
        host = f"{PATH}/nic-1"
        assert world.asked == [f"host Add {host}", "guest Add Network", "guest Remove Network", f"host Remove {host}"]
        assert [one["Settings"] for one in world.guest_requests()] == [
            {
                "NamespaceID": "NS-1",
                "ID": "nic-1",
                "MacAddress": "02-00-00-00-00-01",
                "IPAddress": "10.1.0.2",
                "PrefixLength": 24,
                "GatewayAddress": "10.1.0.1",
            },
            {"NamespaceID": "NS-1", "ID": "nic-1"},
        ]
        assert world.vm.network.adapters == ()


async def test_an_endpoint_that_is_there_stays_as_it_is_and_goes_at_once() -> None:
    async with networked() as world:
        first = await world.vm.network.add_endpoint("NS-1", ONE)
        assert await world.vm.network.add_endpoint("NS-1", ONE, "another") == first
        await world.vm.network.remove_endpoint("NS-1", ONE)
        assert world.vm.network.adapters == ()


async def test_endpoints_come_in_their_order_and_those_before_a_failure_stay() -> None:
    async with networked() as world:
        world.guest = lambda what: "no" if what == "guest Add Network" and len(world.vm.network.adapters) > 1 else None
        with pytest.raises(GuestError):
            await world.vm.network.add_endpoints("NS-1", [ONE, TWO])
        assert [nic.endpoint for nic in world.vm.network.adapters] == [ONE]
        await world.vm.network.remove_endpoints("NS-1", [TWO, ONE])
        assert world.vm.network.adapters == ()


async def test_what_is_not_there_is_said() -> None:
    async with networked() as world:
        network = world.vm.network
        with pytest.raises(Exists, match="^network namespace already added$"):
            await network.add_namespace(Namespace(id="ns-1"))
        for call in (network.add_endpoint("ns-2", ONE), network.remove_endpoint("ns-2", ONE), network.remove_endpoints("ns-2", [])):
            with pytest.raises(NotFound, match="^network namespace not found$"):
                await call
        with pytest.raises(NotFound, match="^NIC not found in network namespace$"):
            await network.remove_endpoint("ns-1", ONE)
        for wrong in (network.add_namespace(Namespace()), network.add_endpoint("ns-1", HNSEndpoint())):
            with pytest.raises(InvalidOptions, match="without an id"):
                await wrong
        await network.remove_namespace("ns-2")
        assert world.asked == []


async def test_a_namespace_goes_with_its_adapters_and_can_be_had_again() -> None:
    async with networked() as world:
        await world.vm.network.add_endpoints("NS-1", [ONE, TWO])
        await world.vm.network.remove_namespace("ns-1")
        assert not world.vm.network.namespaces + world.vm.network.adapters
        await world.vm.network.add_namespace(NS)


async def test_after_a_removal_that_failed_in_part_the_rest_is_removed_by_the_same_call() -> None:
    async with networked() as world:
        nics = await world.vm.network.add_endpoints("NS-1", [ONE, TWO])
        world.host = lambda what: HostError("busy") if what == f"host Remove {PATH}/{nics[0].nic_id}" else None
        with pytest.raises(HostError, match="busy"):
            await world.vm.network.remove_namespace("NS-1")
        assert [nic.endpoint.id for nic in world.vm.network.adapters] == ["ep-1"]
        assert world.vm.network.namespaces == (NS,)
        world.host = lambda _: None
        await world.vm.network.remove_namespace("NS-1")
        assert not world.vm.network.namespaces + world.vm.network.adapters


async def test_all_failures_of_a_removal_are_told_and_remove_all_empties_the_tables() -> None:
    async with networked() as world:
        await world.vm.network.add_endpoints("NS-1", [ONE, TWO])
        world.host = lambda what: HostError(f"busy {what[-4:]}") if what.startswith("host Remove") else None
        with pytest.raises(HostError, match="busy") as caught:
            await world.vm.network.remove_all()
        assert len(caught.value.__notes__) == 1
        world.host = lambda _: None
        await world.vm.network.remove_all()
        assert world.vm.network.adapters == ()
        assert world.vm.network.namespaces == (NS,)


async def test_two_who_ask_for_one_endpoint_share_its_outcome() -> None:
    async with networked() as world:
        world.hung.clear()
        async with asyncio.TaskGroup() as group:
            both = [group.create_task(world.vm.network.add_endpoint("NS-1", ONE)) for _ in range(2)]
            await asyncio.sleep(0)
            world.hung.set()
        assert both[0].result() == both[1].result()
        await world.vm.network.remove_endpoint("NS-1", ONE)
        assert world.vm.network.adapters == ()


class Machine:
    """Takes requests as JSON."""

    def __init__(self, *, windows: bool, build: int = 20348, knows: bool = True) -> None:
        self.asked: list[Any] = []
        self._knows = knows
        host = HostSide(Platform.HYPERV, build, PathFlavour.WINDOWS, lambda _: Seen(folder=False), None)
        owner = Owner(VmId("x"), windows, fully_physically_backed=False, host=host, modify=self.modify, guest_knows_namespaces=self.knows)
        self.network = Network(owner)

    async def knows(self) -> bool:
        return self._knows

    async def modify(self, request: ModifySettingRequest) -> None:
        self.asked.append(msgspec.json.decode(msgspec.json.encode(request)))


async def test_a_windows_guest_that_knows_namespaces_is_told_of_each() -> None:
    machine = Machine(windows=True)
    await machine.network.add_namespace(NS)
    await machine.network.remove_namespace("NS-1")
    kinds = [(one["GuestRequest"]["RequestType"], one["GuestRequest"]["ResourceType"]) for one in machine.asked]
    assert kinds == [("Add", "NetworkNamespace"), ("Remove", "NetworkNamespace")]


@pytest.mark.parametrize(("windows", "knows"), [(True, False), (False, True)])
async def test_other_guests_are_told_of_no_namespace(windows: bool, knows: bool) -> None:
    machine = Machine(windows=windows, knows=knows)
    await machine.network.add_namespace(NS)
    await machine.network.remove_namespace("NS-1")
    assert machine.asked == []


async def test_a_linux_guest_that_knows_no_namespaces_is_told_of_no_adapter() -> None:
    machine = Machine(windows=False, knows=False)
    await machine.network.add_namespace(NS)
    await machine.network.add_endpoint("NS-1", ONE)
    await machine.network.remove_endpoint("NS-1", ONE)
    assert [(one["RequestType"], "GuestRequest" in one) for one in machine.asked] == [("Add", False), ("Remove", False)]


@pytest.mark.parametrize(("build", "name"), [(17134, "AdapterInstanceId"), (17763, "AdapterId")])
async def test_a_windows_guest_learns_of_the_endpoint_first_and_of_the_type_also_at_the_end(build: int, name: str) -> None:
    machine = Machine(windows=True, build=build, knows=False)
    await machine.network.add_namespace(NS)
    await machine.network.add_endpoint("NS-1", ONE, "nic-1")
    await machine.network.remove_endpoint("NS-1", ONE)
    guest = [one["GuestRequest"] for one in machine.asked]
    assert [(one["RequestType"], one["ResourceType"], one["Settings"]["RequestType"]) for one in guest] == [
        ("Add", "Network", "PreAdd"),
        ("Add", "Network", "Add"),
        ("Remove", "Network", "Remove"),
    ]
    assert [one["Settings"][name] for one in guest] == ["nic-1"] * 3
    assert ["ResourcePath" in one for one in machine.asked] == [False, True, True]


async def test_a_linux_guest_is_told_in_the_newer_shape_what_the_older_cannot_say() -> None:
    machine = Machine(windows=False)
    plain = HNSEndpoint(id="a", mac_address="02-00-00-00-00-01", ip_address="10.0.0.2", prefix_length=24, gateway_address="10.0.0.1")
    both = msgspec.structs.replace(plain, id="b", ipv6_address="fd00::2", ipv6_prefix_length=64, gateway_address_v6="fe80::1")
    routed = RoutedEndpoint(
        id="c",
        ip_configurations=[IpConfiguration(ip_address="10.1.0.2", prefix_length=16)],
        routes=[Route(next_hop="10.1.0.1", destination_prefix="10.9.0.0/16", metric=7)],
    )
    await machine.network.add_namespace(NS)
    await machine.network.add_endpoints("NS-1", [plain, both, routed])
    older, newer, lists = (one["GuestRequest"]["Settings"] for one in machine.asked)
    assert (older["IPAddress"], older["GatewayAddress"], "IPConfigs" in older) == ("10.0.0.2", "10.0.0.1", False)
    assert "IPAddress" not in newer
    assert newer["IPConfigs"] == [{"IPAddress": "10.0.0.2", "PrefixLength": 24}, {"IPAddress": "fd00::2", "PrefixLength": 64}]
    assert newer["Routes"] == [{"NextHop": "10.0.0.1"}, {"NextHop": "fe80::1"}]
    assert newer["PolicyBasedRouting"]
    assert lists["IPConfigs"] == [{"IPAddress": "10.1.0.2", "PrefixLength": 16}]
    assert lists["Routes"] == [{"NextHop": "10.1.0.1", "DestinationPrefix": "10.9.0.0/16", "Metric": 7}]
