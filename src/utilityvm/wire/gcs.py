"""Messages of the GCS bridge: what is asked of the guest, what it answers, and what may be done when a caller gives up.

protocol/SPEC.md sections 5 and 6; the original's `internal/gcs` protocol structures. Member names are the wire's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Generic, TypeVar

import msgspec

from utilityvm.kit.errors import GuestError, ProtocolError
from utilityvm.kit.ids import NULL_GUID
from utilityvm.wire.frames import REQUEST, RESPONSE, Frame

PROTOCOL_VERSION: Final = 4
BRIDGE_PORT: Final = 0x4000_0000
LOG_PORT: Final = 109
ENTROPY_PORT: Final = 1
ENTROPY_BYTES: Final = 512
FIRST_STDIO_PORT: Final = 0x4000_0001
NO_TIMEOUT: Final = 0xFFFF_FFFF

FILE_NOT_FOUND: Final = 0x8007_0002
ACCESS_DENIED: Final = 0x8007_0005
NOT_FOUND: Final = 0x8007_0490


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What every request carries. The null container id is the utility VM itself."""

    container_id: str = msgspec.field(name="ContainerId", default=NULL_GUID)
    activity_id: str = msgspec.field(name="ActivityId", default=NULL_GUID)


Hresult = Annotated[int, msgspec.Meta(ge=-(1 << 31), lt=1 << 31)]
"""A signed 32-bit HRESULT, as the guest writes it."""

Uint32 = Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)]


class ErrorRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One cause of a failure, from inside the guest."""

    result: Hresult = msgspec.field(name="Result", default=0)
    message: str = msgspec.field(name="Message", default="")


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """What every response carries. `result` is a signed HRESULT, 0 for success."""

    result: Hresult = msgspec.field(name="Result", default=0)
    activity_id: str = msgspec.field(name="ActivityId", default=NULL_GUID)
    error_message: str = msgspec.field(name="ErrorMessage", default="")
    error_records: list[ErrorRecord] | None = msgspec.field(name="ErrorRecords", default=None)


class NegotiateRequest(Request, frozen=True, kw_only=True):
    """Which versions of the protocol the host speaks."""

    minimum_version: int = msgspec.field(name="MinimumVersion", default=PROTOCOL_VERSION)
    maximum_version: int = msgspec.field(name="MaximumVersion", default=PROTOCOL_VERSION)


class GuestDefinedCapabilities(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the guest's agent can do beyond the base of the protocol."""

    namespace_add_request_supported: bool = msgspec.field(name="NamespaceAddRequestSupported", default=False)
    signal_process_supported: bool = msgspec.field(name="SignalProcessSupported", default=False)
    dump_stacks_supported: bool = msgspec.field(name="DumpStacksSupported", default=False)
    delete_container_state_supported: bool = msgspec.field(name="DeleteContainerStateSupported", default=False)
    update_container_supported: bool = msgspec.field(name="UpdateContainerSupported", default=False)


