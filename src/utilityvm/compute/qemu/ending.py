"""How a machine ended, from what QEMU and the guest left behind. Pure."""

import re
from typing import Final

from utilityvm.compute.ports import ExitHow, ExitStatus

_PANIC: Final = "Kernel panic"
_LINES: Final = 20


def exit_status(code: int, *, terminated: bool, shutdown_reason: str, said: str, console: str) -> ExitStatus:
    """Say how a machine ended.

    `code` is QEMU's exit code, or minus the signal; `terminated` whether we killed it; `shutdown_reason` what its monitor
    said last (QMP's `ShutdownCause`); `said` its own output; `console` the guest's. With ``-no-reboot`` QEMU ends with 0
    after a power-off, a reset and a panic alike, so the code alone says little.
    """
    if code < 0:
        return ExitStatus(ExitHow.TERMINATED) if terminated else ExitStatus(ExitHow.KILLED, said, -code)
    if code > 0:
        return ExitStatus(ExitHow.FAILED, said or _last(console), code)
    match shutdown_reason:
        case "guest-shutdown":
            return ExitStatus(ExitHow.POWERED_OFF)
        case "guest-reset" | "guest-panic":
            return _panic_or_reset(shutdown_reason, console)
        case "host-signal":  # QEMU ends in order when it gets SIGTERM, SIGINT or SIGHUP, and says which
            signal = re.search(r"terminating on signal (\d{1,3})\b", said)
            return ExitStatus(ExitHow.KILLED, said, int(signal[1]) if signal else 0)
    return ExitStatus(ExitHow.FAILED, said or "QEMU ended without saying why")


def _panic_or_reset(shutdown_reason: str, console: str) -> ExitStatus:
    at = console.find(_PANIC)
    if at >= 0:
        return ExitStatus(ExitHow.PANICKED, "\n".join(console[at:].splitlines()[:_LINES]))
    return ExitStatus(ExitHow.PANICKED if shutdown_reason == "guest-panic" else ExitHow.RESET, _last(console))


def _last(text: str) -> str:
    return "\n".join(text.splitlines()[-_LINES:])
