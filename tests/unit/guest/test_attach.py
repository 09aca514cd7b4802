"""Taking over the streams of a process that another host has started: what is asked, and what a guest may answer."""

import asyncio
import json

import pytest

from utilityvm.guest import process as process_module
from utilityvm.guest.connection import GuestConnection
from utilityvm.guest.process import attach
from utilityvm.kit.errors import GuestError, InvalidOptions, ProtocolError, Unsupported
from utilityvm.wire import gcs

from .conftest import Connect, Rig
from .peer import Peer

ALL = (True, True, True)
FIRST = gcs.FIRST_STDIO_PORT


def answered(**state: object) -> dict[int, bytes]:
    """What a guest answers; it forgets a process whose end nobody hears of."""
    body = {"Result": 0, "ProcessState": {"Terminal": False, "Ended": False, "ExitCode": 0, **state}}
    return {gcs.ATTACH.word: json.dumps(body).encode(), gcs.WAIT.word: b'{"Result":0,"ExitCode":3}'}


ABLE = gcs.Capabilities(runtime_os_type="Linux", guest_defined=gcs.GuestDefinedCapabilities(attach_process_supported=True))


async def dial(rig: Rig, *ports: int) -> None:
    """The guest dials, and writes the port's number as soon as it may."""
    for port in ports:
        await rig.guest.write(await rig.guest.dial(port), str(port).encode())


async def test_an_agent_that_cannot_is_refused_and_nothing_is_sent() -> None:
    peer = Peer()
    peer.client.capabilities = gcs.Capabilities(runtime_os_type="linux")
    with pytest.raises(Unsupported, match="AttachProcessSupported"):
        await peer.client.attach_process(5, gcs.StdioPorts())
    assert peer.asked == []
    await peer.bridge.aclose()


async def test_an_agent_that_cannot_tell_where_a_container_is_is_not_asked() -> None:
    peer = Peer()
    peer.client.capabilities = gcs.Capabilities(runtime_os_type="linux")
    with pytest.raises(Unsupported, match="AttachProcessSupported"):
        await peer.client.container_state("c")
    assert peer.asked == []
    await peer.bridge.aclose()


@pytest.mark.parametrize(
    "state",
    [
        "{}",
        '{"State":"odd","ProcessId":1}',
        '{"State":"running","ProcessId":-1}',
        '{"State":"stopped","ProcessId":1,"Type":"Odd"}',
        "[]",
        "null",
    ],
)
async def test_a_place_in_a_life_that_makes_no_sense_breaks_the_protocol(connect: Connect, state: str) -> None:
    text = f'{{"ContainerState":{state}}}'
    async with connect(answers={gcs.PROPERTIES.word: json.dumps({"Result": 0, "Properties": text}).encode()}) as rig:
        client = await rig.client()
        client.capabilities = ABLE
        with pytest.raises(ProtocolError, match="ContainerState of c"):
            await client.container_state("c")


async def test_an_agent_that_cannot_has_nothing_to_be_attached(connect: Connect) -> None:
    async with connect() as rig:
        stream = await rig.transport.listen(gcs.BRIDGE_PORT, once=True).accept()
        connection = await GuestConnection.open(stream, rig.transport, "vm t", rig.lost.append)
        assert await connection.detached_processes() == []
        await connection.aclose()


async def test_its_streams_are_those_that_the_guest_dials_and_its_code_is_waited_for(connect: Connect) -> None:
    async with connect(answers=answered()) as rig:
        client = await rig.client()
        client.capabilities = ABLE
        async with asyncio.TaskGroup() as group:
            taking = group.create_task(attach(client, rig.stdio, 7, "vm t", ALL))
            group.create_task(dial(rig, FIRST, FIRST + 1, FIRST + 2))
        process = taking.result()
        assert process.pid == 7
        assert await process.stdout.read(20) == str(FIRST + 1).encode()
        assert await process.stderr.read(20) == str(FIRST + 2).encode()
        assert await process.wait() == 3
        await process.close()


async def test_a_terminal_has_no_errors_of_its_own_and_what_is_not_wanted_is_not_dialled(connect: Connect) -> None:
    async with connect(answers=answered(Terminal=True)) as rig:
        client = await rig.client()
        client.capabilities = ABLE
        async with asyncio.TaskGroup() as group:
            taking = group.create_task(attach(client, rig.stdio, 7, "vm t", (False, True, True)))
            group.create_task(dial(rig, FIRST))
        process = taking.result()
        assert await process.stdout.read(20) == str(FIRST).encode()
        assert await process.stderr.read() == b""
        with pytest.raises(BrokenPipeError):
            await process.stdin.write(b"x")
        await process.close()


async def test_a_guest_that_does_not_dial_breaks_the_protocol_and_nothing_is_listened_to(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "DIAL_TIMEOUT", 0.01)
    async with connect(answers=answered()) as rig:
        client = await rig.client()
        client.capabilities = ABLE
        with pytest.raises(ProtocolError, match="did not dial"):
            await attach(client, rig.stdio, 7, "vm t", ALL)
        rig.transport.listen(FIRST, once=True).close()  # it is free again


@pytest.mark.parametrize(
    "state", [b"[]", b'{"Terminal":1,"Ended":false,"ExitCode":0}', b'{"Terminal":true,"Ended":true,"ExitCode":-1}', b"{}"]
)
async def test_an_answer_that_makes_no_sense_breaks_the_protocol(connect: Connect, state: bytes) -> None:
    async with connect(answers={gcs.ATTACH.word: b'{"Result":0,"ProcessState":' + state + b"}"}) as rig:
        client = await rig.client()
        client.capabilities = ABLE
        with pytest.raises(ProtocolError, match="AttachProcess"):
            await attach(client, rig.stdio, 7, "vm t", ALL)


async def test_a_process_that_the_guest_does_not_know_is_its_refusal(connect: Connect) -> None:
    refusal = json.dumps({"Result": gcs.NOT_FOUND - (1 << 32), "ErrorMessage": "no such process: 7"}).encode()
    async with connect(answers={gcs.ATTACH.word: refusal}) as rig:
        client = await rig.client()
        client.capabilities = ABLE
        with pytest.raises(GuestError, match="no such process") as caught:
            await attach(client, rig.stdio, 7, "vm t", ALL)
        assert caught.value.result == gcs.NOT_FOUND


@pytest.mark.parametrize("pid", [0, -1, 1 << 31, True, "7", None])
async def test_what_is_no_number_of_a_process_is_refused_before_anything_is_sent(connect: Connect, pid: object) -> None:
    async with connect() as rig:
        client = await rig.client()
        with pytest.raises(InvalidOptions, match="numbers from 1"):
            await attach(client, rig.stdio, pid, "vm t", ALL)  # type: ignore[arg-type]


@pytest.mark.parametrize(("pid", "fine"), [("7", True), ('"7"', False)])
async def test_what_can_be_attached_is_read_within_bounds(connect: Connect, pid: str, *, fine: bool) -> None:
    text = f'{{"DetachedProcesses":[{{"ProcessId":{pid},"Name":"sh","New":1}}]}}'
    async with connect(answers={gcs.PROPERTIES.word: json.dumps({"Result": 0, "Properties": text}).encode()}) as rig:
        client = await rig.client()
        if fine:
            [one] = await client.detached_processes()
            assert (one.pid, one.name, one.container_id, one.terminal, one.ended) == (7, "sh", "", False, False)
        else:
            with pytest.raises(ProtocolError, match="DetachedProcesses"):
                await client.detached_processes()
