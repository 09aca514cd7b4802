"""Events and spans: a log record is a name plus fields, and a measured stretch of work is one.

Field names are listed here, so that one thing is not logged under two spellings.
"""

import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

FIELDS: Final = frozenset({"vm", "us", "error", "pid", "message", "requested", "assigned", "how", "argv"})
"""Every field name that an event may carry."""

FRAMES_KEPT: Final = 256

_log = logging.getLogger("utilityvm")
_log.addHandler(logging.NullHandler())

FieldValue = str | int | float | bool


def event(name: str, /, level: int = logging.INFO, **fields: FieldValue) -> None:
    """Log the event `name`, e.g. ``event("vm.exit", vm=id, how="powered_off")``.

    Raises:
        KeyError: a field is not in `FIELDS`.
    """
    _emit(name, level, fields)


@contextmanager
def span(name: str, /, **fields: FieldValue) -> Iterator[None]:
    """Measure the body: logs ``name.done us=...`` or ``name.failed error=...``; the exception goes on."""
    start = time.perf_counter_ns()
    try:
        yield
    except BaseException as error:
        _emit(f"{name}.failed", logging.INFO, {**fields, "error": type(error).__name__, "us": (time.perf_counter_ns() - start) // 1000})
        raise
    _emit(f"{name}.done", logging.INFO, {**fields, "us": (time.perf_counter_ns() - start) // 1000})


def _emit(name: str, level: int, fields: Mapping[str, FieldValue]) -> None:
    if strangers := fields.keys() - FIELDS:
        raise KeyError(f"event {name}: fields {sorted(strangers)} are not in kit.trace.FIELDS")
    if _log.isEnabledFor(level):
        text = " ".join([name, *(f"{key}={value}" for key, value in fields.items())])
        _log.getChild(name.split(".", 1)[0]).log(level, text, extra={"event": name, "fields": dict(fields)})


class FlightRecorder:
    """The last frames of one connection, for `ConnectionLost`."""

    def __init__(self) -> None:
        self._frames: deque[str] = deque(maxlen=FRAMES_KEPT)

    def note(self, frame: str) -> None:
        """Keep one line; the oldest goes when there are too many."""
        self._frames.append(frame)

    def frames(self) -> list[str]:
        """Return what was kept, oldest first."""
        return list(self._frames)
