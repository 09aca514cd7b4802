"""The proxy of a node's network, with agents that the test plays."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from utilityvm.kit.errors import DeadlineExceeded, Exhausted, HostError, InvalidOptions, NotFound, StateError, UtilityVMError
from utilityvm.kit.ids import new_guid
from utilityvm.kit.named import UnixSockets
from utilityvm.network import ncproxy as proxies
from utilityvm.network.ncproxy import NetworkConfigProxy
from utilityvm.ttrpc.client import Client
from utilityvm.ttrpc.server import Server, Service, Unary
from utilityvm.wire import ncproxy
from utilityvm.wire.hcn import HostComputeEndpoint
from utilityvm.wire.ncproxy import COMPUTE_AGENT, NETWORK_CONFIG_PROXY, RequestType, endpoint_of
from utilityvm.wire.protobuf import Message
from utilityvm.wire.ttrpc import Metadata

NAMED = UnixSockets()


class Agent:
    """Notes what it is asked: ``+name`` and ``-name`` of endpoints. `fails` says with what each of these fails."""

    def __init__(self, **fails: UtilityVMError) -> None:
        self.address = f"@uvm-test-{new_guid()}"
        self.asked: list[str] = []
        self.raw: list[bytes] = []
        self.nics: list[str] = []
        self.fails = fails
        self.silent_at = ""
        methods: Service = {"AddNIC": Unary(ncproxy.AddNIC, self.add), "DeleteNIC": Unary(ncproxy.DeleteNIC, self.delete)}
        self.server = Server("agent", {COMPUTE_AGENT: methods})

    async def add(self, request: ncproxy.AddNIC, _: Metadata) -> ncproxy.Nothing:
        self.nics.append(request.nic_id)
        answer = self._note("+", request.endpoint)
        if endpoint_of(request.endpoint).name == self.silent_at:
            await asyncio.Event().wait()
        return answer

    async def delete(self, request: ncproxy.DeleteNIC, _: Metadata) -> ncproxy.Nothing:
        self.nics.remove(request.nic_id)
        return self._note("-", request.endpoint)

    def _note(self, what: str, endpoint: bytes) -> ncproxy.Nothing:
        self.raw.append(endpoint)
        self.asked.append(what + endpoint_of(endpoint).name)
        if (error := self.fails.get(("add_" if what == "+" else "delete_") + endpoint_of(endpoint).name)) is not None:
            raise error
        return ncproxy.Nothing()

    async def serve(self) -> None:
        await self.server.serve(NAMED, self.address)


class Rig:
    """A proxy, a client of it as a VM is one, and agents."""

    def __init__(self, proxy: NetworkConfigProxy, client: Client) -> None:
        self.proxy, self.client = proxy, client
        self.agents: list[Agent] = []

    async def agent(self, **fails: UtilityVMError) -> Agent:
        agent = Agent(**fails)
        await agent.serve()
        self.agents.append(agent)
        return agent

    async def ask(self, method: str, argument: Message) -> None:
        await self.client.call(NETWORK_CONFIG_PROXY, method, argument, ncproxy.Nothing)

    async def register(self, agent: Agent, container: str = "c") -> None:
        await self.ask("RegisterComputeAgent", ncproxy.RegisterComputeAgent(agent_address=agent.address, container_id=container))

    async def configure(self, what: int, container: str = "c") -> None:
        await self.ask("ConfigureNetworking", ncproxy.ConfigureNetworking(container_id=container, request_type=what))

    async def unregister(self, container: str = "c") -> None:
        await self.ask("UnregisterComputeAgent", ncproxy.UnregisterComputeAgent(container_id=container))


@asynccontextmanager
async def rig(endpoints: Sequence[str | HostComputeEndpoint] = ("a", HostComputeEndpoint(name="b"))) -> AsyncIterator[Rig]:
    proxy = NetworkConfigProxy(NAMED, lambda _: endpoints)
    server, address = Server("proxy", {NETWORK_CONFIG_PROXY: proxy.methods}), f"@uvm-test-{new_guid()}"
    await server.serve(NAMED, address)
    made = Rig(proxy, await Client.dial(NAMED, address, "vm"))
    yield made
    await made.client.aclose()
    await server.aclose()
    await proxy.aclose()
    for agent in made.agents:
        await agent.server.aclose()


async def test_an_agent_that_falls_silent_is_given_up_at_the_bound_and_what_it_had_done_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxies, "AGENT_ANSWER", 0.05)
    async with rig() as node:
        agent = await node.agent()
        agent.silent_at = "b"
        await node.register(agent)
        with pytest.raises(DeadlineExceeded, match=r"no answer to ComputeAgent.AddNIC within 0.05 s"):
            await node.configure(RequestType.SETUP)
        assert agent.asked[:2] == ["+a", "+b"]
        assert "-a" in agent.asked


async def test_adapters_are_given_in_order_and_taken_in_the_opposite_one() -> None:
    async with rig() as node:
        agent = await node.agent()
        await node.register(agent)
        await node.configure(RequestType.SETUP)
        assert (agent.asked, len(set(agent.nics))) == (["+a", "+b"], 2)
        assert agent.raw == [b"a", ncproxy.endpoint(HostComputeEndpoint(name="b"))]
        await node.configure(RequestType.SETUP)
        assert agent.asked == ["+a", "+b"]
        await node.configure(RequestType.TEARDOWN)
        await node.configure(RequestType.TEARDOWN)
        assert (agent.asked, agent.nics) == (["+a", "+b", "-b", "-a"], [])
        await node.configure(RequestType.SETUP)
        assert agent.asked[4:] == ["+a", "+b"]
        await node.unregister()
        await node.unregister()
        assert node.proxy.containers == ()


@pytest.mark.parametrize(
    ("method", "argument", "why"),
    [
        ("RegisterComputeAgent", ncproxy.RegisterComputeAgent(agent_address="a"), "^ContainerID is empty$"),
        ("RegisterComputeAgent", ncproxy.RegisterComputeAgent(container_id="c"), "^AgentAddress is empty$"),
        ("ConfigureNetworking", ncproxy.ConfigureNetworking(), "^ContainerID is empty$"),
        ("ConfigureNetworking", ncproxy.ConfigureNetworking(container_id="c", request_type=2), "^Request type 2 is not known$"),
        ("UnregisterComputeAgent", ncproxy.UnregisterComputeAgent(), "^ContainerID is empty$"),
    ],
)
async def test_a_request_that_makes_no_sense_is_refused(method: str, argument: Message, why: str) -> None:
    async with rig() as node:
        with pytest.raises(InvalidOptions, match=why):
            await node.ask(method, argument)


async def test_a_container_without_an_agent_has_no_network_to_set_up_and_none_to_tear_down() -> None:
    async with rig() as node:
        with pytest.raises(StateError, match="^container c: cannot set its network up while no compute agent is registered for it$"):
            await node.configure(RequestType.SETUP)
        await node.configure(RequestType.TEARDOWN)


async def test_an_agent_that_cannot_be_dialled_is_not_registered() -> None:
    async with rig() as node:
        with pytest.raises(HostError, match="^compute agent of c: cannot connect to @uvm-test-"):
            await node.register(Agent())
        assert node.proxy.containers == ()


async def test_of_a_set_up_that_fails_nothing_is_left() -> None:
    async with rig() as node:
        agent = await node.agent(add_b=NotFound("no b"), delete_b=NotFound("no b"))
        await node.register(agent)
        with pytest.raises(NotFound, match="^no b$"):
            await node.configure(RequestType.SETUP)
        assert agent.asked == ["+a", "+b", "-b", "-a"]
        agent.fails.clear()
        await node.configure(RequestType.SETUP)
        assert agent.asked[4:] == ["+a", "+b"]


@pytest.mark.parametrize("error", [NotFound("gone"), StateError("vm", "stopped", "change a resource")], ids=["not found", "wrong state"])
async def test_what_a_vm_says_is_not_there_is_out(error: UtilityVMError) -> None:
    async with rig() as node:
        agent = await node.agent(delete_b=error)
        await node.register(agent)
        await node.configure(RequestType.SETUP)
        await node.configure(RequestType.TEARDOWN)
        await node.configure(RequestType.TEARDOWN)
        assert agent.asked == ["+a", "+b", "-b", "-a"]


async def test_what_cannot_be_taken_out_is_told_and_tried_again_and_holds_up_no_other() -> None:
    async with rig() as node:
        agent = await node.agent(delete_b=HostError("stuck"))
        await node.register(agent)
        await node.configure(RequestType.SETUP)
        with pytest.raises(HostError, match="stuck"):
            await node.configure(RequestType.TEARDOWN)
        agent.nics.append(next(iter(node.proxy._agents["c"].adapters)))
        agent.fails.clear()
        await node.configure(RequestType.TEARDOWN)
        assert agent.asked == ["+a", "+b", "-b", "-a", "-b"]


async def test_an_agent_that_goes_is_forgotten_and_the_next_one_of_its_container_is_known() -> None:
    async with rig() as node:
        first, second = await node.agent(), await node.agent()
        await node.register(first)
        lost = node.proxy._agents["c"].client.lost
        await first.server.aclose()
        await lost
        await node.unregister()  # after the proxy's own watch has had its turn, or before: the same
        await node.register(second)
        await node.configure(RequestType.SETUP)
        assert (first.asked, second.asked) == ([], ["+a", "+b"])


async def test_an_agent_that_registers_again_takes_the_place_of_the_one_before() -> None:
    async with rig() as node:
        first, second = await node.agent(), await node.agent()
        await node.register(first)
        lost = node.proxy._agents["c"].client.lost
        await node.register(second)
        await lost
        await node.configure(RequestType.SETUP)
        assert (first.asked, second.asked) == ([], ["+a", "+b"])


async def test_containers_are_served_side_by_side_and_each_alone_in_turns() -> None:
    async with rig(["a"]) as node:
        agents = [await node.agent() for _ in range(8)]
        async with asyncio.TaskGroup() as group:
            for number, agent in enumerate(agents):
                group.create_task(node.register(agent, f"c{number}"))
        async with asyncio.TaskGroup() as group:
            for number in range(8):
                group.create_task(node.configure(RequestType.SETUP, f"c{number}"))
                group.create_task(node.configure(RequestType.SETUP, f"c{number}"))
        assert [agent.asked for agent in agents] == [["+a"]] * 8
        assert len(node.proxy._turns) == 0


async def test_one_agent_too_many_is_refused_until_one_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxies, "MAX_AGENTS", 1)
    async with rig() as node:
        agent = await node.agent()
        await node.register(agent)
        await node.register(agent)
        with pytest.raises(Exhausted, match="^1 compute agents are registered"):
            await node.register(agent, "d")
        await node.unregister()
        await node.register(agent, "d")
        assert node.proxy.containers == ("d",)
