"""A guest's network on the real thing: what it reaches, what it does not, whatever it tries, and that nothing is left of it.

The host is a network namespace of the test's own, for which it must be root; the world beyond it another one.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from tests.pidfds import all_ended

from utilityvm import Exists, HNSEndpoint, InvalidOptions, Namespace, Sandbox, UserNetwork, UtilityVM, create_lcow, default_options_lcow
from utilityvm.boot.files import BootFiles
from utilityvm.compute.nic import NicEnd, NicKind
from utilityvm.network import user

from .networks import HOST, LAN, WORLD, inside, needs_passt, serving
from .running import LIMIT, sh

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.root("make a host for the test"),
    needs_passt,
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def networked(boot_files: BootFiles, hosts: tuple[str, str]) -> AsyncIterator[UtilityVM]:
    """A running VM with a network, on the test's host."""
    options = default_options_lcow(boot_files_path=str(boot_files.folder), memory_size_in_mb=256, processor_count=1)
    wish = UserNetwork(publish=("8080:80", "9053:53/udp"), dns=("127.0.0.1",), hosts=(f"db.internal:{WORLD}",))
    with inside(hosts[0]):
        machine = await create_lcow(options, network=wish)
        async with machine:
            await machine.start()
            yield machine
    assert of_relay() == []


