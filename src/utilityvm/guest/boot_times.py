"""The guest's own part of its boot, as spans: its clock is mapped onto ours by the answer that told its moments."""

from utilityvm.kit.trace import Span, measured
from utilityvm.wire.gcs import BootTimes


def tell_boot(times: BootTimes, machine: Span, connect: Span) -> bool:
    """Tell the guest's stretches as spans between the end of `machine`, its start, and the beginning of `connect`, the negotiation.

    ``boot.kernel`` lasts until the agent begins, ``boot.init`` while it mounts, sets limits and loads modules, ``boot.agent`` until
    it has the carrier and entropy and dials the bridge. The guest read its clock at some moment of `connect`, half of which is the
    uncertainty: the field `within`, in microseconds.

    Returns False, and tells nothing, when the moments do not fit between the two: the clock did not begin with this machine, as in a
    clone, or the guest lies.
    """
    half = (connect.end - connect.start) // 2
    begin, end, zero = machine.end, connect.start, connect.start + half - 1000 * times.now_us
    started, prepared = zero + 1000 * times.started_us, zero + 1000 * times.prepared_us
    if not begin - half <= started <= prepared <= end + half:
        return False
    started, prepared = (min(max(moment, begin), end) for moment in (started, prepared))
    measured("boot.kernel", begin, started, within=half // 1000)
    measured("boot.init", started, prepared, within=half // 1000)
    measured("boot.agent", prepared, end, within=half // 1000)
    return True
