"""A guest in the place of an interface, and at a bridge: it is its neighbours' neighbour, and nothing is left of it.

The namespaces are the test's own, for which it must be root.
"""

import asyncio
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.pidfds import all_ended

from utilityvm import (
    BridgeNetwork,
    Exists,
    HostError,
    InvalidOptions,
    NamespaceNetwork,
    NotFound,
    StateError,
    Unsupported,
    UtilityVMError,
    create_lcow,
    default_options_lcow,
)
from utilityvm.boot.files import BootFiles
from utilityvm.kit.ids import VmId
from utilityvm.kit.proc import run_tool
from utilityvm.network.tap import TapUplink, sweep
from utilityvm.store.layout import Layout
from utilityvm.store.places import Held, Place

from .networks import NEXT, NEXT6, POD, POD6, POD_MTU, WORLD, inside, pod, serving, traces
from .running import LIMIT, sh

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.root("make namespaces and taps"),
    pytest.mark.skipif(shutil.which("tc") is None or not Path("/dev/net/tun").exists(), reason="no iproute2, or no /dev/net/tun"),
]


def limits() -> bool:
    """Whether the kernel has what limits a rate."""
    tries = "ip link add dev slow type ifb && tc qdisc add dev slow root tbf rate 1mbit burst 32k latency 1s"
    try:
        run_tool(["unshare", "--net", "sh", "-c", tries], within=20)
    except UtilityVMError:
        return False
    return True


needs_limits = pytest.mark.skipif(os.geteuid() == 0 and not limits(), reason="the kernel has no tbf, or no ifb")


@pytest.fixture
def names() -> Iterator[tuple[str, str]]:
    with pod() as both:
        yield both


def below(pid: int) -> list[int]:
    """All processes below a process: the layers of the jail, and QEMU in them."""
    children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [other for child in children for other in below(child)]


def place(name: str, *, rate: int | None = None) -> NamespaceNetwork:
    return NamespaceNetwork(namespace=f"/run/netns/{name}", dns=(NEXT,), rate=rate)


def uplink(name: str, vm_id: str = "a", *, rate: int | None = None, records: Path | None = None) -> TapUplink:
    return TapUplink(VmId(vm_id), place(name, rate=rate), records=records)


def make_bridge(name: str) -> None:
    for words in (("link", "add", "br0", "type", "bridge"), ("link", "set", "eth0", "master", "br0"), ("link", "set", "br0", "up")):
        run_tool(["ip", "-n", name, *words], within=20)


async def test_a_guest_has_the_address_ways_and_length_of_packets_of_the_interface_in_whose_place_it_is(
    boot_files: BootFiles, names: tuple[str, str]
) -> None:
    options = default_options_lcow(boot_files_path=str(boot_files.folder), memory_size_in_mb=256, processor_count=1)
    mac = run_tool(["ip", "netns", "exec", names[0], "cat", "/sys/class/net/eth0/address"], within=20).strip()
    async with await create_lcow(options, network=place(names[0])) as vm:
        await vm.start()
        told = (await sh(vm, "ip addr show eth0; ip route; ip -6 route; cat /etc/resolv.conf")).out.decode()
        for part in (mac, f"mtu {POD_MTU}", f"inet {POD}/24", f"inet6 {POD6}/64", f"via {NEXT} dev eth0", f"via {NEXT6} dev eth0"):
            assert part in told, told
        assert f"nameserver {NEXT}" in told
        async with serving(names[1], WORLD, 80, b"four" * 100_000) as callers, serving(names[1], NEXT6, 80, b"six") as others:
            assert (await sh(vm, f"nc -w 5 {WORLD} 80 </dev/null")).out == b"four" * 100_000
            assert (await sh(vm, f"nc -w 5 {NEXT6} 80 </dev/null")).out == b"six"
            assert (callers[0][0], others[0][0]) == (POD, POD6)
        server = await vm.create_process(["sh", "-c", "echo hi | nc -l -p 80"])
        with inside(names[1]):
            async with asyncio.timeout(LIMIT):
                assert await said_at(POD, 80) == b"hi\n"
        assert await server.wait() == 0
        await server.close()
        assert len(traces(names[0])) == 3
    assert traces(names[0]) == []


