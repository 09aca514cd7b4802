"""Events and spans: a log record is a name plus fields, and a measured stretch of work is one with a beginning and an end.

Each stretch is measured once, by its `Span`: the log, the boot timeline, the benchmarks and OpenTelemetry read the same two numbers.
Field names are listed here, so that one thing is not logged under two spellings.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Protocol, final

import msgspec

from utilityvm.kit.errors import Unsupported

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

FIELDS: Final = frozenset(
    {"vm", "us", "error", "pid", "message", "requested", "assigned", "how", "argv", "within", "resource", "container"}
)
"""Every field name that an event or a span may carry."""

FRAMES_KEPT: Final = 256
"""Frames that a flight recorder keeps."""

EVENTS_KEPT: Final = 64
"""Events that one span keeps; later ones are logged only."""

SPANS_KEPT: Final = 1024
"""Spans that a recorder keeps; later ones are logged only."""

_log = logging.getLogger("utilityvm")
_log.addHandler(logging.NullHandler())

FieldValue = str | int | float | bool


class Event(msgspec.Struct, frozen=True):
    """Something that happened inside a span, at `at` (nanoseconds of `time.perf_counter_ns`)."""

    name: str
    at: int
    fields: Mapping[str, FieldValue]


class TraceContext(msgspec.Struct, frozen=True):
    """How a span is called where it is exported to: W3C's ids as numbers of 128 and 64 bits, and whether it is recorded there."""

    trace_id: int
    span_id: int
    sampled: bool


class Span(msgspec.Struct, eq=False):
    """A stretch of work inside that of `parent`. `start` and `end` are nanoseconds of `time.perf_counter_ns`; `end` is 0 while it runs.

    `fields` are its own and those of the spans around it. `error` is the class of the exception that ended it, ``""`` for none, and
    `reason` its text. `events` are kept only while somebody listens. `context` is set by a listener that exports spans.
    """

    name: str
    parent: "Span | None"
    fields: Mapping[str, FieldValue]
    start: int
    end: int = 0
    error: str = ""
    reason: str = ""
    events: list[Event] = msgspec.field(default_factory=list)
    context: TraceContext | None = None

    @property
    def us(self) -> int:
        """How long it took, in whole microseconds; of one that runs, how long it has run."""
        return ((self.end or time.perf_counter_ns()) - self.start) // 1000


class Listener(Protocol):
    """Hears of every span, in the thread and the context in which it begins and ends. Must not raise."""

    def began(self, span: Span) -> None:
        """`span` begins."""

    def ended(self, span: Span) -> None:
        """`span` has ended, of whose beginning this listener has heard."""


_current: ContextVar[Span | None] = ContextVar("utilityvm.span", default=None)
_hushed: ContextVar[bool] = ContextVar("utilityvm.hushed", default=False)
_listeners: tuple[Listener, ...] = ()


def listen(listener: Listener) -> Callable[[], None]:
    """Let `listener` hear of every span of this process that begins from now on, until the function that is returned is called."""
    global _listeners  # noqa: PLW0603 (one for the process, as the loggers are: spans begin in any thread)
    _listeners = (*_listeners, listener)

    def stop() -> None:
        global _listeners  # noqa: PLW0603
        _listeners = tuple(other for other in _listeners if other is not listener)

    return stop


def current() -> TraceContext | None:
    """Return the name of the span that runs here where spans are exported to; None outside of a span or while nobody exports."""
    this = _current.get()
    return this.context if this is not None else None


@contextmanager
def hushed() -> Iterator[None]:
    """Log what happens in the body, and in tasks that are started in it, at the level DEBUG: nobody has asked for it."""
    before = _hushed.get()
    _hushed.set(True)
    try:
        yield
    finally:
        _hushed.set(before)  # not by its token, as in `span`


def _heard(level: int) -> int:
    return min(level, logging.DEBUG) if _hushed.get() else level


