"""What is to be run: how it is sent, and the mistakes that are found before."""

import os
from pathlib import Path
from typing import Any

import pytest

from utilityvm.guest.spec import (
    MAX_CONSOLE,
    MAX_REQUEST,
    ProcessSpec,
    check_bounds,
    check_console_size,
    check_signal,
    check_timeout,
    parameters,
)
from utilityvm.kit.errors import InvalidOptions
from utilityvm.wire import gcs
from utilityvm.wire.frames import MAX_FRAME, Frame, encode

LS = ProcessSpec(argv=("ls",))


def test_words_are_sent_as_words_and_a_line_as_a_line() -> None:
    assert parameters(ProcessSpec(argv=("ls", "-l"), stdout=False, stderr=False)) == gcs.ProcessParameters(command_args=["ls", "-l"])
    assert parameters(ProcessSpec(command_line="ls '-l'", stderr=False)) == gcs.ProcessParameters(
        command_line="ls '-l'", create_std_out_pipe=True
    )


def test_a_variable_may_be_empty() -> None:
    assert parameters(ProcessSpec(argv=("ls",), env=(("A", ""), ("B", "=")))).environment == {"A": "", "B": "="}


def test_a_terminal_takes_the_errors_too() -> None:
    made = parameters(ProcessSpec(argv=("sh",), console_size=(0, MAX_CONSOLE)))
    assert (made.emulate_console, made.console_size, made.create_std_out_pipe, made.create_std_err_pipe) == (True, [0, 65_535], True, False)


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"argv": ()}, "argv is empty: the first word is the program"),
    ({"argv": (), "command_line": " \t"}, "argv is empty: the first word is the program"),
    ({"argv": ("", "x")}, "the program's name is empty"),
    ({"argv": ("ls", "a\0b")}, r"argv\[1\] has a zero byte: 'a\\x00b'"),
    ({"argv": (), "command_line": "ls \0"}, r"argv has a zero byte: 'ls \\x00'"),
    ({"argv": ("ls", os.fsdecode(b"\xff"))}, r"argv\[1\]: '\\udcff' is not UTF-8"),
    ({"argv": ("ls", b"x")}, r"argv\[1\] is bytes, not str"),
    ({"argv": ("ls", Path("x"))}, r"argv\[1\] is PosixPath, not str"),
    ({"cwd": "a\0"}, "cwd has a zero byte"),
    ({"user": 1000}, "user is int, not str"),
    ({"env": (("", "x"),)}, "'' cannot name an environment variable: it is empty"),
    ({"env": (("A=B", "x"),)}, "'A=B' cannot name an environment variable: it has a '='"),
    ({"env": (("A", 1),)}, r"env\['A'\] is int, not str"),
    ({"env": (("A", "\0"),)}, r"env\['A'\] has a zero byte"),
    ({"console_size": (24,)}, r"console_size \(24,\) is not a height and a width from 0 to 65535"),
    ({"console_size": (24, -1)}, "is not a height and a width"),
    ({"console_size": (24, 65_536)}, "is not a height and a width"),
    ({"console_size": (True, 80)}, "is not a height and a width"),
]


@pytest.mark.parametrize(("given", "says"), MISTAKES)
def test_a_mistake_is_told(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidOptions, match=says) as caught:
        parameters(ProcessSpec(**{"argv": ("ls",), **given}))
    assert len(caught.value.problems) == 1


def test_all_mistakes_are_told() -> None:
    with pytest.raises(InvalidOptions) as caught:
        parameters(ProcessSpec(argv=("a\0", "b\0"), env=(("", ""),), user="\0"))
    assert [problem.path for problem in caught.value.problems] == ["argv[0]", "argv[1]", "user", "env['']"]


@pytest.mark.parametrize("letter", ["x", "ü", "\x01", "\\"], ids=ascii)
def test_what_is_let_through_fits_into_a_frame_and_one_word_more_does_not(letter: str) -> None:
    least, most = 1, MAX_FRAME
    while least < most:
        middle = (least + most + 1) // 2
        try:
            parameters(ProcessSpec(argv=("ls", letter * middle)))
            least = middle
        except InvalidOptions:
            most = middle - 1
    made = parameters(ProcessSpec(argv=("ls", letter * least)))
    ports = gcs.StdioPorts(std_in=0xFFFF_FFFF, std_out=0xFFFF_FFFF, std_err=0xFFFF_FFFF)
    request = gcs.ExecuteRequest(settings=gcs.execute_settings(made, ports, windows=False))
    assert MAX_REQUEST - 10 <= len(encode(Frame(gcs.EXECUTE.word, 1 << 63, gcs.encode_request(request)))) <= MAX_REQUEST < MAX_FRAME


@pytest.mark.parametrize("number", [0, 65, -1, 9.0, "9", True])
def test_what_is_no_signal_is_refused(number: int) -> None:
    with pytest.raises(InvalidOptions, match=r"signal .* is not a number from 1 to 64"):
        check_signal(number)
    check_signal(1)
    check_signal(64)


@pytest.mark.parametrize("size", [(1, -1), (1,), "24", True])
def test_what_is_no_size_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InvalidOptions, match="console_size"):
        check_console_size(size)
    check_console_size((1, 1))


@pytest.mark.parametrize("seconds", ["3", float("nan"), True])
def test_what_is_no_time_is_refused(seconds: object) -> None:
    with pytest.raises(InvalidOptions, match=f"^timeout {seconds!r} is not a number of seconds$"):
        check_timeout(seconds)
    for good in (None, 0, -1.5, float("inf")):
        check_timeout(good)


@pytest.mark.parametrize(
    ("data", "limit", "says"),
    [
        ("text", 1, "input is str, not bytes"),
        (b"", -1, "limit -1 is not a number of bytes"),
        (b"", 1.5, "limit 1.5 is not a number of bytes"),
    ],
)
def test_what_no_collecting_call_can_do_is_refused(data: object, limit: object, says: str) -> None:
    with pytest.raises(InvalidOptions, match=f"^{says}$"):
        check_bounds(data, None, limit)
    check_bounds(bytearray(b"x"), 1, 0)


def test_the_programs_name_is_the_first_word() -> None:
    assert (LS.program, ProcessSpec(command_line=" ls -l").program, ProcessSpec().program) == ("ls", "ls", "")