async def said_at(address: str, port: int) -> bytes:
    """What is said to who connects, as soon as somebody listens."""
    while True:
        try:
            reader, writer = await asyncio.open_connection(address, port)
        except ConnectionRefusedError:
            continue  # the guest's program has not come so far, and nobody tells that it listens
        said = await reader.read()
        writer.close()
        return said


async def test_a_guest_at_a_bridge_has_the_address_that_it_is_given(boot_files: BootFiles, names: tuple[str, str]) -> None:
    here, there = names
    make_bridge(here)
    options = default_options_lcow(boot_files_path=str(boot_files.folder), memory_size_in_mb=256, processor_count=1)
    wish = BridgeNetwork(bridge="br0", addresses=("10.88.0.7/24", "fd88::7/64"), gateways=(NEXT,), dns=("1.1.1.1",))
    with inside(here):
        async with await create_lcow(options, network=wish) as vm:
            await vm.start()
            async with serving(there, WORLD, 80, b"hello") as callers, serving(there, NEXT6, 80, b"six"):
                assert (await sh(vm, f"nc -w 5 {WORLD} 80 </dev/null")).out == b"hello"
                assert (await sh(vm, f"nc -w 5 {NEXT6} 80 </dev/null")).out == b"six"
                assert callers[0][0] == "10.88.0.7"
            assert len(traces(here)) == 1
    assert traces(here) == []


@needs_limits
@pytest.mark.parametrize("bridged", [False, True], ids=["namespace", "bridge"])
async def test_what_comes_and_goes_by_a_tap_is_held_to_its_rate(boot_files: BootFiles, names: tuple[str, str], *, bridged: bool) -> None:
    (here, there), rate, size = names, 4 << 20, 8 << 20
    options = default_options_lcow(boot_files_path=str(boot_files.folder), memory_size_in_mb=256, processor_count=1)
    wish: NamespaceNetwork | BridgeNetwork = place(here, rate=rate)
    if bridged:
        make_bridge(here)
        wish = BridgeNetwork(bridge="br0", addresses=("10.88.0.7/24",), gateways=(NEXT,), rate=rate)
    clock, came = asyncio.get_running_loop().time, asyncio.get_running_loop().create_future()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        total = 0
        while data := await reader.read(1 << 16):
            total += len(data)
        writer.close()
        came.set_result(total)

    with inside(here):
        async with await create_lcow(options, network=wish) as vm:
            await vm.start()
            async with serving(there, WORLD, 80, bytes(size)):
                begin = clock()
                assert (await sh(vm, f"nc {WORLD} 80 </dev/null | wc -c")).out == b"%d\n" % size
                assert clock() - begin > 0.9 * size / rate
            with inside(there):
                server = await asyncio.start_server(take, WORLD, 81)
            async with server:
                begin = clock()
                await sh(vm, f"dd if=/dev/zero bs=64k count={size >> 16} | nc {WORLD} 81")
                assert await came == size
                assert clock() - begin > 0.9 * size / rate
            assert sum("tbf" in trace for trace in traces(here)) == 2
    assert traces(here) == []


async def test_a_rate_is_refused_where_somebody_has_chosen_how_packets_leave(names: tuple[str, str], tmp_path: Path) -> None:
    run_tool(["tc", "-n", names[0], "qdisc", "add", "dev", "eth0", "root", "handle", "1:", "pfifo"], within=20)
    one = uplink(names[0], rate=1 << 20, records=tmp_path / "records")
    with pytest.raises(Unsupported, match="the rate at eth0 cannot be limited: it has the qdisc pfifo of somebody's choice"):
        await one.open()
    assert (traces(names[0]), os.listdir(tmp_path / "records")) == ([], [])  # noqa: PTH208


