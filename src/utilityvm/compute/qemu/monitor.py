"""QEMU's monitor: commands, and the events that say why a guest ended. The protocol is the `qemu.qmp` package's.

That package takes 60 ms to load, so it is loaded while the guest boots, and nobody waits for it on the way to the guest's first
process. No event is missed meanwhile: leave to send events is written into the socket before QEMU is there to read it.
"""

import asyncio
import logging
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Final, final

from utilityvm.kit.errors import ConnectionLost, QmpError
from utilityvm.kit.trace import event

if TYPE_CHECKING:
    from qemu.qmp import EventListener, Message, QMPClient

_EARLY_ID: Final = "utilityvm-early"
_EARLY: Final = f'{{"execute": "qmp_capabilities", "id": "{_EARLY_ID}"}}\n'.encode()
_LINE_LIMIT: Final = 1024 * 1024  # bytes of one message from QEMU
_SHUTDOWN: Final = "SHUTDOWN"


@final
class Monitor:
    """One QEMU's monitor. `run` is its loop; `sock` is a connected pair's end that QEMU does not read yet."""

    def __init__(self, name: str, sock: socket.socket) -> None:
        self._name, self._sock = name, sock
        self._client: QMPClient | None = None
        self._ready, self._ended = asyncio.Event(), asyncio.Event()
        self.shutdown_reason = ""
        """Why QEMU ended its guest, in QMP's words (`ShutdownCause`); ``""`` while it has not."""
        sock.setblocking(False)
        sock.send(_EARLY)

    async def run(self) -> None:
        """Read until QEMU closes its end. A monitor's end is not a VM's end: it is told to those who execute, and logged."""
        self._client = client = _client()
        async with AsyncExitStack() as undo:
            undo.callback(self._over)
            undo.push_async_callback(self._disconnect, client)
            undo.enter_context(client.listen(self._listener()))
            await client.connect(self._sock)
            self._ready.set()
            while client.runstate.name == "RUNNING":
                await client.runstate_changed()

    async def ended(self) -> None:
        """Wait until QEMU has closed its end and all that it said was read."""
        await self._ended.wait()

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """Execute a command and return its answer.

        Raises:
            QmpError: QEMU refused it.
            ConnectionLost: QEMU ended; whether the command was carried out is not known.
        """
        from qemu.qmp import ExecInterruptedError, ExecuteError, StateError  # noqa: PLC0415 (see the module)

        await self._ready.wait()
        assert self._client is not None  # noqa: S101 (ready)
        try:
            return await self._client.execute(command, dict(arguments) if arguments else None)
        except ExecuteError as error:
            raise QmpError(f"{self._name}: QEMU refused {command}: {error}", error_class=error.error_class, command=command) from error
        except (ExecInterruptedError, StateError) as error:
            raise ConnectionLost(f"{self._name}: QEMU's monitor ended during {command}") from error

    async def _disconnect(self, client: "QMPClient") -> None:
        from qemu.qmp import QMPError  # noqa: PLC0415 (see the module)

        try:
            with suppress(EOFError, OSError):  # QEMU ended: how is for its exit code and its last words to say
                await client.disconnect()
        except QMPError as error:
            event("qemu.monitor.failed", level=logging.WARNING, vm=self._name.removeprefix("vm "), error=str(error))

    def _over(self) -> None:
        self._ready.set()
        self._ended.set()

    def _listener(self) -> "EventListener":
        from qemu.qmp import EventListener  # noqa: PLC0415 (see the module)

        return EventListener(_SHUTDOWN, self._heard)

    def _heard(self, message: "Message") -> bool:
        """Take what matters of an event. False: the package need not keep it; it would keep all of them for ever."""
        data = message.get("data")
        if isinstance(data, dict):
            self.shutdown_reason = str(data.get("reason", ""))
        return False


def _client() -> "QMPClient":
    from qemu.qmp import QMPClient  # noqa: PLC0415 (see the module)

    class Client(QMPClient):
        """Passes over the greeting and the answer to what was written early, which belong to no call."""

        async def _on_message(self, msg: "Message") -> None:
            if "QMP" not in msg and msg.get("id") != _EARLY_ID:
                await super()._on_message(msg)

    client = Client(readbuflen=_LINE_LIMIT)
    client.await_greeting = client.negotiate = False
    client.logger = logging.Logger("qemu.qmp", logging.CRITICAL)  # it calls a QEMU that ends an error; how QEMU ended is ours to say
    return client
