"""Processes of a compute system: how one is created and changed, and what is told of it."""

from msgspec import field

from utilityvm.schema.node import Answer, Node


class ProcessParameters(Node, frozen=True, kw_only=True):
    """A process to be created; `console_size` is (height, width), in characters, with `emulate_console`."""

    application_name: str = field(default="", name="ApplicationName")
    command_line: str = field(default="", name="CommandLine")
    command_args: list[str] = field(default_factory=list, name="CommandArgs")
    user: str = field(default="", name="User")
    working_directory: str = field(default="", name="WorkingDirectory")
    environment: dict[str, str] = field(default_factory=dict, name="Environment")
    restricted_token: bool = field(default=False, name="RestrictedToken")
    emulate_console: bool = field(default=False, name="EmulateConsole")
    create_std_in_pipe: bool = field(default=False, name="CreateStdInPipe")
    create_std_out_pipe: bool = field(default=False, name="CreateStdOutPipe")
    create_std_err_pipe: bool = field(default=False, name="CreateStdErrPipe")
    console_size: list[int] = field(default_factory=list, name="ConsoleSize")
    use_existing_login: bool = field(default=False, name="UseExistingLogin")
    use_legacy_console: bool = field(default=False, name="UseLegacyConsole")


class ConsoleSize(Node, frozen=True, kw_only=True):
    """A console's size in characters."""

    height: int = field(default=0, name="Height")
    width: int = field(default=0, name="Width")


class CloseHandle(Node, frozen=True, kw_only=True):
    """Which of a process's streams is closed: ``StdIn``."""

    handle: str = field(default="", name="Handle")


class ProcessModifyRequest(Node, frozen=True, kw_only=True):
    """A change of a running process: `operation` is ``ConsoleSize`` or ``CloseHandle``."""

    operation: str = field(default="", name="Operation")
    console_size: ConsoleSize | None = field(default=None, name="ConsoleSize")
    close_handle: CloseHandle | None = field(default=None, name="CloseHandle")


class ProcessStatus(Answer, frozen=True, kw_only=True):
    """How a process stands; `exit_code` holds when it `exited` and `last_wait_result` is 0."""

    process_id: int = field(default=0, name="ProcessId")
    exited: bool = field(default=False, name="Exited")
    exit_code: int = field(default=0, name="ExitCode")
    last_wait_result: int = field(default=0, name="LastWaitResult")
