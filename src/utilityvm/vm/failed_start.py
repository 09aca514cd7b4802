"""Why a VM did not start, as its caller is told."""

from dataclasses import replace

from utilityvm.compute.ports import ExitStatus
from utilityvm.kit.errors import ConnectionLost, DeadlineExceeded, HostError, UtilityVMError


class Phase:
    """What a start is waiting for, for the error that says so."""

    now = "the VM to run"


def start_failure(
    error: BaseException, phase: Phase, name: str, within: float, *, fault: UtilityVMError | None, status: ExitStatus | None, console: str
) -> UtilityVMError | None:
    """Return what the caller of `start` gets instead of `error`: the VM's own end rather than the connection that it tore down.

    `fault` is why we ended it, if we did, `status` its end, if it has ended, `console` what it said last, `within` how long it had.
    """
    last_words = f"\nlast lines of its console:\n{console}" if console else "\nits console said nothing"
    if isinstance(error, TimeoutError):
        return DeadlineExceeded(f"{name}: not ready within {within:g} s: waiting for {phase.now}{last_words}")
    if isinstance(error, ConnectionLost) and fault is not None:
        return fault
    if isinstance(error, ConnectionLost) and status is not None:
        how = replace(status, detail="").error(name) or f"{name}: ended while starting ({status.how.value})"
        detail = f": {status.detail}" if status.detail and status.detail not in console else ""
        return HostError(f"{how}, while waiting for {phase.now}{detail}{last_words}")
    return None