def of_relay() -> list[str]:
    """The relays and passts that are children of this process."""
    words = []
    for listing in Path("/proc/self/task").glob("*/children"):
        for pid in listing.read_text().split():
            words += [pid for name in (b"utilityvm.network.relay", b"passt") if name in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return words


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def connect(address: str, port: int) -> str:
    return f"nc -w 5 {address} {port} </dev/null"


async def test_the_guest_has_its_address_its_way_and_its_resolver(networked: UtilityVM) -> None:
    told = (await sh(networked, "ip -4 addr show eth0; ip route; cat /etc/resolv.conf; cat /sys/class/net/eth0/mtu")).out.decode()
    for part in ("inet 10.0.2.15/24", "default via 10.0.2.2 dev eth0", "nameserver 10.0.2.3", "65520"):
        assert part in told


async def test_the_world_is_reached_and_answers(networked: UtilityVM, hosts: tuple[str, str]) -> None:
    async with serving(hosts[1], WORLD, 80, b"hello world") as callers:
        assert (await sh(networked, connect(WORLD, 80))).out == b"hello world"
        assert callers[0][0] == HOST


async def test_downloads_side_by_side_lose_nothing_where_sockets_hold_little(
    boot_files: BootFiles, hosts: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an ordinary user's on most hosts. What is lost leaves a gap, and what comes after it waits in a queue that is counted."""

    def widen(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 212_992)

    monkeypatch.setattr(user, "_widen", widen)
    options = default_options_lcow(boot_files_path=str(boot_files.folder), memory_size_in_mb=512, processor_count=1)
    size = 20 << 20
    with inside(hosts[0]):
        async with serving(hosts[1], WORLD, 80, bytes(size)), await create_lcow(options, network=UserNetwork()) as machine:
            await machine.start()
            one = f"(nc {WORLD} 80 </dev/null | wc -c) &"
            assert (await sh(machine, f"{one} {one} {one} wait")).out.split() == [str(size).encode()] * 3
            names, values = (await sh(machine, "grep ^TcpExt: /proc/net/netstat")).out.decode().splitlines()
            assert dict(zip(names.split(), values.split(), strict=True))["TCPOFOQueue"] == "0"


async def test_a_small_guest_takes_as_much_at_a_time_as_a_large_one(networked: UtilityVM) -> None:
    """Everywhere: also in network namespaces, as those of containers. Of its own accord the kernel would take 1/128 of the memory."""
    look = "cat /proc/sys/net/ipv4/tcp_rmem"
    assert (await sh(networked, f"{look}; unshare -n {look}")).out.decode().splitlines() == ["4096\t131072\t6291456"] * 2


async def test_how_much_a_guest_takes_at_a_time_may_be_said_on_its_kernels_line(boot_files: BootFiles) -> None:
    options = default_options_lcow(
        boot_files_path=str(boot_files.folder),
        memory_size_in_mb=256,
        processor_count=1,
        kernel_boot_options='sysctl.net.ipv4.tcp_rmem="4096 8192 16384"',
    )
    async with await create_lcow(options) as machine:
        await machine.start()
        assert (await sh(machine, "cat /proc/sys/net/ipv4/tcp_rmem")).out == b"4096\t8192\t16384\n"


async def test_a_program_that_sends_no_more_gets_all_of_a_long_answer_and_its_end(networked: UtilityVM, hosts: tuple[str, str]) -> None:
    size = 20 << 20
    async with serving(hosts[1], WORLD, 80, bytes(size)):
        assert (await sh(networked, f"nc {WORLD} 80 </dev/null | wc -c")).out == b"%d\n" % size


async def test_a_server_that_waits_for_the_end_of_a_question_hears_it(networked: UtilityVM, hosts: tuple[str, str]) -> None:
    heard = asyncio.get_running_loop().create_future()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.set_result(await reader.read())
        writer.close()

    with inside(hosts[1]):
        server = await asyncio.start_server(listen, WORLD, 81)
    async with server, asyncio.timeout(LIMIT):
        asked = await networked.create_process(["sh", "-c", f"echo question | nc {WORLD} 81"])
        assert await heard == b"question\n"
        await asked.wait()
        await asked.close()


async def test_what_comes_and_goes_is_held_to_its_rate_without_loss(boot_files: BootFiles, hosts: tuple[str, str]) -> None:
    options = default_options_lcow(boot_files_path=str(boot_files.folder), memory_size_in_mb=256, processor_count=1)
    rate, size, clock = 4 << 20, 8 << 20, asyncio.get_running_loop().time
    with inside(hosts[0]):
        async with serving(hosts[1], WORLD, 80, bytes(size)), await create_lcow(options, network=UserNetwork(rate=rate)) as machine:
            await machine.start()
            begin = clock()
            assert (await sh(machine, f"nc {WORLD} 80 </dev/null | wc -c")).out == b"%d\n" % size
            assert clock() - begin > 0.9 * size / rate
            names, values = (await sh(machine, "grep ^TcpExt: /proc/net/netstat")).out.decode().splitlines()
            assert dict(zip(names.split(), values.split(), strict=True))["TCPOFOQueue"] == "0"


async def test_the_host_its_loopback_and_its_network_are_not_reached_and_refused_at_once(
    networked: UtilityVM, hosts: tuple[str, str]
) -> None:
    async with serving(hosts[0], "", 7777, b"the host") as callers, serving(hosts[1], "", 7777, b"the network") as others:
        assert networked.uplink is not None
        for address in ("10.0.2.2", HOST, LAN, "169.254.169.254"):
            done = await sh(networked, connect(address, 7777))
            assert (done.code, done.out) == (1, b""), address
            assert b"refused" in done.err, address
        # The guest's own loopback becomes a way out, and so does an address that is not its own.
        await sh(networked, "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet; ip addr flush dev lo; ip link set lo down")
        for address in ("127.0.0.1", "127.1.2.3", "0.0.0.0"):  # noqa: S104 (an address to connect to)
            assert (await sh(networked, connect(address, 7777))).out == b""
        await sh(networked, "ip addr add 127.0.0.1/8 dev lo; ip link set lo up; ip addr add 192.168.77.9/32 dev eth0")
        assert (await sh(networked, f"ip route add {WORLD}/32 via 10.0.2.2 dev eth0 src 192.168.77.9")).code == 0
        assert (await sh(networked, f"nc -w 2 {WORLD} 7777 </dev/null")).out == b""
        await sh(networked, f"ip route del {WORLD}/32; ip addr del 192.168.77.9/32 dev eth0")
        assert (callers, others) == ([], [])
    await asyncio.sleep(0)
    await networked.uplink.allow(None)  # tells what was refused until now
    assert networked.uplink.refused["closed"] >= 4
    assert networked.uplink.refused["source"] >= 1


async def test_frames_that_a_guest_writes_itself_go_no_further(networked: UtilityVM, hosts: tuple[str, str]) -> None:
    """To the host's loopback in every disguise that a datagram can have: what arrives there is what the guest reached."""
    with inside(hosts[0]), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("", 6666))
        listening.setblocking(False)
        for address in ("127.0.0.1", "10.0.2.2", HOST, "255.255.255.255", "224.0.0.1"):
            await sh(networked, f"ip route add {address}/32 via 10.0.2.2 table main 2>/dev/null; echo x | nc -u -w 1 {address} 6666")
        with pytest.raises(BlockingIOError):
            listening.recv(100)


async def test_what_may_be_reached_is_changed_while_the_guest_runs(networked: UtilityVM, hosts: tuple[str, str]) -> None:
    assert networked.uplink is not None
    async with serving(hosts[1], "", 80, b"hello"):
        await networked.uplink.allow([f"{WORLD}:81", "192.168.0.0/16"])
        assert (await sh(networked, connect(WORLD, 80))).out == b""
        assert (await sh(networked, connect(LAN, 80))).out == b""  # the host is in a part of it
        await networked.uplink.allow(["192.168.77.0/24"])
        assert (await sh(networked, connect(LAN, 80))).out == b"hello"
        assert (await sh(networked, connect(HOST, 80))).out == b""
        with pytest.raises(InvalidOptions, match="no domain"):
            await networked.uplink.allow(["a b"])
        await networked.uplink.allow(None)
        assert (await sh(networked, connect(WORLD, 80))).out == b"hello"


async def test_a_domain_is_reached_by_its_name_alone_and_other_names_are_not_asked_for(
    networked: UtilityVM, hosts: tuple[str, str]
) -> None:
    assert networked.uplink is not None
    asked: list[bytes] = []

    def answer(sock: socket.socket) -> None:
        question, who = sock.recvfrom(4096)
        asked.append(question)
        end = question.index(b"\0", 12) + 5
        address = WORLD if b"good" in question else HOST
        record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(address) if question[end - 3] == 1 else b""
        sock.sendto(question[:2] + b"\x81\x80\0\1\0" + bytes([bool(record)]) + b"\0\0\0\0" + question[12:end] + record, who)

    with inside(hosts[0]):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("127.0.0.1", 53))
    with server:
        asyncio.get_running_loop().add_reader(server, answer, server)
        async with serving(hosts[1], WORLD, 80, b"hello"):
            await networked.uplink.allow(["*.example.org:80"])
            assert (await sh(networked, connect(WORLD, 80))).out == b""
            assert WORLD.encode() in (await sh(networked, "nslookup good.example.org")).out
            assert (await sh(networked, connect(WORLD, 80))).out == b"hello"
            assert b"REFUSED" in (await sh(networked, "nslookup secret.evil.net")).out
            assert b"REFUSED" in (await sh(networked, "nslookup bad.example.org")).out
            await networked.uplink.allow(None)
        asyncio.get_running_loop().remove_reader(server)
    assert not any(b"evil" in question for question in asked)
    assert networked.uplink.refused["rebinding"] >= 1


