"""Why a VM did not start, as its caller is told."""

import msgspec
from msgspec.structs import replace

from utilityvm.compute.ports import ExitStatus
from utilityvm.kit.errors import ConnectionLost, DeadlineExceeded, HostError, UtilityVMError
from utilityvm.plan.topology import GUEST_MEMORY


class Phase(msgspec.Struct):
    """What a start is waiting for `now`, for the error that says so: of the VM `name`, which has `within` seconds and so much memory."""

    name: str
    within: float
    memory_in_mb: int
    now: str = "the VM to run"


def start_failure(
    error: BaseException, phase: Phase, *, fault: UtilityVMError | None, status: ExitStatus | None, console: str
) -> UtilityVMError | None:
    """Return what the caller of `start` gets instead of `error`: the VM's own end rather than the connection that it tore down.

    `fault` is why we ended it, if we did, `status` its end, if it has ended, `console` what it said last.
    """
    last_words = f"\nlast lines of its console:\n{console}" if console else "\nits console said nothing"
    if isinstance(error, TimeoutError):
        return DeadlineExceeded(f"{phase.name}: not ready within {phase.within:g} s: waiting for {phase.now}{last_words}")
    if isinstance(error, ConnectionLost) and fault is not None:
        return fault
    if isinstance(error, ConnectionLost) and status is not None:
        how = replace(status, detail="").error(phase.name) or f"{phase.name}: ended while starting ({status.how.value})"
        detail = f": {status.detail}" if status.detail and status.detail not in console else ""
        return HostError(f"{how}, while waiting for {phase.now}{detail}{last_words}", hint=_more_memory(phase.memory_in_mb))
    return None


def _more_memory(has: int) -> str:
    """Say so if that is too little, of which a guest ends in ways that do not tell."""
    needs = GUEST_MEMORY >> 20
    return (
        f"it has {has} MiB of memory, and a Linux guest needs {needs} beside what is run: memory_size_in_mb, --memory"
        if has < needs
        else ""
    )
