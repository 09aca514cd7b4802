"""The agent of a Windows guest, as far as a process needs it: it dials the host's services and answers on its bridge."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any, final

from utilityvm.wire import gcs
from utilityvm.wire.frames import Frame, FrameReader, encode

EXIT_CODE = 7


@final
class WindowsAgent:
    """Runs one process at a time: it says its command line and what it reads, and ends with `EXIT_CODE`.

    `dial` dials a service of the host by its GUID.
    """

    def __init__(self, dial: Callable[[str], Awaitable[socket.socket]]) -> None:
        self._dial = dial
        self.asked: list[tuple[int, dict[str, Any]]] = []
        """Every request: its message type and its body."""
        self._line = ""
        self._streams: dict[str, socket.socket] = {}

    async def run(self, service: str) -> None:
        """Dial `service` and serve until the host hangs up."""
        loop, reader = asyncio.get_running_loop(), FrameReader()
        with await self._dial(service) as bridge:
            while data := await loop.sock_recv(bridge, 1 << 16):
                for frame in reader.feed(data):
                    request = json.loads(frame.body)
                    self.asked.append((frame.type, request))
                    answer = {"Result": 0} | await self._answer(frame.type, request)
                    await loop.sock_sendall(bridge, encode(Frame(gcs.response_type(frame.type), frame.id, json.dumps(answer).encode())))

    async def _answer(self, word: int, request: dict[str, Any]) -> dict[str, Any]:
        match word:
            case gcs.NEGOTIATE.word:
                return {"Version": 4, "Capabilities": {"RuntimeOsType": "Windows", "GuestDefinedCapabilities": {}}}
            case gcs.EXECUTE.word:
                self._line = json.loads(request["Settings"]["ProcessParameters"])["CommandLine"]
                services = request["Settings"]["StdioRelaySettings"]
                self._streams = {name: await self._dial(service) for name, service in services.items()}
                return {"ProcessId": 40}
            case gcs.WAIT.word:
                await self._process()
                return {"ExitCode": EXIT_CODE}
        return {}

    async def _process(self) -> None:
        loop, said = asyncio.get_running_loop(), self._line.encode()
        while "StdIn" in self._streams and (data := await loop.sock_recv(self._streams["StdIn"], 1 << 16)):
            said += data
        await loop.sock_sendall(self._streams["StdOut"], said)
        for stream in self._streams.values():
            stream.close()
