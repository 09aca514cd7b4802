"""A process in a guest and our own streams, terminal and signals: what the verbs that run a program share."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, final

from utilityvm.cli.stdio import read_some, write_all
from utilityvm.cli.terminal import Escape, Terminal, size_of, unblocked
from utilityvm.cli.values import seconds
from utilityvm.guest.collect import relay
from utilityvm.guest.process import in_words
from utilityvm.kit.aio import Scope
from utilityvm.kit.errors import ConnectionLost, GuestError, HostError, InvalidOptions, UtilityVMError
from utilityvm.vm.uvm import CLEANUP_TIMEOUT
from utilityvm.wire.gcs import ACCESS_DENIED, BAD_FORMAT, FILE_NOT_FOUND, LOADER_NOT_FOUND, PATH_NOT_FOUND

if TYPE_CHECKING:
    from utilityvm.guest.process import Process
    from utilityvm.guest.transport import GuestStream
    from utilityvm.vm.uvm import UtilityVM

TIMED_OUT: Final = 124  # as coreutils' timeout
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
ESCAPED: Final = 128 + signal.SIGKILL

GRACE: Final = 10.0
"""Seconds that a process has to end after a SIGTERM that was passed on to it, as with `docker stop`."""

PATIENCE: Final = 3
"""So many SIGINT and SIGTERM that were passed on end the VM: the process does not mind them."""

_CHUNK: Final = 64 * 1024
_USUAL_SIZE: Final = (24, 80)
_ENDING: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_PASSED_ON: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def add_process_flags(parser: argparse.ArgumentParser) -> None:
    """Describe the flags of streams, terminal and time."""
    add = parser.add_argument
    add("-i", "--interactive", action="store_true", help="pass standard input on to the command")
    add(
        "-t",
        "--tty",
        action="store_true",
        help="give the command a terminal; with -i it is yours, which goes raw: Ctrl-] pressed three times in a second ends the VM",
    )
    add("--timeout", type=seconds, metavar="SECONDS", help="end the VM when the command (or the VM without one) still runs after this")


def add_host_flags(parser: argparse.ArgumentParser) -> None:
    """Describe the flags of what the host must have."""
    parser.add_argument("--require-kvm", action="store_true", help="fail where hardware virtualisation does not work")
    parser.add_argument("--require-jail", action="store_true", help="fail where a layer of the jail around QEMU does not hold")


def terminal_size(args: argparse.Namespace) -> tuple[int, int] | None:
    """Return height and width of the terminal that the command is to have, None for none.

    Raises:
        InvalidOptions: it is to be ours, and we have none.
    """
    if args.tty and args.interactive and not os.isatty(0):
        raise InvalidOptions(
            "-i with -t needs a terminal on standard input, and there is none", hint="leave out -t to pipe data in, or -i to pipe none"
        )
    return (size_of(1, 0) or _USUAL_SIZE) if args.tty else None


class Killable(Protocol):
    """What signals are passed on to."""

    async def kill(self, signal: int) -> bool:
        """Send it a signal; say whether it was delivered."""
        ...


@final
class Signals:
    """What becomes of the signals that reach us: they end us, unless they are passed on to a process."""

    def __init__(self) -> None:
        self._task, self._loop = asyncio.current_task(), asyncio.get_running_loop()
        self._asked = 0
        self.caught = 0
        """The signal that has ended us; 0 for none."""
        self._catch()

    @asynccontextmanager
    async def passed_on(self, process: Killable) -> AsyncIterator[None]:
        """Pass signals on to `process`, but for SIGHUP: the VM is ours, and goes with our terminal.

        A process that does not end of SIGTERM within `GRACE`, or of `PATIENCE` times SIGINT and SIGTERM, is ended with its VM.
        """
        scope, interrupt = Scope("signals"), signal.getsignal(signal.SIGINT)
        timers: list[asyncio.TimerHandle] = []

        async def send(number: int) -> None:
            with suppress(UtilityVMError):  # it has just ended, or its VM: whoever waits for it is told
                await process.kill(number)

        def pass_on(number: int) -> None:
            self._asked += number in {signal.SIGINT, signal.SIGTERM}
            if self._asked >= PATIENCE:
                self._end(number)
                return
            scope.start("pass on", send(number))
            if number == signal.SIGTERM:
                timers.append(self._loop.call_later(GRACE, self._end, number))

        for number in _PASSED_ON:
            self._handle(number, pass_on)
        try:
            yield
        finally:
            for timer in timers:
                timer.cancel()
            for number in _PASSED_ON:
                self._loop.remove_signal_handler(number)
            signal.signal(signal.SIGINT, interrupt)
            self._catch()
            await scope.aclose()

    def _catch(self) -> None:
        for number in _ENDING:
            self._handle(number, self._end)

    def _handle(self, number: signal.Signals, handler: Callable[[int], None]) -> None:
        if signal.getsignal(number) is not signal.SIG_IGN:  # somebody wants us to live on, as nohup does
            self._loop.add_signal_handler(number, handler, number)

    def _end(self, number: int) -> None:
        self.caught = self.caught or number
        if self._task is not None:
            self._task.cancel()


async def interruptible(work: Callable[[Signals], Awaitable[int]]) -> int:
    """Let SIGTERM, SIGHUP and SIGQUIT end `work` as Ctrl-C does: the VM is closed and not only killed with us, the terminal given back."""
    signals = Signals()
    try:
        return await work(signals)
    except asyncio.CancelledError:
        if signals.caught:
            return 128 + signals.caught
        raise


async def attach(process: "Process", *, stdin: bool, terminal: bool) -> int:
    """Pass our streams on to the process and its to us, to its end; return its exit code. `terminal` says whether it has one.

    Raises:
        Escaped: the user wants out.
    """
    scope = Scope("attach")
    with ExitStack() as undo:
        out, err = (undo.enter_context(unblocked(fd)) for fd in (1, 2))
        feed = None  # our input is somebody else's to read
        if stdin:
            feed = _type if terminal else _feed
        if stdin and terminal:
            ours = Terminal(0)
            undo.enter_context(ours.raw())
            scope.start("size", _follow(ours, process))
        try:
            return await relay(process, stdout=partial(write_all, out, stream=1), stderr=partial(write_all, err, stream=2), feed=feed)
        finally:
            await scope.aclose()


class Escaped(Exception):
    """The user wants out."""


async def outcome(work: Awaitable[int], vm: "UtilityVM", program: str, cwd: str, where: str) -> int:
    """Return the exit code of `work`, which runs `program` in the folder `cwd`, or ours for its failure to; `where` they were looked for.

    Raises:
        UtilityVMError: the VM ended first, or the program failed of something that has no exit code.
    """
    try:
        return await work
    except GuestError as error:
        return not_started(in_words(error, program, cwd, where))
    except ConnectionLost as lost:
        raise await _end_of(vm, lost) from lost
    except Escaped:
        print("uvm: ended by Ctrl-], pressed three times", file=sys.stderr)
        return ESCAPED


async def _end_of(vm: "UtilityVM", lost: ConnectionLost) -> UtilityVMError:
    """Say how the VM ended, which says more than the loss of its connections just before."""
    try:
        async with asyncio.timeout(CLEANUP_TIMEOUT):
            status = await vm.wait()
    except TimeoutError:
        return lost
    return vm.exit_error or HostError(f"vm {vm.id}: ended ({status.how.value}) before the command did")


def not_started(error: GuestError) -> int:
    """Say why a program could not be run; return the exit code.

    Raises:
        GuestError: it failed of something else.
    """
    if error.result not in _NOT_RUN:
        raise error
    print(f"uvm: {error.message}", file=sys.stderr)
    return _NOT_RUN[error.result]


_NOT_RUN: Final = {
    FILE_NOT_FOUND: NOT_FOUND,
    PATH_NOT_FOUND: NOT_FOUND,
    LOADER_NOT_FOUND: NOT_FOUND,
    ACCESS_DENIED: NOT_EXECUTABLE,
    BAD_FORMAT: NOT_EXECUTABLE,
}


async def _feed(stdin: "GuestStream") -> None:
    while data := await read_some(0, _CHUNK):
        await stdin.write(data)
    await stdin.write_eof()


async def _type(stdin: "GuestStream") -> None:
    """Pass on what is typed, until the escape."""
    escape, clock = Escape(), asyncio.get_running_loop().time
    while keys := await read_some(0, _CHUNK):
        if escape.found(keys, clock()):
            raise Escaped
        await stdin.write(keys)


async def _follow(terminal: Terminal, process: "Process") -> None:
    """Give the process's terminal the size of ours. A guest that cannot do that is none the worse for it."""
    with suppress(UtilityVMError):
        while await terminal.resized.wait():
            terminal.resized.clear()
            if (size := size_of(1, 0)) is not None:
                await process.resize(height=size[0], width=size[1])
