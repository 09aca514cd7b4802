"""`uvm boot`: boot a utility VM, run one command in it, end with the command's exit code."""

import argparse
import asyncio
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from utilityvm.cli import timeline
from utilityvm.cli.flags import add_option_flags, wanted_options
from utilityvm.cli.stdio import open_missing_streams, read_some, write_all
from utilityvm.kit.aio import Scope
from utilityvm.kit.errors import ConnectionLost, GuestError, HostError, InvalidOptions, UtilityVMError
from utilityvm.vm.compose import create_lcow
from utilityvm.vm.uvm import CLEANUP_TIMEOUT
from utilityvm.wire.gcs import ACCESS_DENIED, FILE_NOT_FOUND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from utilityvm.guest.process import Process
    from utilityvm.guest.transport import GuestStream
    from utilityvm.vm.uvm import UtilityVM

_NOT_EXECUTABLE: Final = 126
_NOT_FOUND: Final = 127
_CHUNK: Final = 64 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the verb's command line."""
    parser.usage = "%(prog)s [OPTION ...] [--] [COMMAND [ARG ...]]"
    parser.description = (
        "Boot a VM and run COMMAND in it. Ends with the command's exit code, 125 for a failure of ours, 126 and 127 when the command "
        "cannot be run or found, 128+N by signal N. Without a command the VM runs until it powers off or Ctrl-C."
    )
    parser.add_argument("-i", "--interactive", action="store_true", help="pass standard input on to the command")
    parser.add_argument("--require-kvm", action="store_true", help="fail where hardware virtualisation does not work")
    parser.add_argument("--require-jail", action="store_true", help="fail where a layer of the jail around QEMU does not hold")
    timeline.add_arguments(parser)
    add_option_flags(parser)
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="[--] COMMAND [ARG ...]", help="the program and its arguments")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    open_missing_streams()
    with timeline.told(args):
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
    command = _command(args.command)
    vm = await create_lcow(wanted_options(args), require_kvm=args.require_kvm, require_jail=args.require_jail)
    async with vm:
        await vm.start()
        if not command:
            print(f"vm {vm.id} runs; Ctrl-C ends it", file=sys.stderr)
            status = await vm.wait()
            return _ended(vm, status.how.value)
        try:
            return await _relay(await vm.create_process(command, stdin=args.interactive), interactive=args.interactive)
        except GuestError as error:
            return _not_started(error, command[0])
        except ConnectionLost as lost:
            raise await _end_of(vm, lost) from lost


def _command(words: "Sequence[str]") -> "Sequence[str]":
    """Return the program and its arguments, before a VM is booted for what cannot be sent to it."""
    command = words[1:] if words[:1] == ["--"] else words
    for word in command:
        if any("\ud800" <= character <= "\udfff" for character in word):  # how Python keeps bytes that are not text
            raise InvalidOptions(f"{word!a} is not UTF-8, which the words of a command in a guest must be")
    return command


async def _end_of(vm: "UtilityVM", lost: ConnectionLost) -> UtilityVMError:
    """Say how the VM ended, which says more than the loss of its connections just before."""
    try:
        async with asyncio.timeout(CLEANUP_TIMEOUT):
            status = await vm.wait()
    except TimeoutError:
        return lost
    return vm.exit_error or HostError(f"vm {vm.id}: ended ({status.how.value}) before the command did")


def _ended(vm: "UtilityVM", how: str) -> int:
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


async def _relay(process: "Process", *, interactive: bool) -> int:
    """Pass the streams on until the output has ended; input is not waited for, its reader may be gone."""
    scope = Scope("uvm boot")
    outputs = [scope.start("stdout", _copy(process.stdout, 1)), scope.start("stderr", _copy(process.stderr, 2))]
    if interactive:  # otherwise our input is somebody else's to read
        scope.start("stdin", _feed(process.stdin))
    try:
        await asyncio.wait(outputs)
        if scope.failure is not None:
            raise scope.failure
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
