"""`uvm boot`: boot a utility VM, run one command in it, end with the command's exit code."""

import argparse
import asyncio
import os
import signal
import sys
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from utilityvm.cli import timeline
from utilityvm.cli.flags import add_option_flags, wanted_options
from utilityvm.cli.stdio import open_missing_streams, read_some, write_all
from utilityvm.cli.terminal import Escape, Terminal, size_of, unblocked
from utilityvm.cli.values import seconds
from utilityvm.guest.collect import relay
from utilityvm.guest.spec import ProcessSpec, parameters
from utilityvm.kit.aio import Scope
from utilityvm.kit.errors import ConnectionLost, GuestError, HostError, InvalidOptions, UtilityVMError
from utilityvm.vm.compose import create_lcow
from utilityvm.vm.uvm import CLEANUP_TIMEOUT, DEFAULT_ENVIRONMENT
from utilityvm.wire.gcs import ACCESS_DENIED, FILE_NOT_FOUND

if TYPE_CHECKING:
    from collections.abc import Mapping

    from utilityvm.guest.process import Process
    from utilityvm.guest.transport import GuestStream
    from utilityvm.vm.uvm import UtilityVM

_TIMED_OUT: Final = 124  # as coreutils' timeout
_NOT_EXECUTABLE: Final = 126
_NOT_FOUND: Final = 127
_ESCAPED: Final = 128 + signal.SIGKILL
_CHUNK: Final = 64 * 1024
_USUAL_SIZE: Final = (24, 80)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's command line."""
    parser.usage = "%(prog)s [OPTION ...] [--] [COMMAND [ARG ...]]"
    parser.description = (
        "Boot a VM and run COMMAND in it. Ends with the command's exit code, 124 when --timeout was over, 125 for a failure of ours, 126 "
        "and 127 when the command cannot be run or found, 128+N by signal N. Without a command the VM runs until it powers off or Ctrl-C."
    )
    add = parser.add_argument
    add("-i", "--interactive", action="store_true", help="pass standard input on to the command")
    add(
        "-t",
        "--tty",
        action="store_true",
        help="give the command a terminal; with -i it is yours, which goes raw: Ctrl-] pressed three times in a second ends the VM",
    )
    add(
        "-e",
        "--env",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="set a variable for the command; without a value yours is passed on if there is one",
    )
    add("-w", "--workdir", default="", metavar="DIR", help="where the command starts (default /)")
    add("-u", "--user", default="", metavar="USER[:GROUP]", help="who runs the command, by names or numbers (default root)")
    add("--timeout", type=seconds, metavar="SECONDS", help="end the VM when the command (or the VM without one) still runs after this")
    add("--require-kvm", action="store_true", help="fail where hardware virtualisation does not work")
    add("--require-jail", action="store_true", help="fail where a layer of the jail around QEMU does not hold")
    timeline.add_arguments(parser)
    add_option_flags(parser)
    add("command", nargs=argparse.REMAINDER, metavar="[--] COMMAND [ARG ...]", help="the program and its arguments")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    open_missing_streams()
    with timeline.told(args):
        return asyncio.run(_interruptible(args))


async def _interruptible(args: argparse.Namespace) -> int:
    """Let SIGTERM, SIGHUP and SIGQUIT end it as Ctrl-C does: the VM is closed and not only killed with us, the terminal given back."""
    caught: list[int] = []
    task, loop = asyncio.current_task(), asyncio.get_running_loop()

    def end(number: int) -> None:
        caught.append(number)
        if task is not None:
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        loop.add_signal_handler(number, end, number)
    try:
        return await _boot(args)
    except asyncio.CancelledError:
        if caught:
            return 128 + caught[0]
        raise


async def _boot(args: argparse.Namespace) -> int:
    spec = _spec(args, os.environ)
    options = wanted_options(args)
    if spec is not None and not options.use_guest_connection:
        raise InvalidOptions("a command needs the guest connection, and use_guest_connection is false", hint="leave one of them out")
    vm = await create_lcow(options, require_kvm=args.require_kvm, require_jail=args.require_jail)
    async with vm:
        await vm.start()
        try:
            async with asyncio.timeout(args.timeout):
                return await (_wait(vm) if spec is None else _command(vm, spec))
        except TimeoutError:
            print(f"uvm: {spec.program if spec else f'vm {vm.id}'} still ran after {args.timeout:g} s", file=sys.stderr)
            return _TIMED_OUT


