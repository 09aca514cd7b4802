"""The guest's moments on our clock."""

from collections.abc import Iterator

import pytest

from utilityvm.guest.boot_times import BootTold, tell_boot
from utilityvm.kit.trace import Recorder, Span, listen
from utilityvm.wire.gcs import BootTimes

MS = 1_000_000
MACHINE = Span("machine.start", None, {}, 0, 100 * MS)
CONNECT = Span("bridge.negotiate", None, {}, 2000 * MS, 2010 * MS)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    listener = Recorder()
    stop = listen(listener)
    yield listener
    stop()


def times(started: float, prepared: float, now: float) -> BootTimes:
    """Moments in milliseconds."""
    return BootTimes(started_us=int(started * 1000), prepared_us=int(prepared * 1000), now_us=int(now * 1000))


def told(recorder: Recorder) -> list[tuple[str, float, float]]:
    assert all(span.fields == {"within": 5000} for span in recorder.spans)
    return [(span.name, span.start / MS, span.end / MS) for span in recorder.spans]


def test_the_guests_moments_are_counted_back_from_the_middle_of_the_negotiation(recorder: Recorder) -> None:
    assert tell_boot(BootTold(times(1500, 1600, 1805), CONNECT), MACHINE)
    assert told(recorder) == [("boot.kernel", 100, 1700), ("boot.init", 1700, 1800), ("boot.agent", 1800, 2000)]


@pytest.mark.parametrize(("started", "prepared", "at"), [(-3, 100, (100, 202)), (100, 1902, (202, 2000))])
def test_what_misses_the_edges_by_the_uncertainty_is_at_the_edge(
    recorder: Recorder, started: float, prepared: float, at: tuple[float, float]
) -> None:
    assert tell_boot(BootTold(times(10 + started, 10 + prepared, 1913), CONNECT), MACHINE)
    assert [(name, start) for name, start, _ in told(recorder)[1:]] == [("boot.init", at[0]), ("boot.agent", at[1])]


@pytest.mark.parametrize(
    "moments",
    [times(1600, 1500, 1805), times(1500, 1806, 1800), times(0, 1600, 1911), times(9 * 10**12, 9 * 10**12, 0), times(0, 0, 9 * 10**12)],
    ids=["not in order", "in the future", "before the machine", "far ahead", "far behind"],
)
def test_moments_of_another_boot_or_of_a_liar_are_not_told(recorder: Recorder, moments: BootTimes) -> None:
    assert not tell_boot(BootTold(moments, CONNECT), MACHINE)
    assert recorder.spans == []
