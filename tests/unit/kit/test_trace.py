import logging

import pytest

from utilityvm.kit.trace import FRAMES_KEPT, FlightRecorder, event, span


def test_an_event_is_a_record_with_its_name_and_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "utilityvm")
    event("vm.exit", vm="v7", how="powered_off")
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == ("utilityvm.vm", logging.INFO, "vm.exit vm=v7 how=powered_off")
    assert (record.__dict__["event"], record.__dict__["fields"]) == ("vm.exit", {"vm": "v7", "how": "powered_off"})


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


def test_the_flight_recorder_keeps_the_newest() -> None:
    recorder = FlightRecorder()
    for number in range(FRAMES_KEPT + 10):
        recorder.note(str(number))
    frames = recorder.frames()
    assert (len(frames), frames[0], frames[-1]) == (FRAMES_KEPT, "10", str(FRAMES_KEPT + 9))
