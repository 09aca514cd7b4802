"""Containers in the guest as the host holds them, against the fake guest and a guest played by the test."""

import asyncio
import json

import pytest
from tests.unit.clock import turns

from utilityvm.guest.container import GuestContainer
from utilityvm.guest.process import Stdio
from utilityvm.kit.errors import ConnectionLost, Exists, GuestError, StateError, Unsupported
from utilityvm.schema.properties import PropertyType
from utilityvm.testing.guest import FakeGuest, Program
from utilityvm.wire import gcs
from utilityvm.wire.oci import OciProcess, User

from .conftest import Connect, Rig
from .peer import Peer
from .test_bridge import cat, forever, hello

FIRST_PROCESS = gcs.ProcessParameters(create_std_out_pipe=True)


def config(*argv: str) -> dict[str, object]:
    process = {"args": list(argv), "user": {"uid": 0, "gid": 0}, "cwd": "/"}
    return {"SchemaVersion": {"Major": 2, "Minor": 1}, "OciBundlePath": "/run/gcs/c/c", "OciSpecification": {"process": process}}


def oci(*argv: str, terminal: bool = False) -> OciProcess:
    return OciProcess(args=list(argv), user=User(uid=0, gid=0), cwd="/", env=["A=b"], terminal=terminal)


async def created(rig: Rig, *argv: str) -> GuestContainer:
    return await GuestContainer.create(await rig.client(), rig.stdio, "c", config(*argv), "vm t")


async def quick(guest: FakeGuest, program: Program) -> int:
    assert program.stdout is not None
    await guest.write(program.stdout, b"quick")
    return 3


@pytest.mark.parametrize("notifies_first", [False, True])
async def test_a_container_runs_from_its_creation_to_the_end_of_its_state(connect: Connect, *, notifies_first: bool) -> None:
    async with connect({"quick": quick}) as rig:
        rig.guest.notifies_first = notifies_first
        container = await created(rig, "quick")
        assert (container.id, container.os, container.is_oci) == ("c", "linux", True)
        await container.start()
        process = await container.launch(FIRST_PROCESS)
        assert (await process.stdout.read(), await process.wait()) == (b"quick", 3)
        ended = await container.wait()
        assert (ended.container_id, ended.type) == ("c", gcs.NotificationType.UNEXPECTED_EXIT)
        assert await container.wait() == ended
        await container.delete_state()
        assert rig.guest.containers == {}
        assert rig.lost == []
        await process.close()


async def test_another_process_runs_in_a_container_with_its_own_streams(connect: Connect) -> None:
    async with connect({"forever": forever, "hello": hello, "cat": cat}) as rig:
        container = await created(rig, "forever")
        first = await container.launch(gcs.ProcessParameters())
        process = await container.execute(oci("hello", "you"))
        assert (await process.stdout.read(), await process.stderr.read(), await process.wait()) == (b"hello you", b"oh", 7)
        echo = await container.execute(oci("cat"), stdin=True, stderr=False)
        await echo.stdin.write(b"x")
        await echo.stdin.write_eof()
        assert (await echo.stdout.read(), await echo.wait()) == (b"x", 0)
        assert not first.ended
        assert await first.kill()
        assert await first.wait() == 137
        assert (await container.wait()).type is gcs.NotificationType.UNEXPECTED_EXIT


@pytest.mark.parametrize(("end", "kind"), [("shutdown", "GracefulExit"), ("terminate", "ForcedExit")])
async def test_a_container_is_asked_or_made_to_end(connect: Connect, end: str, kind: str) -> None:
    async with connect({"forever": forever}) as rig:
        container = await created(rig, "forever")
        process = await container.launch(gcs.ProcessParameters())
        with pytest.raises(GuestError, match="container c runs"):
            await container.delete_state()
        await getattr(container, end)()
        assert (await process.wait(), (await container.wait()).type) == (137, kind)
        await container.delete_state()
        await getattr(container, end)()  # one that is gone is no error


async def test_a_container_that_is_there_is_not_created_again(connect: Connect) -> None:
    async with connect({"forever": forever}) as rig:
        client = await rig.client()
        await GuestContainer.create(client, rig.stdio, "c", config("forever"), "vm t")
        with pytest.raises(Exists, match="^container c already exists$"):
            await GuestContainer.create(client, rig.stdio, "c", config("forever"), "vm t")
        with pytest.raises(Exists, match="^container c already exists$"):
            GuestContainer.adopt(client, rig.stdio, "c", "vm t")


async def test_a_container_that_the_guest_has_already_is_taken_over_without_a_word() -> None:
    peer = Peer()
    container = GuestContainer.adopt(peer.client, Stdio(no_sockets), "cl", "vm t")  # type: ignore[arg-type]
    await turns()
    assert peer.asked == []
    peer.notify("cl", "ForcedExit")
    assert (await container.wait()).type is gcs.NotificationType.FORCED_EXIT
    await peer.bridge.aclose()


