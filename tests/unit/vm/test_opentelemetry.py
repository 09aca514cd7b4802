"""Our spans in OpenTelemetry, of a VM over a fake machine with a fake guest."""

import asyncio
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import INVALID_SPAN, SpanKind, StatusCode, get_current_span

from utilityvm import GuestError, Unsupported, enable_opentelemetry
from utilityvm.kit.otel import ORIGINAL_NAMES
from utilityvm.kit.trace import Recorder, current, event, listen, span

from .fake import create, service


@pytest.fixture
def provider() -> TracerProvider:
    return TracerProvider()


@pytest.fixture
def exported(provider: TracerProvider) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    stop = enable_opentelemetry(provider)
    yield exporter
    stop()
    provider.shutdown()


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def parent(of: ReadableSpan, others: dict[str, ReadableSpan]) -> str | None:
    return None if of.parent is None else next(name for name, span in others.items() if span.context.span_id == of.parent.span_id)


async def test_a_vms_life_has_the_originals_names_and_is_nested_as_it_was(exported: InMemorySpanExporter) -> None:
    of, _ = service()
    recorder = Recorder()
    stop = listen(recorder)
    async with await create(of) as vm:
        await vm.start()
        process = await vm.create_process(["echo", "a"])
        assert await process.wait() == 1
        await process.kill()
        await process.close()
    stop()
    spans = by_name(exported)
    assert {name: parent(span, spans) for name, span in spans.items()} == {
        "vm.plan": None,
        "hcs::CreateComputeSystem": None,
        "vm.start": None,
        "hcs::System::Start": "vm.start",
        "gcs::GuestConnectionConfig::Connect": "vm.start",
        "gcs::GuestConnection::CreateProcess": None,
        "gcs::Process::waitBackground": "gcs::GuestConnection::CreateProcess",
        "gcs::Process::Signal": None,
        "uvm::Close": None,
        "hcs::System::Close": "uvm::Close",
    }
    for ours in recorder.spans:
        theirs = spans[ORIGINAL_NAMES.get(ours.name, ours.name)]
        assert theirs.end_time is not None
        assert theirs.start_time is not None
        assert theirs.end_time - theirs.start_time == ours.end - ours.start
        assert theirs.status.status_code is StatusCode.UNSET
    assert dict(spans["gcs::Process::waitBackground"].attributes or {}) == {"uvm-id": "fake", "pid": process.pid}
    kinds = {name for name, span in spans.items() if span.kind is SpanKind.CLIENT}
    assert kinds == {"gcs::GuestConnectionConfig::Connect", "gcs::GuestConnection::CreateProcess", "gcs::Process::Signal"}


async def test_the_guest_is_told_which_span_a_request_belongs_to(exported: InMemorySpanExporter) -> None:
    asked: list[object] = []
    of, guests = service()
    async with await create(of) as vm:
        await vm.start()
        execute = guests[0]._execute

        async def spy(request: dict[str, object]) -> dict[str, object]:
            asked.append(request["ocsc"])
            return await execute(request)

        guests[0]._execute = spy  # type: ignore[method-assign]
        process = await vm.create_process(["echo"])
        await process.wait()
        await process.close()
    ids = by_name(exported)["gcs::GuestConnection::CreateProcess"].context
    assert asked == [{"TraceID": f"{ids.trace_id:032x}", "SpanID": f"{ids.span_id:016x}", "TraceOptions": 1}]


async def test_a_failure_is_told_with_its_reason(exported: InMemorySpanExporter) -> None:
    of, _ = service()
    async with await create(of) as vm:
        await vm.start()
        with pytest.raises(GuestError):
            await vm.create_process(["nothing"])
    failed = by_name(exported)["gcs::GuestConnection::CreateProcess"]
    assert failed.status.status_code is StatusCode.ERROR
    assert "no such program" in str(failed.status.description)
    assert dict(failed.attributes or {}) == {"uvm-id": "fake", "error": "GuestError"}


def test_an_event_is_one_of_the_span_around_it(exported: InMemorySpanExporter) -> None:
    with span("vm.close", vm="v7"):
        event("vm.exit", how="terminated")
    close = by_name(exported)["uvm::Close"]
    (happened,) = close.events
    assert (happened.name, dict(happened.attributes or {})) == ("vm.exit", {"uvm-id": "v7", "how": "terminated"})
    assert close.start_time is not None
    assert close.end_time is not None
    assert close.start_time <= happened.timestamp <= close.end_time


async def test_our_spans_are_children_of_the_applications_and_know_their_ids(
    provider: TracerProvider, exported: InMemorySpanExporter
) -> None:
    tracer = provider.get_tracer("application")
    with tracer.start_as_current_span("request") as outer:
        assert current() is None
        with span("vm.start", vm="v7"), tracer.start_as_current_span("inner"):
            ids = current()
    spans = by_name(exported)
    assert (parent(spans["vm.start"], spans), parent(spans["inner"], spans)) == ("request", "vm.start")
    assert ids is not None
    assert (ids.trace_id, ids.span_id, ids.sampled) == (outer.get_span_context().trace_id, spans["vm.start"].context.span_id, True)


async def test_two_vms_at_once_are_not_mixed_up(exported: InMemorySpanExporter) -> None:
    async def life() -> None:
        of, _ = service()
        async with await create(of) as vm:
            await vm.start()

    async with asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(life())
    finished = exported.get_finished_spans()
    starts = {span.context.span_id: span.context.trace_id for span in finished if span.name == "vm.start"}
    inner = [span for span in finished if span.name == "hcs::System::Start"]
    assert {span.parent.span_id: span.context.trace_id for span in inner if span.parent} == starts
    assert len(set(starts.values())) == 2


def test_after_the_end_of_the_export_only_what_had_begun_is_exported(provider: TracerProvider) -> None:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    stop = enable_opentelemetry(provider)
    with span("vm.start"):
        stop()
    with span("vm.close"):
        assert current() is None
    provider.shutdown()
    assert [span.name for span in exporter.get_finished_spans()] == ["vm.start"]
    assert get_current_span() is INVALID_SPAN


def test_without_the_package_it_is_unsupported_and_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "utilityvm.kit.otel")
    with pytest.raises(Unsupported, match="OpenTelemetry is not installed") as caught:
        enable_opentelemetry()
    assert caught.value.hint == "pip install 'utilityvm[otel]'"
