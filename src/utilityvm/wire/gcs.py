"""Messages of the GCS bridge: what is asked of the guest, what it answers, and what may be done when a caller gives up.

protocol/SPEC.md sections 5 and 6; the original's `internal/gcs` protocol structures. Member names are the wire's, and so is their
order: requests are written byte for byte as the original's Go encoder writes them.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from utilityvm.kit.errors import GuestError, InvalidOptions, ProtocolError
from utilityvm.kit.gojson import as_go
from utilityvm.kit.ids import NULL_GUID
from utilityvm.kit.text import LONGEST, printable
from utilityvm.wire.frames import REQUEST, RESPONSE, Frame
from utilityvm.wire.oci import OciProcess, environment, windows_command_line

PROTOCOL_VERSION: Final = 4
BRIDGE_PORT: Final = 0x4000_0000
LOG_PORT: Final = 109
ENTROPY_PORT: Final = 1
ENTROPY_BYTES: Final = 512
FIRST_STDIO_PORT: Final = 0x4000_0001
NO_TIMEOUT: Final = 0xFFFF_FFFF

FILE_NOT_FOUND: Final = 0x8007_0002
PATH_NOT_FOUND: Final = 0x8007_0003
ACCESS_DENIED: Final = 0x8007_0005
LOADER_NOT_FOUND: Final = 0x8007_007E
BAD_FORMAT: Final = 0x8007_00C1
NOT_FOUND: Final = 0x8007_0490
SYSTEM_NOT_FOUND: Final = 0xC037_010E

SERVICE_ID: Final = "{:08x}-facb-11e6-bd58-64006a7986d3"
"""Name of a port among the hvsocket services of Windows."""

SYSTEM_CONFIG: Final = '{"SystemType":"Container"}'
"""What the utility VM itself is created with, where its agent wants to be told of its host."""


class SpanContext(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which span of the host's trace a request belongs to: ids in hexadecimal, options 1 when it is sampled, the state in base64."""

    trace_id: str = msgspec.field(name="TraceID")
    span_id: str = msgspec.field(name="SpanID")
    trace_options: int = msgspec.field(name="TraceOptions", default=0)
    tracestate: str = msgspec.field(name="Tracestate", default="")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What every request carries. The null container id is the utility VM itself."""

    container_id: str = msgspec.field(name="ContainerId", default=NULL_GUID)
    activity_id: str = msgspec.field(name="ActivityId", default=NULL_GUID)
    ocsc: SpanContext | UnsetType = UNSET


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
    attach_process_supported: bool = msgspec.field(name="AttachProcessSupported", default=False)
    """Ours alone."""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the guest tells of itself when the protocol is negotiated."""

    send_host_create_message: bool = msgspec.field(name="SendHostCreateMessage", default=False)
    send_host_start_message: bool = msgspec.field(name="SendHostStartMessage", default=False)
    runtime_os_type: str = msgspec.field(name="RuntimeOsType", default="")
    """Whatever the case of its letters; `GuestClient.os` is what it means."""
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


class CreateRequest(Request, frozen=True, kw_only=True):
    """Create a container; `container_config` is a string of JSON whose shape is the guest's."""

    container_config: str = msgspec.field(name="ContainerConfig")


