"""A guest's network on a host that has IPv6: the same rules, in both families."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest
import pytest_asyncio

from utilityvm import UserNetwork, UtilityVM, create_lcow, default_options_lcow
from utilityvm.boot.files import BootFiles

from .networks import HOST6, LAN6, WORLD, WORLD6, inside, needs_passt, serving, two_hosts
from .running import LIMIT, sh

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.root("make a host for the test"),
    needs_passt,
]


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[str, str]]:
    with two_hosts(six=True) as names:
        yield names


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def networked(boot_files: BootFiles, hosts: tuple[str, str]) -> AsyncIterator[UtilityVM]:
    options = default_options_lcow(boot_files_path=str(boot_files.folder), memory_size_in_mb=256, processor_count=1)
    with inside(hosts[0]):
        async with await create_lcow(options, network=UserNetwork(publish=("[::1]:8080:80",))) as machine:
            await machine.start()
            yield machine


def connect(address: str, port: int) -> str:
    return f"nc -w 5 {address} {port} </dev/null"


async def test_the_guest_has_addresses_of_both_families_and_reaches_the_world_by_both(networked: UtilityVM, hosts: tuple[str, str]) -> None:
    told = (await sh(networked, "ip addr show eth0; ip -6 route")).out.decode()
    for part in ("inet 10.0.2.15/24", "inet6 fd75:766d::15/64", "default via fd75:766d::2"):
        assert part in told
    async with serving(hosts[1], WORLD6, 80, b"six") as callers, serving(hosts[1], WORLD, 80, b"four"):
        assert (await sh(networked, connect(WORLD6, 80))).out == b"six"
        assert (await sh(networked, connect(WORLD, 80))).out == b"four"
        assert callers[0][0] == HOST6


async def test_the_host_and_its_network_are_closed_by_ipv6_too(networked: UtilityVM, hosts: tuple[str, str]) -> None:
    async with serving(hosts[0], "::", 7777, b"the host") as callers, serving(hosts[1], "::", 7777, b"the network") as others:
        for address in ("fd75:766d::2", HOST6, LAN6, "::ffff:9.9.9.9", "64:ff9b::909:909"):
            done = await sh(networked, connect(address, 7777))
            assert (done.code, done.out) == (1, b""), address
        assert (callers, others) == ([], [])


async def test_with_rules_it_reaches_what_they_name(networked: UtilityVM, hosts: tuple[str, str]) -> None:
    assert networked.uplink is not None
    async with serving(hosts[1], WORLD6, 80, b"six"):
        await networked.uplink.allow([f"[{WORLD6}]:81"])
        assert (await sh(networked, connect(WORLD6, 80))).out == b""
        await networked.uplink.allow([f"[{WORLD6}]:80"])
        assert (await sh(networked, connect(WORLD6, 80))).out == b"six"
        await networked.uplink.allow(None)


async def test_a_port_is_published_on_the_loopback_of_ipv6(networked: UtilityVM, hosts: tuple[str, str]) -> None:
    server = await networked.create_process(["httpd", "-f", "-p", "[::]:80", "-h", "/etc"])
    with inside(hosts[0]):
        said = b""
        async with asyncio.timeout(LIMIT):
            while not said:  # nobody tells that it listens
                reader, writer = await asyncio.open_connection("::1", 8080)
                writer.write(b"GET /none HTTP/1.0\r\n\r\n")
                with suppress(ConnectionError):
                    said = await reader.read()
                writer.close()
    assert said.startswith(b"HTTP/1.")
    await server.close()
