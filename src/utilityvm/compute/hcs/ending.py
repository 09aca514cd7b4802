"""How a system ended, read from its last notification. Pure."""

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import UNSET

from utilityvm.compute.hcs.hresult import OK, code_of, sentence_of
from utilityvm.compute.ports import ExitHow, ExitStatus
from utilityvm.kit.errors import HostError
from utilityvm.schema.json import decode_answer
from utilityvm.schema.results import SystemExitStatus

COMMUNICATION_LOST: Final = "lost communication with compute service"


class Ended(msgspec.Struct, frozen=True):
    """A system's last notification: its status as an unsigned HRESULT, and the document that came with it."""

    status: int = OK
    data: str = ""
    disconnected: bool = False
    """The service itself is gone; nothing more is known."""


_CAUSES: Final[Mapping[str, ExitHow]] = {
    "windows_crash": ExitHow.PANICKED,
    "invalid_triple_fault": ExitHow.RESET,
    "worker_exit": ExitHow.UNEXPECTED,
    "operation_failure": ExitHow.UNEXPECTED,
}


def exit_status(ended: Ended, *, terminated: bool) -> ExitStatus:
    """Return how a system ended; `terminated`: we have asked for it. What the service says of the cause is in the detail, as it came."""
    if terminated:
        return ExitStatus(ExitHow.TERMINATED)
    if ended.disconnected:
        return ExitStatus(ExitHow.UNEXPECTED, COMMUNICATION_LOST)
    try:
        told = decode_answer(ended.data or "{}", SystemExitStatus)
    except HostError:
        told = SystemExitStatus()  # the words are in the detail all the same
    code = code_of(ended.status or told.status)
    causes = [name for part in told.attribution for name in _CAUSES if getattr(part, name) is not UNSET]
    if code == OK and not causes and told.exit_type not in {"UnexpectedExit", "ForcedExit"}:
        return ExitStatus(ExitHow.POWERED_OFF)
    how = _CAUSES[causes[0]] if causes else ExitHow.UNEXPECTED
    words = ([sentence_of(code)] if code != OK else []) + ([ended.data] if ended.data else [])
    return ExitStatus(how, ": ".join(words), code if how is ExitHow.UNEXPECTED else 0)
