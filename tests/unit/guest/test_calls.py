"""Calls over the bridge: late answers, callers that give up, deadlines, notifications, the bridge's end."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests.unit.clock import Clock, turns

from utilityvm.guest.bridge import CALL_TIMEOUT, MAX_CALLS
from utilityvm.guest.client import SHUTDOWN_TIMEOUT
from utilityvm.kit.errors import ConnectionLost, DeadlineExceeded, Exists, GuestError, ProtocolError, Unknown, UtilityVMError
from utilityvm.kit.ids import NULL_GUID
from utilityvm.kit.trace import Span, TraceContext, listen, span
from utilityvm.wire import gcs
from utilityvm.wire.frames import Frame, encode
from utilityvm.wire.gcs import GivenUp

from .peer import Peer, refused

FAILED = -2147467259

WORK: dict[str, Callable[[Peer], Coroutine[Any, Any, object]]] = {
    "NegotiateProtocol": lambda peer: peer.client.connect(),
    "Create": lambda peer: peer.client.create_container("c", {}),
    "Start": lambda peer: peer.client.start_container("c"),
    "ShutdownGraceful": lambda peer: peer.client.shutdown_container("c"),
    "ShutdownForced": lambda peer: peer.client.terminate_container("c"),
    "ExecuteProcess": lambda peer: peer.client.execute_process(gcs.ProcessParameters(command_args=["x"]), gcs.StdioPorts()),
    "WaitForProcess": lambda peer: peer.client.wait_process(5),
    "SignalProcess": lambda peer: peer.client.signal_process(5, 15),
    "ResizeConsole": lambda peer: peer.client.resize_console(5, height=1, width=1),
    "GetProperties": lambda peer: peer.client.properties("c", []),
    "ModifySettings": lambda peer: peer.client.modify({}),
    "DumpStacks": lambda peer: peer.client.dump_stacks(),
    "DeleteContainerState": lambda peer: peer.client.delete_container_state("c"),
    "AttachProcess": lambda peer: peer.client.attach_process(5, gcs.StdioPorts()),
    "UpdateContainer": lambda peer: peer.client.update_container("c", {}),
}
"""One call of each message."""

TABLE = {
    # message: may be sent again because nobody knows whether it happened; what becomes of it when its caller gives up
    "NegotiateProtocol": (True, GivenUp.DROP),
    "Create": (False, GivenUp.UNDO),
    "Start": (False, GivenUp.FINISH),
    "ShutdownGraceful": (True, GivenUp.DROP),
    "ShutdownForced": (True, GivenUp.DROP),
    "ExecuteProcess": (False, GivenUp.UNDO),
    "WaitForProcess": (True, GivenUp.DROP),
    "SignalProcess": (False, GivenUp.DROP),
    "ResizeConsole": (True, GivenUp.DROP),
    "GetProperties": (True, GivenUp.DROP),
    "ModifySettings": (False, GivenUp.FINISH),
    "DumpStacks": (True, GivenUp.DROP),
    "DeleteContainerState": (False, GivenUp.FINISH),
    "AttachProcess": (False, GivenUp.FINISH),
    "UpdateContainer": (True, GivenUp.FINISH),
}


def begun(peer: Peer, name: str) -> "asyncio.Task[object]":
    return asyncio.create_task(WORK[name](peer))  # noqa: TID251 (cancelled by the test, or ended)


# -- the table ----------------------------------------------------------------------------------------------------------


def test_the_table_has_every_message() -> None:
    said = {call.name: (call.idempotent, call.given_up) for call in gcs.CALLS if call not in (gcs.CREATE_SYSTEM, gcs.START_SYSTEM)}
    assert said == TABLE
    assert set(WORK) == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
async def test_a_call_that_is_given_up_before_it_is_sent_is_withdrawn(name: str) -> None:
    peer = Peer()
    peer.deaf(deaf=True)
    blocking, work = begun(peer, "ResizeConsole"), None
    await turns()
    work = begun(peer, name)
    await turns()
    work.cancel()
    assert isinstance(await refused(work), asyncio.CancelledError)
    peer.deaf(deaf=False)
    await turns()
    assert peer.words() == [gcs.RESIZE.word], "only the call that nobody gave up was sent"
    peer.answer(0)
    await blocking
    later = begun(peer, "Create")  # if it was that: its container's name is free
    await turns()
    peer.answer(1)
    await later
    await peer.bridge.aclose()


@pytest.mark.parametrize("name", [name for name, (_, given_up) in TABLE.items() if given_up is not GivenUp.FINISH])
async def test_a_call_that_is_given_up_after_it_was_sent_returns_at_once_and_its_late_answer_harms_nobody(name: str) -> None:
    peer = Peer()
    work = begun(peer, name)
    await turns()
    work.cancel()
    assert isinstance(await refused(work), asyncio.CancelledError)
    peer.answer(0, Result=FAILED, ErrorMessage="late")
    other = begun(peer, "ResizeConsole")
    await turns()
    assert peer.words() == [peer.words()[0], gcs.RESIZE.word], "a failure needs no undoing"
    peer.answer(1)
    await other
    assert peer.lost == []
    await peer.bridge.aclose()


@pytest.mark.parametrize("name", [name for name, (_, given_up) in TABLE.items() if given_up is GivenUp.FINISH])
@pytest.mark.parametrize("body", [{}, {"Result": FAILED, "ErrorMessage": "no"}], ids=["done", "failed"])
async def test_a_call_that_must_be_finished_is_left_only_after_its_answer(name: str, body: dict[str, object]) -> None:
    peer = Peer()
    work = begun(peer, name)
    await turns()
    for _ in range(3):
        work.cancel()
        await turns()
        assert not work.done()
    peer.answer(0, **body)
    assert isinstance(await refused(work), asyncio.CancelledError)
    await peer.bridge.aclose()


@pytest.mark.parametrize("name", TABLE)
async def test_a_call_that_was_sent_when_the_guest_went_may_have_happened_unless_that_does_not_matter(name: str) -> None:
    peer = Peer()
    work = begun(peer, name)
    await turns()
    peer.send(b"")
    error = await refused(work)
    assert isinstance(error, ConnectionLost)
    assert isinstance(error, Unknown) == (not TABLE[name][0])
    assert isinstance(await refused(begun(peer, name)), ConnectionLost)


async def test_a_call_that_was_not_sent_when_the_guest_went_has_not_happened() -> None:
    peer = Peer()
    peer.deaf(deaf=True)
    first, second = begun(peer, "ModifySettings"), begun(peer, "ModifySettings")
    await turns()
    peer.send(b"")
    assert isinstance(await refused(first), Unknown), "it was on its way"
    error = await refused(second)
    assert isinstance(error, ConnectionLost)
    assert not isinstance(error, Unknown)


# -- late answers that made something -----------------------------------------------------------------------------------


async def test_a_container_that_is_created_late_is_ended_and_deleted_and_its_name_is_free() -> None:
    peer = Peer()
    work = begun(peer, "Create")
    await turns()
    work.cancel()
    assert isinstance(await refused(work), asyncio.CancelledError)
    assert isinstance(await refused(begun(peer, "Create")), Exists), "it may yet come to be"
    peer.answer(0)
    await turns()
    assert peer.words()[1:] == [gcs.SHUTDOWN_FORCED.word]
    peer.answer(1)
    await turns()
    assert peer.words()[2:] == [gcs.DELETE_STATE.word]
    assert isinstance(await refused(begun(peer, "Create")), Exists)
    peer.answer(2)
    await turns()
    again = begun(peer, "Create")
    await turns()
    peer.answer(3)
    assert not (await again).done()  # type: ignore[attr-defined]
    await peer.bridge.aclose()


async def test_the_end_of_a_container_that_is_undone_may_be_notified() -> None:
    peer = Peer()
    work = begun(peer, "Create")
    await turns()
    work.cancel()
    await turns()
    peer.answer(0)
    await turns()
    peer.answer(1, Result=FAILED)
    peer.notify("c", "ForcedExit")
    await turns()
    peer.answer(2, Result=FAILED)
    await turns()
    assert peer.lost == []
    await peer.bridge.aclose()


async def test_a_process_that_is_started_late_is_killed_and_forgotten() -> None:
    peer = Peer()
    work = begun(peer, "ExecuteProcess")
    await turns()
    work.cancel()
    await turns()
    peer.answer(0, ProcessId=7)
    await turns()
    assert peer.words()[1:] == [gcs.SIGNAL.word]
    peer.answer(1)
    await turns()
    assert peer.words()[2:] == [gcs.WAIT.word]
    peer.answer(2, ExitCode=137)
    await turns()
    await peer.bridge.aclose()


async def test_an_answer_in_the_turn_in_which_the_caller_gives_up_is_undone_too() -> None:
    peer = Peer()
    work = begun(peer, "ExecuteProcess")
    await turns()
    peer.answer(0, ProcessId=7)
    while not (answered := [asked for asked in peer.bridge._asked.values() if asked.answer.done()]) and peer.bridge._asked:
        await asyncio.sleep(0)
    assert answered == []
    work.cancel()
    assert isinstance(await refused(work), asyncio.CancelledError)
    assert peer.words()[1:] == [gcs.SIGNAL.word]
    await peer.bridge.aclose()


# -- deadlines ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in TABLE if name not in {"WaitForProcess", "ShutdownGraceful", "ShutdownForced"}])
async def test_no_answer_in_five_minutes_ends_the_bridge(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    clock, peer = Clock(monkeypatch), Peer()
    other = begun(peer, "WaitForProcess")
    await turns()
    work = begun(peer, name)
    await clock.forward(CALL_TIMEOUT - 1)
    assert not work.done()
    await clock.forward(2)
    error = await refused(work)
    assert isinstance(error, DeadlineExceeded)
    assert f"no answer to {name} within 300 s" in str(error)
    assert isinstance(await refused(other), ConnectionLost)
    assert peer.lost == [error]
    assert peer.closed


async def test_a_process_may_run_for_longer_than_any_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, peer = Clock(monkeypatch), Peer()
    work = begun(peer, "WaitForProcess")
    await clock.forward(1e6)
    peer.answer(0, ExitCode=3)
    assert await work == 3
    await peer.bridge.aclose()


@pytest.mark.parametrize("name", ["ShutdownGraceful", "ShutdownForced"])
async def test_half_a_minute_for_ending_a_container_and_the_bridge_goes_on(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    clock, peer = Clock(monkeypatch), Peer()
    work = begun(peer, name)
    await clock.forward(SHUTDOWN_TIMEOUT + 1)
    error = await refused(work)
    assert isinstance(error, DeadlineExceeded)
    assert f"container c: no answer to {name} within 30 s" in str(error)
    peer.answer(0)
    other = begun(peer, "ResizeConsole")
    await turns()
    peer.answer(1)
    await other
    await clock.forward(CALL_TIMEOUT)
    assert peer.lost == []
    await peer.bridge.aclose()


async def test_an_answer_that_nobody_waits_for_any_more_has_its_deadline_too(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, peer = Clock(monkeypatch), Peer()
    work = begun(peer, "GetProperties")
    await turns()
    work.cancel()
    await clock.forward(CALL_TIMEOUT + 1)
    assert [type(error) for error in peer.lost] == [DeadlineExceeded]


async def test_deadlines_stand_still_while_they_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, peer = Clock(monkeypatch), Peer()
    work = begun(peer, "GetProperties")
    await turns()
    peer.bridge.deadlines.hold()
    await clock.forward(10 * CALL_TIMEOUT)
    assert not work.done()
    peer.bridge.deadlines.release()
    await clock.forward(CALL_TIMEOUT + 1)
    assert isinstance(await refused(work), DeadlineExceeded)


async def test_one_call_too_many_waits_for_its_turn() -> None:
    peer = Peer()
    calls = [begun(peer, "ResizeConsole") for _ in range(MAX_CALLS + 2)]
    await turns()
    assert len(peer.asked) == MAX_CALLS
    calls[0].cancel()
    calls[MAX_CALLS].cancel()  # has not been sent
    await turns()
    assert len(peer.asked) == MAX_CALLS, "the guest has not answered the one that was given up"
    peer.answer(0)
    await turns()
    assert len(peer.asked) == MAX_CALLS + 1
    await peer.bridge.aclose()
    assert all(call.cancelled() or isinstance(call.exception(), ConnectionLost) for call in calls[1:])


# -- beginnings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cold_start", "create", "start", "asked"),
    [
        (True, False, False, []),
        (True, True, False, [gcs.CREATE]),
        (True, True, True, [gcs.CREATE, gcs.START]),
        (True, False, True, []),
        (False, True, True, []),
    ],
)
async def test_the_guest_is_told_of_its_host_if_it_wants_to_be(
    asked: list[gcs.Call[Any, Any]], *, cold_start: bool, create: bool, start: bool
) -> None:
    peer = Peer()
    work = asyncio.create_task(peer.client.connect(cold_start=cold_start))  # noqa: TID251 (ends below)
    await turns()
    peer.answer(0, Version=4, Capabilities={"SendHostCreateMessage": create, "SendHostStartMessage": start, "RuntimeOsType": "LINUX"})
    await turns()
    for number in range(len(asked)):
        peer.answer(1 + number)
        await turns()
    await work
    assert peer.words() == [gcs.NEGOTIATE.word, *(call.word for call in asked)]
    assert peer.client.os == "linux"
    await peer.bridge.aclose()


async def test_a_guest_that_does_not_name_its_system_is_windows() -> None:
    peer = Peer()
    peer.client.capabilities = gcs.Capabilities()
    assert peer.client.os == "windows"
    await peer.bridge.aclose()


class Exporter:
    """Names the spans that begin, from 1 on; only odd ones are sampled."""

    def __init__(self) -> None:
        self.count = 0

    def began(self, span: Span) -> None:
        self.count += 1
        span.context = TraceContext(0xABC, self.count, sampled=self.count % 2 == 1)

    def ended(self, span: Span) -> None:
        """It is nowhere exported to."""


async def test_each_request_carries_the_span_of_its_caller_where_spans_are_exported() -> None:
    peer = Peer()

    async def resize(number: int) -> None:
        work = begun(peer, "ResizeConsole")
        await turns()
        peer.answer(number)
        await work

    await resize(0)
    stop = listen(Exporter())
    try:
        for number in (1, 2):
            with span("vm.test"):
                await resize(number)
        await resize(3)
    finally:
        stop()
    said = [json.loads(frame.body).get("ocsc") for frame in peer.asked]
    names = [{"TraceID": f"{0xABC:032x}", "SpanID": f"{number:016x}"} for number in (1, 2)]
    assert said == [None, names[0] | {"TraceOptions": 1}, names[1], None]
    await peer.bridge.aclose()


# -- notifications ------------------------------------------------------------------------------------------------------


async def test_a_containers_end_is_told_to_whoever_created_it() -> None:
    peer = Peer()
    work = begun(peer, "Create")
    await turns()
    peer.notify("c", "GracefulExit")  # a container may be quicker than the answer about it
    peer.answer(0)
    notification = await (await work)  # type: ignore[misc]
    assert (notification.container_id, notification.type) == ("c", gcs.NotificationType.GRACEFUL_EXIT)
    await peer.bridge.aclose()


@pytest.mark.parametrize("first", ["exit code", "notification"])
async def test_exit_code_and_notification_come_in_either_order(first: str) -> None:
    peer = Peer()
    creating = begun(peer, "Create")
    await turns()
    peer.answer(0)
    exit_ = await creating
    waiting = asyncio.create_task(peer.client.inside("c").wait_process(5))  # noqa: TID251 (ends below)
    await turns()
    if first == "exit code":
        peer.answer(1, ExitCode=2)
        peer.notify("c")
    else:
        peer.notify("c")
        peer.answer(1, ExitCode=2)
    assert (await waiting, (await exit_).type) == (2, gcs.NotificationType.UNEXPECTED_EXIT)  # type: ignore[misc]
    assert peer.lost == []
    await peer.bridge.aclose()


async def test_a_container_whose_creation_failed_may_be_created_again() -> None:
    peer = Peer()
    first = begun(peer, "Create")
    await turns()
    assert isinstance(await refused(begun(peer, "Create")), Exists)
    peer.answer(0, Result=FAILED, ErrorMessage="no")
    assert isinstance(await refused(first), GuestError)
    second = begun(peer, "Create")
    await turns()
    peer.answer(1)
    await second
    assert str(await refused(begun(peer, "Create"))) == "container c already exists"
    await peer.bridge.aclose()


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (Frame(gcs.NOTIFICATION_WORD, 0, b'{"ContainerId":"x","Type":"ForcedExit"}'), "bridge notification failed: container x not found"),
        (Frame(gcs.NOTIFICATION_WORD, 0, b'{"ContainerId":"c","Type":"Odd"}'), "bridge notification failed: .*Odd"),
        (Frame(0x3010_0201, 0, b'{"ContainerId":"c","Type":"ForcedExit"}'), "bridge received unknown notification message 0x30100201"),
        (Frame(0x5010_0101, 0, b"{}"), "bridge received unknown message type 0x50100101"),
        (Frame(0x2010_0801, 99, b"{}"), "bridge received unknown rpc response for id 99, type 0x20100801"),
        (Frame(0x2010_0701, 0, b"{}"), "bridge received unknown rpc response for id 0, type 0x20100701"),
        (Frame(0x2010_0101, 0, b"nonsense"), "bridge response unmarshal failed: Create"),
    ],
)
async def test_a_guest_that_breaks_the_protocol_loses_its_bridge_and_everybody_hears_why(frame: Frame, why: str) -> None:
    peer = Peer()
    work, exit_ = begun(peer, "Create"), peer.bridge.expect_exit("d")
    await turns()
    peer.send(encode(frame))
    assert isinstance(await refused(work), ConnectionLost | ProtocolError)
    assert [type(error) for error in peer.lost] == [ProtocolError]
    with pytest.raises(ConnectionLost, match=why):
        exit_.result()
    with pytest.raises(ConnectionLost, match=why):
        peer.bridge.expect_exit("e")
    assert peer.closed


async def test_an_answer_to_a_request_that_was_not_sent_yet_breaks_the_protocol() -> None:
    peer = Peer()
    peer.deaf(deaf=True)
    works = [begun(peer, "ResizeConsole") for _ in range(2)]
    await turns()
    peer.send(encode(Frame(0x2010_0801, 1, b"{}")))
    await turns()
    assert [str(error) for error in peer.lost] == ["vm t: bridge received unknown rpc response for id 1, type 0x20100801"]
    assert all(work.done() for work in works)


async def test_the_end_of_the_stream_is_a_clean_end_unless_it_cuts_a_message() -> None:
    whole, cut = Peer(), Peer()
    await turns()
    whole.send(b"")
    cut.send(encode(Frame(gcs.NOTIFICATION_WORD, 0, b"{}"))[:-1])
    cut.send(b"")
    await turns()
    assert [type(error) for error in whole.lost] == [ConnectionLost]
    assert [str(error) for error in cut.lost] == ["vm t: bridge read failed: the stream ended in the middle of a message"]
    assert [type(error) for error in cut.lost] == [ProtocolError]


async def test_closing_the_bridge_releases_everybody_and_tells_nobody() -> None:
    peer = Peer()
    works, exit_ = [begun(peer, name) for name in TABLE], peer.bridge.expect_exit("d")
    await turns()
    await peer.bridge.aclose()
    await peer.bridge.aclose()
    for work in works:
        assert isinstance(await refused(work), ConnectionLost)
    with pytest.raises(ConnectionLost, match="bridge closed"):
        exit_.result()
    assert peer.lost == []


async def test_ids_count_from_zero_over_all_calls() -> None:
    peer = Peer()
    works = [begun(peer, name) for name in ("GetProperties", "DumpStacks", "ResizeConsole")]
    await turns()
    assert [frame.id for frame in peer.asked] == [0, 1, 2]
    for number in (2, 0, 1):  # answers come in any order
        peer.answer(number, Properties="{}", GuestStacks="s")
    assert await works[1] == "s"
    await works[0]
    await works[2]
    await peer.bridge.aclose()


# -- failures of the guest ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ShutdownGraceful", "ShutdownForced"])
async def test_ending_a_container_that_is_gone_is_no_error(name: str) -> None:
    peer = Peer()
    gone, stuck = begun(peer, name), begun(peer, name)
    await turns()
    peer.answer(0, Result=gcs.SYSTEM_NOT_FOUND - (1 << 32), ErrorMessage="missing")
    peer.answer(1, Result=FAILED, ErrorMessage="stuck")
    await gone
    assert str(await refused(stuck)) == "guest RPC failure: stuck"
    await peer.bridge.aclose()


async def test_a_signal_to_a_process_that_has_ended_is_not_delivered() -> None:
    peer = Peer()
    work, other = begun(peer, "SignalProcess"), begun(peer, "SignalProcess")
    await turns()
    peer.answer(0, Result=gcs.NOT_FOUND - (1 << 32))
    peer.answer(1)
    assert (await work, await other) == (False, True)
    await peer.bridge.aclose()


async def test_what_cannot_be_sent_leaves_the_bridge_as_it_was() -> None:
    peer = Peer()
    big: UtilityVMError | None = None
    try:
        await peer.client.create_container("c", {"x": "y" * 70_000})
    except ProtocolError as error:
        big = error
    assert big is not None
    work = begun(peer, "Create")
    await turns()
    assert [frame.id for frame in peer.asked] == [0]
    peer.answer(0)
    await work
    assert NULL_GUID.encode() not in peer.asked[0].body.partition(b"ActivityId")[0]
    await peer.bridge.aclose()
