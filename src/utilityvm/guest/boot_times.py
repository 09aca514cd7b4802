"""The guest's own part of its boot, as spans: its clock is mapped onto ours by the answer that told its moments."""

import msgspec

from utilityvm.kit.trace import Span, measured
from utilityvm.wire.gcs import BootTimes


class BootTold(msgspec.Struct, frozen=True):
    """Moments of the guest's boot by its clock, and the negotiation in which it read that clock: ``bridge.negotiate``."""

    times: BootTimes
    negotiation: Span


def tell_boot(told: BootTold, machine: Span) -> bool:
    """Tell the guest's stretches as spans between the end of `machine`, its start, and the beginning of the negotiation.

    ``boot.kernel`` lasts until the agent begins, ``boot.init`` while it mounts, sets limits and loads modules, ``boot.agent`` until
    it has the carrier and entropy and dials the bridge. The guest read its clock at some moment of the negotiation, half of which is
    the uncertainty: the field `within`, in microseconds.

    Returns False, and tells nothing, when the moments do not fit between the two: the clock did not begin with this machine, as in a
    clone, or the guest lies.
    """
    times, begin, end = told.times, machine.end, told.negotiation.start
    half = (told.negotiation.end - end) // 2
    zero = end + half - 1000 * times.now_us
    started, prepared = zero + 1000 * times.started_us, zero + 1000 * times.prepared_us
    if not begin - half <= started <= prepared <= end + half:
        return False
    started, prepared = (min(max(moment, begin), end) for moment in (started, prepared))
    measured("boot.kernel", begin, started, within=half // 1000)
    measured("boot.init", started, prepared, within=half // 1000)
    measured("boot.agent", prepared, end, within=half // 1000)
    return True