@needs_limits
@pytest.mark.parametrize("by", ["the next in its place", "uvm prune"])
async def test_nothing_is_left_of_a_killed_owner_but_what_the_next_in_its_place_or_a_sweep_removes(
    boot_files: BootFiles, names: tuple[str, str], by: str
) -> None:
    program = f"""
import asyncio, utilityvm
async def main():
    options = utilityvm.default_options_lcow(boot_files_path={str(boot_files.folder)!r}, memory_size_in_mb=256, processor_count=1)
    wish = utilityvm.NamespaceNetwork(namespace="/run/netns/{names[0]}", rate=1 << 20)
    async with await utilityvm.create_lcow(options, network=wish) as vm:
        await vm.start()
        print("running", flush=True)
        await vm.wait()
asyncio.run(main())
"""
    owner = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    try:
        assert owner.stdout is not None
        assert await owner.stdout.readline() == b"running\n"
        pidfds = [os.pidfd_open(pid) for pid in below(owner.pid)]
        with pytest.raises(Exists, match="the place of the interface eth0 is taken by uvm"):
            await uplink(names[0]).open()
        assert await sweep(Layout.of_user().places) == []
        assert len(traces(names[0])) == 5
    finally:
        owner.kill()
        await owner.wait()
    await all_ended(pidfds)
    assert [trace for trace in traces(names[0]) if trace.startswith("uvm")] == []
    assert len(traces(names[0])) == 2
    if by == "uvm prune":
        uvm = await asyncio.create_subprocess_exec(sys.executable, "-m", "utilityvm", "prune", stdout=asyncio.subprocess.PIPE)
        assert f"removed what was left at eth0 of /run/netns/{names[0]}\n" in (await uvm.communicate())[0].decode()
    else:
        other = uplink(names[0])
        await other.open()
        await other.aclose()
    assert traces(names[0]) == []


@needs_limits
@pytest.mark.parametrize(
    ("bridged", "tool", "call"),
    [
        (bridged, tool, call)
        for bridged, tool, calls in ((False, "ip", 7), (False, "tc", 10), (True, "ip", 7), (True, "tc", 4))
        for call in range(1, calls + 1)
    ],
)
async def test_whatever_step_it_is_killed_at_a_sweep_or_the_next_one_finds_the_place_free(
    names: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bridged: bool, tool: str, call: int
) -> None:
    """The tool kills the program that runs it, after it has done what it was to do; and its owner is gone too, as far as anybody sees."""
    count, real, records = tmp_path / "count", shutil.which(tool), tmp_path / "records"
    count.write_text("0")
    script = f'#!/bin/sh\nread n <{count}; n=$((n + 1)); echo $n >{count}\n[ $n -lt {call} ] && exec {real} "$@"\n'
    script += f'[ $n -eq {call} ] && {{ {real} "$@"; kill -9 $PPID; exit; }}\nexit 1\n'
    (tmp_path / tool).write_text(script)
    (tmp_path / tool).chmod(0o755)
    wish: NamespaceNetwork | BridgeNetwork = place(names[0], rate=1 << 20)
    if bridged:
        make_bridge(names[0])
        wish = BridgeNetwork(bridge="br0", addresses=("10.88.0.7/24",), rate=1 << 20)
    one, other = (TapUplink(VmId("a"), wish, records=records) for _ in range(2))
    with inside(names[0]):
        with monkeypatch.context() as patch:
            patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
            with suppress(HostError):  # it was killed, if it came so far
                await one.open()
            with suppress(HostError):  # nor can it undo anything any more
                await one.aclose()
        if call % 2:
            await sweep(records)
            assert traces(names[0]) == []
            assert list(records.iterdir()) == []
        await other.open()
        assert len(traces(names[0])) == 5
        await other.aclose()
    assert (traces(names[0]), list(records.iterdir())) == ([], [])


async def test_a_place_that_somebody_else_has_is_left_alone(names: tuple[str, str]) -> None:
    run_tool(["tc", "-n", names[0], "qdisc", "add", "dev", "eth0", "clsact"], within=20)
    with pytest.raises(Exists, match="something else takes the traffic of the interface eth0"):
        await uplink(names[0]).open()
    assert "clsact" in run_tool(["tc", "-n", names[0], "qdisc", "show", "dev", "eth0"], within=20)


