"""How our errors are called in google.rpc's codes, and what an answer's code is to its caller."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, final

from utilityvm.kit.errors import (
    ConnectionLost,
    Corrupt,
    DeadlineExceeded,
    Exhausted,
    Exists,
    HostError,
    InvalidOptions,
    Kind,
    NotFound,
    StateError,
    Unsupported,
    UtilityVMError,
)
from utilityvm.wire.ttrpc import Code, Status

CODES: Final[Mapping[Kind, Code]] = MappingProxyType(
    {
        Kind.INVALID_OPTIONS: Code.INVALID_ARGUMENT,
        Kind.NOT_FOUND: Code.NOT_FOUND,
        Kind.EXISTS: Code.ALREADY_EXISTS,
        Kind.STATE: Code.FAILED_PRECONDITION,
        Kind.EXHAUSTED: Code.RESOURCE_EXHAUSTED,
        Kind.UNSUPPORTED: Code.UNIMPLEMENTED,
        Kind.HOST: Code.INTERNAL,
        Kind.GUEST: Code.INTERNAL,
        Kind.CONNECTION_LOST: Code.UNAVAILABLE,
        Kind.PROTOCOL: Code.INTERNAL,
        Kind.DEADLINE_EXCEEDED: Code.DEADLINE_EXCEEDED,
        Kind.CORRUPT: Code.DATA_LOSS,
    }
)
"""The code of each kind of error of ours."""


@final
class RefusedByPeer(StateError):
    """A server refuses a call in the state that it is in."""

    def __init__(self, message: str) -> None:
        UtilityVMError.__init__(self, message)
        self.subject = self.state = self.event = ""


_ERRORS: Final[Mapping[int, Callable[[str], UtilityVMError]]] = MappingProxyType(
    {
        Code.INVALID_ARGUMENT: InvalidOptions,
        Code.OUT_OF_RANGE: InvalidOptions,
        Code.NOT_FOUND: NotFound,
        Code.ALREADY_EXISTS: Exists,
        Code.FAILED_PRECONDITION: RefusedByPeer,
        Code.RESOURCE_EXHAUSTED: Exhausted,
        Code.UNIMPLEMENTED: Unsupported,
        Code.UNAVAILABLE: ConnectionLost,
        Code.DEADLINE_EXCEEDED: DeadlineExceeded,
        Code.DATA_LOSS: Corrupt,
    }
)


_NAMES: Final = {code.value: code.name.lower() for code in Code}


def status_of(error: UtilityVMError) -> Status:
    """Return how a call that failed so is answered."""
    return Status(code=CODES[error.kind], message=error.message)


def error_of(code: int, text: str) -> UtilityVMError:
    """Return what a caller is told of an answer with this code; one that has no error of its own is a failure of the host."""
    known = _ERRORS.get(code)
    if known is not None:
        return known(text)
    return HostError(f"{text} ({_NAMES.get(code, f'code {code}')})")
