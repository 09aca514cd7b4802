"""Connections through a published port: many of them, side by side, and each has its whole answer. The host is the test's own."""

import asyncio
from collections import Counter

import pytest
from tests.vm.networks import inside, two_hosts
from tests.vm.running import sh

from utilityvm import UserNetwork, create_lcow, default_options_lcow

from .conftest import Record

CONNECTIONS = 10_000
BESIDE = 32
"""Connections at a time."""

PATIENCE = 60.0
"""Seconds until one that has no answer is lost."""

SAID = b"said by the guest\n" * 100


async def answered() -> str:
    """Ask once, and return what became of it."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", 8080)
            writer.write(b"GET /said HTTP/1.0\r\n\r\n")
            answer = await reader.read()
            writer.close()
    except (OSError, TimeoutError) as error:
        return type(error).__name__
    return "answered" if answer.endswith(b"\r\n\r\n" + SAID) else f"{len(answer)} bytes"


@pytest.mark.parametrize("memory", [256])
async def test_ten_thousand_connections_through_a_published_port_are_answered(memory: int, record: Record) -> None:
    clock = asyncio.get_running_loop().time
    outcomes = Counter[str]()
    with two_hosts() as hosts, inside(hosts[0]):
        options = default_options_lcow(memory_size_in_mb=memory, processor_count=1)
        async with await create_lcow(options, network=UserNetwork(publish=("8080:80",))) as machine:
            await machine.start()
            await sh(machine, "mkdir /served; i=0; while [ $i -lt 100 ]; do echo said by the guest; i=$((i + 1)); done >/served/said")
            server = await machine.create_process(["httpd", "-f", "-p", "80", "-h", "/served"])
            while await answered() != "answered":  # nobody tells that it listens
                pass
            begin = clock()
            asked = iter(range(CONNECTIONS))

            async def ask() -> None:
                for _ in asked:
                    outcomes[await answered()] += 1

            async with asyncio.TaskGroup() as group:
                for _ in range(BESIDE):
                    group.create_task(ask())
            seconds = clock() - begin
            await server.close()
    record("network", {"connections": CONNECTIONS, "beside": BESIDE, "outcomes": outcomes, "seconds": round(seconds, 1)})
    assert outcomes == {"answered": CONNECTIONS}
