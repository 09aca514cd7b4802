"""More networks of a VM that runs, on a fake machine: what is made, refused and left."""

import asyncio
import shutil

import pytest
import pytest_asyncio
from tests.unit.devices.fake import World, running

from utilityvm import NamespaceNetwork, UserNetwork
from utilityvm.kit.errors import Exists, GuestError, HostError, InvalidOptions, NotFound, StateError, Unsupported
from utilityvm.kit.ids import VmId
from utilityvm.network.user import UserUplink

pytestmark = [pytest.mark.skipif(shutil.which("passt") is None, reason="passt is not installed"), pytest.mark.usefixtures("_way")]


@pytest_asyncio.fixture
async def _way() -> None:
    uplink = UserUplink(VmId("way"), UserNetwork())
    try:
        await uplink.open()
    except HostError as error:  # a host without a way to anywhere
        pytest.skip(error.message)
    await uplink.aclose()


def left(world: World) -> tuple[object, ...]:
    return world.vm.uplinks.there, world.vm.network.adapters, tuple(one.id for one in world.vm.network.namespaces)


async def test_networks_are_added_to_namespaces_and_removed_and_their_numbers_given_again() -> None:
    async with running() as world:
        one = await world.vm.uplinks.add(UserNetwork(), "pod-1")
        two = await world.vm.uplinks.add(UserNetwork(), "pod-2")
        assert world.vm.uplinks.there == (one, two)
        assert [nic.namespace_id for nic in world.vm.network.adapters] == ["pod-1", "pod-2"]
        assert len({nic.endpoint.mac_address for nic in world.vm.network.adapters}) == 2
        await world.vm.uplinks.remove(one)
        with pytest.raises(NotFound):
            await world.vm.uplinks.remove(one)
        again = await world.vm.uplinks.add(UserNetwork(), "pod-1")
        assert again.endpoint.id == one.endpoint.id
        assert sorted(world.machine.wires) == sorted({one.endpoint.id, two.endpoint.id})
        assert (await world.machine.wires[one.endpoint.id]()).fd > 0
        await world.vm.network.remove_endpoint("pod-2", two.endpoint)
        await world.vm.uplinks.remove(two)
        with pytest.raises(StateError, match="not open"):
            await world.machine.wires[two.endpoint.id]()
    assert isinstance(again, UserUplink)
    with pytest.raises(StateError, match="is not open"):
        await again.allow(None)


async def test_two_of_one_address_are_refused_in_one_namespace() -> None:
    async with running() as world:
        one = await world.vm.uplinks.add(UserNetwork(), "pod")
        with pytest.raises(Exists, match=r"an adapter of the network namespace POD has the address 10\.0\.2\.15"):
            await world.vm.uplinks.add(UserNetwork(), "POD")
        assert world.vm.uplinks.there == (one,)
        world.hung.clear()
        async with asyncio.TaskGroup() as group:
            both = [group.create_task(refused_or_added(world)) for _ in range(2)]
            while not any(task.done() for task in both):
                await asyncio.sleep(0)
            world.hung.set()
        assert sorted(task.result() for task in both) == ["Exists", "added"]


async def refused_or_added(world: World) -> str:
    try:
        await world.vm.uplinks.add(UserNetwork(), "another")
    except Exists:
        return "Exists"
    return "added"


async def test_one_that_the_guest_refuses_or_that_makes_no_sense_leaves_nothing() -> None:
    async with running() as world:
        world.guest = lambda what: "no" if what == "guest Add Network" else None
        with pytest.raises(GuestError):
            await world.vm.uplinks.add(UserNetwork(), "pod")
        with pytest.raises(InvalidOptions):
            await world.vm.uplinks.add(UserNetwork(rate=1))
        with pytest.raises((NotFound, Unsupported), match="there is no such namespace|only root can make taps"):
            await world.vm.uplinks.add(NamespaceNetwork(namespace="/run/netns/nobody"))
        assert left(world) == ((), (), ())


async def test_one_whose_caller_gives_up_leaves_nothing() -> None:
    async with running() as world:
        world.hung.clear()
        async with asyncio.TaskGroup() as group:
            adding = group.create_task(world.vm.uplinks.add(UserNetwork(), "pod"))
            while "guest Add Network" not in world.asked:
                await asyncio.sleep(0)
            adding.cancel()
            await asyncio.sleep(0)
            world.hung.set()
        assert adding.cancelled()
        assert left(world) == ((), (), ())


async def test_a_vm_that_does_not_run_is_given_none() -> None:
    async with running() as world:
        await world.vm.terminate()
        with pytest.raises(StateError):
            await world.vm.uplinks.add(UserNetwork())
        assert world.machine.wires == {}
