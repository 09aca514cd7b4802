"""A process as the OCI runtime specification describes it, and what ExecuteProcess says of it to each kind of guest.

Members and their order are those of the specification's Go types. Guests of Linux take it whole for their containers; all others
are told the parts that they know.
"""

import msgspec


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """The size of a terminal in characters."""

    height: int
    width: int


class User(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who a process runs as. `username` is for Windows, and for processes of a utility VM."""

    uid: int
    gid: int
    umask: int | None = None
    additional_gids: list[int] = msgspec.field(name="additionalGids", default_factory=list)
    username: str = ""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Sets of capabilities by their kernel names."""

    bounding: list[str] = []
    effective: list[str] = []
    inheritable: list[str] = []
    permitted: list[str] = []
    ambient: list[str] = []


class Rlimit(msgspec.Struct, frozen=True, kw_only=True):
    """One resource limit, e.g. of type ``RLIMIT_NOFILE``."""

    type: str
    hard: int
    soft: int


class OciProcess(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is run. `env` is ``NAME=value`` each; `command_line` is for Windows and outranks `args`."""

    terminal: bool = False
    console_size: Box | None = msgspec.field(name="consoleSize", default=None)
    user: User
    args: list[str] = msgspec.field(default_factory=list)
    command_line: str = msgspec.field(name="commandLine", default="")
    env: list[str] = msgspec.field(default_factory=list)
    cwd: str
    capabilities: Capabilities | None = None
    rlimits: list[Rlimit] = msgspec.field(default_factory=list)
    no_new_privileges: bool = msgspec.field(name="noNewPrivileges", default=False)
    apparmor_profile: str = msgspec.field(name="apparmorProfile", default="")
    oom_score_adj: int | None = msgspec.field(name="oomScoreAdj", default=None)
    selinux_label: str = msgspec.field(name="selinuxLabel", default="")


def environment(env: list[str]) -> dict[str, str]:
    """Return the variables of ``NAME=value`` texts; one without a value is left out, as the original does."""
    pairs = (text.partition("=") for text in env)
    return {name: value for name, _, value in pairs if value}


def windows_command_line(args: list[str]) -> str:
    """Return `args` as the one text of which a program on Windows makes them again."""
    return " ".join(map(_quoted, args))


def _quoted(arg: str) -> str:
    """Quote one argument: a backslash is only special before a double quote, so only there it is doubled."""
    blank = not arg or " " in arg or "\t" in arg
    out, slashes = "", 0
    for letter in arg:
        if letter == '"':
            out += "\\" * (slashes + 1)
        slashes = slashes + 1 if letter == "\\" else 0
        out += letter
    return '"' + out + "\\" * slashes + '"' if blank else out
