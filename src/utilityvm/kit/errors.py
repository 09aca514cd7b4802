"""The errors of the house: one root, a class only where a caller would act differently, and their translation at the doors.

The message says what, which and why; `hint` says what to do. Low-level exceptions are chained with ``raise ... from``.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar, Self

import msgspec


class Kind(StrEnum):
    """What sort of failure it is; doors translate it, see `EXIT_CODES`."""

    INVALID_OPTIONS = "invalid_options"
    NOT_FOUND = "not_found"
    EXISTS = "exists"
    STATE = "state"
    EXHAUSTED = "exhausted"
    UNSUPPORTED = "unsupported"
    HOST = "host"
    GUEST = "guest"
    CONNECTION_LOST = "connection_lost"
    PROTOCOL = "protocol"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    CORRUPT = "corrupt"


EXIT_CODES: Mapping[Kind, int] = MappingProxyType(
    {
        Kind.INVALID_OPTIONS: 2,
        Kind.NOT_FOUND: 3,
        Kind.EXISTS: 3,
        Kind.STATE: 4,
        Kind.EXHAUSTED: 5,
        Kind.UNSUPPORTED: 6,
        Kind.HOST: 7,
        Kind.GUEST: 8,
        Kind.CONNECTION_LOST: 9,
        Kind.PROTOCOL: 10,
        Kind.DEADLINE_EXCEEDED: 11,
        Kind.CORRUPT: 12,
    }
)
"""Exit code of every verb but `boot`, `run` and `exec`, which end with 125 for any error of ours."""


class UtilityVMError(Exception):
    """Root of everything this package raises on purpose.

    `hint` is what the reader can do about it, or ``""``. `retryable` says whether the same call may succeed later. `half_done` says
    of a change of host and guest that one of them has made it and the other has not.
    """

    kind: ClassVar[Kind]
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.half_done = False

    def during(self, doing: str) -> Self:
        """Put before its sentence what was being done, and return it."""
        self.message = f"{doing}: {self.message}"
        self.args = (self.message,)
        return self


class Problem(msgspec.Struct, frozen=True):
    """One thing wrong with what the user asked for: where (`$.memory_size_in_mb`), which rule, and the sentence."""

    path: str
    rule: str
    message: str


class InvalidOptions(UtilityVMError):
    """The options cannot be carried out; `problems` has all that were found, in the order of the rules."""

    kind = Kind.INVALID_OPTIONS

    def __init__(self, message: str, *, problems: Sequence[Problem] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.problems = tuple(problems)


class NotFound(UtilityVMError):
    """The thing that was named does not exist."""

    kind = Kind.NOT_FOUND


class Exists(UtilityVMError):
    """The thing that was to be created exists already."""

    kind = Kind.EXISTS


class StateError(UtilityVMError):
    """The call is not allowed in the subject's state; nothing was changed."""

    kind = Kind.STATE

    def __init__(self, subject: str, state: str, event: str, *, hint: str = "") -> None:
        super().__init__(f"{subject}: cannot {event} while {state}", hint=hint)
        self.subject, self.state, self.event = subject, state, event


class Exhausted(UtilityVMError):
    """A bounded resource (slot, memory, connection) is used up."""

    kind = Kind.EXHAUSTED
    retryable = True


class OutputLimitExceeded(Exhausted):
    """A program said more than its caller would keep; `stdout` and `stderr` are what was kept. The same call would end the same way."""

    retryable = False

    def __init__(self, message: str, *, stdout: bytes, stderr: bytes, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.stdout, self.stderr = stdout, stderr


class NoVPMem(Exhausted):
    """A file has no place on persistent memory: it is too large for a device, or all devices are taken. A SCSI disk may take it."""

    retryable = False


class Unsupported(UtilityVMError):
    """This host, hypervisor or guest, or this version of ours, cannot do it; says which and what is lacking."""

    kind = Kind.UNSUPPORTED


class HostError(UtilityVMError):
    """The host's side failed: a hypervisor that ended, a command that was refused, a system call."""

    kind = Kind.HOST


class QmpError(HostError):
    """QEMU refused a monitor command; `error_class` is QEMU's own name for why."""

    def __init__(self, message: str, *, error_class: str, command: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.error_class, self.command = error_class, command


class HcsError(HostError):
    """Windows' compute service refused an operation; `hresult` is its code, unsigned; errors of Win32 are bare."""

    def __init__(self, message: str, *, hresult: int, operation: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.hresult, self.operation = hresult, operation


class GuestError(UtilityVMError):
    """The guest agent answered a call with a failure; `result` is its HRESULT as an unsigned number."""

    kind = Kind.GUEST

    def __init__(self, message: str, *, call: str, result: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.call, self.result = call, result


class ConnectionLost(UtilityVMError):
    """The connection to the guest is gone; `frames` are the last that passed, oldest first."""

    kind = Kind.CONNECTION_LOST
    retryable = True

    def __init__(self, message: str, *, frames: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.frames = tuple(frames)


class Unknown(ConnectionLost):
    """The call was sent and the connection was lost before the answer: it may or may not have happened."""


class ProtocolError(UtilityVMError):
    """The peer broke the contract of the wire."""

    kind = Kind.PROTOCOL


class DeadlineExceeded(UtilityVMError):
    """Time ran out; the message says what was being waited for. `stdout` and `stderr` are what a collecting call had got by then."""

    kind = Kind.DEADLINE_EXCEEDED
    retryable = True

    def __init__(self, message: str, *, stdout: bytes = b"", stderr: bytes = b"", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.stdout, self.stderr = stdout, stderr


class Corrupt(UtilityVMError):
    """A file is not as it was written, or as its signature or form says that it is."""

    kind = Kind.CORRUPT


class BadArchive(Corrupt):
    """An archive is not in its form, or costs more than is allowed. `entry` is the name in it that is to blame, or ``b""``."""

    def __init__(self, message: str, *, entry: bytes = b"", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.entry = entry
