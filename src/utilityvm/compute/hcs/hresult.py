"""What the host service's result codes mean, and the errors that they become. Pure.

The service reports its own codes as ``0xC037....``, newer libraries the same as ``0x8037....``, and errors of Win32 bare or
as ``0x8007....``; here they are compared in one form.
"""

from collections.abc import Mapping
from typing import Final

from utilityvm.kit.errors import Exists, HcsError, HostError, NotFound, UtilityVMError
from utilityvm.schema.json import decode_answer
from utilityvm.schema.results import ErrorEvent, Result

OK: Final = 0
ACCESS_DENIED: Final = 0x5
INVALID_DATA: Final = 0xD
NOT_SUPPORTED: Final = 0x32
PROCEDURE_NOT_FOUND: Final = 0x7F
ELEMENT_NOT_FOUND: Final = 0x490
PENDING: Final = 0xC0370103
INVALID_STATE: Final = 0xC0370105
UNEXPECTED_EXIT: Final = 0xC0370106
UNKNOWN_MESSAGE: Final = 0xC037010B
INVALID_JSON: Final = 0xC037010D
DOES_NOT_EXIST: Final = 0xC037010E
ALREADY_EXISTS: Final = 0xC037010F
ALREADY_STOPPED: Final = 0xC0370110

NOT_EXIST: Final = frozenset({DOES_NOT_EXIST, ELEMENT_NOT_FOUND, PROCEDURE_NOT_FOUND})
"""There is no such system or process (any more)."""
STOPPED: Final = frozenset({ALREADY_STOPPED, ELEMENT_NOT_FOUND, PROCEDURE_NOT_FOUND})
"""It has ended already."""
UNSUPPORTED: Final = frozenset({INVALID_JSON, INVALID_DATA, NOT_SUPPORTED, UNKNOWN_MESSAGE})
"""This Windows does not know what it was asked."""
ENDED: Final = frozenset({ALREADY_STOPPED, DOES_NOT_EXIST, PENDING})
"""For who wants a system to end: it does, or has."""
NOT_DELIVERED: Final = frozenset({INVALID_STATE, DOES_NOT_EXIST, ELEMENT_NOT_FOUND})
"""For who signals a process: it has ended."""

_SENTENCES: Final[Mapping[int, str]] = {
    ACCESS_DENIED: "access is denied",
    INVALID_DATA: "the data is invalid",
    NOT_SUPPORTED: "the request is not supported",
    PROCEDURE_NOT_FOUND: "the procedure could not be found",
    ELEMENT_NOT_FOUND: "element not found",
    0xC0370100: "the virtual machine or container exited unexpectedly while starting",
    0xC0370101: "the operating system of the container does not match that of the host",
    0xC0370102: "the virtual machine could not be started: Hyper-V is not installed, or not running",
    PENDING: "the operation is pending",
    0xC0370104: "the virtual machine or container did not answer in time",
    INVALID_STATE: "the operation is not valid in the present state",
    UNEXPECTED_EXIT: "the virtual machine or container exited unexpectedly",
    0xC0370107: "it was forcefully exited",
    0xC0370108: "a connection could not be made to it",
    0xC0370109: "the operation timed out",
    0xC037010A: "the connection to it was closed",
    UNKNOWN_MESSAGE: "an unknown message was received",
    0xC037010C: "the version of the guest's protocol is not supported",
    INVALID_JSON: "the document is invalid",
    DOES_NOT_EXIST: "there is no such virtual machine or container",
    ALREADY_EXISTS: "there is a virtual machine or container with that id",
    ALREADY_STOPPED: "it has ended already",
    0xC0370111: "a protocol error occurred",
    0xC0370112: "the layer is invalid",
}

_HINTS: Final[Mapping[int, str]] = {
    ACCESS_DENIED: "run as an administrator, or as a member of Hyper-V Administrators",
    0xC0370102: "uvm doctor says what is missing",
}


def event_line(event: ErrorEvent) -> str:
    """Return an event as the original writes it; what was not told is not mentioned."""
    parts = (
        ("", event.message),
        ("Stack Trace: ", event.stack_trace),
        ("Provider: ", event.provider),
        ("EventID: ", event.event_id),
        ("flags: ", event.flags),
        ("Source: ", event.source),
    )
    return f"[Event Detail: {' '.join(f'{label}{value}' for label, value in parts if value)}]"


def code_of(hresult: int) -> int:
    """Return the one form of a code, unsigned."""
    hresult &= 0xFFFFFFFF
    if hresult & 0x1FFF0000 == 0x00070000:
        return hresult & 0xFFFF
    return hresult | 0x40000000 if hresult & 0xFFFF0000 == 0x80370000 else hresult


def sentence_of(code: int) -> str:
    """Return what a code says."""
    return f"{_SENTENCES.get(code, 'the host service failed')} ({code:#x})"


def error_of(operation: str, subject: str, hresult: int, result: str = "") -> UtilityVMError:
    """Return what a failed call is: ``<operation> <subject>: <reason>`` and one line for each event that the service tells."""
    code = code_of(hresult)
    message, events = sentence_of(code), ""
    try:
        told = decode_answer(result or "{}", Result)
    except HostError:
        events = f"\n{result}"  # in whatever shape, it is all that is known
    else:
        if told.error_message:
            message = f"{told.error_message} ({code:#x})"
        events = "".join(f"\n{event_line(event)}" for event in told.error_events)
    text, hint = f"{operation} {subject}: {message}{events}", _HINTS.get(code, "")
    if code == DOES_NOT_EXIST and operation.endswith("Open"):
        return NotFound(text, hint=hint)
    if code == ALREADY_EXISTS:
        return Exists(text, hint=hint)
    return HcsError(text, hresult=code, operation=operation, hint=hint)


def refused_with(error: UtilityVMError, codes: frozenset[int]) -> bool:
    """Whether the service's reason for `error` is one of `codes`."""
    return isinstance(error, HcsError) and error.hresult in codes
