"""The real agent and the real host with a carrier that passes single bytes, or odd pieces: the same processes, the same words.

The agent is the one of `make agent`, serving a socket of this machine instead of a virtual machine's port.
"""

import asyncio
import random
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from utilityvm.guest.bridge import Bridge
from utilityvm.guest.client import GuestClient
from utilityvm.guest.process import Stdio, start_process
from utilityvm.guest.spec import ProcessSpec
from utilityvm.guest.transport import Transport
from utilityvm.kit.aio import Scope
from utilityvm.kit.ids import NULL_GUID
from utilityvm.schema.properties import PropertyType
from utilityvm.wire import gcs

if TYPE_CHECKING:
    from utilityvm.kit.errors import UtilityVMError

AGENT = Path(__file__).parents[2] / "build" / "agent"
BOUND = 60.0

Pieces = Callable[[int], int]
"""The length of the next piece of what is left, in bytes."""


async def relay(source: socket.socket, target: socket.socket, piece: Pieces) -> None:
    """Pass on what comes, one piece at a time: the next when the other side has taken the one before."""
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(source, 65_536):
        at = 0
        while at < len(data):
            step = min(piece(len(data) - at), len(data) - at)
            await loop.sock_sendall(target, data[at : at + step])
            await asyncio.sleep(0)
            at += step
    target.shutdown(socket.SHUT_WR)


@asynccontextmanager
async def agent(piece: Pieces) -> AsyncIterator[tuple[GuestClient, Stdio, asyncio.subprocess.Process]]:
    """Start an agent whose every byte, either way, passes a relay; gives a client that has negotiated."""
    assert AGENT.exists(), "tests of the agent need it: make agent"
    ours, near = socket.socketpair()
    far, theirs = socket.socketpair()
    for sock in (near, far):
        sock.setblocking(False)
    words = ["-serve-fd", str(theirs.fileno()), "-e", "1", "/bin/vsockexec", "-e", "109", "/bin/gcs", "-v4"]
    child = await asyncio.create_subprocess_exec(AGENT, *words, pass_fds=[theirs.fileno()], stderr=asyncio.subprocess.PIPE)
    theirs.close()
    failures: list[Exception] = []
    scope = Scope("relay", failures.append)
    scope.start("to the agent", relay(near, far, piece))
    scope.start("to the host", relay(far, near, piece))
    transport = Transport("vm t", random.Random(1).randbytes(16))  # noqa: S311 (a nonce of a test)
    listeners = {port: transport.listen(port, once=True) for port in (gcs.ENTROPY_PORT, gcs.LOG_PORT, gcs.BRIDGE_PORT)}
    await transport.open(ours)
    lost: list[UtilityVMError] = []
    try:
        async with asyncio.timeout(BOUND):
            entropy = await listeners[gcs.ENTROPY_PORT].accept()
            await entropy.write(bytes(gcs.ENTROPY_BYTES))
            await entropy.write_eof()
            entropy.close()
            await listeners[gcs.LOG_PORT].accept()
            client = GuestClient(Bridge(await listeners[gcs.BRIDGE_PORT].accept(), "vm t", lost.append))
            await client.connect()
            yield client, Stdio(transport), child
            assert (failures, lost) == ([], [])
            await client.bridge.aclose()
    finally:
        transport.close()
        await asyncio.sleep(0)
        if child.returncode is None:
            child.kill()
        await child.communicate()
        await scope.aclose()
        near.close()
        far.close()


def odd(seed: int) -> Pieces:
    chance = random.Random(seed)  # noqa: S311 (cuts, not secrets)
    return lambda left: chance.choice((1, 2, 43, 44, 45, 59, 60, 61, 1000, left))


@pytest.mark.parametrize(
    "piece", [pytest.param(lambda _: 1, id="bytes"), *(pytest.param(odd(seed), id=f"odd-{seed}") for seed in range(3))]
)
async def test_processes_over_a_carrier_in_pieces(piece: Pieces) -> None:
    data = random.Random(7).randbytes(20_000)  # noqa: S311 (content)
    async with agent(piece) as (client, stdio, _):
        spec = ProcessSpec(argv=(sys.executable, "-c", "import sys; sys.stdout.write('out'); sys.stderr.write('err'); sys.exit(7)"))
        process = await start_process(client, stdio, spec, "vm t")
        assert (await process.stdout.read(), await process.stderr.read(), await process.wait()) == (b"out", b"err", 7)
        await process.close()
        process = await start_process(client, stdio, ProcessSpec(argv=("cat",), stdin=True), "vm t")
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(process.stdout.read())
            await process.stdin.write(data)
            await process.stdin.write_eof()
        assert (reading.result(), await process.wait()) == (data, 0)
        await process.close()


async def test_the_agent_tells_of_itself_over_a_carrier_in_pieces() -> None:
    async with agent(odd(5)) as (client, stdio, _):
        process = await start_process(client, stdio, ProcessSpec(argv=("sleep", "60")), "vm t")
        told = await client.properties(NULL_GUID, list(PropertyType))
        assert told.memory is not None
        assert told.memory.virtual_machine_memory is not None
        assert 0 < told.memory.virtual_machine_memory.available_memory < told.memory.virtual_machine_memory.assigned_memory
        assert [listed.process_id for listed in told.process_list] == [process.pid]
        assert client.capabilities.guest_defined.dump_stacks_supported
        assert "loop.(*Loop).Run" in await client.dump_stacks()
        await process.kill()
        await process.wait()
        await process.close()


async def test_an_agent_whose_host_speaks_nonsense_ends_with_a_word() -> None:
    """It powers its machine off; here it ends."""
    ours, theirs = socket.socketpair()
    with ours:
        words = ["-serve-fd", str(theirs.fileno()), "-e", "1", "/bin/vsockexec", "-e", "109", "/bin/gcs"]
        child = await asyncio.create_subprocess_exec(AGENT, *words, pass_fds=[theirs.fileno()], stderr=asyncio.subprocess.PIPE)
        theirs.close()
        ours.sendall(b"\xff" * 200)
        async with asyncio.timeout(BOUND):
            _, said = await child.communicate()
    assert child.returncode == 1
    assert said.startswith(b"utilityvm: ")
    assert b"goroutine" not in said