async def test_a_place_that_cannot_be_swept_keeps_no_other_from_it_and_what_is_no_namespace_is_forgotten(
    names: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").touch()
    places = [
        Place(path=str(path), device=path.stat().st_dev, inode=path.stat().st_ino, tap="uvm0", interface=interface)
        for path, interface in ((tmp_path / "x", "eth0"), (Path(f"/run/netns/{names[0]}"), "eth0"), (Path(f"/run/netns/{names[1]}"), "lo"))
    ]
    for one in places:
        Held.take(tmp_path / "records", one).keep()
    real = shutil.which("ip")
    (tmp_path / "ip").write_text(f'#!/bin/sh\n{real} link show dev eth0 | grep -q "mtu {POD_MTU} " || exec {real} "$@"\nexit 1\n')
    (tmp_path / "ip").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        with pytest.raises(HostError, match=rf"eth0 of /run/netns/{names[0]}: .*ip"):
            await sweep(tmp_path / "records")
    assert os.listdir(tmp_path / "records") == [places[1].name]  # noqa: PTH208
    assert await sweep(tmp_path / "records") == [places[1]]


async def test_what_is_not_there_is_told_by_its_name(names: tuple[str, str], tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 (names are what is compared)
    missing = TapUplink(VmId("a"), NamespaceNetwork(namespace="/run/netns/nobody"))
    with pytest.raises(NotFound, match="namespace /run/netns/nobody: there is no such namespace"):
        await missing.open()
    with pytest.raises(NotFound, match="there is no interface eth9") as caught:
        await TapUplink(VmId("a"), NamespaceNetwork(namespace=f"/run/netns/{names[0]}", interface="eth9")).open()
    assert caught.value.hint == "there are: eth0, lo"
    (tmp_path / "x").touch()
    for other in (tmp_path / "x", Path("/proc/self/ns/mnt")):
        with pytest.raises(InvalidOptions, match="that is no network namespace"):
            await TapUplink(VmId("a"), NamespaceNetwork(namespace=str(other)), records=tmp_path / "records").open()
    assert not (tmp_path / "records").exists()  # nothing that a sweep could not get into
    with inside(names[0]):
        for bridge, why in (("br9", "there is no interface br9"), ("eth0", "eth0 is no bridge")):
            with pytest.raises(NotFound, match=why):
                await TapUplink(VmId("a"), BridgeNetwork(bridge=bridge, addresses=("10.0.0.2/24",))).open()
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208
    assert traces(names[0]) == []


async def test_an_end_is_given_once_and_a_namespace_may_go_before_its_vm(names: tuple[str, str]) -> None:
    one = uplink(names[0])
    for use in (one.wire, lambda: asyncio.sleep(0, one.endpoint)):
        with pytest.raises(StateError):
            await use()
    await one.open()
    end = await one.wire()
    with pytest.raises(StateError):
        await one.wire()
    assert (end.mtu, one.endpoint.ip_configurations[0].ip_address) == (POD_MTU, POD)
    with pytest.raises(Unsupported, match="is not filtered"):
        await one.allow(["1.1.1.1"])
    run_tool(["ip", "netns", "del", names[0]], within=20)
    os.close(end.fd)
    await one.aclose()
    await one.aclose()


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        (BridgeNetwork(bridge="b", addresses=()), "bridge b: no address"),
        (BridgeNetwork(bridge="b", addresses=("10.0.0.2",)), "'10.0.0.2': is no ADDRESS/LENGTH"),
        (BridgeNetwork(bridge="b", addresses=("10.0.0.2/33",)), "is no ADDRESS/LENGTH"),
        (BridgeNetwork(bridge="b", addresses=("10.0.0.2/8",), gateways=("x",)), "gateway"),
        (BridgeNetwork(bridge="b", addresses=("10.0.0.2/8",), gateways=("10.0.0.1", "10.0.0.3")), "several gateways"),
        (NamespaceNetwork(namespace="/x", dns=("x",)), "dns: 'x'"),
        (NamespaceNetwork(namespace="/x", rate=1), "rate: 1 bytes a second: at least 65536"),
    ],
)
async def test_a_wish_that_makes_no_sense_is_refused(wish: NamespaceNetwork | BridgeNetwork, why: str) -> None:
    with pytest.raises(InvalidOptions, match=why):
        TapUplink(VmId("a"), wish)