no_sockets = object()


async def test_a_closed_handle_is_waited_for_by_nobody() -> None:
    peer = Peer()
    container = GuestContainer.adopt(peer.client, Stdio(no_sockets), "c", "vm t")  # type: ignore[arg-type]
    waiting = asyncio.create_task(container.wait())  # noqa: TID251 (ends below)
    await turns()
    container.close()
    container.close()
    with pytest.raises(StateError, match="container c: cannot wait while closed"):
        await waiting
    peer.notify("c")  # which is expected all the same
    await turns()
    assert peer.lost == []
    assert (await container.wait()).container_id == "c", "what is known is told"
    await peer.bridge.aclose()


async def test_the_end_of_the_vm_releases_those_who_wait_with_the_reason(connect: Connect) -> None:
    async with connect({"forever": forever}) as rig:
        container = await created(rig, "forever")
        waiting = [asyncio.create_task(container.wait()) for _ in range(3)]  # noqa: TID251 (end below)
        await turns()
        rig.transport.close()
        for waiter in waiting:
            with pytest.raises(ConnectionLost, match="the guest connection was closed"):
                await waiter


async def test_a_creation_is_given_up_at_each_turn_and_leaves_no_container_and_a_free_name(connect: Connect) -> None:
    async with connect({"forever": forever}) as rig:
        client, finished, count = await rig.client(), False, 0
        while not finished:
            creating = asyncio.create_task(client.create_container("c", config("forever")))  # noqa: TID251 (ends below)
            for _ in range(count):
                await asyncio.sleep(0)
            finished, count = creating.done(), count + 1
            creating.cancel()
            await asyncio.wait([creating])
            if not creating.cancelled():
                await client.delete_container_state("c")
                client.bridge.forget_exit("c", creating.result())
            async with asyncio.timeout(10):
                while "c" in client.bridge._exits or rig.guest.containers:
                    await asyncio.sleep(0)
        assert count > 5, "the creation had no turns to be given up at"
        assert rig.lost == []


async def test_a_container_tells_of_itself(connect: Connect) -> None:
    async with connect({"forever": forever}) as rig:
        container = await created(rig, "forever")
        process = await container.launch(gcs.ProcessParameters())
        told = await container.properties([PropertyType.PROCESS_LIST])
        assert [listed.process_id for listed in told.process_list] == [process.pid]


async def test_limits_are_changed_by_the_message_that_linux_guests_know(connect: Connect) -> None:
    async with connect({"forever": forever}) as rig:
        client = await rig.client()
        container = await GuestContainer.create(client, rig.stdio, "c", config("forever"), "vm t")
        await container.update({"memory": {"limit": 1 << 20}})
        await container.modify(gcs.GuestRequest(resource_type="X"))
        constraints = {
            "RequestType": "Update",
            "ResourceType": "ContainerConstraints",
            "Settings": {"Linux": {"memory": {"limit": 1 << 20}}},
        }
        assert rig.guest.modified == [("c", constraints), ("c", {"ResourceType": "X"})]
        with pytest.raises(GuestError, match="function not supported"):
            await client.update_container("c", {"cpu": {}})


async def test_a_guest_that_is_too_old_to_delete_is_not_asked() -> None:
    peer = Peer()
    peer.client.capabilities = gcs.Capabilities(runtime_os_type="linux")
    container = GuestContainer.adopt(peer.client, Stdio(no_sockets), "c", "vm t")  # type: ignore[arg-type]
    with pytest.raises(Unsupported, match="^uvm guest connection does not support deleteContainerState$"):
        await container.delete_state()
    await turns()
    assert peer.asked == []
    await peer.bridge.aclose()


@pytest.mark.parametrize("terminal", [False, True])
async def test_a_process_with_a_terminal_has_no_errors_of_its_own(*, terminal: bool) -> None:
    ports = PortsOnly()
    peer = Peer()
    container = GuestContainer.adopt(peer.client, Stdio(ports), "c", "vm t")  # type: ignore[arg-type]
    starting = asyncio.create_task(container.execute(oci("sh", terminal=terminal)))  # noqa: TID251 (cancelled below)
    await turns()
    sent = json.loads(json.loads(peer.asked[0].body)["Settings"]["ProcessParameters"])
    assert sent.pop("OciProcess")["args"] == ["sh"]
    assert sent == {"CreateStdOutPipe": True} | ({} if terminal else {"CreateStdErrPipe": True})
    assert len(ports.listened) == (1 if terminal else 2)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await peer.bridge.aclose()


class PortsOnly:
    """Sockets that nobody dials."""

    def __init__(self) -> None:
        self.listened: list[int] = []

    def listen(self, port: int, *, once: bool = False, programs: bool = False) -> "PortsOnly":
        assert once
        assert not programs
        self.listened.append(port)
        return self

    def close(self) -> None:
        return
