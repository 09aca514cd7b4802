"""How the host service tells of failures and ends: the documents beside its result codes, and those of its notifications."""

from msgspec import UNSET, Raw, UnsetType, field

from utilityvm.schema.node import Answer


class ErrorEvent(Answer, frozen=True, kw_only=True):
    """One of the reasons behind a failure, in a person's words and in an event log's."""

    message: str = field(default="", name="Message")
    stack_trace: str = field(default="", name="StackTrace")
    provider: str = field(default="", name="Provider")
    event_id: int = field(default=0, name="EventId")
    flags: int = field(default=0, name="Flags")
    source: str = field(default="", name="Source")


class Result(Answer, frozen=True, kw_only=True):
    """A failure: `error` is its HRESULT, 32 bits signed."""

    error: int = field(default=0, name="Error")
    error_message: str = field(default="", name="ErrorMessage")
    error_events: list[ErrorEvent] = field(default_factory=list, name="ErrorEvents")


class ExitAttribution(Answer, frozen=True, kw_only=True):
    """Who had a part in the end of a machine; each member is present when it had, and of its own shape."""

    windows_crash: Raw | UnsetType = field(default=UNSET, name="WindowsCrash")
    worker_exit: Raw | UnsetType = field(default=UNSET, name="WorkerExit")
    invalid_triple_fault: Raw | UnsetType = field(default=UNSET, name="InvalidTripleFault")
    operation_failure: Raw | UnsetType = field(default=UNSET, name="OperationFailure")


class SystemExitStatus(Answer, frozen=True, kw_only=True):
    """How a compute system ended: `status` is an HRESULT, `exit_type` ``GracefulExit``, ``UnexpectedExit`` or ``ForcedExit``."""

    status: int = field(default=0, name="Status")
    exit_type: str = field(default="", name="ExitType")
    attribution: list[ExitAttribution] = field(default_factory=list, name="Attribution")
