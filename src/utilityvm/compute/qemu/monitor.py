"""QEMU's monitor: commands, and the events that say why a guest ended.

Nobody waits for it on the way to the guest's first process, and no event is missed: leave to send events is written into the
socket before QEMU is there to read it.
"""

import asyncio
import logging
import socket
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, Final, final

from utilityvm.compute.qemu.qmp import Happened, Message, MessageReader, Refusal, encode
from utilityvm.kit.errors import ConnectionLost, DeadlineExceeded, ProtocolError, QmpError
from utilityvm.kit.text import printable
from utilityvm.kit.trace import event

ANSWER_TIMEOUT: Final = 60.0
"""Seconds that QEMU has for an answer."""

UNPLUG_TIMEOUT: Final = 10.0
"""Seconds that a guest has to let go of a device."""

_CHUNK: Final = 64 * 1024
_REASON_LENGTH: Final = 100


@final
class Monitor:
    """One QEMU's monitor. `run` is its loop; `sock` is a connected pair's end that stays the caller's; QEMU does not read yet."""

    def __init__(self, name: str, sock: socket.socket) -> None:
        self._name, self._sock = name, sock
        self._numbers = count()
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._removed: dict[str, asyncio.Future[None]] = {}  # devices whose end somebody waits for
        self._writing, self._ended = asyncio.Lock(), asyncio.Event()
        self._why = "QEMU closed it"
        self._disk_told = False
        self.memory_changed = asyncio.Event()
        """The guest has taken memory that was plugged in, or given some back; or QEMU has ended."""
        self.migration_changed = asyncio.Event()
        """QEMU has come further with reading or writing the state of devices; or it has ended. It says so when it has the capability
        for it."""
        self.shutdown_reason = ""
        """Why QEMU ended its guest, in QMP's words (`ShutdownCause`); ``""`` while it has not."""
        sock.setblocking(False)
        sock.send(encode(next(self._numbers), "qmp_capabilities"))

    async def run(self) -> None:
        """Read until QEMU closes its end or says what is no message. A monitor's end is not a VM's end: those who execute are told."""
        reader = MessageReader()
        try:
            while data := await asyncio.get_running_loop().sock_recv(self._sock, _CHUNK):
                for message in reader.feed(data):
                    self._heard(message)
                await asyncio.sleep(0)  # a QEMU that never stops talking must not keep the loop from the other VMs
        except ProtocolError as error:
            self._why = error.message
            event("qemu.monitor.failed", level=logging.WARNING, vm=self._name.removeprefix("vm "), error=error.message)
        except OSError as error:
            self._why = f"{error.strerror}"
        finally:
            self._ended.set()
            self.memory_changed.set()
            self.migration_changed.set()
            everybody: list[asyncio.Future[Any]] = [*self._waiting.values(), *self._removed.values()]
            for waiting in everybody:
                if not waiting.done():
                    waiting.set_exception(self._lost())
                    waiting.exception()  # a caller that was cancelled does not come back for it

    async def ended(self) -> None:
        """Wait until QEMU has closed its end and all that it said was read."""
        await self._ended.wait()

    async def execute(self, command: str, arguments: Mapping[str, object] | None = None, *, fds: Sequence[int] = ()) -> object:
        """Execute a command and return its answer. Descriptors of `fds` go with it; ours stay open.

        Raises:
            QmpError: QEMU refused it.
            ConnectionLost: QEMU ended; whether the command was carried out is not known.
            DeadlineExceeded: QEMU did not answer within `ANSWER_TIMEOUT`; the same.
        """
        number, answer = next(self._numbers), asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                await self._send(encode(number, command, arguments), fds)
                message = await answer
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self._name}: QEMU did not answer {command} within {ANSWER_TIMEOUT:g} s") from error
        except (ConnectionLost, OSError) as error:
            raise ConnectionLost(f"{self._name}: QEMU's monitor ended during {command}: {self._why}") from error
        finally:
            del self._waiting[number]
        if isinstance(message, Refusal):
            text = f"{self._name}: QEMU refused {command}: {message.description}"
            raise QmpError(text, error_class=message.error_class, command=command)
        return message.value

    async def unplug(self, device: str) -> None:
        """Remove a device and wait until the guest has let go of it, or QEMU has not asked it. One that is not there is an error.

        Raises:
            DeadlineExceeded: it is still there after `UNPLUG_TIMEOUT` seconds.
            QmpError, ConnectionLost: as `execute`.
        """
        removed = self._removed[device] = asyncio.get_running_loop().create_future()
        try:
            await self.execute("device_del", {"id": device})
            async with asyncio.timeout(UNPLUG_TIMEOUT):
                await removed
        except TimeoutError as error:
            raise DeadlineExceeded(f"{self._name}: {device}: the guest did not let go of it within {UNPLUG_TIMEOUT:g} s") from error
        finally:
            del self._removed[device]

    async def _send(self, line: bytes, fds: Sequence[int]) -> None:
        """Send a command. One that a cancelled caller leaves half sent ends the monitor: QEMU will not understand the next."""
        if self._ended.is_set():
            raise self._lost()
        loop = asyncio.get_running_loop()
        async with self._writing:
            if fds:  # they go with the first byte
                await self._writable(loop)
                line = line[socket.send_fds(self._sock, [line], list(fds)) :]
            await loop.sock_sendall(self._sock, line)

    async def _writable(self, loop: asyncio.AbstractEventLoop) -> None:
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_writer(self._sock, _settle, ready)
        try:
            await ready
        finally:
            loop.remove_writer(self._sock)

    def _lost(self) -> ConnectionLost:
        return ConnectionLost(f"{self._name}: QEMU's monitor ended: {self._why}")

    def _disk_failed(self, told: Mapping[str, object]) -> None:
        """Tell once that what the guest has written is not on this host: the guest learns of it late, and its programs perhaps never."""
        if self._disk_told or told.get("operation") != "write":
            return
        self._disk_told = True
        why = printable(str(told.get("reason")), _REASON_LENGTH)
        full = "; the host's file system with its disks is full" if told.get("nospace") is True else ""
        said = f"{self._name}: what the guest writes to a disk cannot be kept: {why}{full}"
        event("vm.disk.failed", level=logging.WARNING, vm=self._name.removeprefix("vm "), message=said)

    def _heard(self, message: Message) -> None:
        """Take what matters. Answers that nobody waits for are dropped, as QMP's specification says, and so are all other events."""
        if isinstance(message, Happened):
            reason = message.data.get("reason")
            if message.name == "SHUTDOWN" and isinstance(reason, str):
                self.shutdown_reason = printable(reason, _REASON_LENGTH)
            if message.name == "MEMORY_DEVICE_SIZE_CHANGE":
                self.memory_changed.set()
            if message.name == "MIGRATION":
                self.migration_changed.set()
            if message.name == "BLOCK_IO_ERROR":
                self._disk_failed(message.data)
            device = message.data.get("device")
            if message.name == "DEVICE_DELETED" and isinstance(device, str):
                _settle(self._removed.get(device))
        elif (answer := self._waiting.get(message.id)) is not None and not answer.done():
            answer.set_result(message)


def _settle(waiting: "asyncio.Future[None] | None") -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
