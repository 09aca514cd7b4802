"""What is to be run in a guest, and the mistakes in it that are found before anything is sent.

protocol/SPEC.md section 6.
"""

import sys
from collections.abc import Iterator
from math import isnan
from typing import Final

import msgspec

from utilityvm.kit.errors import InvalidOptions, Problem
from utilityvm.wire import gcs
from utilityvm.wire.frames import HEADER, MAX_FRAME
from utilityvm.wire.oci import windows_command_line

MAX_SIGNAL: Final = 64
MAX_CONSOLE: Final = 0xFFFF
"""Largest height and width of a terminal, in characters."""

MAX_REQUEST: Final = MAX_FRAME - 1024
"""Largest request to start a process, in bytes; the rest of its frame is for what a trace adds to it."""

_LAST_PID: Final = 0x7FFF_FFFF
_LARGEST_PORT: Final = 0xFFFF_FFFF
_CONSOLE_EVENTS: Final = {1: "CtrlClose", 2: "CtrlC", 3: "CtrlBreak", 9: "", 15: "CtrlShutdown"}


class ProcessSpec(msgspec.Struct, frozen=True):
    """What is to be run: either `argv`, or `command_line`, which the guest splits into words.

    It splits as a shell does, by blanks, quotes and backslashes, and expands nothing. `env` is the whole environment. `user` is ``name``,
    ``uid``, or either with ``:group``. `console_size` (height, width) in characters gives it a terminal; output and errors then arrive
    together on `stdout`. A stream that is not wanted is /dev/null in the guest. `windows`: the guest is Windows, where every program has
    one command line and splits it itself; one is made of `argv`.
    """

    argv: tuple[str, ...] = ()
    command_line: str = ""
    env: tuple[tuple[str, str], ...] = ()
    cwd: str = ""
    user: str = ""
    stdin: bool = False
    stdout: bool = True
    stderr: bool = True
    console_size: tuple[int, int] | None = None
    windows: bool = False

    @property
    def program(self) -> str:
        """The program's name, for messages."""
        words = self.argv or self.command_line.split(maxsplit=1)
        return words[0] if words else ""


def parameters(spec: ProcessSpec) -> gcs.ProcessParameters:
    """Return `spec` as ExecuteProcess carries it.

    Raises:
        InvalidOptions: it cannot be sent, or no guest could start it; `problems` has all that is wrong.
    """
    if problems := list(_mistakes(spec)):
        raise _invalid(problems)
    console = spec.console_size is not None
    words = list(spec.argv)
    line = spec.command_line or (windows_command_line(words) if spec.windows else "")
    made = gcs.ProcessParameters(
        command_line=line,
        command_args=[] if line else words,
        user=spec.user,
        working_directory=spec.cwd,
        environment=dict(spec.env),
        emulate_console=console,
        create_std_in_pipe=spec.stdin,
        create_std_out_pipe=spec.stdout,
        create_std_err_pipe=spec.stderr and not console,
        console_size=list(spec.console_size or ()),
    )
    if (size := _frame_size(made, windows=spec.windows)) > MAX_REQUEST:
        said = f"arguments and environment of {spec.program[:100]!r} make a request of {size} bytes; it has at most {MAX_REQUEST}"
        raise InvalidOptions(said, problems=[Problem("argv", "size", said)], hint="pass long input by stdin")
    return made


def check_signal(number: int) -> None:
    """Refuse what is no signal.

    Raises:
        InvalidOptions: it is not.
    """
    if not _is_number(number, 1, MAX_SIGNAL):
        raise _invalid([Problem("signal", "range", f"signal {number!r} is not a number from 1 to {MAX_SIGNAL}")])


def check_pid(pid: object) -> None:
    """Refuse what is no number of a process.

    Raises:
        InvalidOptions: it says which there are.
    """
    if isinstance(pid, bool) or not isinstance(pid, int) or not 1 <= pid <= _LAST_PID:
        raise _invalid([Problem("pid", "range", f"pid {pid!r}: processes have numbers from 1 to {_LAST_PID}")])


