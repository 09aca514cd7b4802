import asyncio
import contextvars
import logging
from collections.abc import Iterator

import pytest

from utilityvm.kit.aio import Scope
from utilityvm.kit.trace import (
    EVENTS_KEPT,
    FRAMES_KEPT,
    SPANS_KEPT,
    FlightRecorder,
    Recorder,
    current,
    event,
    hushed,
    listen,
    measured,
    span,
)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    listener = Recorder()
    stop = listen(listener)
    yield listener
    stop()


def test_an_event_is_a_record_with_its_name_and_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "utilityvm")
    event("vm.exit", vm="v7", how="powered_off")
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == ("utilityvm.vm", logging.INFO, "vm.exit vm=v7 how=powered_off")
    assert (record.__dict__["event"], record.__dict__["fields"]) == ("vm.exit", {"vm": "v7", "how": "powered_off"})


async def test_what_nobody_has_asked_for_is_told_to_those_who_debug_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "utilityvm")

    async def said_later() -> None:
        event("vm.exit", vm="v7")

    scope = Scope("test")
    with hushed():
        event("vm.emulated", level=logging.WARNING, vm="v7")
        with span("vm.start", vm="v7"):
            pass
        task = scope.start("later", said_later())
    event("vm.emulated", level=logging.WARNING, vm="v8")
    await task
    await scope.aclose()
    assert [(record.levelno, record.getMessage().split(" us=")[0]) for record in caplog.records] == [
        (logging.DEBUG, "vm.emulated vm=v7"),
        (logging.DEBUG, "vm.start.done vm=v7"),
        (logging.WARNING, "vm.emulated vm=v8"),
        (logging.DEBUG, "vm.exit vm=v7"),
    ]


def test_a_percent_sign_in_a_field_is_only_a_percent_sign(caplog: pytest.LogCaptureFixture) -> None:
    event("vm.output.failed", level=logging.ERROR, vm="v7", error="100%s")
    assert caplog.records[0].getMessage() == "vm.output.failed vm=v7 error=100%s"


def test_a_field_that_is_not_listed_is_our_mistake_whatever_the_level() -> None:
    with pytest.raises(KeyError, match="vm_id"):
        event("vm.exit", level=logging.DEBUG, vm_id="v7")


def test_what_nobody_listens_to_is_not_written(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "utilityvm")
    event("vm.exit", vm="v7")
    assert caplog.records == []


def test_a_span_tells_how_long_its_body_took(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "utilityvm")
    with span("vm.start", vm="v7"):
        assert caplog.records == []
    (record,) = caplog.records
    assert record.__dict__["event"] == "vm.start.done"
    assert record.__dict__["fields"].keys() == {"vm", "us"}
    assert record.__dict__["fields"]["us"] >= 0


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_a_span_that_fails_tells_the_error_and_lets_it_pass(caplog: pytest.LogCaptureFixture, error: BaseException) -> None:
    caplog.set_level(logging.INFO, "utilityvm")
    with pytest.raises(type(error)), span("vm.start", vm="v7"):
        raise error
    (record,) = caplog.records
    assert record.__dict__["event"] == "vm.start.failed"
    assert record.__dict__["fields"]["error"] == type(error).__name__


def test_the_log_and_a_listener_are_told_the_same_numbers(caplog: pytest.LogCaptureFixture, recorder: Recorder) -> None:
    caplog.set_level(logging.DEBUG, "utilityvm")
    with pytest.raises(ValueError, match="^x$"), span("vm.start", vm="v7"), span("machine.start", level=logging.DEBUG):
        raise ValueError("x")
    measured("boot.kernel", 1_000, 5_999, vm="v7", within=1)
    logged = [(record.__dict__["event"], record.__dict__["fields"]) for record in caplog.records]
    heard = [
        (f"{of.name}.{'failed' if of.error else 'done'}", {**of.fields, **({"error": of.error} if of.error else {}), "us": of.us})
        for of in recorder.spans
    ]
    assert heard == logged
    assert [name for name, _ in heard] == ["machine.start.failed", "vm.start.failed", "boot.kernel.done"]
    assert recorder.spans[0].reason == "x"
    assert logged[2] == ("boot.kernel.done", {"vm": "v7", "within": 1, "us": 4})


async def test_what_is_inside_a_span_has_its_fields_and_is_its_child_also_in_tasks(
    caplog: pytest.LogCaptureFixture, recorder: Recorder
) -> None:
    caplog.set_level(logging.INFO, "utilityvm")
    scope = Scope("test")

    async def later() -> None:
        await asyncio.sleep(0)
        with span("process.run", pid=5):
            event("vm.exit", how="killed")

    with span("vm.start", vm="v7"):
        task = scope.start("later", later())
    await task
    run, start = recorder.spans[1], recorder.spans[0]
    assert (start.name, start.parent, run.name, run.parent) == ("vm.start", None, "process.run", start)
    assert start.start <= start.end <= run.events[0].at <= run.end
    assert run.fields == {"vm": "v7", "pid": 5}
    assert caplog.records[1].getMessage() == "vm.exit vm=v7 pid=5 how=killed"


def test_two_spans_side_by_side_do_not_see_each_other(recorder: Recorder) -> None:
    with span("vm.start", vm="a"):
        pass
    with span("vm.start", vm="b"):
        pass
    assert [(of.parent, of.fields) for of in recorder.spans] == [(None, {"vm": "a"}), (None, {"vm": "b"})]


def test_a_coroutine_that_is_thrown_away_in_another_context_ends_its_span_in_peace(recorder: Recorder) -> None:
    async def work() -> None:
        with span("vm.start", vm="v7"):
            await asyncio.sleep(0)

    abandoned = work()
    contextvars.Context().run(abandoned.send, None)
    abandoned.close()
    assert [(of.name, of.error) for of in recorder.spans] == [("vm.start", "GeneratorExit")]


def test_what_is_kept_for_listeners_is_bounded(recorder: Recorder) -> None:
    with span("vm.start"):
        for _ in range(EVENTS_KEPT + 10):
            event("vm.exit")
    assert len(recorder.spans[0].events) == EVENTS_KEPT
    for _ in range(SPANS_KEPT + 10):
        with span("vm.close"):
            pass
    assert len(recorder.spans) == SPANS_KEPT
    assert recorder.spans[0].name == "vm.start"


def test_without_a_listener_nothing_is_kept_and_a_span_has_no_name_elsewhere() -> None:
    with span("vm.start") as this:
        event("vm.exit")
        assert current() is None
    assert this.events == []
    assert current() is None


def test_a_listener_that_has_stopped_hears_the_end_of_what_it_heard_begin_and_nothing_else() -> None:
    listener, other = Recorder(), Recorder()
    stop, stop_other = listen(listener), listen(other)
    with span("vm.start"):
        stop()
        with span("machine.start"):
            pass
    stop()
    assert [[of.name for of in each.spans] for each in (listener, other)] == [["vm.start"], ["machine.start", "vm.start"]]
    stop_other()


def test_a_span_with_a_field_that_is_not_listed_is_our_mistake() -> None:
    with pytest.raises(KeyError, match="vm_id"), span("vm.start", vm_id="v7"):
        pass
    with pytest.raises(KeyError, match="vm_id"):
        measured("vm.start", 0, 1, vm_id="v7")


def test_the_flight_recorder_keeps_the_newest() -> None:
    recorder = FlightRecorder()
    for number in range(FRAMES_KEPT + 10):
        recorder.note(str(number))
    frames = recorder.frames()
    assert (len(frames), frames[0], frames[-1]) == (FRAMES_KEPT, "10", str(FRAMES_KEPT + 9))
