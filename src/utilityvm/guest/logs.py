"""The guest's log stream: JSON objects, one a line, become records of Python's `logging`.

As the original's default output handler; unlike there, a broken line costs that line and not the rest of the stream. The guest is not
trusted: its text is shown without control characters, and its clock is believed only near ours.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

from utilityvm.guest.transport import GuestStream
from utilityvm.kit.errors import ConnectionLost, ProtocolError
from utilityvm.kit.text import printable

MAX_LINE: Final = 64 * 1024
"""Longest line in bytes; a longer one is cut into pieces of this size."""

MAX_SKEW: Final = 24 * 3600
"""Seconds that the guest's clock may be away from ours for a record to be dated by it."""

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

_TURN: Final = 64  # lines after which others have their turn, or a flood would keep the loop from the other VMs
_LONGEST_TIME: Final = 40  # characters; RFC 3339 with nanoseconds and an offset has 35

_log = logging.getLogger("utilityvm.guest")


class LineReader:
    """Cut a byte stream into lines of at most `MAX_LINE` bytes."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes and return the lines that are now complete, without their ends."""
        first, *others = data.split(b"\n")
        lines = []
        self._kept += first  # what is kept has no end of a line, so it is not searched again
        for other in others:
            lines.append(bytes(self._kept))
            self._kept = bytearray(other)
        if len(self._kept) >= MAX_LINE:
            whole = len(self._kept) - len(self._kept) % MAX_LINE
            lines.append(bytes(self._kept[:whole]))
            del self._kept[:whole]
        return [line[at : at + MAX_LINE] for line in lines for at in range(0, len(line), MAX_LINE)]

    def rest(self) -> bytes:
        """Return what came after the last line's end."""
        return bytes(self._kept)


def record(line: bytes, vm_id: str) -> logging.LogRecord:
    """Turn one line into a record.

    Its message is the line's `msg` and the other members as ``key=value``, all printable. Attributes: `fields`, those members and the
    original's ``uvm-id`` and ``vm.time``; `vm_id`; `vm_time`, the guest's time in seconds since 1970, None where the line tells none;
    `received`, when the line came here. `created` is `vm_time` unless that is more than `MAX_SKEW` from `received`.

    A line that is not a JSON object becomes an error record with the line as its text: most likely the agent's last words.
    """
    text = line.decode(errors="replace")
    try:
        entry = json.loads(text)
        fields = {printable(key): _shown(value) for key, value in entry.items()} if isinstance(entry, dict) else None
    except (ValueError, RecursionError):
        fields = None
    if fields is None:
        fields = {"level": "error", "msg": printable(text)}
    message, level, time = (str(fields.pop(key, default)) for key, default in (("msg", ""), ("level", "info"), ("time", "")))
    fields |= {"uvm-id": vm_id, "vm.time": time}
    text = " ".join([message, *(f"{key}={value}" for key, value in fields.items())])
    result = logging.LogRecord(_log.name, _LEVELS.get(level, logging.INFO), "guest", 0, text, None, None)
    at = _seconds(time)
    result.fields, result.vm_id, result.vm_time, result.received = fields, vm_id, at, result.created
    if at is not None and abs(at - result.created) <= MAX_SKEW:
        result.relativeCreated += 1000 * (at - result.created)
        result.created, result.msecs = at, at % 1 * 1000
    return result


def _shown(value: object) -> str | int | float | bool | None:
    """Return what a member of a line is in a record: whole numbers as integers, strings printable, all else as its JSON."""
    match value:
        case str():
            return printable(value)
        case float():
            return int(value) if value.is_integer() else value
        case int() | None:  # bool is an int
            return value
    return printable(json.dumps(value, ensure_ascii=False))


def _seconds(time: str) -> float | None:
    """Read a time as RFC 3339 has it. One without an offset is nobody's time."""
    try:
        at = datetime.fromisoformat(time[:_LONGEST_TIME])
        return at.timestamp() if at.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def forward_to_logging(vm_id: str) -> OutputHandler:
    """Return the default handler: every line goes to the logger ``utilityvm.guest``."""

    async def forward(stream: GuestStream) -> None:
        reader = LineReader()
        try:
            while data := await stream.read(MAX_LINE):
                for number, line in enumerate(reader.feed(data), start=1):
                    _emit(line, vm_id)
                    if number % _TURN == 0:
                        await asyncio.sleep(0)
                await asyncio.sleep(0)
        except (ConnectionLost, ProtocolError):
            pass  # the VM is gone, or will be; what it had said counts
        _emit(reader.rest(), vm_id)

    return forward


def _emit(line: bytes, vm_id: str) -> None:
    if line.strip():
        entry = record(line, vm_id)
        if _log.isEnabledFor(entry.levelno):
            _log.handle(entry)
