"""A client and a server of ours on a socket, in one event loop; where one of them misbehaves the test plays it, frame by frame."""

import asyncio
import gc
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated

import pytest

from utilityvm.kit.errors import (
    ConnectionLost,
    Corrupt,
    DeadlineExceeded,
    Exhausted,
    Exists,
    GuestError,
    HostError,
    InvalidOptions,
    Kind,
    NotFound,
    ProtocolError,
    StateError,
    Unknown,
    Unsupported,
    UtilityVMError,
)
from utilityvm.kit.ids import new_guid
from utilityvm.kit.named import UnixSockets
from utilityvm.ttrpc import inbox
from utilityvm.ttrpc.client import Client, ClientStream
from utilityvm.ttrpc.codes import CODES, error_of, status_of
from utilityvm.ttrpc.server import MAX_CONNECTIONS, Server, ServerStream, Service, Streaming, Unary
from utilityvm.wire import protobuf, ttrpc
from utilityvm.wire.protobuf import Field, Message
from utilityvm.wire.ttrpc import MAX_DATA, Code, Flag, Frame, FrameReader, Metadata, Request, Response, Status, Type
from utilityvm.wire.ttrpc_ends import MAX_STREAMS

NAMED = UnixSockets()


class Text(Message, frozen=True, kw_only=True):
    text: Annotated[str, Field(1)] = ""


Handler = Callable[[Text, Metadata], Awaitable[Text]]


async def echo(request: Text, _: Metadata) -> Text:
    return request


async def forever(request: Text, _: Metadata) -> Text:
    await asyncio.Event().wait()
    return request


def failing(error: Exception) -> Handler:
    async def handler(_: Text, __: Metadata) -> Text:
        raise error

    return handler


@asynccontextmanager
async def serving(methods: Service, *, users: frozenset[int] | None = None) -> AsyncIterator[tuple[Server, str]]:
    server, address = Server("test server", {"Test": methods}, users=users), f"@uvm-test-{new_guid()}"
    await server.serve(NAMED, address)
    try:
        yield server, address
    finally:
        await server.aclose()


@asynccontextmanager
async def connected(methods: Service) -> AsyncIterator[Client]:
    async with serving(methods) as (_, address):
        client = await Client.dial(NAMED, address, "test client")
        yield client
        await client.aclose()


