"""`uvm doctor` on Windows: the host service and what it needs."""

from utilityvm.cli.doctor import Finding, Mark
from utilityvm.compute.hcs.probe import Told, look, told_of


def findings(build: int) -> list[Finding]:
    """Look at this Windows, which is of this `build`."""
    return [Finding(told.subject, told.text, _mark(told), told.hint) for told in told_of(look(build))]


def _mark(told: Told) -> Mark:
    if told.good:
        return Mark.OK
    return Mark.FAIL if told.needed else Mark.WEAK
