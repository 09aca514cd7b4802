"""Networks that a test makes: a host of its own for the VM's owner, and another machine that stands for the rest of the world."""

import asyncio
import ctypes
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from utilityvm.kit.errors import UtilityVMError
from utilityvm.kit.proc import run_tool

needs_passt = pytest.mark.skipif(shutil.which("passt") is None or shutil.which("ip") is None, reason="passt or ip is not installed")

WORLD = "9.9.9.9"
"""A public address, where the other machine answers."""

LAN = "192.168.77.2"
"""Its address in the host's own network, which is private."""

HOST = "192.168.77.1"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _ip(*words: str) -> None:
    run_tool(["ip", *words], within=20)


WORLD6, LAN6, HOST6 = "2600::9", "fd77::2", "fd77::1"
"""The same by IPv6, for hosts that have it."""


@contextmanager
def two_hosts(*, six: bool = False) -> Iterator[tuple[str, str]]:
    """Make the two, and return their names. The host reaches the world through the other."""
    here, there = f"uvm-test-{os.getpid()}-a", f"uvm-test-{os.getpid()}-b"
    try:
        for name in (here, there):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("link", "add", "near", "netns", here, "type", "veth", "peer", "name", "far", "netns", there)
        for name, link, address in ((here, "near", f"{HOST}/24"), (there, "far", f"{LAN}/24"), (there, "lo", f"{WORLD}/32")):
            _ip("-n", name, "addr", "add", address, "dev", link)
        for name, link in ((here, "near"), (there, "far")):
            _ip("-n", name, "link", "set", link, "up")
        _ip("-n", here, "route", "add", "default", "via", LAN)
        if six:
            for name, link, address in ((here, "near", f"{HOST6}/64"), (there, "far", f"{LAN6}/64"), (there, "lo", f"{WORLD6}/128")):
                _ip("-n", name, "addr", "add", address, "dev", link, "nodad")
            _ip("-n", here, "route", "add", "default", "via", LAN6)
        yield here, there
    finally:
        for name in (here, there):
            with suppress(UtilityVMError):
                _ip("netns", "del", name)


POD, POD6, NEXT, NEXT6 = "10.88.0.2", "fd88::2", "10.88.0.1", "fd88::1"
"""The addresses of a pod and of the machine beside it."""

POD_MTU = 1400


@contextmanager
def pod(number: int = 88) -> Iterator[tuple[str, str]]:
    """Make a namespace as a CNI plugin does, with an interface eth0, and beside it the machine that it leads to; return their names.

    `number` takes the place of 88 in their addresses.
    """
    here, there = f"uvm-test-{os.getpid()}-pod{number}", f"uvm-test-{os.getpid()}-next{number}"
    try:
        for name in (here, there):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("link", "add", "eth0", "mtu", str(POD_MTU), "netns", here, "type", "veth", "peer", "name", "far", "netns", there)
        for name, link, addresses in ((here, "eth0", (f"{POD}/24", f"{POD6}/64")), (there, "far", (f"{NEXT}/24", f"{NEXT6}/64"))):
            for address in (address.replace("88", str(number)) for address in addresses):
                _ip("-n", name, "addr", "add", address, "dev", link, *(["nodad"] if ":" in address else []))
            _ip("-n", name, "link", "set", link, "mtu", str(POD_MTU), "up")
        _ip("-n", there, "addr", "add", f"{WORLD}/32", "dev", "lo")
        for gateway in (NEXT, NEXT6):
            _ip("-n", here, "route", "add", "default", "via", gateway.replace("88", str(number)))
        yield here, there
    finally:
        for name in (here, there):
            with suppress(UtilityVMError):
                _ip("netns", "del", name)


def traces(name: str) -> list[str]:
    """The taps, and what takes the traffic of interfaces, in a namespace."""
    links = [line.split(":")[1].strip() for line in run_tool(["ip", "-n", name, "-o", "link", "show"], within=20).splitlines()]
    qdiscs = run_tool(["tc", "-n", name, "qdisc", "show"], within=20).splitlines()
    return [link for link in links if link.startswith(("uvm", "uvr"))] + [line for line in qdiscs if "ingress" in line or "tbf" in line]


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Be on this host: what this thread opens and starts meanwhile is there."""
    before, to = os.open("/proc/thread-self/ns/net", os.O_RDONLY), os.open(Path("/run/netns") / name, os.O_RDONLY)
    try:
        _enter(to)
        yield
    finally:
        _enter(before)
        os.close(before)
        os.close(to)


def _enter(fd: int) -> None:
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


@asynccontextmanager
async def serving(name: str, address: str, port: int, said: bytes, after: bytes = b"") -> AsyncIterator[list[tuple[str, int]]]:
    """Answer all who connect to this port of that host with `said`, when they have said `after`; return who did."""
    callers: list[tuple[str, int]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.append(writer.get_extra_info("peername"))
        if after:  # a question that is not read makes a reset of the end, which may come before the answer
            await reader.readuntil(after)
        writer.write(said)
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()

    with inside(name):
        server = await asyncio.start_server(answer, address, port)
    async with server:
        yield callers
