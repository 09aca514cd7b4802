"""The user's terminal: the escape, the raw mode, and what is given where there is no terminal."""

import asyncio
import os
import pty
import termios
from collections.abc import Iterator
from contextlib import suppress

import pytest

from utilityvm.cli.stdio import write_all
from utilityvm.cli.terminal import ESCAPE_WITHIN, Escape, Terminal, raw_mode, size_of, unblocked

KEY = b"\x1d"


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    both = pty.openpty()
    yield both
    for end in both:
        os.close(end)


@pytest.mark.parametrize("pieces", [[KEY * 3], [KEY, KEY, KEY], [b"ab" + KEY * 2, KEY + b"c"], [KEY * 7]])
def test_three_presses_are_the_escape_however_they_come(pieces: list[bytes]) -> None:
    escape = Escape()
    assert [escape.found(piece, 5.0) for piece in pieces] == [False] * (len(pieces) - 1) + [True]


@pytest.mark.parametrize("typed", [b"", KEY * 2, KEY * 2 + b"x" + KEY, b"\x03" * 3])
def test_anything_else_is_not(typed: bytes) -> None:
    assert not Escape().found(typed, 5.0)


def test_three_slow_presses_are_not_the_escape_and_the_last_three_count() -> None:
    escape, step = Escape(), ESCAPE_WITHIN * 0.6
    assert [escape.found(KEY, moment) for moment in (0.0, step, 2 * step)] == [False] * 3
    assert escape.found(KEY, 2 * step + 0.1)


def test_the_raw_mode_is_that_of_the_standard_library_and_changes_only_a_copy(ends: tuple[int, int]) -> None:
    before = termios.tcgetattr(ends[1])
    kept = [*before[:6], [*before[6]]]
    raw = raw_mode(before)
    assert before == kept
    import tty

    tty.setraw(ends[1], termios.TCSANOW)
    assert raw == termios.tcgetattr(ends[1])


async def test_a_terminal_is_raw_inside_and_as_before_outside(ends: tuple[int, int]) -> None:
    before = termios.tcgetattr(ends[1])
    terminal = Terminal(ends[1])
    with suppress(ZeroDivisionError), terminal.raw():
        assert termios.tcgetattr(ends[1]) == raw_mode(before)
        assert terminal.resized.is_set()
        raise ZeroDivisionError
    assert termios.tcgetattr(ends[1]) == before


async def test_a_terminal_that_went_away_is_no_failure() -> None:
    ours, theirs = pty.openpty()
    terminal = Terminal(theirs)
    with terminal.raw():
        os.close(ours)
    os.close(theirs)


def test_the_size_is_that_of_the_first_terminal(ends: tuple[int, int]) -> None:
    termios.tcsetwinsize(ends[1], (7, 9))
    nothing = os.open(os.devnull, os.O_RDONLY)
    assert (size_of(nothing, ends[1]), size_of(nothing)) == ((7, 9), None)
    os.close(nothing)


async def test_a_terminal_that_nobody_reads_holds_the_writer_up_and_nobody_else(ends: tuple[int, int]) -> None:
    with unblocked(ends[1]) as out:
        assert out != ends[1]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await write_all(out, bytes(1_000_000), stream=1)
        assert os.get_blocking(ends[1])


def test_what_is_no_terminal_is_given_as_it_is() -> None:
    reading, writing = os.pipe()
    with unblocked(writing) as out:
        assert out == writing
    os.close(reading)
    os.close(writing)