def check_timeout(seconds: object) -> None:
    """Refuse what is no number of seconds. NaN would never pass, and confuse the event loop's other timers.

    Raises:
        InvalidOptions: it is neither a number nor None.
    """
    if seconds is not None and (isinstance(seconds, bool) or not isinstance(seconds, int | float) or isnan(seconds)):
        raise _invalid([Problem("timeout", "type", f"timeout {seconds!r} is not a number of seconds")])


def check_bounds(data: object, timeout: object, limit: object) -> None:
    """Refuse what a collecting call cannot write to a program, wait or keep.

    Raises:
        InvalidOptions: `data` is not bytes, `timeout` no number of seconds, `limit` no number of bytes.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise _invalid([Problem("input", "type", f"input is {type(data).__name__}, not bytes")])
    check_timeout(timeout)
    if not _is_number(limit, 0, sys.maxsize):
        raise _invalid([Problem("limit", "range", f"limit {limit!r} is not a number of bytes")])


def windows_signal(number: int) -> str:
    """Return what a process on Windows gets for a signal's number: an event of its console, or ``""`` for its end.

    Raises:
        InvalidOptions: Windows has nothing like it.
    """
    if number not in _CONSOLE_EVENTS:
        known = ", ".join(map(str, sorted(_CONSOLE_EVENTS)))
        raise _invalid([Problem("signal", "windows", f"signal {number!r}: Windows has nothing like it; it knows {known}")])
    return _CONSOLE_EVENTS[number]


def check_console_size(size: tuple[int, int]) -> None:
    """Refuse what is no height and width.

    Raises:
        InvalidOptions: it is not.
    """
    if problems := list(_console(size)):
        raise _invalid(problems)


def _invalid(problems: list[Problem]) -> InvalidOptions:
    return InvalidOptions(problems[0].message, problems=problems)


def _mistakes(spec: ProcessSpec) -> Iterator[Problem]:
    if not spec.argv and not spec.command_line.strip():
        yield Problem("argv", "empty", "argv is empty: the first word is the program")
    if spec.argv and spec.argv[0] == "":
        yield Problem("argv[0]", "empty", "the program's name is empty")
    if spec.windows and spec.argv and '"' in str(spec.argv[0]):
        yield Problem("argv[0]", "quote", f"{spec.argv[0]!a} cannot name a program on Windows: it has a double quote")
    texts = [(f"argv[{at}]", word) for at, word in enumerate(spec.argv)]
    texts += [("argv", spec.command_line), ("cwd", spec.cwd), ("user", spec.user)]
    for path, text in texts:
        yield from _text(path, text)
    for name, value in spec.env:
        yield from _variable(name, value)
    if spec.console_size is not None:
        yield from _console(spec.console_size)


def _variable(name: str, value: str) -> Iterator[Problem]:
    path = f"env[{name!a}]"
    yield from _text(path, name)
    yield from _text(path, value)
    if not name or "=" in str(name):
        yield Problem(path, "name", f"{name!a} cannot name an environment variable: " + ("it is empty" if not name else "it has a '='"))


def _text(path: str, text: object) -> Iterator[Problem]:
    if not isinstance(text, str):
        yield Problem(path, "type", f"{path} is {type(text).__name__}, not str")
        return
    if "\0" in text:
        yield Problem(path, "zero", f"{path} has a zero byte: {text[:100]!a}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # surrogates, which is how Python keeps bytes that are not text
            yield Problem(path, "utf-8", f"{path}: {text[:100]!a} is not UTF-8, which text for a guest must be")


def _is_number(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _console(size: object) -> Iterator[Problem]:
    if not isinstance(size, tuple | list) or len(size) != 2 or not all(_is_number(part, 0, MAX_CONSOLE) for part in size):
        yield Problem("console_size", "range", f"console_size {size!r} is not a height and a width from 0 to {MAX_CONSOLE}")


def _frame_size(made: gcs.ProcessParameters, *, windows: bool) -> int:
    ports = gcs.StdioPorts(std_in=_LARGEST_PORT, std_out=_LARGEST_PORT, std_err=_LARGEST_PORT)
    settings = gcs.execute_settings(made, ports, windows=windows)
    return HEADER.size + len(gcs.encode_request(gcs.ExecuteRequest(settings=settings)))