@asynccontextmanager
async def raw(methods: Service) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A server of ours, and a client that the test plays."""
    async with serving(methods) as (_, address):
        reader, writer = await asyncio.open_unix_connection(f"\0{address[1:]}")
        yield reader, writer
        writer.close()


async def next_frame(reader: asyncio.StreamReader) -> Frame:
    size, stream, kind, flags = ttrpc.HEADER.unpack(await reader.readexactly(ttrpc.HEADER.size))
    return Frame(stream, kind, flags, await reader.readexactly(size))


def status(frame: Frame) -> Status:
    assert frame.type == Type.RESPONSE
    return protobuf.decode(frame.data, Response).status or Status()


def request(stream: int, method: str, *, flags: int = 0, payload: bytes = b"", timeout_nano: int = 0) -> bytes:
    body = protobuf.encode(Request(service="Test", method=method, payload=payload, timeout_nano=timeout_nano))
    return ttrpc.encode(Frame(stream, Type.REQUEST, flags, body))


# -- unary calls ----------------------------------------------------------------------------------------------------


async def test_a_call_is_answered() -> None:
    async with connected({"Echo": Unary(Text, echo)}) as client:
        assert await client.call("Test", "Echo", Text(text="ü"), Text) == Text(text="ü")


async def test_calls_run_side_by_side_and_answers_come_in_any_order() -> None:
    first = asyncio.Event()

    async def handler(request: Text, _: Metadata) -> Text:
        if request.text == "waits":
            await first.wait()
        else:
            first.set()
        return request

    async with connected({"Echo": Unary(Text, handler)}) as client, asyncio.TaskGroup() as group:
        waits = group.create_task(client.call("Test", "Echo", Text(text="waits"), Text))
        await client.call("Test", "Echo", Text(text="goes"), Text)
        assert (await waits).text == "waits"


async def test_metadata_and_the_time_that_is_left_reach_the_server() -> None:
    seen: list[Metadata] = []

    async def handler(request: Text, metadata: Metadata) -> Text:
        seen.append(metadata)
        await asyncio.Event().wait()
        return request

    async with raw({"Wait": Unary(Text, handler)}) as (reader, writer):
        body = Request(service="Test", method="Wait", timeout_nano=1, metadata=ttrpc.written({"k": ("a", "b")}))
        writer.write(ttrpc.encode(Frame(1, Type.REQUEST, 0, protobuf.encode(body))))
        answer = status(await next_frame(reader))
    assert answer == Status(code=Code.DEADLINE_EXCEEDED, message="Test.Wait: not done in the time that the caller gave")
    assert seen in ([], [{"k": ("a", "b")}])


async def test_metadata_are_read_by_the_handler() -> None:
    async def handler(_: Text, metadata: Metadata) -> Text:
        return Text(text=repr(metadata))

    async with connected({"Tell": Unary(Text, handler)}) as client:
        told = await client.call("Test", "Tell", Text(), Text, metadata={"Key": ("a", "b")})
    assert told.text == "{'key': ('a', 'b')}"


async def test_a_caller_gives_up_at_its_deadline_and_the_connection_goes_on() -> None:
    async with connected({"Echo": Unary(Text, echo), "Wait": Unary(Text, forever)}) as client:
        with pytest.raises(DeadlineExceeded, match=r"^test client: no answer to Test.Wait within 0.01 s$|not done in the time"):
            await client.call("Test", "Wait", Text(), Text, within=0.01)
        assert await client.call("Test", "Echo", Text(text="on"), Text, within=10) == Text(text="on")


async def test_the_answer_to_a_caller_who_was_cancelled_is_dropped() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def handler(request: Text, _: Metadata) -> Text:
        begun.set()
        await go_on.wait()
        return request

    async with connected({"Echo": Unary(Text, echo), "Late": Unary(Text, handler)}) as client:
        async with asyncio.TaskGroup() as group:
            call = group.create_task(client.call("Test", "Late", Text(), Text))
            await begun.wait()
            call.cancel()
        go_on.set()
        assert await client.call("Test", "Echo", Text(text="on"), Text) == Text(text="on")


@pytest.mark.parametrize(
    ("service", "method", "error", "why"),
    [
        ("Test", "Other", Unsupported, "test server has no Test.Other"),
        ("Other", "Echo", Unsupported, "test server has no Other.Echo"),
        ("Test", "Stream", InvalidOptions, "Test.Stream is no unary call"),
    ],
)
async def test_what_a_server_does_not_have_is_refused(service: str, method: str, error: type[UtilityVMError], why: str) -> None:
    async def stream(_: ServerStream[Text], __: Metadata) -> None: ...

    async with connected({"Echo": Unary(Text, echo), "Stream": Streaming(Text, stream)}) as client:
        with pytest.raises(error, match=f"^{why}$"):
            await client.call(service, method, Text(), Text)


@pytest.mark.parametrize(
    "error",
    [
        InvalidOptions("i"),
        NotFound("n"),
        Exists("e"),
        StateError("vm", "closed", "start"),
        Exhausted("x"),
        Unsupported("u"),
        HostError("h"),
        ConnectionLost("c"),
        DeadlineExceeded("d"),
        Corrupt("r"),
    ],
)
async def test_an_error_of_ours_is_the_same_on_the_other_side(error: UtilityVMError) -> None:
    async with connected({"Fail": Unary(Text, failing(error))}) as client:
        with pytest.raises(type(error)) as raised:
            await client.call("Test", "Fail", Text(), Text)
    assert raised.value.kind is error.kind
    assert raised.value.message in {error.message, f"{error.message} (internal)"}


def test_every_kind_of_error_has_a_code_and_every_code_is_an_error() -> None:
    assert CODES.keys() == set(Kind)
    assert status_of(GuestError("g", call="c", result=1)) == Status(code=Code.INTERNAL, message="g")
    for code in [*Code, 77]:
        assert isinstance(error_of(code, "text"), UtilityVMError)
    assert error_of(77, "text").message == "text (code 77)"
    assert error_of(Code.PERMISSION_DENIED, "text").message == "text (permission_denied)"


async def test_a_mistake_of_a_handler_ends_its_call_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with connected({"Echo": Unary(Text, echo), "Fail": Unary(Text, failing(TimeoutError("mine")))}) as client:
        with pytest.raises(HostError, match=r"^TimeoutError\('mine'\) \(internal\)$"):
            await client.call("Test", "Fail", Text(), Text, within=10)
        assert await client.call("Test", "Echo", Text(), Text) == Text()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_an_answer_that_is_too_large_is_refused_by_the_server() -> None:
    async def handler(_: Text, __: Metadata) -> Text:
        return Text(text="x" * MAX_DATA)

    async with connected({"Much": Unary(Text, handler)}) as client:
        with pytest.raises(Exhausted, match="exceed maximum message size"):
            await client.call("Test", "Much", Text(), Text)


async def test_an_argument_that_is_too_large_is_not_sent() -> None:
    async with connected({"Echo": Unary(Text, echo)}) as client:
        with pytest.raises(ProtocolError, match="exceed maximum message size"):
            await client.call("Test", "Echo", Text(text="x" * MAX_DATA), Text)
        assert await client.call("Test", "Echo", Text(), Text) == Text()


async def test_an_argument_that_cannot_be_read_is_refused() -> None:
    async with raw({"Echo": Unary(Text, echo)}) as (reader, writer):
        writer.write(request(1, "Echo", payload=b"\xff"))
        told = status(await next_frame(reader))
    assert told == Status(code=Code.INVALID_ARGUMENT, message="Text: the message cannot be read: a number ends before its last byte")


# -- the end of a connection ----------------------------------------------------------------------------------------


async def test_a_call_whose_server_goes_may_have_happened() -> None:
    begun = asyncio.Event()

    async def handler(request: Text, _: Metadata) -> Text:
        begun.set()
        return await forever(request, _)

    async with serving({"Wait": Unary(Text, handler)}) as (server, address):
        client = await Client.dial(NAMED, address, "test client")
        async with asyncio.TaskGroup() as group:
            call = group.create_task(_failure(client.call("Test", "Wait", Text(), Text)))
            await begun.wait()
            await server.aclose()
            assert isinstance(await call, Unknown)
        assert str(await client.lost) == "test client: the connection was closed"
        with pytest.raises(ConnectionLost, match="the connection was closed") as raised:
            await client.call("Test", "Wait", Text(), Text)
        assert not isinstance(raised.value, Unknown)
        with pytest.raises(HostError, match="test client: cannot connect to @uvm-test-"):
            await Client.dial(NAMED, address, "test client")


async def _failure(call: Awaitable[object]) -> BaseException:
    try:
        await call
    except UtilityVMError as error:
        return error
    raise AssertionError("it did not fail")


async def test_a_server_lets_calls_end_before_it_does_and_takes_no_more() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def handler(request: Text, _: Metadata) -> Text:
        begun.set()
        await go_on.wait()
        return request

    async with serving({"Late": Unary(Text, handler)}) as (server, address):
        client = await Client.dial(NAMED, address, "test client")
        async with asyncio.TaskGroup() as group:
            call = group.create_task(client.call("Test", "Late", Text(text="done"), Text))
            await begun.wait()
            closing = group.create_task(server.aclose(within=60))
            with pytest.raises(ConnectionLost, match="^test server takes no more calls$"):
                await client.call("Test", "Late", Text(), Text)
            go_on.set()
            assert await call == Text(text="done")
            await closing
        await client.lost


async def test_the_calls_of_a_client_that_goes_are_ended() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def handler(request: Text, _: Metadata) -> Text:
        try:
            begun.set()
            return await forever(request, _)
        finally:
            ended.set()

    async with serving({"Wait": Unary(Text, handler)}) as (_, address):
        client = await Client.dial(NAMED, address, "test client")
        async with asyncio.TaskGroup() as group:
            group.create_task(_failure(client.call("Test", "Wait", Text(), Text)))
            await begun.wait()
            await client.aclose()
            await client.aclose()
        await ended.wait()


async def test_a_user_who_may_not_connect_is_sent_away(caplog: pytest.LogCaptureFixture) -> None:
    async with serving({"Echo": Unary(Text, echo)}, users=frozenset({os.getuid() + 1})) as (_, address):
        client = await Client.dial(NAMED, address, "test client")
        await client.lost
    assert f"user {os.getuid()} may not connect" in caplog.text


async def test_a_user_who_may_is_served() -> None:
    async with serving({"Echo": Unary(Text, echo)}, users=frozenset({os.getuid()})) as (_, address):
        client = await Client.dial(NAMED, address, "test client")
        assert await client.call("Test", "Echo", Text(), Text) == Text()
        await client.aclose()


async def test_one_connection_too_many_is_sent_away_until_one_goes() -> None:
    async with serving({"Echo": Unary(Text, echo)}) as (_, address):
        clients = [await Client.dial(NAMED, address, f"client {number}") for number in range(MAX_CONNECTIONS)]
        for client in clients:
            await client.call("Test", "Echo", Text(), Text)
        refused = await Client.dial(NAMED, address, "refused")
        await refused.lost
        for client in clients:
            await client.aclose()


async def test_an_address_that_is_taken_is_told() -> None:
    async with serving({"Echo": Unary(Text, echo)}) as (_, address):
        other = Server("other", {})
        with pytest.raises(HostError, match=r"^other: failed to listen on @uvm-test-.*: .*in use"):
            await other.serve(NAMED, address)


# -- streams --------------------------------------------------------------------------------------------------------


async def _sum(stream: ServerStream[Text], _: Metadata) -> Text:
    got = []
    while (message := await stream.receive()) is not None:
        got.append(message.text)
    return Text(text=",".join(got))


async def _count(stream: ServerStream[Text], _: Metadata) -> None:
    wanted = await stream.receive()
    assert wanted is not None
    for number in range(int(wanted.text)):
        await stream.send(Text(text=str(number)))


async def _echoes(stream: ServerStream[Text], _: Metadata) -> None:
    while (message := await stream.receive()) is not None:
        await stream.send(message)


STREAMS: Service = {"Sum": Streaming(Text, _sum), "Count": Streaming(Text, _count), "Echoes": Streaming(Text, _echoes)}


async def _all(stream: ClientStream) -> list[str]:
    got = []
    while (message := await stream.receive(Text)) is not None:
        got.append(message.text)
    return got


async def test_many_messages_have_one_answer() -> None:
    async with connected(STREAMS) as client, await client.open("Test", "Sum") as stream:
        for text in ("a", "", "b"):
            await stream.send(Text(text=text))
        await stream.finish()
        assert await stream.result(Text) == Text(text="a,,b")
        assert await stream.receive(Text) is None


async def test_one_message_has_many_answers() -> None:
    async with connected(STREAMS) as client, await client.open("Test", "Count", Text(text="300")) as stream:
        assert await _all(stream) == [str(number) for number in range(300)]
        assert await stream.result(Text) == Text()


async def test_both_sides_send_while_the_other_does() -> None:
    async with connected(STREAMS) as client, await client.open("Test", "Echoes") as stream:
        for number in range(100):
            await stream.send(Text(text="x" * 99_000 + str(number)))
            message = await stream.receive(Text)
            assert message is not None
            assert message.text.endswith(f"x{number}")
        await stream.finish()
        assert await _all(stream) == []
        with pytest.raises(ProtocolError, match="nothing more can be sent"):
            await stream.send(Text())


async def test_frames_of_a_stream_are_those_of_the_specification() -> None:
    async with raw(STREAMS) as (reader, writer):
        writer.write(request(1, "Count", flags=Flag.CLOSED, payload=bytes.fromhex("0a0131")))
        assert await next_frame(reader) == Frame(1, Type.DATA, 0, bytes.fromhex("0a0130"))
        assert await next_frame(reader) == Frame(1, Type.DATA, Flag.CLOSED | Flag.NO_DATA)
        writer.write(request(3, "Sum", flags=Flag.OPEN))
        writer.write(ttrpc.encode(Frame(3, Type.DATA)) + ttrpc.encode(Frame(3, Type.DATA, Flag.CLOSED | Flag.NO_DATA)))
        assert await next_frame(reader) == Frame(3, Type.RESPONSE)


async def test_an_argument_without_bytes_is_a_message_all_the_same() -> None:
    async with connected(STREAMS) as client, await client.open("Test", "Sum", Text()) as stream:
        assert await stream.result(Text) == Text()


async def test_the_messages_of_a_request_that_comes_with_them_are_not_lost() -> None:
    async with raw(STREAMS) as (reader, writer):
        done = ttrpc.encode(Frame(1, Type.DATA, Flag.CLOSED | Flag.NO_DATA))
        writer.write(request(1, "Sum", flags=Flag.OPEN, payload=bytes.fromhex("0a0161")) + done)
        assert protobuf.decode((await next_frame(reader)).data, Response).payload == bytes.fromhex("0a0161")


async def test_a_stream_fails_for_whoever_reads_and_whoever_waits_for_its_result() -> None:
    async def handler(stream: ServerStream[Text], _: Metadata) -> None:
        await stream.receive()
        raise NotFound("nothing here")

    async with connected({"Fail": Streaming(Text, handler)}) as client, await client.open("Test", "Fail", Text()) as stream:
        with pytest.raises(NotFound, match="^nothing here$"):
            await stream.receive(Text)
        with pytest.raises(NotFound, match="^nothing here$"):
            await stream.result(Text)


async def test_a_stream_on_a_unary_method_is_refused() -> None:
    async with connected({"Echo": Unary(Text, echo)}) as client, await client.open("Test", "Echo", Text()) as stream:
        with pytest.raises(InvalidOptions, match="^Test.Echo is a unary call$"):
            await stream.result(Text)


async def test_a_message_that_cannot_be_read_fails_its_stream() -> None:
    async with raw(STREAMS) as (reader, writer):
        writer.write(request(1, "Sum", flags=Flag.OPEN) + ttrpc.encode(Frame(1, Type.DATA, 0, b"\xff")))
        assert status(await next_frame(reader)).code == Code.INVALID_ARGUMENT


async def test_a_stream_whose_client_breaks_the_protocol_is_ended_and_answered() -> None:
    ended = asyncio.Event()

    async def handler(_: ServerStream[Text], __: Metadata) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with raw({"Wait": Streaming(Text, handler), **STREAMS}) as (reader, writer):
        writer.write(request(1, "Wait", flags=Flag.CLOSED))
        writer.write(request(3, "Count", flags=Flag.CLOSED, payload=bytes.fromhex("0a0131")))
        await next_frame(reader)
        await next_frame(reader)
        writer.write(ttrpc.encode(Frame(1, Type.DATA, 0, b"")))
        assert status(await next_frame(reader)).code == Code.INVALID_ARGUMENT
        await ended.wait()


async def test_messages_that_nobody_takes_end_their_own_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "PATIENCE", 0.01)
    ended = asyncio.Event()

    async def deaf(_: ServerStream[Text], __: Metadata) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with connected({"Deaf": Streaming(Text, deaf), "Echo": Unary(Text, echo)}) as client, await client.open("Test", "Deaf") as stream:
        for _ in range(inbox.MAX_MESSAGES):
            await stream.send(Text(text="x"))
        with pytest.raises(Exhausted, match="^64 messages waited 0.01 s and were not taken$"):
            await stream.receive(Text)
        await ended.wait()
        assert await client.call("Test", "Echo", Text(text="on"), Text) == Text(text="on")


async def test_a_client_that_does_not_read_its_stream_loses_it_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "PATIENCE", 0.01)
    async with connected({**STREAMS, "Echo": Unary(Text, echo)}) as client, await client.open("Test", "Count", Text(text="500")) as stream:
        assert await client.call("Test", "Echo", Text(text="on"), Text) == Text(text="on")  # behind all that waits
        with pytest.raises(Exhausted, match="were not taken"):
            await stream.result(Text)


async def test_bytes_that_wait_are_bounded_for_all_streams_of_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "MAX_BYTES", 4096)
    held: list[bool] = []
    over: list[int] = []
    boxes = inbox.Inboxes(held.append, lambda stream, _: over.append(stream))
    first, second = boxes.open(1), boxes.open(3)
    first.put(bytes(2048))
    assert held == []
    second.put(bytes(2048))
    assert held == [True]
    assert await first.get() == bytes(2048)
    assert held == [True, False]
    boxes.close(3)
    boxes.close(3)
    assert over == []


async def test_a_client_that_asks_and_never_reads_costs_the_server_little() -> None:
    """Its refusals fill the socket, then nothing more is read of it; and what the server holds for it stays small."""
    async with serving({"Echo": Unary(Text, echo)}) as (server, address):
        with socket.socket(socket.AF_UNIX) as flood:
            flood.setblocking(False)
            flood.connect(f"\0{address[1:]}")
            bad, sent, refused = ttrpc.encode(Frame(2, Type.REQUEST)) * 1000, 0, 0
            while refused < 100:  # turns of the loop in which nothing more was taken
                try:
                    sent += flood.send(bad)
                    refused = 0
                except BlockingIOError:
                    refused += 1
                await asyncio.sleep(0)
            (connection,) = server._connections
            assert connection.link._transport is not None
            assert connection.link._transport.get_write_buffer_size() < 4 << 20
            assert sent < 64 << 20
            client = await Client.dial(NAMED, address, "another")
            assert await client.call("Test", "Echo", Text(), Text) == Text()
            await client.aclose()


async def test_one_call_too_many_is_refused_and_the_others_go_on() -> None:
    async with raw({"Wait": Unary(Text, forever), "Echo": Unary(Text, echo)}) as (reader, writer):
        writer.write(b"".join(request(2 * number + 1, "Wait") for number in range(MAX_STREAMS)))
        writer.write(request(2 * MAX_STREAMS + 1, "Echo"))
        frame = await next_frame(reader)
        assert (frame.stream, status(frame).code) == (2 * MAX_STREAMS + 1, Code.RESOURCE_EXHAUSTED)


# -- a server that the test plays -----------------------------------------------------------------------------------


@asynccontextmanager
async def played(*answers: bytes) -> AsyncIterator[tuple[Client, asyncio.Future[list[Frame]]]]:
    """A server that answers the first bytes that come with these, and then hangs up at the client's wish."""
    asked: asyncio.Future[list[Frame]] = asyncio.get_running_loop().create_future()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = list(FrameReader().feed(await reader.read(1 << 16)))
        asked.set_result([frame for frame in frames if isinstance(frame, Frame)])
        writer.write(b"".join(answers))
        await reader.read()
        writer.close()

    address = f"uvm-test-{new_guid()}"
    server = await asyncio.start_unix_server(answer, f"\0{address}")
    client = await Client.dial(NAMED, f"@{address}", "test client")
    try:
        yield client, asked
    finally:
        await client.aclose()
        server.close()


