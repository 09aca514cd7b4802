"""Our spans as OpenTelemetry's. The one module that needs the extra ``otel``; `kit.trace.enable_opentelemetry` loads it."""

import time
from typing import Final, final

import msgspec
from opentelemetry import context, trace
from opentelemetry.trace import SpanKind, Status, StatusCode

from utilityvm.kit.trace import Span, TraceContext

ORIGINAL_NAMES: Final = {
    "vm.create": "uvm::CreateLCOW",
    "vm.close": "uvm::Close",
    "machine.create": "hcs::CreateComputeSystem",
    "machine.start": "hcs::System::Start",
    "machine.pause": "hcs::System::Pause",
    "machine.resume": "hcs::System::Resume",
    "machine.close": "hcs::System::Close",
    "bridge.negotiate": "gcs::GuestConnectionConfig::Connect",
    "agent.stacks": "gcs::GuestConnection::DumpStacks",
    "process.start": "gcs::GuestConnection::CreateProcess",
    "process.run": "gcs::Process::waitBackground",
    "process.signal": "gcs::Process::Signal",
    "process.resize": "gcs::Process::ResizeConsole",
}
"""What hcsshim calls the same work. The other spans are ours alone and keep their names."""

_CALLS: Final = frozenset(
    {"bridge.negotiate", "agent.stacks", "process.start", "process.signal", "process.resize"}
)  # of kind client, as there
_VM: Final = "uvm-id"  # the original's word for the field `vm`, in its spans as in its log


class _Exported(msgspec.Struct, frozen=True):
    span: trace.Span
    shift: int  # from time.perf_counter_ns to nanoseconds since 1970; one for the span, so that its length stays what was measured
    outer: context.Context


@final
class Exporter:
    """A `kit.trace.Listener` that tells a tracer of `provider` (None: the global one)."""

    def __init__(self, provider: trace.TracerProvider | None) -> None:
        self._tracer = trace.get_tracer("utilityvm", tracer_provider=provider)
        self._running: dict[Span, _Exported] = {}

    def began(self, span: Span) -> None:
        """See `kit.trace.Listener`. The span is OpenTelemetry's current one until it ends."""
        shift = time.time_ns() - time.perf_counter_ns()
        kind = SpanKind.CLIENT if span.name in _CALLS else SpanKind.INTERNAL
        attributes = {_VM if name == "vm" else name: value for name, value in span.fields.items()}
        name, start = ORIGINAL_NAMES.get(span.name, span.name), span.start + shift
        exported = self._tracer.start_span(name, kind=kind, attributes=attributes, start_time=start)
        ids = exported.get_span_context()
        span.context = TraceContext(ids.trace_id, ids.span_id, ids.trace_flags.sampled)
        outer = context.get_current()
        context.attach(trace.set_span_in_context(exported, outer))
        self._running[span] = _Exported(exported, shift, outer)

    def ended(self, span: Span) -> None:
        """See `kit.trace.Listener`."""
        exported = self._running.pop(span)
        for event in span.events:
            exported.span.add_event(
                event.name, {_VM if name == "vm" else name: value for name, value in event.fields.items()}, event.at + exported.shift
            )
        if span.error:
            exported.span.set_attribute("error", span.error)
            exported.span.set_status(Status(StatusCode.ERROR, span.reason))
        exported.span.end(span.end + exported.shift)
        context.attach(exported.outer)  # not detached by a token: a coroutine that is thrown away ends in another context