def event(name: str, /, level: int = logging.INFO, **fields: FieldValue) -> None:
    """Log the event `name` with its fields and those of the span around it, e.g. ``event("vm.exit", vm=id, how="powered_off")``.

    Raises:
        KeyError: a field is not in `FIELDS`.
    """
    around = _current.get()
    whole, level = _known(name, around, fields), _heard(level)
    if _log.isEnabledFor(level):
        _emit(name, level, whole)
    if _listeners and around is not None and not around.end and len(around.events) < EVENTS_KEPT:
        around.events.append(Event(name, time.perf_counter_ns(), whole))


@contextmanager
def span(name: str, /, level: int = logging.INFO, **fields: FieldValue) -> Iterator[Span]:
    """Measure the body: logs ``name.done us=...`` or ``name.failed error=... us=...``; the exception goes on.

    Events and spans inside, also those of tasks that are started inside, carry its fields too.

    Raises:
        KeyError: a field is not in `FIELDS`.
    """
    around = _current.get()
    this, listeners = Span(name, around, _known(name, around, fields), time.perf_counter_ns()), _listeners
    for listener in listeners:
        listener.began(this)
    _current.set(this)
    try:
        yield this
    except BaseException as error:
        this.error, this.reason = type(error).__name__, str(error)
        raise
    finally:
        this.end = time.perf_counter_ns()
        _current.set(around)  # not by its token: a coroutine that is thrown away ends in another context
        _tell(this, listeners, level)


def measured(name: str, start: int, end: int, /, level: int = logging.DEBUG, **fields: FieldValue) -> None:
    """Tell of a stretch that was measured elsewhere, as a span inside the one that runs here. Times as those of `Span`.

    Raises:
        KeyError: a field is not in `FIELDS`.
    """
    around = _current.get()
    this, listeners = Span(name, around, _known(name, around, fields), start, end), _listeners
    for listener in listeners:
        listener.began(this)
    _tell(this, listeners, level)


def _known(name: str, around: Span | None, fields: dict[str, FieldValue]) -> dict[str, FieldValue]:
    if strangers := fields.keys() - FIELDS:
        raise KeyError(f"event {name}: fields {sorted(strangers)} are not in kit.trace.FIELDS")
    return {**around.fields, **fields} if around is not None else fields


def _tell(this: Span, listeners: Iterable[Listener], level: int) -> None:
    for listener in listeners:
        listener.ended(this)
    level = _heard(level)
    if _log.isEnabledFor(level):
        outcome: dict[str, FieldValue] = {"error": this.error, "us": this.us} if this.error else {"us": this.us}
        _emit(f"{this.name}.failed" if this.error else f"{this.name}.done", level, {**this.fields, **outcome})


def _emit(name: str, level: int, fields: Mapping[str, FieldValue]) -> None:
    text = " ".join([name, *(f"{key}={value}" for key, value in fields.items())])
    _log.getChild(name.split(".", 1)[0]).log(level, text, extra={"event": name, "fields": dict(fields)})


@final
class Recorder:
    """A listener that keeps the first `SPANS_KEPT` spans that end, in the order of their ends."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def began(self, span: Span) -> None:
        """See `Listener`."""

    def ended(self, span: Span) -> None:
        """See `Listener`."""
        if len(self.spans) < SPANS_KEPT:
            self.spans.append(span)


def enable_opentelemetry(provider: "TracerProvider | None" = None) -> Callable[[], None]:
    """Export every span of this process through OpenTelemetry from now on, until the function that is returned is called.

    Spans have the names that hcsshim gives to the same work where it has one, e.g. ``uvm::CreateLCOW``, and are children of the
    application's own current span. `provider` makes the tracer (None: OpenTelemetry's global one).

    Raises:
        Unsupported: the package opentelemetry-api is not installed.
    """
    try:
        from utilityvm.kit.otel import Exporter  # noqa: PLC0415 (an extra, and slow to load)
    except ModuleNotFoundError as error:
        raise Unsupported(f"OpenTelemetry is not installed: {error}", hint="pip install 'utilityvm[otel]'") from error
    return listen(Exporter(provider))


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
