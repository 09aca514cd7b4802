"""Containers of one VM in networks of their own: each pod is in the place of its namespace of the host, and none is in another's.

The namespaces are the test's own, for which it must be root.
"""

import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from utilityvm import BridgeNetwork, Container, Exists, GuestError, NamespaceNetwork, NotFound, UtilityVM
from utilityvm.boot.files import BootFiles
from utilityvm.images.store import ImageStore

from .networks import POD_MTU, WORLD, pod, serving, traces
from .running import sh
from .test_containers import a_vm, running, said, script, spec

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.root("make namespaces and taps"),
    pytest.mark.skipif(shutil.which("tc") is None or not Path("/dev/net/tun").exists(), reason="no iproute2, or no /dev/net/tun"),
]

SANDBOX = {"annotations": {"io.kubernetes.cri.container-type": "sandbox"}}
ASK = f"nc -w 5 {WORLD} 80 </dev/null"


def inside_of(namespace_id: str) -> dict[str, Any]:
    return {"windows": {"network": {"networkNamespace": namespace_id}}}


def place(names: tuple[str, str], number: int) -> NamespaceNetwork:
    return NamespaceNetwork(namespace=f"/run/netns/{names[0]}", dns=(f"10.{number}.0.1",))


@pytest.fixture(scope="module")
def image(boot_files: BootFiles, tmp_path_factory: pytest.TempPathFactory) -> Sequence[Path]:
    folder = tmp_path_factory.mktemp("images")
    folder.chmod(0o755)
    return ImageStore(folder, {"busybox": boot_files.folder / "busybox.tar"}).get("busybox").layers


@pytest.fixture(scope="module")
def pods() -> Iterator[dict[int, tuple[str, str]]]:
    """Three namespaces of the host, by their numbers, each with the machine that it leads to."""
    with ExitStack() as stack:
        yield {number: stack.enter_context(pod(number)) for number in (70, 71, 72)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def vm(boot_files: BootFiles, pods: dict[int, tuple[str, str]]) -> AsyncIterator[UtilityVM]:
    """A VM that has no network of its own and is in the place of two namespaces."""
    async with await a_vm(boot_files) as machine:
        await machine.start()
        for number in (70, 71):
            await machine.uplinks.add(place(pods[number], number), f"pod-{number}")
        yield machine
        assert len(machine.uplinks.there) == 2
    assert [traces(here) for here, _ in pods.values()] == [[], [], []]


@pytest_asyncio.fixture(loop_scope="module")
async def answering(pods: dict[int, tuple[str, str]]) -> AsyncIterator[None]:
    """The world of each namespace, which says the namespace's number."""
    async with AsyncExitStack() as stack:
        for number, (_, there) in pods.items():
            await stack.enter_async_context(serving(there, WORLD, 80, str(number).encode()))
        yield


async def interfaces(container: Container) -> list[bytes]:
    return (await script(container, "for path in /proc/sys/net/ipv4/conf/eth*; do echo ${path##*/}; done")).out.split()


@pytest.mark.usefixtures("answering")
async def test_each_pod_is_in_its_own_namespace_and_reaches_no_other(vm: UtilityVM, image: Sequence[Path]) -> None:
    async with (
        running(vm, image, "alone", **inside_of("POD-70")) as alone,
        running(vm, image, "box", **inside_of("pod-71"), **SANDBOX) as box,
    ):
        async with running(vm, image, "work", pod=box, **inside_of("pod-71")) as work:
            told = (await script(alone, "ip addr show eth0; ip route; cat /etc/resolv.conf")).out.decode()
            for part in (f"mtu {POD_MTU}", "inet 10.70.0.2/24", "inet6 fd70::2/64", "via 10.70.0.1 dev eth0", "nameserver 10.70.0.1"):
                assert part in told, told
            assert [(await script(each, ASK)).out for each in (alone, box, work)] == [b"70", b"71", b"71"]
            assert b"nameserver 10.71.0.1" in (await script(work, "cat /etc/resolv.conf")).out
            server = await work.exec(["nc", "-l", "-p", "9090"])
            assert (await script(alone, "echo x | nc -w 2 10.71.0.2 9090")).code != 0
            assert (await script(box, "until echo x | nc 127.0.0.1 9090; do :; done")).code == 0
            await server.wait()
            await server.close()
        assert b"eth" not in (await sh(vm, "ls /sys/class/net")).out  # our own kernel has one of its own that leads nowhere


@pytest.mark.usefixtures("answering")
async def test_a_namespace_is_one_containers_at_a_time_and_the_next_ones_after_it(vm: UtilityVM, image: Sequence[Path]) -> None:
    async with running(vm, image, "first", **inside_of("pod-70")):
        with pytest.raises(GuestError, match="the network namespace pod-70 belongs to the process"):
            await vm.create_container("second", {**spec(), **inside_of("pod-70")}, layers=image)
    for _ in range(3):
        assert (await said(vm, image, ASK, **inside_of("pod-70"))).out == b"70"
    assert vm.containers == ()


@pytest.mark.usefixtures("answering")
async def test_networks_come_to_a_container_that_runs_and_go(
    vm: UtilityVM, image: Sequence[Path], pods: dict[int, tuple[str, str]]
) -> None:
    async with running(vm, image, "c", **inside_of("pod-70")) as container:
        for _ in range(2):
            assert await interfaces(container) == [b"eth0"]
            more = await vm.uplinks.add(place(pods[72], 72), "pod-70")
            assert len(await interfaces(container)) == 2
            async with serving(pods[72][1], "10.72.0.1", 81, b"more"):
                assert (await script(container, "nc -w 5 10.72.0.1 81 </dev/null")).out == b"more"
            assert (await script(container, ASK)).out == b"70"
            await vm.uplinks.remove(more)
            assert traces(pods[72][0]) == []
        with pytest.raises(NotFound, match="this network was not added to it, or was removed"):
            await vm.uplinks.remove(more)


async def test_what_is_not_there_is_told_and_nothing_is_left(
    vm: UtilityVM, image: Sequence[Path], pods: dict[int, tuple[str, str]]
) -> None:
    with pytest.raises(NotFound, match="network namespace pod-1 not found"):
        await vm.create_container("c", {**spec(), **inside_of("pod-1")}, layers=image)
    with pytest.raises(Exists, match="the place of the interface eth0 is taken by uvm"):
        await vm.uplinks.add(place(pods[70], 70), "pod-70")
    with pytest.raises(NotFound, match="there is no interface br9"):
        await vm.uplinks.add(BridgeNetwork(bridge="br9", addresses=("10.70.0.3/24",)), "new")
    assert [one.id for one in vm.network.namespaces] == ["pod-70", "pod-71"]
    assert (len(vm.uplinks.there), traces(pods[72][0])) == (2, [])
