"""The network by passt, without a VM: it starts or says why not, and leaves nothing behind."""

import asyncio
import logging
import os
import shutil
import socket
import sys
from pathlib import Path

import pytest

from utilityvm import Exists, HostError, InvalidOptions, StateError, Unsupported, UserNetwork
from utilityvm.kit.ids import VmId
from utilityvm.network import resolvers, user
from utilityvm.network.resolvers import has_six, host_servers
from utilityvm.network.user import UserUplink, mac_of

ID = VmId("x")
needs_passt = pytest.mark.skipif(shutil.which("passt") is None, reason="passt is not installed")


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        (UserNetwork(allow=("a b",)), "allow"),
        (UserNetwork(publish=("x",)), "publish"),
        (UserNetwork(hosts=("x",)), "hosts"),
        (UserNetwork(rate=1000), "rate: 1000 bytes a second: at least 65536"),
        (UserNetwork(rate=0), "rate: 0"),
        (UserNetwork(dns=("localhost",)), "'localhost': a server for names is an address"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(wish: UserNetwork, why: str) -> None:
    with pytest.raises(InvalidOptions, match=why):
        UserUplink(ID, wish)


def test_a_hardware_address_is_the_vms_own_and_given_locally() -> None:
    assert mac_of(ID) == mac_of(ID) != mac_of(VmId("y"))
    assert int(mac_of(ID)[:2], 16) & 3 == 2
    assert UserUplink(ID, UserNetwork()).endpoint.mac_address == mac_of(ID)


def test_the_servers_are_those_of_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolvers, "_RESOLV", tmp_path / "resolv.conf")
    assert host_servers() == []
    lines = ["# nameserver 9.9.9.9", "nameserver 127.0.0.53", "nameserver fe80::1%eth0", "nameserver x", "nameserver", "search a"]
    (tmp_path / "resolv.conf").write_text("\n".join([*lines, "nameserver 1.1.1.1", "nameserver 8.8.8.8"]))
    assert host_servers() == ["127.0.0.53", "fe80::1%eth0", "1.1.1.1"]


def test_a_host_has_ipv6_when_it_has_a_way_to_everything_that_is_not_its_loopback(tmp_path: Path) -> None:
    routes = tmp_path / "ipv6_route"
    nowhere, gateway, network = "0" * 32, "fe80" + "0" * 27 + "1", "fd00" + "0" * 28
    lo = f"{nowhere} 00 {nowhere} 00 {nowhere} ffffffff 00000001 00000000 00200200       lo"
    net = f"{network} 40 {nowhere} 00 {nowhere} 00000100 00000001 00000000 00000001     eth0"
    out = f"{nowhere} 00 {nowhere} 00 {gateway} 00000400 00000001 00000000 00000003     eth0"
    for lines, found in (([lo, net], False), ([lo, net, out], True), ([], False), (["short"], False)):
        routes.write_text("\n".join(lines))
        assert has_six(routes) == found
    assert not has_six(tmp_path / "none")


async def test_a_port_at_an_address_of_ipv6_is_refused_where_that_is_not_carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user, "_ROUTES_SIX", tmp_path / "none")
    uplink = UserUplink(ID, UserNetwork(publish=("[::1]:8080:80",)))
    with pytest.raises(Unsupported, match="has no way to everything by IPv6"):
        await uplink.open()
    assert uplink.endpoint.ipv6_address == ""


async def test_without_passt_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Unsupported, match="there is no passt") as caught:
        await UserUplink(ID, UserNetwork()).open()
    assert caught.value.hint == "install the package passt"


@needs_passt
async def test_it_opens_and_closes_and_gives_its_end_once() -> None:
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 (names are what is compared)
    uplink = UserUplink(ID, UserNetwork())
    with pytest.raises(StateError):
        await uplink.wire()
    with pytest.raises(StateError):
        await uplink.allow(())
    try:
        await uplink.open()
    except HostError as error:  # a host without a way to anywhere
        pytest.skip(error.message)
    end = await uplink.wire()
    assert end.mtu == user.MTU
    with pytest.raises(StateError):
        await uplink.wire()
    await uplink.allow(("1.1.1.1",))
    children = [child.pid for child in uplink._children]
    os.close(end.fd)  # as QEMU does when it ends
    async with asyncio.timeout(10):
        for child in uplink._children:
            assert await child.wait() == 0
    with pytest.raises((StateError, OSError)):
        await uplink.allow(None)
    await uplink.aclose()
    await uplink.aclose()
    for pid in children:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


@needs_passt
async def test_what_is_published_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="utilityvm")
    uplink = UserUplink(ID, UserNetwork(publish=(f"{free_port()}:80",)))
    try:
        await uplink.open()
    except HostError as error:
        pytest.skip(error.message)
    await uplink.aclose()
    (told,) = [record.getMessage() for record in caplog.records if "network.published" in record.getMessage()]
    assert f"vm={ID}" in told
    assert f"127.0.0.1:{uplink.published[0].port} -> 80/tcp" in told


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


OWNER = """
import asyncio, sys
from utilityvm import UserNetwork
from utilityvm.kit.ids import VmId
from utilityvm.network.user import UserUplink

async def main():
    print("begins", flush=True)
    uplink = UserUplink(VmId("killed"), UserNetwork(publish=("{}:80",)))
    await uplink.open()
    print("open", flush=True)
    await uplink.aclose()
    print("closed", flush=True)

asyncio.run(main())
"""
HEIR = """
import ctypes, os, select, signal, subprocess, sys, time

ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: what a killed owner leaves becomes our child

def owner():
    child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"begins\\n"
    return child

def nobody_left():
    signal.alarm(20)  # ends us if somebody stays
    try:
        while True:
            os.wait()
    except ChildProcessError:
        signal.alarm(0)

first = owner()
begin = time.monotonic()
assert first.stdout.read() == b"open\\nclosed\\n"
whole = time.monotonic() - begin
first.wait()
left = 0
for number in range(8):
    child = owner()
    select.select([], [], [], whole * number / 7)
    child.kill()
    child.wait()
    left += bool(open("/proc/self/task/%d/children" % os.getpid()).read())
    nobody_left()
print(left)
"""


@needs_passt
async def test_whatever_the_moment_its_owner_is_killed_nothing_of_it_is_left() -> None:
    argv = [sys.executable, "-c", HEIR, OWNER.format(free_port())]
    heir = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    out, err = await heir.communicate()
    if b"cannot be started" in err:
        pytest.skip("a host without a way to anywhere")
    assert heir.returncode == 0, err.decode()
    assert int(out) > 0, "no owner was killed while there was something to be left"


async def test_a_port_that_is_taken_is_told_before_anything_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        uplink = UserUplink(ID, UserNetwork(publish=(f"{taken.getsockname()[1]}:80",)))
        with pytest.raises(Exists, match="Address already in use"):
            await uplink.open()
        assert uplink._children == []


async def test_when_passt_fails_the_error_has_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    false = tmp_path / "passt"
    false.write_text("#!/bin/sh\necho 'no way out' >&2\nexit 1\n")
    false.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(HostError, match=r"cannot be started: .*no way out"):
        await UserUplink(ID, UserNetwork()).open()