async def test_ways_around_a_policy_are_refused_counted_and_told(
    networked: UtilityVM, hosts: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Names by TCP and TLS, from the guest's resolver and from others; a server that sends its callers elsewhere; other families."""
    caplog.set_level(logging.INFO, logger="utilityvm")
    assert networked.uplink is not None
    elsewhere = [f"http://{LAN}:7777/", "http://169.254.169.254/latest", "http://secret.evil.net/", f"http://{WORLD}:7778/"]
    async with AsyncExitStack() as stack:

        def extend(more: list[tuple[str, int]]) -> None:
            unreached.extend(more)

        for port in (53, 853, 7778):
            refused = await stack.enter_async_context(serving(hosts[1], WORLD, port, b"a server for names"))
            stack.callback(extend, refused)
        unreached: list[tuple[str, int]] = []
        inner = await stack.enter_async_context(serving(hosts[1], LAN, 7777, b"HTTP/1.0 200 OK\r\n\r\nthe network"))
        await networked.uplink.allow([f"{WORLD}/32:80-99", "2600::/64"])
        before = dict(networked.uplink.refused)
        for target, ports in (("10.0.2.3", (53, 853)), (WORLD, (53, 853))):
            for port in ports:
                done = await sh(networked, connect(target, port))
                assert (done.code, done.out) == (1, b""), (target, port)
        assert b"REFUSED" in (await sh(networked, "nslookup -type=txt secret.evil.net")).out
        assert (await sh(networked, f"nslookup -type=a good.example.org {WORLD}")).code != 0
        for number, place in enumerate(elsewhere):
            answer = f"HTTP/1.0 302 Found\r\nLocation: {place}\r\n\r\n".encode()
            async with serving(hosts[1], WORLD, 80 + number, answer, after=b"\r\n\r\n") as callers:
                done = await sh(networked, f"wget -qO- http://{WORLD}:{80 + number}/")
                assert (done.code, done.out, len(callers)) == (1, b"", 1), place
        assert (await sh(networked, "nc -w 2 2600::9 80 </dev/null")).out == b""  # there is no such way, whatever a rule says
        await networked.uplink.allow(None)
    assert (unreached, inner) == ([], [])
    after = networked.uplink.refused
    more = {why: after[why] - before.get(why, 0) for why in ("resolver", "policy", "closed", "name")}
    assert all(count >= 2 for count in more.values()), more
    told = [record.getMessage() for record in caplog.records if "network.refused" in record.getMessage()]
    assert any(f"vm={networked.id}" in line and "so far: " in line for line in told), told


async def test_a_name_that_the_owner_has_given_an_address_is_that_also_under_a_policy(networked: UtilityVM, hosts: tuple[str, str]) -> None:
    assert networked.uplink is not None
    async with serving(hosts[1], WORLD, 80, b"hello"):
        for rules in (None, ["db.internal:80"]):
            await networked.uplink.allow(rules)
            assert (await sh(networked, connect("db.internal", 80))).out == b"hello"
    await networked.uplink.allow(None)


async def test_published_ports_are_the_guests_from_the_hosts_loopback_only(networked: UtilityVM, hosts: tuple[str, str]) -> None:
    assert networked.uplink is not None
    assert list(map(str, networked.uplink.published)) == ["127.0.0.1:8080 -> 80/tcp", "127.0.0.1:9053 -> 53/udp"]
    server = await networked.create_process(["sh", "-c", "for i in 1 2 3; do echo hi | nc -l -p 80; done"])
    with inside(hosts[0]):
        async with asyncio.timeout(LIMIT):
            for _ in range(3):
                said = b""
                while said != b"hi\n":
                    reader, writer = await asyncio.open_connection("127.0.0.1", 8080)
                    said = await reader.read(3)
                    writer.close()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(HOST, 8080)
    assert await server.wait() == 0
    await server.close()


async def test_a_port_that_is_taken_is_told_before_the_vm_runs(boot_files: BootFiles, hosts: tuple[str, str]) -> None:
    options = default_options_lcow(boot_files_path=str(boot_files.folder), memory_size_in_mb=256, processor_count=1)
    with inside(hosts[0]), socket.create_server(("127.0.0.1", 8081)):
        async with await create_lcow(options, network=UserNetwork(publish=("8081:80",))) as machine:
            with pytest.raises(Exists, match="port 8081/tcp of 127.0.0.1 cannot be published: Address already in use"):
                await machine.start()


async def test_adapters_come_to_a_running_vm_and_go(networked: UtilityVM) -> None:
    """On an endpoint of the test's own, whose other end it holds: the guest's first frame arrives there."""
    ends: list[socket.socket] = []

    async def wire() -> NicEnd:
        ours, theirs = socket.socketpair()
        ends.append(ours)
        return NicEnd(NicKind.STREAM, theirs.detach())

    networked._system.offer("test", wire)
    endpoint = HNSEndpoint(
        id="test", mac_address="02-00-00-00-00-77", ip_address="10.77.0.2", prefix_length=24, gateway_address="10.77.0.1"
    )
    await networked.network.add_namespace(Namespace(id="another"))
    for _ in range(2):
        await networked.network.add_endpoint("another", endpoint)
        assert b"02:00:00:00:00:77" in (await sh(networked, "cat /sys/class/net/*/address")).out
        await networked.network.remove_endpoint("another", endpoint)
        assert b"02:00:00:00:00:77" not in (await sh(networked, "cat /sys/class/net/*/address")).out
    for end in ends:
        end.close()
    assert len(ends) == 2
    await networked.network.remove_namespace("another")


async def test_a_sandbox_has_the_network_that_it_was_made_with_or_none(boot_files: BootFiles, hosts: tuple[str, str]) -> None:
    options = {"boot_files_path": str(boot_files.folder)}
    with inside(hosts[0]):
        async with serving(hosts[1], WORLD, 80, b"hello world"):
            async with Sandbox("busybox", options=options, network=UserNetwork(allow=(f"{WORLD}:80",))) as box:
                assert (await box.run("sh", "-c", connect(WORLD, 80))).stdout == b"hello world"
                assert (await box.run("sh", "-c", connect(LAN, 80))).stdout == b""
                assert b"nameserver 10.0.2.3" in (await box.run("cat", "/etc/resolv.conf")).stdout
            async with Sandbox("busybox", options=options) as box:
                assert (await box.run("ls", "/sys/class/net")).stdout == b"lo\n"
                assert (await box.run("sh", "-c", connect(WORLD, 80))).stdout == b""


async def test_nothing_is_left_when_the_owner_is_killed(boot_files: BootFiles, hosts: tuple[str, str]) -> None:
    program = f"""
import asyncio, utilityvm
async def main():
    options = utilityvm.default_options_lcow(boot_files_path={str(boot_files.folder)!r}, memory_size_in_mb=256, processor_count=1)
    async with await utilityvm.create_lcow(options, network=utilityvm.UserNetwork(publish=("8082:80",))) as vm:
        await vm.start()
        print("running", flush=True)
        await vm.wait()
asyncio.run(main())
"""
    with inside(hosts[0]):
        owner = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
        assert owner.stdout is not None
        assert await owner.stdout.readline() == b"running\n"
        found = children_of(owner.pid)
        pidfds = [os.pidfd_open(pid) for pid in found]
        assert len(found) == 3
        owner.send_signal(signal.SIGKILL)
        await owner.wait()
        await all_ended(pidfds)
        with socket.create_server(("127.0.0.1", 8082)):
            pass