async def test_the_request_is_that_of_the_specification_with_the_time_that_is_left() -> None:
    answer = ttrpc.encode(Frame(1, Type.RESPONSE, 0, bytes.fromhex("1203 0a0162")))
    async with played(answer) as (client, asked):
        assert await client.call("Test", "Echo", Text(text="a"), Text, within=60, metadata={"K": ("v",)}) == Text(text="b")
        (frame,) = await asked
    told = protobuf.decode(frame.data, Request)
    assert (frame.stream, frame.type, frame.flags) == (1, Type.REQUEST, 0)
    assert (told.service, told.method, told.payload.hex()) == ("Test", "Echo", "0a0161")
    assert 50e9 < told.timeout_nano <= 60e9
    assert ttrpc.read(told.metadata) == {"k": ("v",)}


@pytest.mark.parametrize(
    ("answer", "error", "why"),
    [
        (Frame(1, Type.DATA), HostError, r"^test client: the server sent data on a unary call \(internal\)$"),
        (Frame(1, Type.RESPONSE, 0, b"\xff"), HostError, "the server's answer cannot be read"),
        (Frame(1, Type.RESPONSE, 0, bytes.fromhex("1201ff")), ProtocolError, "a number ends before its last byte"),
        (Frame(1, Type.RESPONSE, 0, bytes.fromhex("0a020805")), NotFound, "^$"),
    ],
)
async def test_an_answer_that_is_none_fails_the_call(answer: Frame, error: type[UtilityVMError], why: str) -> None:
    async with played(ttrpc.encode(answer)) as (client, _):
        with pytest.raises(error, match=why):
            await client.call("Test", "Echo", Text(), Text)


async def test_nothing_is_left_of_a_server_and_its_clients() -> None:
    async with serving(STREAMS) as (server, address):
        clients = [await Client.dial(NAMED, address, "test client") for _ in range(8)]
        for client in clients:
            async with await client.open("Test", "Count", Text(text="3")) as stream:
                await _all(stream)
        await server.aclose()
        await server.aclose()
        assert not server._connections
        assert {task for task in asyncio.all_tasks() if task is not asyncio.current_task()} == set()
    gc.collect()