def _spec(args: argparse.Namespace, environment: "Mapping[str, str]") -> ProcessSpec | None:
    """Return what is to be run, None for nothing; refuse mistakes in it before a VM is booted for it. `environment` is ours."""
    words = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not words:
        given = {"-i": args.interactive, "-t": args.tty, "-e": args.env, "-w": args.workdir, "-u": args.user}
        if idle := [flag for flag, value in given.items() if value]:
            raise InvalidOptions(f"{', '.join(idle)} without a command: there is nothing to apply it to")
        return None
    if args.tty and args.interactive and not os.isatty(0):
        raise InvalidOptions(
            "-i with -t needs a terminal on standard input, and there is none", hint="leave out -t to pipe data in, or -i to pipe none"
        )
    spec = ProcessSpec(
        argv=tuple(words),
        env=tuple(_variables(args, environment).items()),
        cwd=args.workdir or "/",
        user=args.user,
        stdin=args.interactive,
        console_size=(size_of(1, 0) or _USUAL_SIZE) if args.tty else None,
    )
    parameters(spec)
    return spec


def _variables(args: argparse.Namespace, environment: "Mapping[str, str]") -> dict[str, str]:
    variables = dict(DEFAULT_ENVIRONMENT)
    named = ["TERM", *args.env] if args.tty else args.env
    for word in named:
        name, given, value = word.partition("=")
        if given or not name:  # a name that is empty is refused with the rest
            variables[name] = value
        elif name in environment:
            variables[name] = environment[name]
    return variables


async def _wait(vm: "UtilityVM") -> int:
    print(f"vm {vm.id} runs; Ctrl-C ends it", file=sys.stderr)
    status = await vm.wait()
    if vm.exit_error is not None:
        raise vm.exit_error
    print(f"vm {vm.id}: {status.how.value}", file=sys.stderr)
    return 0


async def _command(vm: "UtilityVM", spec: ProcessSpec) -> int:
    try:
        process = await vm.create_process(
            spec.argv, env=dict(spec.env), cwd=spec.cwd, user=spec.user, stdin=spec.stdin, console_size=spec.console_size
        )
        return await _attach(process, spec)
    except GuestError as error:
        return _not_started(error, spec.program)
    except ConnectionLost as lost:
        raise await _end_of(vm, lost) from lost
    except _Escaped:
        print("uvm: ended by Ctrl-], pressed three times", file=sys.stderr)
        return _ESCAPED


async def _end_of(vm: "UtilityVM", lost: ConnectionLost) -> UtilityVMError:
    """Say how the VM ended, which says more than the loss of its connections just before."""
    try:
        async with asyncio.timeout(CLEANUP_TIMEOUT):
            status = await vm.wait()
    except TimeoutError:
        return lost
    return vm.exit_error or HostError(f"vm {vm.id}: ended ({status.how.value}) before the command did")


def _not_started(error: GuestError, program: str) -> int:
    known = {FILE_NOT_FOUND: (_NOT_FOUND, "no such program"), ACCESS_DENIED: (_NOT_EXECUTABLE, "cannot be executed")}
    if error.result not in known:
        raise error
    code, why = known[error.result]
    print(f"uvm: {program}: {why} in the guest", file=sys.stderr)
    return code


async def _attach(process: "Process", spec: ProcessSpec) -> int:
    """Pass our streams on to the process and its to us, to its end."""
    scope = Scope("uvm boot")
    with ExitStack() as undo:
        out, err = (undo.enter_context(unblocked(fd)) for fd in (1, 2))
        feed = None  # our input is somebody else's to read
        if spec.stdin:
            feed = _type if spec.console_size else _feed
        if spec.stdin and spec.console_size:
            terminal = Terminal(0)
            undo.enter_context(terminal.raw())
            scope.start("size", _follow(terminal, process))
        try:
            return await relay(process, stdout=partial(write_all, out, stream=1), stderr=partial(write_all, err, stream=2), feed=feed)
        finally:
            await scope.aclose()


async def _feed(stdin: "GuestStream") -> None:
    while data := await read_some(0, _CHUNK):
        await stdin.write(data)
    await stdin.write_eof()


async def _type(stdin: "GuestStream") -> None:
    """Pass on what is typed, until the escape."""
    escape, clock = Escape(), asyncio.get_running_loop().time
    while keys := await read_some(0, _CHUNK):
        if escape.found(keys, clock()):
            raise _Escaped
        await stdin.write(keys)


class _Escaped(Exception):
    """The user wants out."""


async def _follow(terminal: Terminal, process: "Process") -> None:
    """Give the process's terminal the size of ours. A guest that cannot do that is none the worse for it."""
    with suppress(UtilityVMError):
        while await terminal.resized.wait():
            terminal.resized.clear()
            if (size := size_of(1, 0)) is not None:
                await process.resize(height=size[0], width=size[1])
