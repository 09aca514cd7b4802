"""The monitor against a peer that speaks as QEMU does."""

import asyncio
import contextlib
import json
import socket
import tracemalloc
from collections.abc import AsyncIterator, Coroutine

import pytest

from utilityvm.compute.qemu import monitor as monitor_module
from utilityvm.compute.qemu.monitor import Monitor
from utilityvm.kit.aio import Scope
from utilityvm.kit.errors import ConnectionLost, DeadlineExceeded, QmpError, UtilityVMError

GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}
SHUTDOWN = {"event": "SHUTDOWN", "data": {"guest": True, "reason": "guest-reset"}, "timestamp": {"seconds": 1, "microseconds": 2}}


class Qemu:
    """QEMU's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def says(self, *messages: object) -> None:
        for message in messages:
            self._writer.write(json.dumps(message).encode() + b"\r\n")
        await self._writer.drain()

    async def hears(self) -> dict[str, object]:
        text = ""
        while True:  # commands are JSON one after another; only answers end with a line break
            text += (await self._reader.readexactly(1)).decode()
            with contextlib.suppress(json.JSONDecodeError):
                heard: dict[str, object] = json.loads(text)
                return heard

    async def ends(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def starts(self) -> None:
        """Greet, and answer to what was written before."""
        early = await self.hears()
        assert early["execute"] == "qmp_capabilities"
        await self.says(GREETING, {"return": {}, "id": early["id"]})


@contextlib.asynccontextmanager
async def rig() -> AsyncIterator[tuple[Monitor, Qemu, Scope]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours:
        monitor, scope = Monitor("vm x", ours), Scope("test")
        reader, writer = await asyncio.open_connection(sock=theirs)
        qemu = Qemu(reader, writer)
        try:
            async with asyncio.timeout(10):
                yield monitor, qemu, scope
        finally:
            await scope.aclose()
            await qemu.ends()


async def test_an_event_from_before_the_loop_ran_is_not_missed(caplog: pytest.LogCaptureFixture) -> None:
    async with rig() as (monitor, qemu, scope):
        await qemu.starts()
        await qemu.says(SHUTDOWN)
        await qemu.ends()
        scope.start("monitor", monitor.run())
        await monitor.ended()
        assert monitor.shutdown_reason == "guest-reset"
    assert scope.failure is None
    assert not [record for record in caplog.records if record.levelname in {"WARNING", "ERROR", "CRITICAL"}]


async def test_writes_that_the_host_cannot_keep_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    failed = {"device": "d", "operation": "write", "action": "report", "nospace": True, "reason": "No space left on device"}
    stamp = {"timestamp": {"seconds": 1, "microseconds": 2}}
    async with rig() as (monitor, qemu, scope):
        scope.start("monitor", monitor.run())
        await qemu.starts()
        for data in (failed | {"operation": "read"}, failed, failed):
            await qemu.says({"event": "BLOCK_IO_ERROR", "data": data, **stamp})
        await qemu.says(SHUTDOWN)
        await qemu.ends()
        await monitor.ended()
    (record,) = [record for record in caplog.records if record.getMessage().startswith("vm.disk.failed")]
    said = "vm x: what the guest writes to a disk cannot be kept: No space left on device; the host's file system with its disks is full"
    assert record.fields["message"] == said  # type: ignore[attr-defined]


async def test_a_qemu_that_ends_without_a_word_ends_the_monitor() -> None:
    async with rig() as (monitor, qemu, scope):
        await qemu.ends()
        scope.start("monitor", monitor.run())
        await monitor.ended()
        assert monitor.shutdown_reason == ""
    assert scope.failure is None


async def test_a_command_is_answered() -> None:
    async with rig() as (monitor, qemu, scope):
        scope.start("monitor", monitor.run())
        asked = scope_result(scope, monitor.execute("query-status", {"a": 1}))
        await qemu.starts()
        command = await qemu.hears()
        assert (command["execute"], command["arguments"]) == ("query-status", {"a": 1})
        await qemu.says({"return": {"status": "running"}, "id": command["id"]})
        assert await asked == {"status": "running"}


async def test_a_refused_command_is_an_error_with_qemus_words() -> None:
    async with rig() as (monitor, qemu, scope):
        scope.start("monitor", monitor.run())
        asked = scope_result(scope, monitor.execute("device_add"))
        await qemu.starts()
        command = await qemu.hears()
        await qemu.says({"error": {"class": "DeviceNotFound", "desc": "no such bus"}, "id": command["id"]})
        with pytest.raises(QmpError, match="vm x: QEMU refused device_add: no such bus") as caught:
            await asked
        assert (caught.value.error_class, caught.value.command) == ("DeviceNotFound", "device_add")


async def test_a_command_that_qemu_did_not_live_to_answer_is_an_error() -> None:
    async with rig() as (monitor, qemu, scope):
        scope.start("monitor", monitor.run())
        asked = scope_result(scope, monitor.execute("query-status"))
        await qemu.starts()
        await qemu.hears()
        await qemu.ends()
        with pytest.raises(ConnectionLost, match="vm x: QEMU's monitor ended during query-status"):
            await asked
        await monitor.ended()
        with pytest.raises(ConnectionLost, match="query-status"):
            await monitor.execute("query-status")


async def test_garbage_ends_the_monitor_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    async with rig() as (monitor, qemu, scope):
        scope.start("monitor", monitor.run())
        await qemu.starts()
        await qemu.says("not an object")
        await monitor.ended()
        assert scope.failure is None
    assert "qemu.monitor.failed" in caplog.text


def scope_result(scope: Scope, work: Coroutine[None, None, object]) -> "asyncio.Future[object]":
    """Run `work` in the scope and return a future of its result, whatever it is."""
    result: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    async def run() -> None:
        try:
            result.set_result(await work)
        except UtilityVMError as error:
            result.set_exception(error)

    scope.start("call", run())
    return result


async def test_a_qemu_that_never_stops_talking_takes_no_memory_and_leaves_the_loop_to_others() -> None:
    """Events, answers to nothing and commands' ids over and over; a command in between is answered."""
    said = (
        b'{"event":"NOPE","data":{"a":[1,2]}}\r\n{"return":1,"id":77}\r\n{"id":1,"return":"first"}\r\n{"id":1,"return":"again"}\r\n' * 500
    )
    async with rig() as (monitor, qemu, scope):
        scope.start("monitor", monitor.run())
        await qemu.starts()
        asked = scope_result(scope, monitor.execute("query-status"))
        await qemu.hears()
        qemu._writer.transport.set_write_buffer_limits(high=0)
        tracemalloc.start()
        try:
            for _ in range(50):
                qemu._writer.write(said)
                await qemu._writer.drain()
            assert await asked == "first"
            assert tracemalloc.get_traced_memory()[1] < 4_000_000
        finally:
            tracemalloc.stop()
    assert scope.failure is None