class Capabilities(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the guest tells of itself when the protocol is negotiated."""

    send_host_create_message: bool = msgspec.field(name="SendHostCreateMessage", default=False)
    send_host_start_message: bool = msgspec.field(name="SendHostStartMessage", default=False)
    runtime_os_type: str = msgspec.field(name="RuntimeOsType", default="")
    guest_defined: GuestDefinedCapabilities = msgspec.field(name="GuestDefinedCapabilities", default=GuestDefinedCapabilities())


Microseconds = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


class BootTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Moments of the guest's boot by its own clock: the agent's start, the end of its duties as PID 1, and this answer."""

    started_us: Microseconds = msgspec.field(name="StartedUs")
    prepared_us: Microseconds = msgspec.field(name="PreparedUs")
    now_us: Microseconds = msgspec.field(name="NowUs")


class NegotiateResponse(Response, frozen=True, kw_only=True):
    """The version the guest chose. `boot_times` are ours; the original's agent does not send them."""

    version: int = msgspec.field(name="Version", default=0)
    capabilities: Capabilities = msgspec.field(name="Capabilities", default=Capabilities())
    boot_times: BootTimes | None = msgspec.field(name="BootTimes", default=None)


class ProcessParameters(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a process is to be started; travels as a string of JSON. `console_size` is [height, width]."""

    command_line: str = msgspec.field(name="CommandLine", default="")
    command_args: list[str] = msgspec.field(name="CommandArgs", default_factory=list)
    user: str = msgspec.field(name="User", default="")
    working_directory: str = msgspec.field(name="WorkingDirectory", default="")
    environment: dict[str, str] = msgspec.field(name="Environment", default_factory=dict)
    emulate_console: bool = msgspec.field(name="EmulateConsole", default=False)
    create_std_in_pipe: bool = msgspec.field(name="CreateStdInPipe", default=False)
    create_std_out_pipe: bool = msgspec.field(name="CreateStdOutPipe", default=False)
    create_std_err_pipe: bool = msgspec.field(name="CreateStdErrPipe", default=False)
    console_size: list[int] = msgspec.field(name="ConsoleSize", default_factory=list)


class StdioPorts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Ports that the guest dials for the process's streams; 0 for none."""

    std_in: int = msgspec.field(name="StdIn", default=0)
    std_out: int = msgspec.field(name="StdOut", default=0)
    std_err: int = msgspec.field(name="StdErr", default=0)


class ExecuteSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The body of ExecuteProcess."""

    process_parameters: str = msgspec.field(name="ProcessParameters")
    stdio_ports: StdioPorts = msgspec.field(name="VsockStdioRelaySettings", default=StdioPorts())


class ExecuteRequest(Request, frozen=True, kw_only=True):
    """Start a process."""

    settings: ExecuteSettings = msgspec.field(name="Settings")


class ExecuteResponse(Response, frozen=True, kw_only=True):
    """The process is running, or has run."""

    process_id: Uint32 = msgspec.field(name="ProcessId", default=0)


class WaitRequest(Request, frozen=True, kw_only=True):
    """Answer when the process has ended, or after `timeout_ms` milliseconds."""

    process_id: int = msgspec.field(name="ProcessId")
    timeout_ms: int = msgspec.field(name="TimeoutInMs", default=NO_TIMEOUT)


class WaitResponse(Response, frozen=True, kw_only=True):
    """The exit status, or 128 + the signal that killed the process."""

    exit_code: Uint32 = msgspec.field(name="ExitCode", default=0)


class SignalOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which signal; 0 is SIGKILL."""

    signal: int = msgspec.field(name="Signal", default=0)


class SignalRequest(Request, frozen=True, kw_only=True):
    """Send a signal to a process."""

    process_id: int = msgspec.field(name="ProcessId")
    options: SignalOptions = msgspec.field(name="Options", default=SignalOptions())


class ResizeRequest(Request, frozen=True, kw_only=True):
    """Set the size of a process's terminal, in characters."""

    process_id: int = msgspec.field(name="ProcessId")
    height: int = msgspec.field(name="Height")
    width: int = msgspec.field(name="Width")


class PropertiesRequest(Request, frozen=True, kw_only=True):
    """Tell what is asked for in `query`, a string of JSON; see `encode_query`."""

    query: str = msgspec.field(name="Query")


class PropertiesResponse(Response, frozen=True, kw_only=True):
    """What was asked for, as a string of JSON."""

    properties: str = msgspec.field(name="Properties", default="")


class DumpStacksResponse(Response, frozen=True, kw_only=True):
    """The stacks of the agent's threads, as text."""

    guest_stacks: str = msgspec.field(name="GuestStacks", default="")


class _Query(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    property_types: tuple[str, ...] = msgspec.field(name="PropertyTypes", default=())


Q = TypeVar("Q", bound=Request)
R = TypeVar("R", bound=Response)


@dataclass(frozen=True, slots=True)
class Call(Generic[Q, R]):
    """A request and its response. `idempotent` ones may be forgotten when their caller gives up after sending."""

    name: str
    word: int
    request: type[Q]
    response: type[R]
    idempotent: bool


NEGOTIATE: Final = Call("NegotiateProtocol", 0x1010_0B01, NegotiateRequest, NegotiateResponse, idempotent=True)
EXECUTE: Final = Call("ExecuteProcess", 0x1010_0501, ExecuteRequest, ExecuteResponse, idempotent=False)
WAIT: Final = Call("WaitForProcess", 0x1010_0601, WaitRequest, WaitResponse, idempotent=True)
SIGNAL: Final = Call("SignalProcess", 0x1010_0701, SignalRequest, Response, idempotent=False)
RESIZE: Final = Call("ResizeConsole", 0x1010_0801, ResizeRequest, Response, idempotent=True)
PROPERTIES: Final = Call("GetProperties", 0x1010_0901, PropertiesRequest, PropertiesResponse, idempotent=True)
DUMP_STACKS: Final = Call("DumpStacks", 0x1010_0C01, Request, DumpStacksResponse, idempotent=True)

SHUTDOWN_GRACEFUL: Final = 0x1010_0301
SHUTDOWN_FORCED: Final = 0x1010_0401

_encoder = msgspec.json.Encoder()


def encode_request(request: Request) -> bytes:
    """Return the JSON text of `request`, with the newline that the host's encoder leaves."""
    return _encoder.encode(request) + b"\n"


def encode_parameters(parameters: ProcessParameters) -> str:
    """Return `parameters` as the string of JSON that ExecuteProcess carries."""
    return _encoder.encode(parameters).decode()


def encode_query(types: Sequence[str]) -> str:
    """Return the string of JSON by which GetProperties asks for `types`."""
    return _encoder.encode(_Query(property_types=tuple(types))).decode()


def response_type(request_type: int) -> int:
    """Return the type word that answers `request_type`."""
    return request_type - REQUEST + RESPONSE


def decode_response(call: Call[Q, R], frame: Frame) -> R:
    """Return the answer to `call`.

    Raises:
        ProtocolError: the body is not what the protocol says.
        GuestError: the guest says that the call failed.
    """
    try:
        response = msgspec.json.decode(frame.body, type=call.response)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError(f"bridge response unmarshal failed: {call.name}: {error}") from error
    if response.result != 0:
        code = response.result & 0xFFFF_FFFF
        text = response.error_message or f"HRESULT {code:#010x}"
        raise GuestError(f"guest RPC failure: {text}", call=call.name, result=code)
    return response
