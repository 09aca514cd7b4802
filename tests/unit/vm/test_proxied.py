"""A VM whose network a proxy sets up: `uvm ncproxy` in a process of its own, or one that the test plays. The VM's machine is a fake."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.pidfds import all_ended

from utilityvm import OptionsLCOW, UserNetwork, create_lcow
from utilityvm.kit.errors import DeadlineExceeded, HostError, InvalidOptions, NotFound, StateError
from utilityvm.kit.ids import NULL_GUID, VmId, new_guid
from utilityvm.network.user import mac_of
from utilityvm.testing.compute import FakeComputeService
from utilityvm.vm import proxied
from utilityvm.vm.compose import create_planned
from utilityvm.vm.life import State
from utilityvm.vm.uvm import UtilityVM
from utilityvm.wire import ncproxy
from utilityvm.wire.ncproxy import RequestType

from .fake import FACTS, service
from .proxy import Played, new_address

needs_passt = pytest.mark.skipif(shutil.which("passt") is None, reason="passt is not installed")


async def created(of: FakeComputeService, address: str) -> UtilityVM:
    options = OptionsLCOW(boot_files_path="/boot", network_config_proxy=address)
    return await create_planned(options, VmId(new_guid()), FACTS, of)


def nics(of: FakeComputeService) -> list[str]:
    """What was asked of the machine about adapters."""
    return [request.request_type for request in of.machines[0].requests if "NetworkAdapters" in request.resource_path]


@asynccontextmanager
async def ncproxy_verb(*words: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """`uvm ncproxy` in a process of its own, once it listens; it is ended by SIGTERM, and ends well."""
    address = new_address()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "utilityvm", "-v", "ncproxy", address, *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == f"ncproxy listens at {address}\n".encode()
    try:
        yield process, address
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


# -- with the proxy that there is -----------------------------------------------------------------------------------


@needs_passt
@pytest.mark.parametrize("words", [(), ("--names",), ("--dns", "9.9.9.9", "--endpoint", "user")], ids=["messages", "names", "dns"])
async def test_a_proxy_in_another_process_gives_a_vm_its_adapter_and_takes_it_out_before_the_vm_ends(words: tuple[str, ...]) -> None:
    of, _ = service()
    async with ncproxy_verb(*words) as (_, address):
        async with await created(of, address) as vm:
            await vm.start()
            (nic,) = vm.network.adapters
            assert (nic.namespace_id, nic.endpoint.mac_address, nic.state) == (NULL_GUID, mac_of(vm.id), "attached")
            assert nics(of) == ["Add"]
            end = await of.machines[0].wires[nic.endpoint.id]()
            os.close(end.fd)
        assert nics(of) == ["Add", "Remove"]


@needs_passt
async def test_two_vms_of_one_proxy_do_not_know_each_other() -> None:
    first, second = service()[0], service()[0]
    async with ncproxy_verb() as (_, address), await created(first, address) as vm, await created(second, address) as other:
        await vm.start()
        await other.start()
        await vm.close()
        assert (nics(first), nics(second)) == (["Add", "Remove"], ["Add"])
        assert [nic.state for nic in other.network.adapters] == ["attached"]


OWNER = """
import asyncio, sys
from tests.unit.vm.test_proxied import created
from tests.unit.vm.fake import service

async def main():
    vm = await created(service()[0], sys.argv[1])
    await vm.start()
    (uplink,) = vm._links.proxy._endpoints._uplinks.values()
    print(vm.id, *[child.pid for child in uplink._children], flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@needs_passt
async def test_nothing_is_left_of_a_vm_whose_owner_was_killed_and_its_proxy_forgets_it() -> None:
    async with ncproxy_verb() as (proxy, address):
        owner = await asyncio.create_subprocess_exec(sys.executable, "-c", OWNER, address, stdout=asyncio.subprocess.PIPE)
        assert owner.stdout is not None
        vm_id, *children = (await owner.stdout.readline()).decode().split()
        ends = [os.pidfd_open(int(child)) for child in children]
        owner.kill()
        await owner.wait()
        assert proxy.stderr is not None
        while f"ncproxy.lost container={vm_id}" not in (line := (await proxy.stderr.readline()).decode()):
            assert line
        assert len(ends) == 2
        await all_ended(ends)
        assert f"@computeagent-{vm_id}" not in Path("/proc/net/unix").read_text()  # noqa: ASYNC240 (the kernel's own)


@needs_passt
async def test_an_adapter_that_was_taken_out_can_come_again_on_a_network_of_its_own() -> None:
    of, _ = service()
    played = Played(b"user")
    async with played.served() as address, await created(of, address) as vm:
        await vm.start()
        again = ncproxy.ConfigureNetworking(container_id=vm.id, request_type=RequestType.TEARDOWN)
        await played.configure(again, {})
        assert not list(vm.network.adapters)
        await played.configure(ncproxy.ConfigureNetworking(container_id=vm.id), {})
        await played.configure(ncproxy.ConfigureNetworking(container_id=vm.id), {})  # the same once more is done already
        (nic,) = vm.network.adapters
        os.close((await of.machines[0].wires[nic.endpoint.id]()).fd)
    assert nics(of) == ["Add", "Remove", "Add", "Remove"]


# -- with one that is played ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [False, True], ids=["today", "first"])
async def test_a_vm_asks_in_the_originals_order_also_a_proxy_that_cannot_forget(old: bool, caplog: pytest.LogCaptureFixture) -> None:
    of, _ = service()
    played = Played(old=old)
    async with played.served() as address:
        async with await created(of, address) as vm:
            assert played.asked == []
            await vm.start()
            registered, set_up = played.asked
            assert isinstance(registered, ncproxy.RegisterComputeAgent)
            assert (registered.container_id, registered.agent_address[:50]) == (vm.id, f"@computeagent-{vm.id}")
            assert set_up == ncproxy.ConfigureNetworking(container_id=vm.id, request_type=RequestType.SETUP)
        left = [ncproxy.ConfigureNetworking(container_id=vm.id, request_type=RequestType.TEARDOWN)]
        assert played.asked[2:] == left + ([] if old else [ncproxy.UnregisterComputeAgent(container_id=vm.id)])
    assert caplog.records == []


async def test_two_vms_of_one_name_have_agents_of_their_own_and_a_long_name_fits() -> None:
    played = Played()
    async with played.served() as address:
        options = OptionsLCOW(boot_files_path="/boot", network_config_proxy=address)
        vms = [await create_planned(options, VmId("x" * 128), FACTS, service()[0]) for _ in range(2)]
        for vm in vms:
            await vm.start()
        for vm in vms:
            await vm.close()
    agents = {asked.agent_address for asked in played.asked if isinstance(asked, ncproxy.RegisterComputeAgent)}
    assert len(agents) == 2


async def test_a_vm_that_never_ran_was_not_set_up_and_asks_for_nothing() -> None:
    played = Played()
    async with played.served() as address, await created(service()[0], address):
        pass
    assert played.asked == []


async def test_without_its_proxy_there_is_no_vm() -> None:
    of, _ = service()
    with pytest.raises(HostError, match=r"^failed to connect to ncproxy service: vm .*: cannot connect to @uvm-test-.*refused") as raised:
        await created(of, new_address())
    assert raised.value.hint == "uvm ncproxy ADDRESS serves one"
    assert of.machines[0].state.value == "closed"


async def test_a_proxy_of_another_user_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxied, "users", lambda: frozenset({os.getuid() + 1}))
    async with Played().served() as address:
        with pytest.raises(HostError, match=f"{address} is served by user {os.getuid()}, neither ours nor root"):
            await created(service()[0], address)


