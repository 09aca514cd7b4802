"""A QEMU that is played, at its end of a monitor."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import msgspec

from utilityvm.compute.qemu.monitor import Monitor
from utilityvm.kit.aio import Scope


class Qemu:
    """QEMU's end of a monitor: carries out everything but `fails`, refused by `says_no`, and ends instead of answering to `dies`.

    `tells` are its answers to commands that ask for something.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.fails, self.dies, self.says_no = sock, "", "", "no"
        self.tells: dict[str, object] = {"add-fd": {"fd": 21}}
        self.heard: list[str] = []
        self.arguments: list[Mapping[str, object]] = []
        self.fds: list[int] = []

    async def run(self) -> None:
        loop, kept = asyncio.get_running_loop(), b""
        readable = asyncio.Event()
        loop.add_reader(self.sock, readable.set)
        try:
            while True:
                await readable.wait()
                readable.clear()
                try:
                    data, fds, _, _ = socket.recv_fds(self.sock, 65536, 4)
                except BlockingIOError:  # it was read already when the loop told of it again
                    continue
                if not data:
                    return
                self.fds += fds
                *lines, kept = (kept + data).split(b"\n")
                for line in lines:
                    if not await self._answer(msgspec.json.decode(line)):
                        return
        finally:
            loop.remove_reader(self.sock)
            self.sock.close()
            for fd in self.fds:
                os.close(fd)

    async def _answer(self, asked: dict[str, object]) -> bool:
        command, arguments = str(asked["execute"]), asked.get("arguments", {})
        assert isinstance(arguments, dict)
        if command != "qmp_capabilities":
            self.heard.append(command)
            self.arguments.append(arguments)
        if command == self.dies:
            return False
        if command == self.fails:
            await self._say({"id": asked["id"], "error": {"class": "GenericError", "desc": self.says_no}})
            return True
        await self._say({"id": asked["id"], "return": self.tells.get(command, {})})
        if command == "device_del":
            await self._say({"event": "DEVICE_DELETED", "data": {"device": arguments["id"], "path": "/x"}})
        return True

    async def _say(self, message: object) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, msgspec.json.encode(message) + b"\n")


@asynccontextmanager
async def played() -> AsyncIterator[tuple[Monitor, Qemu]]:
    """A monitor of the machine `vm x` and the QEMU at its other end. No more descriptors may be left than QEMU was given."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    scope, qemu = Scope("test"), Qemu(theirs)
    monitor = Monitor("vm x", ours)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (they are counted)
    scope.start("monitor", monitor.run())
    scope.start("qemu", qemu.run())
    try:
        async with asyncio.timeout(10):
            yield monitor, qemu
        assert len(os.listdir("/proc/self/fd")) - len(qemu.fds) <= before  # noqa: PTH208
    finally:
        await scope.aclose()
        ours.close()
        theirs.close()  # a task that is cancelled before it begins does not
