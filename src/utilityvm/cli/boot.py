"""`uvm boot`: boot a utility VM, run one command in it, end with the command's exit code."""

import argparse
import asyncio
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from utilityvm.cli.flags import add_option_flags, given_options
from utilityvm.cli.stdio import read_some, write_all
from utilityvm.kit.aio import Scope
from utilityvm.kit.errors import GuestError
from utilityvm.vm.compose import create_lcow, default_options_lcow
from utilityvm.wire.gcs import ACCESS_DENIED, FILE_NOT_FOUND

if TYPE_CHECKING:
    from utilityvm.guest.process import Process
    from utilityvm.guest.transport import GuestStream
    from utilityvm.vm.uvm import UtilityVM

_NOT_EXECUTABLE: Final = 126
_NOT_FOUND: Final = 127
_CHUNK: Final = 64 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's command line."""
    parser.description = (
        "Boot a VM and run COMMAND in it. Ends with the command's exit code, 125 for a failure of ours, 126 and 127 when the command "
        "cannot be run or found, 128+N by signal N. Without a command the VM runs until it powers off or Ctrl-C."
    )
    parser.add_argument("-i", "--interactive", action="store_true", help="pass standard input on to the command")
    parser.add_argument("--require-kvm", action="store_true", help="fail where hardware virtualisation does not work")
    add_option_flags(parser)
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="[--] COMMAND [ARG ...]", help="the program and its arguments")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    return asyncio.run(_interruptible(args))


async def _interruptible(args: argparse.Namespace) -> int:
    """Let SIGTERM and SIGHUP end the command as Ctrl-C does, so that the VM is closed and not only killed with us."""
    caught: list[int] = []
    task, loop = asyncio.current_task(), asyncio.get_running_loop()

    def end(number: int) -> None:
        caught.append(number)
        if task is not None:
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, end, number)
    try:
        return await _boot(args)
    except asyncio.CancelledError:
        if caught:
            return 128 + caught[0]
        raise


async def _boot(args: argparse.Namespace) -> int:
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    vm = await create_lcow(default_options_lcow(**given_options(args)), require_kvm=args.require_kvm)
    async with vm:
        await vm.start()
        if not command:
            print(f"vm {vm.id} runs; Ctrl-C ends it", file=sys.stderr)
            status = await vm.wait()
            return _failed(vm, status.how.value)
        try:
            process = await vm.create_process(command, stdin=args.interactive)
        except GuestError as error:
            return _not_started(error, command[0])
        return await _relay(process)


def _failed(vm: "UtilityVM", how: str) -> int:
    if vm.exit_error is not None:
        raise vm.exit_error
    print(f"vm {vm.id}: {how}", file=sys.stderr)
    return 0


def _not_started(error: GuestError, program: str) -> int:
    known = {FILE_NOT_FOUND: (_NOT_FOUND, "no such program"), ACCESS_DENIED: (_NOT_EXECUTABLE, "cannot be executed")}
    if error.result not in known:
        raise error
    code, why = known[error.result]
    print(f"uvm: {program}: {why} in the guest", file=sys.stderr)
    return code


async def _relay(process: "Process") -> int:
    """Pass the streams on until the output has ended; input is not waited for, its reader may be gone."""
    scope = Scope("uvm boot")
    scope.start("stdin", _feed(process.stdin))
    try:
        async with asyncio.TaskGroup() as outputs:
            outputs.create_task(_copy(process.stdout, 1))
            outputs.create_task(_copy(process.stderr, 2))
        return await process.wait()
    finally:
        await scope.aclose()


async def _copy(stream: "GuestStream", fd: int) -> None:
    while data := await stream.read(_CHUNK):
        await write_all(fd, data)


async def _feed(stream: "GuestStream") -> None:
    with suppress(BrokenPipeError):
        while data := await read_some(0, _CHUNK):
            await stream.write(data)
        await stream.write_eof()
