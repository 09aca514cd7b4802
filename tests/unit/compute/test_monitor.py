"""The monitor against a peer that speaks as QEMU does."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Coroutine

import pytest

from utilityvm.compute.qemu.monitor import Monitor
from utilityvm.kit.aio import Scope
from utilityvm.kit.errors import ConnectionLost, QmpError, UtilityVMError

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