async def test_a_line_without_end_ends_the_monitor_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    async with rig() as (monitor, qemu, scope):
        scope.start("monitor", monitor.run())
        asked = scope_result(scope, monitor.execute("query-status"))
        await qemu.starts()
        with contextlib.suppress(ConnectionError):
            for _ in range(20):
                qemu._writer.write(b"x" * 65_536)
        with pytest.raises(ConnectionLost, match="ended during query-status: QEMU's monitor: a line of more than"):
            await asked
        assert scope.failure is None
        qemu._writer.transport.abort()  # nobody will read the rest
    assert "qemu.monitor.failed" in caplog.text


async def test_a_qemu_that_does_not_answer_is_given_up_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor_module, "ANSWER_TIMEOUT", 0.05)
    async with rig() as (monitor, qemu, scope):
        scope.start("monitor", monitor.run())
        await qemu.starts()
        with pytest.raises(DeadlineExceeded, match=r"vm x: QEMU did not answer stop within 0\.05 s"):
            await monitor.execute("stop")
        assert monitor._waiting == {}


async def test_a_guest_that_keeps_a_device_is_told_by_its_name_and_may_be_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(monitor_module, "UNPLUG_TIMEOUT", 0.05)
    async with rig() as (monitor, qemu, scope):
        scope.start("monitor", monitor.run())
        await qemu.starts()
        for deleted in (False, True):
            unplugged = scope_result(scope, monitor.unplug("scsi0-1"))
            asked = await qemu.hears()
            assert (asked["execute"], asked["arguments"]) == ("device_del", {"id": "scsi0-1"})
            await qemu.says({"return": {}, "id": asked["id"]})
            if deleted:
                await qemu.says({"event": "DEVICE_DELETED", "data": {"device": "scsi0-1", "path": "/x"}})
                await unplugged
            else:
                with pytest.raises(DeadlineExceeded, match=r"vm x: scsi0-1: the guest did not let go of it within 0\.05 s"):
                    await unplugged
            assert monitor._removed == {}


async def test_a_qemu_that_takes_no_commands_is_given_up_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor_module, "ANSWER_TIMEOUT", 0.05)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        monitor = Monitor("vm x", ours)
        with pytest.raises(DeadlineExceeded):
            await monitor.execute("human-monitor-command", {"command-line": "x" * 5_000_000})


async def test_words_of_qemu_that_steer_terminals_are_left_out() -> None:
    async with rig() as (monitor, qemu, scope):
        scope.start("monitor", monitor.run())
        asked = scope_result(scope, monitor.execute("device_add"))
        await qemu.starts()
        await qemu.hears()
        await qemu.says({"event": "SHUTDOWN", "data": {"reason": "\x1b[2J" + "x" * 1000}})
        await qemu.says({"event": "SHUTDOWN", "data": {"reason": ["guest-reset"]}})
        await qemu.says({"error": {"class": "\x1b[2J", "desc": "\x1b]0;owned\x07" + "x" * 100_000}, "id": 1})
        with pytest.raises(QmpError) as caught:
            await asked
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 5000
        assert monitor.shutdown_reason == "\\x1b[2J" + "x" * 92 + "…"
