"""Pipes by their names, and streams over them: what a service of the host such as ncproxy is spoken to by."""

import asyncio
from collections import deque

import pytest

from tests.hcs.harness import StandIn
from utilityvm.compute.hcs.console import KEPT, PipeConsole
from utilityvm.compute.hcs.pipes import NamedPipes
from utilityvm.compute.hcs.streams import HELD, Stream
from utilityvm.kit.errors import ConnectionLost, HostError, Unsupported
from utilityvm.schema.devices import ComPort, Devices
from utilityvm.schema.document import ComputeSystem, VirtualMachine

NAME = r"\\.\pipe\computeagent-pod"
DOCUMENT = ComputeSystem(virtual_machine=VirtualMachine(devices=Devices(com_ports={"0": ComPort(named_pipe=NAME)})))


async def both(hcs: StandIn) -> tuple[Stream, Stream]:
    """The two ends of a connection to a pipe that is served and dialled by its name."""
    arrived: asyncio.Queue[Stream] = asyncio.Queue()

    def accept() -> Stream:
        stream = Stream("server")
        arrived.put_nowait(stream)
        return stream

    served = await hcs.pipes.serve(NAME, accept)
    client = Stream("client")
    await hcs.pipes.dial(NAME, client)
    server = await arrived.get()
    served.close()
    return client, server


async def test_a_pipe_is_served_and_dialled_by_its_name_and_connections_outlive_its_serving(hcs: StandIn) -> None:
    client, server = await both(hcs)
    await client.write(b"RegisterComputeAgent")
    assert await server.read(8) == b"Register"
    await server.write(b"done")
    await server.write_eof()
    assert await client.read() == b"done"
    await client.write_eof()
    assert await server.read() == b"ComputeAgent"
    for end in (client, server):
        end.close()
        assert await end.read(1) == b""


async def test_a_pipe_that_nobody_serves_is_an_error_of_the_host(hcs: StandIn) -> None:
    with pytest.raises(OSError, match="No such file"):
        await hcs.pipes.dial(NAME, Stream("client"))


async def test_a_writer_waits_for_a_reader_and_what_waits_is_bounded(hcs: StandIn) -> None:
    client, server = await both(hcs)
    data = bytes(range(256)) * (4 * HELD // 256)

    async def write() -> None:
        for at in range(0, len(data), 1 << 16):
            await client.write(data[at : at + (1 << 16)])
        await client.write_eof()

    async with asyncio.TaskGroup() as group:
        writing = group.create_task(write())
        while len(server._held) < HELD:
            await asyncio.sleep(0)
        assert not writing.done()
        assert len(server._held) < 2 * HELD, "more was taken than a reader that comes"
        assert await server.read() == data
    client.close()
    server.close()


async def test_a_stream_that_is_failed_gives_what_has_come_and_then_the_reason(hcs: StandIn) -> None:
    client, server = await both(hcs)
    await client.write(b"last")
    while not server._held:
        await asyncio.sleep(0)
    server.fail(ConnectionLost("gone"))
    assert await server.read(99) == b"last"
    for call in (server.read(1), server.write(b"x")):
        with pytest.raises(ConnectionLost, match="^gone$"):
            await call
    assert await client.read() == b"", "its other end was not ended"
    client.close()


async def test_a_transport_that_breaks_is_a_loss_with_its_cause() -> None:
    stream = Stream("pipe")
    stream.connection_lost(ConnectionResetError("by peer"))
    stream.connection_lost(ConnectionResetError("again"))
    with pytest.raises(ConnectionLost, match="^pipe: reset: by peer$"):
        await stream.read(1)
    ended = Stream("pipe")
    ended.connection_lost(None)
    assert await ended.read() == b""
    with pytest.raises(BrokenPipeError, match="pipe: it takes no more"):
        await ended.write(b"x")
    await ended.write_eof()
    ended.read_only()


async def test_a_reader_only_stream_closes_with_its_end(hcs: StandIn) -> None:
    client, server = await both(hcs)
    server.read_only()
    await client.write(b"x")
    await client.write_eof()
    assert await server.read() == b"x"
    server.read_only()
    assert await client.read() == b""
    client.close()


async def test_a_console_whose_pipe_is_taken_is_refused_and_nothing_is_served() -> None:
    class Taken:
        def __init__(self) -> None:
            self.served = self.closed = 0

        async def serve(self, name: str, factory: object) -> "Taken":  # noqa: ARG002
            if self.served:
                raise PermissionError(13, "Access is denied")
            self.served += 1
            return self

        async def dial(self, name: str, protocol: asyncio.Protocol) -> asyncio.BaseTransport:
            raise NotImplementedError

        def close(self) -> None:
            self.closed += 1

    pipes = Taken()
    with pytest.raises(HostError, match=r"computeagent-pod: cannot be the console's pipe: Access is denied"):
        await PipeConsole(pipes, NAME).open(DOCUMENT)
    assert (pipes.served, pipes.closed) == (1, 1)


async def test_a_client_of_the_console_that_reads_nothing_loses_the_oldest_and_holds_nobody_up(hcs: StandIn) -> None:
    console = PipeConsole(hcs.pipes, NAME)
    document = await console.open(DOCUMENT)
    assert document.virtual_machine is not None
    assert document.virtual_machine.devices is not None
    ours = document.virtual_machine.devices.com_ports["0"].named_pipe
    client, vm = Stream("client"), Stream("vm")
    await hcs.pipes.dial(NAME, client)
    client._pause(on=True)
    await hcs.pipes.dial(ours, vm)
    lines = deque(b"%07d\n" % number for number in range(KEPT // 2))
    while lines:
        await vm.write(b"".join(lines.popleft() for _ in range(min(len(lines), 4096))))
    while not console.tail(1).endswith(f"{KEPT // 2 - 1:07d}"):
        await asyncio.sleep(0)
    client._pause(on=False)
    read = b""
    while not read.endswith(b"%07d\n" % (KEPT // 2 - 1)):
        read += await client.read(1 << 16)
    assert len(read) < 4 * KEPT, "everything was kept for a client who did not read"
    numbers = [int(line) for line in read.split(b"\n")[:-1] if len(line) == 7]
    assert numbers == sorted(numbers)
    console.close()
    console.close()
    assert await vm.read() == b""
    client.close()
    vm.close()


async def test_named_pipes_of_windows_are_refused_elsewhere_by_name() -> None:
    for call in (NamedPipes().serve(NAME, asyncio.Protocol), NamedPipes().dial(NAME, asyncio.Protocol())):
        with pytest.raises(Unsupported, match=r"computeagent-pod: a named pipe needs Windows and its default event loop, not .*EventLoop"):
            await call
    for opening in (NamedPipes().read(3, asyncio.Protocol()), NamedPipes().write(3, asyncio.Protocol())):
        with pytest.raises(Unsupported, match="pipe handle 3"):
            await opening
