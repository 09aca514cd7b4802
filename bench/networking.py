"""Our side of networks: the same commands as `raw/network.py`, answered through the library.

usage: networking.py tap|user|nic STREAM MEMORY_MIB CPUS    (STREAM is the program of `raw/stream.c`; in the bench's namespace)
"""

from __future__ import annotations

import asyncio
import socket
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nets import WORLD
from raw.serving import serve_beside

import utilityvm
from utilityvm import HNSEndpoint, Namespace, NamespaceNetwork, UserNetwork
from utilityvm.compute.nic import NicEnd, NicKind
from utilityvm.kit.ids import NULL_GUID
from utilityvm.kit.trace import span

if TYPE_CHECKING:
    from utilityvm import UtilityVM

PORTS = {"in": "80", "out": "81"}
ENDPOINT = HNSEndpoint(id="bench", mac_address="02-00-00-00-00-77", ip_address="10.77.0.2", prefix_length=24, gateway_address="10.77.0.1")


async def move(vm: UtilityVM, way: str, size: int) -> float:
    with span("bench.move") as measured:
        process = await vm.create_process(["/run/stream", way, WORLD, PORTS[way], str(size)], stdin=False, stdout=True, stderr=False)
        assert await process.stdout.read() == b""
        assert await process.wait() == 0
        await process.close()
    return measured.us / 1e6


async def plug(vm: UtilityVM) -> float:
    with span("bench.nic") as measured:
        await vm.network.add_endpoint(NULL_GUID, ENDPOINT)
    await vm.network.remove_endpoint(NULL_GUID, ENDPOINT)
    return measured.us / 1e6


async def frames() -> NicEnd:
    """A stream of frames that nobody reads."""
    ours, theirs = socket.socketpair()
    held.append(ours)
    return NicEnd(NicKind.STREAM, theirs.detach())


held: list[socket.socket] = []


async def answer(vm: UtilityVM, command: str, number: int) -> list[float]:
    return [await plug(vm) for _ in range(number)] if command == "nic" else [await move(vm, command, number)]


async def main(program: bytes) -> None:
    kind, _, memory, cpus = sys.argv[1:]
    networks = {"tap": NamespaceNetwork(namespace="/proc/self/ns/net"), "user": UserNetwork(), "nic": None}
    options = utilityvm.default_options_lcow(memory_size_in_mb=int(memory), processor_count=int(cpus))
    async with await utilityvm.create_lcow(options, network=networks[kind]) as vm:
        await vm.start()
        if kind == "nic":
            vm._system.offer("bench", frames)
            await vm.network.add_namespace(Namespace(id=NULL_GUID))
        done = await vm.run(["sh", "-c", "cat > /run/stream && chmod 755 /run/stream"], input=program)
        assert done.exit_code == 0, done.stderr
        await serve_beside(partial(answer, vm))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[2]).read_bytes()))
