"""The guest's log stream: JSON objects, one a line, become records of Python's `logging`.

As the original's default output handler; unlike there, a broken line costs that line and not the rest of the stream.
"""

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from utilityvm.guest.transport import GuestStream
from utilityvm.kit.errors import ConnectionLost, ProtocolError

MAX_LINE: Final = 64 * 1024
"""Longest line in bytes; a longer one is cut into pieces of this size."""

OutputHandler = Callable[[GuestStream], Awaitable[None]]
"""Reads the guest's log stream to its end."""

_LEVELS: Final = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.ERROR,  # the guest's end is not ours
    "panic": logging.ERROR,
}

_log = logging.getLogger("utilityvm.guest")


class LineReader:
    """Cut a byte stream into lines of at most `MAX_LINE` bytes."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes and return the lines that are now complete, without their ends."""
        self._kept += data
        *lines, rest = bytes(self._kept).split(b"\n")
        while len(rest) >= MAX_LINE:
            lines.append(rest[:MAX_LINE])
            rest = rest[MAX_LINE:]
        self._kept = bytearray(rest)
        return [line[at : at + MAX_LINE] for line in lines for at in range(0, len(line), MAX_LINE)]

    def rest(self) -> bytes:
        """Return what came after the last line's end."""
        return bytes(self._kept)


def record(line: bytes, vm_id: str) -> logging.LogRecord:
    """Turn one line into a record: its message, level and fields, the VM's id and the guest's time.

    A line that is not a JSON object becomes an error record with the line as its text: most likely the agent's last words.
    """
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict):
        entry = {"level": "error", "msg": line.decode(errors="replace")}
    message, level, time = (str(entry.pop(key, default)) for key, default in (("msg", ""), ("level", "info"), ("time", "")))
    fields = {str(key): value for key, value in entry.items()} | {"uvm-id": vm_id, "vm.time": time}
    text = " ".join([message, *(f"{key}={value}" for key, value in fields.items())])
    result = logging.LogRecord(_log.name, _LEVELS.get(level, logging.INFO), "guest", 0, text, None, None)
    result.fields = fields
    return result


def forward_to_logging(vm_id: str) -> OutputHandler:
    """Return the default handler: every line goes to the logger ``utilityvm.guest``."""

    async def forward(stream: GuestStream) -> None:
        reader = LineReader()
        try:
            while data := await stream.read(MAX_LINE):
                for line in reader.feed(data):
                    _emit(line, vm_id)
        except (ConnectionLost, ProtocolError):
            pass  # the VM is gone, or will be; what it had said counts
        _emit(reader.rest(), vm_id)

    return forward


def _emit(line: bytes, vm_id: str) -> None:
    if line.strip():
        entry = record(line, vm_id)
        if _log.isEnabledFor(entry.levelno):
            _log.handle(entry)