async def test_a_vm_whose_network_cannot_be_set_up_is_ended_and_what_was_begun_is_torn_down() -> None:
    played = Played(fails=StateError("node", "full", "set up"))
    async with played.served() as address:
        async with await created(service()[0], address) as vm:
            with pytest.raises(StateError, match="^node: cannot set up while full$"):
                await vm.start()
            assert vm.state is State.STOPPED
        assert played.asked[2:] == [ncproxy.ConfigureNetworking(container_id=vm.id, request_type=RequestType.TEARDOWN)]


async def test_an_endpoint_that_the_host_does_not_have_is_told_in_the_originals_words() -> None:
    async with Played(b"eth7").served() as address, await created(service()[0], address) as vm:
        with pytest.raises(NotFound, match=r'^failed to get endpoint with name "eth7": this host has no endpoint of the name'):
            await vm.start()


async def test_a_proxy_that_is_gone_holds_up_no_vm_that_ends(caplog: pytest.LogCaptureFixture) -> None:
    of, _ = service()
    async with Played().served() as address:
        vm = await created(of, address)
        await vm.start()
    await vm.close()
    assert "the network was not torn down: vm " in caplog.text
    assert vm.state is State.CLOSED


async def test_a_proxy_that_falls_silent_holds_up_the_end_of_a_vm_no_longer_than_the_bound(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    played = Played()
    async with played.served() as address, await created(service()[0], address) as vm:
        await vm.start()
        monkeypatch.setattr(proxied, "TEAR_DOWN", 0.01)
        played.silent = True
        await vm.close()
    assert "no answer to NetworkConfigProxy.ConfigureNetworking within 0.01 s" in caplog.text


async def test_a_proxy_that_falls_silent_while_it_sets_a_network_up_is_given_up_at_the_bound_and_the_vm_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    played = Played()
    played.silent = True
    monkeypatch.setattr(proxied, "SET_UP", 0.05)
    monkeypatch.setattr(proxied, "TEAR_DOWN", 0.01)
    async with played.served() as address, await created(service()[0], address) as vm:
        with pytest.raises(DeadlineExceeded, match=r"no answer to NetworkConfigProxy.ConfigureNetworking within 0.05 s"):
            await vm.start()
        assert vm.state is State.STOPPED


async def test_a_network_is_the_vms_own_or_a_proxys() -> None:
    options = OptionsLCOW(boot_files_path="/boot", network_config_proxy="@x")
    with pytest.raises(InvalidOptions, match="^network and network_config_proxy: the VM's network is the one's or the other's$"):
        await create_lcow(options, network=UserNetwork())


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--endpoint", "user", "--endpoint", "user"), "--endpoint names one twice"),
        (("--names", "--dns", "1.1.1.1"), "--names with --dns or ns: a name says nothing of servers and namespaces"),
        (("--names", "--endpoint", "ns:/run/netns/a"), "--names with --dns or ns: a name says nothing of servers and namespaces"),
        (("--endpoint", "eth0"), "--endpoint eth0: is neither user nor ns:PATH, with a whole path"),
        (("--endpoint", "ns:a"), "--endpoint ns:a: is neither user nor ns:PATH, with a whole path"),
    ],
)
def test_flags_of_the_verb_that_contradict_each_other_are_refused(
    words: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from utilityvm.cli.main import main

    assert main(["ncproxy", new_address(), *words]) == 2
    assert capsys.readouterr().err == f"uvm: {why}\n"