class ProcessParameters(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a process is to be started; travels as a string of JSON. `console_size` is [height, width].

    `oci_process` is for containers of Linux guests, and then only the pipes matter beside it; without either, a container's first process
    is the one that the container was created with.
    """

    application_name: str = msgspec.field(name="ApplicationName", default="")
    command_line: str = msgspec.field(name="CommandLine", default="")
    command_args: list[str] = msgspec.field(name="CommandArgs", default_factory=list)
    user: str = msgspec.field(name="User", default="")
    working_directory: str = msgspec.field(name="WorkingDirectory", default="")
    environment: dict[str, str] = msgspec.field(name="Environment", default_factory=dict)
    restricted_token: bool = msgspec.field(name="RestrictedToken", default=False)
    emulate_console: bool = msgspec.field(name="EmulateConsole", default=False)
    create_std_in_pipe: bool = msgspec.field(name="CreateStdInPipe", default=False)
    create_std_out_pipe: bool = msgspec.field(name="CreateStdOutPipe", default=False)
    create_std_err_pipe: bool = msgspec.field(name="CreateStdErrPipe", default=False)
    console_size: list[int] = msgspec.field(name="ConsoleSize", default_factory=list)
    use_existing_login: bool = msgspec.field(name="UseExistingLogin", default=False)
    use_legacy_console: bool = msgspec.field(name="UseLegacyConsole", default=False)
    oci_process: OciProcess | None = msgspec.field(name="OciProcess", default=None)


class StdioPorts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Ports that the guest dials for the process's streams; 0 for none."""

    std_in: int = msgspec.field(name="StdIn", default=0)
    std_out: int = msgspec.field(name="StdOut", default=0)
    std_err: int = msgspec.field(name="StdErr", default=0)


class StdioServices(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The same for guests of Windows, which know ports by the names of services; empty for none."""

    std_in: str = msgspec.field(name="StdIn", default="")
    std_out: str = msgspec.field(name="StdOut", default="")
    std_err: str = msgspec.field(name="StdErr", default="")


class ExecuteSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The body of ExecuteProcess, with either the ports or the services of the streams; see `execute_settings`."""

    process_parameters: str = msgspec.field(name="ProcessParameters")
    stdio_ports: StdioPorts | UnsetType = msgspec.field(name="VsockStdioRelaySettings", default=UNSET)
    stdio_services: StdioServices | UnsetType = msgspec.field(name="StdioRelaySettings", default=UNSET)


class ExecuteRequest(Request, frozen=True, kw_only=True):
    """Start a process."""

    settings: ExecuteSettings = msgspec.field(name="Settings")


class ExecuteResponse(Response, frozen=True, kw_only=True):
    """The process is running, or has run."""

    process_id: Uint32 = msgspec.field(name="ProcessId", default=0)


class AttachRequest(Request, frozen=True, kw_only=True):
    """Take the streams of a process that another host has started, before the VM was saved."""

    process_id: int = msgspec.field(name="ProcessId")
    stdio_ports: StdioPorts = msgspec.field(name="VsockStdioRelaySettings")


class ProcessState(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is that was attached; `exit_code` means something once it has `ended`."""

    terminal: bool = msgspec.field(name="Terminal")
    ended: bool = msgspec.field(name="Ended")
    exit_code: Uint32 = msgspec.field(name="ExitCode")


class AttachResponse(Response, frozen=True, kw_only=True):
    """The streams are dialled. There is no state in a failure."""

    process_state: ProcessState = msgspec.field(name="ProcessState", default=ProcessState(terminal=False, ended=False, exit_code=0))


class WaitRequest(Request, frozen=True, kw_only=True):
    """Answer when the process has ended, or after `timeout_ms` milliseconds."""

    process_id: int = msgspec.field(name="ProcessId")
    timeout_ms: int = msgspec.field(name="TimeoutInMs", default=NO_TIMEOUT)


class WaitResponse(Response, frozen=True, kw_only=True):
    """The exit status, or 128 + the signal that killed the process."""

    exit_code: Uint32 = msgspec.field(name="ExitCode", default=0)


class SignalOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which signal, a number or for guests of Windows a name like ``CtrlC``; 0 or none is SIGKILL.

    `group` sends it to the process's whole group; other agents than ours do not know it.
    """

    signal: int | str | UnsetType = msgspec.field(name="Signal", default=UNSET)
    group: bool | UnsetType = msgspec.field(name="Group", default=UNSET)


class SignalRequest(Request, frozen=True, kw_only=True):
    """Send a signal to a process, SIGKILL without options."""

    process_id: int = msgspec.field(name="ProcessId")
    options: SignalOptions | UnsetType = msgspec.field(name="Options", default=UNSET)


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


class GuestRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What ModifySettings asks for: `settings` are the resource's, a struct or plain builtins. No request type is ``Add``."""

    request_type: str | UnsetType = msgspec.field(name="RequestType", default=UNSET)
    resource_type: str | UnsetType = msgspec.field(name="ResourceType", default=UNSET)
    settings: object = msgspec.field(name="Settings", default=UNSET)


class ModifyRequest(Request, frozen=True, kw_only=True):
    """Change a resource of the utility VM or of a container."""

    request: object = msgspec.field(name="Request")


class UpdateRequest(Request, frozen=True, kw_only=True):
    """Change the limits of a container; `resources` is a string of JSON. No Linux guest knows it: see `GuestContainer.update`."""

    resources: str = msgspec.field(name="Resources")


class DumpStacksResponse(Response, frozen=True, kw_only=True):
    """The stacks of the agent's threads, as text."""

    guest_stacks: str = msgspec.field(name="GuestStacks", default="")


class _Query(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    property_types: tuple[str, ...] = msgspec.field(name="PropertyTypes", default=())


class NotificationType(StrEnum):
    """What a container's notification tells; a program that ends by itself is an unexpected exit."""

    NONE = "None"
    UNEXPECTED_EXIT = "UnexpectedExit"
    GRACEFUL_EXIT = "GracefulExit"
    FORCED_EXIT = "ForcedExit"
    REBOOT = "Reboot"
    CONSTRUCTED = "Constructed"
    STARTED = "Started"
    PAUSED = "Paused"
    UNKNOWN = "Unknown"


class ContainerNotification(msgspec.Struct, frozen=True, kw_only=True):
    """A container has ended. `result` is a signed HRESULT."""

    container_id: str = msgspec.field(name="ContainerId")
    activity_id: str = msgspec.field(name="ActivityId", default=NULL_GUID)
    type: NotificationType = msgspec.field(name="Type")
    operation: str = msgspec.field(name="Operation", default="None")
    result: Hresult = msgspec.field(name="Result", default=0)
    result_info: str = msgspec.field(name="ResultInfo", default="")


Q = TypeVar("Q", bound=Request)
R = TypeVar("R", bound=Response)
T = TypeVar("T")


class GivenUp(StrEnum):
    """What becomes of a request whose caller gives up after it was sent."""

    DROP = "its answer is dropped"
    UNDO = "what it made is undone when the answer comes"
    FINISH = "the caller waits for the answer first: what follows must not overtake it"


class Call(msgspec.Struct, Generic[Q, R], frozen=True):
    """A request and its response. An `idempotent` one does no harm when it is sent again because nobody knows whether it happened."""

    name: str
    word: int
    request: type[Q]
    response: type[R]
    idempotent: bool
    given_up: GivenUp


NEGOTIATE: Final = Call("NegotiateProtocol", 0x1010_0B01, NegotiateRequest, NegotiateResponse, idempotent=True, given_up=GivenUp.DROP)
CREATE: Final = Call("Create", 0x1010_0101, CreateRequest, Response, idempotent=False, given_up=GivenUp.UNDO)
CREATE_SYSTEM: Final = Call("Create", 0x1010_0101, CreateRequest, Response, idempotent=False, given_up=GivenUp.DROP)
"""Create of the utility VM itself: part of the beginning, and who gives that up ends the VM."""
START: Final = Call("Start", 0x1010_0201, Request, Response, idempotent=False, given_up=GivenUp.FINISH)
START_SYSTEM: Final = Call("Start", 0x1010_0201, Request, Response, idempotent=False, given_up=GivenUp.DROP)
SHUTDOWN_GRACEFUL: Final = Call("ShutdownGraceful", 0x1010_0301, Request, Response, idempotent=True, given_up=GivenUp.DROP)
SHUTDOWN_FORCED: Final = Call("ShutdownForced", 0x1010_0401, Request, Response, idempotent=True, given_up=GivenUp.DROP)
EXECUTE: Final = Call("ExecuteProcess", 0x1010_0501, ExecuteRequest, ExecuteResponse, idempotent=False, given_up=GivenUp.UNDO)
WAIT: Final = Call("WaitForProcess", 0x1010_0601, WaitRequest, WaitResponse, idempotent=True, given_up=GivenUp.DROP)
SIGNAL: Final = Call("SignalProcess", 0x1010_0701, SignalRequest, Response, idempotent=False, given_up=GivenUp.DROP)
RESIZE: Final = Call("ResizeConsole", 0x1010_0801, ResizeRequest, Response, idempotent=True, given_up=GivenUp.DROP)
PROPERTIES: Final = Call("GetProperties", 0x1010_0901, PropertiesRequest, PropertiesResponse, idempotent=True, given_up=GivenUp.DROP)
MODIFY: Final = Call("ModifySettings", 0x1010_0A01, ModifyRequest, Response, idempotent=False, given_up=GivenUp.FINISH)
SET_CLOCK: Final = Call("ModifySettings", 0x1010_0A01, ModifyRequest, Response, idempotent=True, given_up=GivenUp.DROP)
"""ModifySettings that tells nothing but the time: nothing follows from it that its answer must not be overtaken by."""
DUMP_STACKS: Final = Call("DumpStacks", 0x1010_0C01, Request, DumpStacksResponse, idempotent=True, given_up=GivenUp.DROP)
DELETE_STATE: Final = Call("DeleteContainerState", 0x1010_0D01, Request, Response, idempotent=False, given_up=GivenUp.FINISH)
ATTACH: Final = Call("AttachProcess", 0x1018_0101, AttachRequest, AttachResponse, idempotent=False, given_up=GivenUp.FINISH)
UPDATE: Final = Call("UpdateContainer", 0x1010_0E01, UpdateRequest, Response, idempotent=True, given_up=GivenUp.FINISH)

CALLS: Final[Sequence[Call[Any, Any]]] = (
    NEGOTIATE,
    CREATE,
    CREATE_SYSTEM,
    START,
    START_SYSTEM,
    SHUTDOWN_GRACEFUL,
    SHUTDOWN_FORCED,
    EXECUTE,
    WAIT,
    SIGNAL,
    RESIZE,
    PROPERTIES,
    MODIFY,
    DUMP_STACKS,
    DELETE_STATE,
    UPDATE,
    ATTACH,
)
"""Everything that the host asks."""

NOTIFICATION_WORD: Final = 0x3010_0101

_encoder = msgspec.json.Encoder(order="deterministic")


def encode_json(value: object) -> str:
    """Return a struct or plain builtins as the JSON text that the original writes.

    Raises:
        InvalidOptions: a text in it has bytes that are not UTF-8; the guest would get another text.
    """
    try:
        return as_go(_encoder.encode(value).decode())
    except UnicodeEncodeError as error:
        raise InvalidOptions(f"{error.object[:100]!r} is not UTF-8, which text for a guest must be") from error


def encode_request(request: Request) -> bytes:
    """Return the JSON text of `request`, with the newline that the host's encoder leaves. See `encode_json` for errors."""
    return encode_json(request).encode() + b"\n"


def encode_query(types: Sequence[str]) -> str:
    """Return the string of JSON by which GetProperties asks for `types`."""
    return encode_json(_Query(property_types=tuple(types)))


def parameters_of(process: OciProcess, *, windows: bool, whole: bool, stdin: bool, stdout: bool, stderr: bool) -> ProcessParameters:
    """Return what ExecuteProcess says of `process`: all of it with `whole`, as containers of Linux guests want it, or its parts."""
    if whole:
        pipes = ProcessParameters(create_std_in_pipe=stdin, create_std_out_pipe=stdout, create_std_err_pipe=stderr)
        return msgspec.structs.replace(pipes, oci_process=process)
    line = process.command_line or (windows_command_line(process.args) if windows else "")
    return ProcessParameters(
        command_line=line,
        command_args=[] if line else process.args,
        user=process.user.username,
        working_directory=process.cwd,
        environment=environment(process.env),
        emulate_console=process.terminal,
        create_std_in_pipe=stdin,
        create_std_out_pipe=stdout,
        create_std_err_pipe=stderr,
        console_size=[process.console_size.height, process.console_size.width] if process.console_size else [],
    )


def execute_settings(parameters: ProcessParameters, ports: StdioPorts, *, windows: bool) -> ExecuteSettings:
    """Return the body of ExecuteProcess for a guest of Linux, or of Windows."""
    text = encode_json(parameters)
    if not windows:
        return ExecuteSettings(process_parameters=text, stdio_ports=ports)
    std_in, std_out, std_err = (SERVICE_ID.format(port) if port else "" for port in (ports.std_in, ports.std_out, ports.std_err))
    return ExecuteSettings(process_parameters=text, stdio_services=StdioServices(std_in=std_in, std_out=std_out, std_err=std_err))


def response_type(request_type: int) -> int:
    """Return the type word that answers `request_type`."""
    return request_type - REQUEST + RESPONSE


def decode_response(call: Call[Q, R], frame: Frame) -> R:
    """Return the answer to `call`.

    Raises:
        ProtocolError: the body is not what the protocol says.
        GuestError: the guest says that the call failed.
    """
    response = _decode(frame.body, call.response, f"bridge response unmarshal failed: {call.name}")
    if response.result != 0:
        code = response.result & 0xFFFF_FFFF
        text = printable(response.error_message, LONGEST) or f"HRESULT {code:#010x}"
        raise GuestError(f"guest RPC failure: {text}", call=call.name, result=code)
    return response


def decode_notification(frame: Frame) -> ContainerNotification:
    """Return what the guest tells without being asked.

    Raises:
        ProtocolError: it is no notification that the protocol has.
    """
    if frame.type != NOTIFICATION_WORD:
        raise ProtocolError(f"bridge received unknown notification message {frame.type:#x}")
    return _decode(frame.body, ContainerNotification, "bridge notification failed")


def decode_text(text: str, kind: type[T], what: str) -> T:
    """Return what the guest wrote as JSON into a text; `what` names it in an error.

    Raises:
        ProtocolError: it is no `kind`.
    """
    return _decode(text.encode(errors="replace"), kind, what)


def _decode(body: bytes, kind: type[T], what: str) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"{what}: {printable(str(error), LONGEST)}") from error
